"""The named reference of a stage: the usual library, or a plain NumPy twin, on the same input.

Each is built outside the clock and gives what is timed and a check that it and our stage agree. Stages that no library
does alone (``make bench-peers`` has whole programs) have none.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import map_coordinates
from scipy.signal import oaconvolve
from scipy.spatial import cKDTree

from benchmarks.stages.workbench import Workbench
from core.flags import Mask

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CELL_PIX: Final = 128
MATCH_PIX: Final = 2.5
_PIXSTACK: Final = 10_000_000


class DisagreementError(AssertionError):
    """Reference and stage give different answers: a ratio of their times would mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is timed, and the check, which returns the agreement as text or raises :class:`DisagreementError`.

    The check runs after the reference, with the buffers as our own stage left them.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], str]
    is_slow: bool = False
    """One round has to do."""


def _agree(is_so: bool, text: str) -> str:
    if not is_so:
        raise DisagreementError(text)
    return text


def fitsio_read(bench: Workbench) -> Reference:
    """The segments by cfitsio."""
    import fitsio

    path = bench.dataset / bench.event["uri"].removeprefix("file://")
    names = {amplifier.name for amplifier in bench.pipeline.camera.detectors[bench.event["detector"]].amplifiers}

    def run() -> list[NDArray[np.int32]]:
        with fitsio.FITS(str(path)) as fits:
            return [hdu.read() for hdu in fits[1:] if hdu.has_data()]

    def check(found: list[NDArray[np.int32]]) -> str:
        ours = bench.raw.segments
        return _agree(
            len(found) == len(names) and all((a == b).all() for a, b in zip(found, ours, strict=True)), "equal pixels"
        )

    return Reference(name="fitsio", run=run, check=check)


def numpy_isr(bench: Workbench) -> Reference:
    """The plain twin: no clipping of overscans, no brighter-fatter."""
    from tests.support.reference.isr import calibrate

    detector = bench.pipeline.camera.detectors[bench.event["detector"]]
    raw, calibrations = bench.raw, bench.bundle.calibrations

    def check(found: tuple[Float64, Float64]) -> str:
        image, variance = found
        ours = bench.recorder.stages["isr"].call("isr").result
        good = (ours.mask == 0) & (image < 2 * np.median(image))
        pull = _mad((ours.image - image)[good] / np.sqrt(variance[good]))
        return _agree(pull < 0.2, f"pixels within {pull:.3f} sigma")

    return Reference(
        name="NumPy twin",
        run=lambda: calibrate(raw.segments, calibrations, detector, raw.visit_info.exposure_time_s),
        check=check,
    )


def sep_background(bench: Workbench) -> Reference:
    """SEP's background at full resolution, taken off."""
    frame = bench.recorder.stages["background"].call("subtract_background").arguments[0]
    image = frame.image.copy()

    def check(found: Float32) -> str:
        sigma = np.sqrt(np.median(frame.variance[::16, ::16]))
        scatter = _mad((frame.image - found)[::4, ::4]) / sigma
        return _agree(scatter < 0.1, f"skies within {scatter:.3f} sigma")

    return Reference(
        name="sep", run=lambda: image - sep.Background(image, bw=CELL_PIX, bh=CELL_PIX).back(), check=check
    )


def cosmic_rays(bench: Workbench) -> Reference:
    """astroscrappy where it is installed, else the twin of our first search."""
    frame, fwhm_pix, _, config = bench.recorder.stages["cosmic_rays"].call("find_cosmic_rays").arguments
    image, variance = frame.image.copy(), frame.variance.copy()
    unusable = (frame.mask & np.uint16(Mask.SAT | Mask.BAD | Mask.NODATA)) != 0

    def check(found: NDArray[np.bool_]) -> str:
        share = ((frame.mask & np.uint16(Mask.CR)) != 0)[found].mean()
        return f"{100 * share:.0f} % of its pixels are ours"

    if find_spec("astroscrappy") is not None:
        from astroscrappy import detect_cosmics

        options = {"sigclip": 5.0, "sepmed": True, "niter": 1, "gain": 1.0, "psffwhm": fwhm_pix}
        return Reference(
            name="astroscrappy",
            run=lambda: detect_cosmics(image, inmask=unusable, invar=variance, **options)[0],
            check=check,
        )
    from core.stages.sources import FWHM_PER_SIGMA
    from tests.support.reference.cosmic_rays import sharp_pixels

    planes = image.astype(np.float64), variance.astype(np.float64)
    sigma = config.narrowest_psf * fwhm_pix / FWHM_PER_SIGMA
    return Reference(
        name="NumPy twin, first search",
        run=lambda: sharp_pixels(*planes, unusable, sigma, config.min_snr, config.min_sharpness, config.ratio_error),
        check=lambda found: _agree(bool(((frame.mask & np.uint16(Mask.CR)) != 0)[found].mean() > 0.98), check(found)),
    )


def sep_sources(bench: Workbench) -> Reference:
    """SEP at 1.5 sigma and five pixels, deblended."""
    call = bench.recorder.stages["detect_sources"].call("detect_sources")
    frame = call.arguments[0]
    image, noise = frame.image.copy(), np.sqrt(frame.variance)
    bad = (frame.mask & np.uint16(Mask.BAD | Mask.NODATA | Mask.CR | Mask.SAT)) != 0
    sep.set_extract_pixstack(_PIXSTACK)

    def check(found: NDArray[np.void]) -> str:
        bright = found[(found["flux"] > 50 * noise[0, 0] * np.sqrt(found["npix"])) & (found["flag"] == 0)]
        share = _share_near(bright, call.result)
        return _agree(share > 0.9, f"{100 * share:.0f} % of its bright sources are ours")

    return Reference(
        name="sep", run=lambda: sep.extract(image, 1.5, err=noise, mask=bad, minarea=5), check=check, is_slow=True
    )


