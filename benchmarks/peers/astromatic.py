"""The command-line tools of the classic chain: SExtractor, PSFEx, SCAMP, SWarp, and hotpants where it is installed."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.peers.cost import PeerFailedError, run_tool

SEX_NAMES: Final = ("source-extractor", "sex")
SWARP_NAMES: Final = ("SWarp", "swarp")
VIGNET_PIX: Final = 35
PSFEX_SAMPLING: Final = 0.5
DIFFERENCE_THRESHOLD: Final = 1.7
DIFFERENCE_MIN_AREA: Final = 4

_SCIENCE_COLUMNS: Final = (
    "NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE",
    "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE",
    "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER(1)", "FLUXERR_APER(1)", "FLUX_RADIUS", "ELONGATION", "ELLIPTICITY",
    "SNR_WIN", "FLAGS", "IMAFLAGS_ISO", f"VIGNET({VIGNET_PIX},{VIGNET_PIX})",
)  # fmt: skip
_DIFFERENCE_COLUMNS: Final = ("NUMBER", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_RADIUS", "FLAGS")


def find(names: tuple[str, ...]) -> str | None:
    """Path of the first of these programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


def _program(names: tuple[str, ...]) -> str:
    if (path := find(names)) is None:
        raise PeerFailedError(f"{names[0]} is not installed")
    return path


def _options(values: Mapping[str, object]) -> list[str]:
    """``-NAME value`` for each, as all of these programs take them."""
    return [word for name, value in values.items() for word in (f"-{name}", str(value))]


def write_filter(path: Path, fwhm_pix: float = 4.0, side: int = 7) -> None:
    """Detection filter: a Gaussian of 7x7 pixels, as SExtractor's own ``gauss_4.0_7x7.conv``."""
    axis = np.arange(side) - side // 2
    kernel = np.exp(-4 * np.log(2) * (axis[:, None] ** 2 + axis[None, :] ** 2) / fwhm_pix**2)
    rows = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in kernel)
    path.write_text(f"CONV NORM\n{rows}\n", encoding="ascii")


