"""A difference image of white noise and Gaussian point sources, and a textbook detector for it."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.signal import fftconvolve

from benchmarks.quality.products import Products
from benchmarks.quality.truth import Truth
from core.contracts.catalogs import DIA_SOURCE, SOURCE, Catalog, empty_catalog
from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel

SIGMA_PIX = 1.7
SCALE_ARCSEC = 0.2
NOISE = 3.0
SIZE = 23
RA0, DEC0 = 40.0, -5.0

TRUTH_DTYPE = np.dtype(
    [
        ("id", "<i8"), ("kind", "S10"), ("x", "<f8"), ("y", "<f8"), ("ra", "<f8"), ("dec", "<f8"), ("flux", "<f8"),
        ("science_flux", "<f8"), ("template_flux", "<f8"), ("snr_true", "<f8"), ("mag", "<f8"), ("hosted", "?"),
        ("near_bright", "?"), ("moved_px", "<f4"),
    ]
)  # fmt: skip


def gaussian(dx: float = 0.0, dy: float = 0.0) -> NDArray[np.float64]:
    axis = np.arange(SIZE) - SIZE // 2
    image = np.exp(-((axis[None, :] - dx) ** 2 + (axis[:, None] - dy) ** 2) / (2 * SIGMA_PIX**2))
    return np.asarray(image / (2 * np.pi * SIGMA_PIX**2))


def sky(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    dec = DEC0 + y * SCALE_ARCSEC / 3600
    return RA0 + x * SCALE_ARCSEC / 3600 / np.cos(np.radians(dec)), dec


def flux_error() -> float:
    return float(NOISE * np.sqrt(4 * np.pi) * SIGMA_PIX)


def make_truth(
    x: NDArray[np.float64], y: NDArray[np.float64], snr: NDArray[np.float64], kind: str = "transient"
) -> Truth:
    rows = np.zeros(x.size, TRUTH_DTYPE)
    rows["x"], rows["y"], rows["snr_true"] = x, y, snr
    rows["ra"], rows["dec"] = sky(x, y)
    rows["flux"] = rows["science_flux"] = snr * flux_error()
    rows["kind"], rows["mag"] = kind, 22.0
    psf = gaussian()[None]
    return Truth(
        rows=rows,
        kind=np.full(x.size, kind),
        cosmic_rays=np.zeros((0, 2), np.int64),
        event=np.zeros(0, np.int64),
        electrons=np.zeros(0),
        psf=psf,
        psf_x=np.zeros(1),
        psf_y=np.zeros(1),
        njy_per_electron=1.0,
        fwhm_arcsec=2.3548 * SIGMA_PIX * SCALE_ARCSEC,
    )


def draw(truth: Truth, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    image = rng.normal(0, NOISE, (side, side))
    half = SIZE // 2
    for row in truth.rows:
        ix, iy = round(row["x"]), round(row["y"])
        image[iy - half : iy + half + 1, ix - half : ix + half + 1] += row["flux"] * gaussian(
            row["x"] - ix, row["y"] - iy
        )
    return image.astype(np.float32)


def detect(image: NDArray[np.float32], threshold: float) -> Catalog:
    """Peaks of both signs of the exact matched filter, with parabolic centroids and fluxes."""
    snr = fftconvolve(image, gaussian(), mode="same") / (NOISE * np.sqrt(np.square(gaussian()).sum()))
    parts = []
    for sign in (1, -1):
        field = sign * snr
        is_peak = (field == maximum_filter(field, 3)) & (field >= threshold)
        is_peak[[0, -1]] = is_peak[:, [0, -1]] = False
        y, x = np.nonzero(is_peak)
        here = field[y, x]
        dx = (field[y, x + 1] - field[y, x - 1]) / (2 * (2 * here - field[y, x + 1] - field[y, x - 1]))
        dy = (field[y + 1, x] - field[y - 1, x]) / (2 * (2 * here - field[y + 1, x] - field[y - 1, x]))
        top = here + (field[y, x + 1] - field[y, x - 1]) * dx / 4 + (field[y + 1, x] - field[y - 1, x]) * dy / 4
        part = empty_catalog(DIA_SOURCE, y.size)
        part["x"], part["y"] = x + dx, y + dy
        part["ra"], part["dec"] = sky(x + dx, y + dy)
        part["psfFlux"], part["snr"] = sign * top * flux_error(), sign * top
        part["isNegative"] = sign < 0
        parts.append(part)
    return np.concatenate(parts)


def make_products(image: NDArray[np.float32], dia_sources: Catalog) -> Products:
    shape = (image.shape[0], image.shape[1])
    return Products(
        visit=1,
        detector=2,
        band="r",
        difference=Frame(image=image, variance=np.full(shape, NOISE**2, np.float32), mask=np.zeros(shape, np.uint16)),
        psf=PsfModel(coefficients=gaussian()[None].astype(np.float32), shape=shape, order=0),
        dia_sources=dia_sources,
        sources=np.zeros(0, SOURCE),
        pixel_scale_arcsec=SCALE_ARCSEC,
    )