def scipy_warp(bench: Workbench) -> Reference:
    """Cubic splines of the image alone, on a map that is given."""
    template, wcs, shape = bench.recorder.stages["template"].call("warp_template").arguments[:3]
    axes = [np.linspace(0, n - 1, n // 32) for n in shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    on_template = template.wcs.sky_to_pixel(*wcs.pixel_to_sky(x.ravel(), y.ravel()))
    planes = [
        RectBivariateSpline(*axes, values.reshape(x.shape))(np.arange(shape[0]), np.arange(shape[1]))
        for values in on_template
    ]
    places = np.stack([planes[1], planes[0]]).astype(np.float32)

    def check(found: Float32) -> str:
        ours = bench.recorder.stages["template"].call("warp_template").result.frame
        good = (ours.mask == 0)[::4, ::4]
        scatter = _mad(((ours.image - found)[::4, ::4] / np.sqrt(ours.variance[::4, ::4]))[good])
        return _agree(scatter < 0.3, f"pixels within {scatter:.3f} sigma")

    return Reference(
        name="scipy, image alone",
        run=lambda: map_coordinates(template.frame.image, places, order=3, output=np.float32),
        check=check,
    )


def scipy_convolution(bench: Workbench) -> Reference:
    """One convolution of the frame with one kernel of our size, and the difference: no fit, variance or mask."""
    exposure, template, _, _, config = bench.recorder.stages["subtract"].call("subtract").arguments
    axis = np.arange(-config.kernel.half_width_pix, config.kernel.half_width_pix + 1)
    profile = np.exp(-0.5 * (axis / 1.5) ** 2).astype(np.float32)
    kernel = np.outer(profile, profile) / profile.sum() ** 2
    science, image = exposure.frame.image, template.frame.image
    return Reference(
        name="scipy, one kernel, no fit",
        run=lambda: science - oaconvolve(image, kernel, mode="same"),
        check=lambda found: _agree(bool(np.isfinite(found).all()), "not the same work"),
    )


def sep_detect(bench: Workbench) -> Reference:
    """SEP's matched filter at five sigma on the difference, both signs."""
    difference = bench.recorder.stages["detect"].call("detect").arguments[0]
    from core.stages.detect import EXCLUDED

    frame, psf = difference.frame, np.asarray(difference.psf.center(), np.float32)
    half = psf.shape[0] // 2
    psf = np.ascontiguousarray(psf[half - 7 : half + 8, half - 7 : half + 8])
    images, noise = (frame.image.copy(), -frame.image), np.sqrt(frame.variance)
    bad = (frame.mask & np.uint16(EXCLUDED)) != 0

    def run() -> NDArray[np.void]:
        parts = [
            sep.extract(image, 5.0, err=noise, mask=bad, minarea=1, filter_kernel=psf, deblend_cont=1.0)
            for image in images
        ]
        return np.concatenate(parts)

    def check(found: NDArray[np.void]) -> str:
        ours = bench.recorder.stages["detect"].call("detect").result
        bright = np.abs(ours.snr) > 8
        theirs = cKDTree(np.stack([found["x"], found["y"]], axis=-1))
        distance, _ = theirs.query(np.stack([ours.x, ours.y], axis=-1)[bright])
        share = float((distance < MATCH_PIX).mean())
        return _agree(share > 0.8, f"it has {100 * share:.0f} % of ours above 8 sigma")

    return Reference(name="sep", run=run, check=check, is_slow=True)


def fastavro_package(bench: Workbench) -> Reference:
    """Records written by fastavro; that the records are made first is not counted."""
    import fastavro

    from alerts.codec import FRAME_BYTES, decode_alert
    from alerts.schema import alert_schema

    packets = [packet for _, packet in bench.recorder.stages["package"].calls[0].result]
    records, schema = [decode_alert(packet) for packet in packets], alert_schema()

    def run() -> list[bytes]:
        written = []
        for record in records:
            buffer = io.BytesIO()
            buffer.write(FRAME_BYTES)
            fastavro.schemaless_writer(buffer, schema, record)
            written.append(buffer.getvalue())
        return written

    return Reference(
        name="fastavro", run=run, check=lambda found: _agree(found == packets, f"{len(packets)} alerts, equal bytes")
    )


def _share_near(wanted: NDArray[np.void], among: NDArray[np.void]) -> float:
    """Of the wanted rows, those with another's row near them."""
    tree = cKDTree(np.stack([among["x"], among["y"]], axis=-1))
    distance, _ = tree.query(np.stack([wanted["x"], wanted["y"]], axis=-1))
    return float((distance < MATCH_PIX).mean())


def _mad(values: NDArray[Any]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


REFERENCES: Final[dict[str, Callable[[Workbench], Reference]]] = {
    "read": fitsio_read,
    "isr": numpy_isr,
    "background": sep_background,
    "cosmic_rays": cosmic_rays,
    "detect_sources": sep_sources,
    "template": scipy_warp,
    "subtract": scipy_convolution,
    "detect": sep_detect,
    "package": fastavro_package,
}
"""By stage."""
