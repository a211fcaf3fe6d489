"""``sub60 difference``: what changed between any two FITS frames of one field."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from core.errors import RejectedInputError
from service.settings import read_settings, use_compiled_cache

Float32 = NDArray[np.float32]


@click.command(
    epilog="""\b
Example:
  sub60 difference night2.fits night1.fits --out build/difference"""
)
@click.argument("science", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("template", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--edge", default=2, show_default=True, type=click.IntRange(0), help="Border masked as bad [pixel].")
def command(science: Path, template: Path, out: Path, edge: int) -> None:
    """Subtract TEMPLATE from SCIENCE and detect what changed, without calibrations.

    Frames are aligned by their WCS (TAN or TAN-SIP) where both have one, else taken as aligned. Noise, gain and
    saturation are measured on the images. Writes difference.fits, detections.fits and summary.json to OUT.
    """
    use_compiled_cache(read_settings())  # before the first kernel is imported
    click.echo(json.dumps(_difference(science, template, out, edge), indent=1))


def _difference(science_path: Path, template_path: Path, out: Path, edge: int) -> dict[str, Any]:
    from core.stages.difference_pair import difference_pair, frames_of_pair
    from core.workspace import Workspace
    from service.products import write_image

    science, science_header = _read_frame(science_path)
    template, template_header = _read_frame(template_path)
    workspace = Workspace()
    template, alignment = _aligned(science, science_header, template, template_header)
    frames = frames_of_pair(science, template, edge)
    pair = difference_pair(*frames, workspace)
    out.mkdir(parents=True, exist_ok=True)
    write_image(out / "difference.fits", pair.difference.frame, pair.difference.psf, _wcs_cards(science_header))
    _write_detections(out / "detections.fits", pair.detections)
    snr = np.abs(pair.detections.snr)
    summary = {
        "alignment": alignment,
        "detections": int(snr.size),
        "positive": int((pair.detections.snr > 0).sum()),
        "science_fwhm_pix": pair.science_psf.fwhm_pix(),
        "template_fwhm_pix": pair.template_psf.fwhm_pix(),
        "kernel_sum": pair.difference.kernel_sum,
        "is_science_convolved": pair.difference.is_science_convolved,
        "variance_scale": pair.difference.variance_scale,
        "brightest": [
            {
                "y": int(pair.detections.y[i]),
                "x": int(pair.detections.x[i]),
                "snr": round(float(pair.detections.snr[i]), 2),
            }
            for i in np.argsort(-snr)[:20]
        ],
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    return summary


def _read_frame(path: Path) -> tuple[Float32, dict[str, Any]]:
    """The first two-dimensional image of a file and its header."""
    import fitsio

    try:
        with fitsio.FITS(str(path)) as file:
            for hdu in file:
                if hdu.get_exttype() == "IMAGE_HDU" and len(hdu.get_dims()) == 2:
                    image = np.ascontiguousarray(hdu.read(), dtype=np.float32)
                    header = hdu.read_header()
                    return image, {key: header[key] for key in header if key}
    except (OSError, ValueError) as error:
        raise RejectedInputError(f"{path} cannot be read: {error}", code="bad_frame") from error
    raise RejectedInputError(f"{path} holds no two-dimensional image", code="bad_frame")


def _aligned(
    science: Float32, science_header: dict[str, Any], template: Float32, template_header: dict[str, Any]
) -> tuple[Float32, str]:
    """The template on the science frame's grid, NaN where it has no data; and how it got there."""
    if not all(str(header.get("CTYPE1", "")).startswith("RA---TAN") for header in (science_header, template_header)):
        if science.shape != template.shape:
            raise RejectedInputError("frames without WCS must have one shape", code="bad_frame")
        return template, "taken as aligned"
    if science.shape == template.shape and _wcs_cards(science_header) == _wcs_cards(template_header):
        return template, "the same WCS"
    return _warped(template, template_header, science_header, science.shape), "by WCS"


def _warped(image: Float32, header: dict[str, Any], onto: dict[str, Any], shape: tuple[int, ...]) -> Float32:
    from core.contracts.exposure import Frame, Template
    from core.contracts.wcs import Wcs
    from core.flags import MASK_DTYPE, Mask
    from core.stages.template import warp_template
    from core.workspace import Workspace

    is_known = np.isfinite(image)
    mask = np.where(is_known, 0, int(Mask.NODATA)).astype(MASK_DTYPE)
    frame = Frame(image=np.where(is_known, image, 0).astype(np.float32), variance=np.ones_like(image), mask=mask)
    # The warp carries a PSF along; this command measures it on the warped image instead.
    axis = np.arange(-12, 13)
    profile = np.exp(-0.125 * axis**2)
    psf = np.outer(profile, profile)
    template = Template(
        frame=frame,
        wcs=Wcs.from_header(header),
        psf_cells=np.ascontiguousarray((psf / psf.sum())[np.newaxis, np.newaxis], np.float32),
        cell_size_pix=max(image.shape),
        cell_offset_pix=(0, 0),
        n_inputs=1,
        epoch_mjd_tai=0.0,
    )
    warped = warp_template(template, Wcs.from_header(onto), (shape[0], shape[1]), Workspace()).frame
    has_no_data = (warped.mask & np.uint16(Mask.NODATA)) != 0
    return np.where(has_no_data, np.nan, warped.image).astype(np.float32)


def _wcs_cards(header: dict[str, Any]) -> dict[str, Any]:
    from core.contracts.wcs import Wcs

    if not str(header.get("CTYPE1", "")).startswith("RA---TAN"):
        return {}
    return dict(Wcs.from_header(header).to_header())


def _write_detections(path: Path, detections: Any) -> None:
    from service.products import write_catalog

    names = ("y", "x", "snr", "y0", "y1", "x0", "x1", "n_pixels", "parent")
    dtype = np.dtype([(name, getattr(detections, name).dtype) for name in names])
    table = np.empty(detections.y.size, dtype)
    for name in names:
        table[name] = getattr(detections, name)
    write_catalog(path, table)