def _extract(folder: Path, image: str, columns: tuple[str, ...], options: Mapping[str, object]) -> tuple[float, float]:
    stem = Path(image).stem
    write_filter(folder / "gauss.conv")
    (folder / f"{stem}.param").write_text("\n".join(columns) + "\n", encoding="ascii")
    (folder / "empty.sex").write_text("", encoding="ascii")
    fixed = {
        "c": "empty.sex", "CATALOG_NAME": f"{stem}.cat", "CATALOG_TYPE": "FITS_LDAC",
        "PARAMETERS_NAME": f"{stem}.param", "FILTER_NAME": "gauss.conv", "BACK_SIZE": 128, "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    return run_tool([_program(SEX_NAMES), image, *_options(fixed | dict(options))], folder)


def extract_science(folder: Path, saturation: float) -> tuple[float, float]:
    """``science.fits`` -> ``science.cat`` with vignettes for PSFEx, and ``sky_subtracted.fits`` for the difference."""
    options = {
        "DETECT_THRESH": 1.5, "ANALYSIS_THRESH": 1.5, "DETECT_MINAREA": 5, "PHOT_APERTURES": 12, "GAIN": 1.0,
        "SATUR_LEVEL": saturation, "SATUR_KEY": "NONE", "GAIN_KEY": "NONE", "FLAG_IMAGE": "flags.fits",
        "FLAG_TYPE": "OR", "CHECKIMAGE_TYPE": "-BACKGROUND", "CHECKIMAGE_NAME": "sky_subtracted.fits",
    }  # fmt: skip
    return _extract(folder, "science.fits", _SCIENCE_COLUMNS, options)


def extract_difference(folder: Path) -> tuple[float, float]:
    """``difference.fits`` with ``difference_rms.fits`` -> ``difference.cat``."""
    options = {
        "DETECT_THRESH": DIFFERENCE_THRESHOLD, "ANALYSIS_THRESH": DIFFERENCE_THRESHOLD,
        "DETECT_MINAREA": DIFFERENCE_MIN_AREA, "WEIGHT_TYPE": "MAP_RMS", "WEIGHT_IMAGE": "difference_rms.fits",
        "WEIGHT_GAIN": "N", "BACK_TYPE": "MANUAL", "BACK_VALUE": 0.0,
    }  # fmt: skip
    return _extract(folder, "difference.fits", _DIFFERENCE_COLUMNS, options)


def fit_psf(folder: Path) -> tuple[float, float]:
    """``science.cat`` -> ``science.psf``: quadratic over the detector."""
    options = {
        "c": "empty.sex", "BASIS_TYPE": "PIXEL_AUTO", "PSF_SAMPLING": PSFEX_SAMPLING,
        "PSF_SIZE": f"{VIGNET_PIX},{VIGNET_PIX}",
        "PSFVAR_KEYS": "X_IMAGE,Y_IMAGE", "PSFVAR_GROUPS": "1,1", "PSFVAR_DEGREES": 2, "SAMPLE_MINSN": 20,
        "CHECKPLOT_DEV": "NULL", "CHECKPLOT_TYPE": "NONE", "CHECKIMAGE_TYPE": "NONE", "WRITE_XML": "N", "NTHREADS": 1,
        "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    return run_tool([_program(("psfex",)), "science.cat", *_options(options)], folder)


def solve_astrometry(folder: Path) -> tuple[float, float]:
    """``science.cat`` with ``reference.cat`` -> ``science.head``: matched by pattern, third order."""
    options = {
        "c": "empty.sex", "ASTREF_CATALOG": "FILE", "ASTREFCAT_NAME": "reference.cat",
        "POSITION_MAXERR": 0.5, "POSANGLE_MAXERR": 0.5, "PIXSCALE_MAXERR": 1.05, "CROSSID_RADIUS": 1.5,
        "DISTORT_DEGREES": 3, "STABILITY_TYPE": "EXPOSURE", "SOLVE_PHOTOM": "N", "SN_THRESHOLDS": "10.0,100.0",
        "IMAFLAGS_MASK": "0xffff", "ASTRINSTRU_KEY": "FILTER", "PHOTINSTRU_KEY": "FILTER", "CHECKPLOT_TYPE": "NONE",
        "CHECKPLOT_DEV": "NULL", "WRITE_XML": "N", "NTHREADS": 1, "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    return run_tool([_program(("scamp",)), "science.cat", *_options(options)], folder)


def warp_template(folder: Path) -> tuple[float, float]:
    """``template.fits`` -> ``warped.fits`` on the grid of ``warped.head``: Lanczos-3, no background taken off."""
    options = {
        "c": "empty.sex", "IMAGEOUT_NAME": "warped.fits", "WEIGHTOUT_NAME": "warped_weight.fits", "WEIGHT_TYPE": "NONE",
        "COMBINE": "Y", "RESAMPLING_TYPE": "LANCZOS3", "SUBTRACT_BACK": "N", "FSCALASTRO_TYPE": "FIXED",
        "FSCALE_KEYWORD": "NONE", "FSCALE_DEFAULT": 1.0, "GAIN_KEYWORD": "NONE", "COPY_KEYWORDS": "OBJECT",
        "DELETE_TMPFILES": "Y", "WRITE_XML": "N", "NTHREADS": 1, "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    return run_tool([_program(SWARP_NAMES), "template.fits", *_options(options)], folder)


def hotpants_arguments(limits: Mapping[str, float]) -> list[str]:
    """Options measured best on frames like these; ``limits`` are the valid ranges of science and template."""
    values = {
        "inim": "sky_subtracted.fits", "tmplim": "warped.fits", "outim": "difference.fits",
        "ini": "science_noise.fits", "tni": "template_noise.fits",
        "il": limits["science_low"], "iu": limits["science_high"], "tl": limits["template_low"],
        "tu": limits["template_high"], "r": 10, "rss": 15, "ko": 2, "bgo": 1, "nsx": 16, "nsy": 16, "c": "t", "n": "i",
        "v": 0,
    }  # fmt: skip
    gaussians = ["-ng", "3", "6", "0.7", "4", "1.5", "2", "3"]
    return [*_options(values), *gaussians]


def subtract_hotpants(folder: Path, limits: Mapping[str, float]) -> tuple[float, float]:
    """``sky_subtracted.fits`` minus the matched ``warped.fits`` -> ``difference.fits``, the whole frame."""
    return run_tool([_program(("hotpants",)), *hotpants_arguments(limits)], folder)
