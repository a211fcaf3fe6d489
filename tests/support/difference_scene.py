"""Two exposures of one small field in different seeing: stars as Gaussians integrated over no pixel, noise known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import SOURCE, Catalog
from core.contracts.exposure import Exposure, Frame, PhotoCalib, VisitInfo, WarpedTemplate
from core.contracts.psf import PsfModel
from core.contracts.wcs import Wcs

Float64 = NDArray[np.float64]

VISIT_INFO = VisitInfo(
    instrument="test",
    group="g",
    visit=1,
    detector=0,
    band="r",
    exposure_start_mjd_tai=60000.0,
    exposure_end_mjd_tai=60000.1,
    exposure_time_s=30.0,
    ra_deg=50.0,
    dec_deg=-20.0,
    rot_sky_deg=0.0,
)


def simple_wcs(crpix: tuple[float, float], rotation_deg: float = 0.0, scale_arcsec: float = 0.2) -> Wcs:
    """Gnomonic, north up at zero rotation."""
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    cd = scale_arcsec / 3600 * np.array([[-c, s], [s, c]])
    return Wcs(crpix=np.array(crpix, float), crval=np.array([50.0, -20.0]), cd=cd)


def gaussian(k: int, sigma: float, dx: float = 0.0, dy: float = 0.0, ratio: float = 1.0) -> Float64:
    """(k, k) Gaussian of unit integral centered on the central pixel plus (dx, dy); ``ratio`` = sigma_y / sigma_x."""
    axis = np.arange(k) - k // 2
    gx = np.exp(-0.5 * ((axis - dx) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    gy = np.exp(-0.5 * ((axis - dy) / (ratio * sigma)) ** 2) / (ratio * sigma * np.sqrt(2 * np.pi))
    return np.outer(gy, gx)


def constant_psf(shape: tuple[int, int], sigma: float, k: int = 25) -> PsfModel:
    """The same Gaussian everywhere."""
    image = gaussian(k, sigma)
    return PsfModel(coefficients=(image / image.sum()).astype(np.float32)[None], shape=shape, order=0)


def add_stars(image: NDArray[np.float32], x: Float64, y: Float64, flux: Float64, sigma: Float64) -> None:
    """Add Gaussian stars at subpixel positions."""
    k = 41
    padded = np.zeros((image.shape[0] + 2 * k, image.shape[1] + 2 * k))
    for n in range(x.size):
        cx, cy = round(x[n]), round(y[n])
        stamp = flux[n] * gaussian(k, sigma[n], x[n] - cx, y[n] - cy)
        padded[cy + k - k // 2 : cy + k + k // 2 + 1, cx + k - k // 2 : cx + k + k // 2 + 1] += stamp
    image += padded[k:-k, k:-k].astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the stages get, and the truth."""

    exposure: Exposure
    template: WarpedTemplate
    stars: Catalog
    x: Float64
    y: Float64
    flux: Float64
    """Transients: positions and fluxes."""
    sky_sigma: float


def make_scene(
    science_sigma: float,
    template_sigma: float,
    template_noise: float = 5.0,
    size: int = 384,
    seed: int = 7,
    template_scale: float = 1.0,
) -> Scene:
    """A field of 110 stars; the science seeing varies by 8 % over it; nine transients of both signs."""
    rng = np.random.default_rng(seed)
    shape, sky_sigma, n = (size, size), 20.0, 110
    x, y = rng.uniform(5, size - 5, n), rng.uniform(5, size - 5, n)
    flux = 10 ** rng.uniform(4.0, 4.9, n)
    wide = science_sigma * (1 + 0.04 * (2 * x / size - 1))
    science, template = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    add_stars(science, x, y, flux, wide)
    add_stars(template, x, y, flux * template_scale, np.full(n, template_sigma))
    lattice = (np.arange(3) + 0.5) * size / 3
    tx, ty = (g.ravel() + rng.uniform(-20, 20, 9) for g in np.meshgrid(lattice, lattice))
    noise_area = 4 * np.pi * science_sigma**2
    transient_flux = np.where(np.arange(9) % 3 == 2, -1, 1) * 15.0 * sky_sigma * np.sqrt(noise_area)
    add_stars(science, tx, ty, transient_flux, science_sigma * (1 + 0.04 * (2 * tx / size - 1)))
    science_variance = (sky_sigma**2 + np.maximum(science, 0) * 0.5).astype(np.float32)
    template_variance = (template_noise**2 + np.maximum(template, 0) * 0.02).astype(np.float32)
    science += rng.normal(size=shape).astype(np.float32) * np.sqrt(science_variance)
    template += rng.normal(size=shape).astype(np.float32) * np.sqrt(template_variance)
    stars = np.zeros(n, SOURCE)
    stars["x"], stars["y"], stars["psfFlux"] = x, y, flux
    stars["snr"] = flux / (sky_sigma * np.sqrt(noise_area))
    exposure = Exposure(
        frame=Frame(image=science, variance=science_variance, mask=np.zeros(shape, np.uint16)),
        psf=constant_psf(shape, science_sigma),
        wcs=simple_wcs((size / 2, size / 2)),
        photo_calib=PhotoCalib(njy_per_electron=1.0, relative_error=0.0, n_stars=9, scatter_mag=0.01),
        visit_info=VISIT_INFO,
    )
    warped = WarpedTemplate(
        frame=Frame(image=template, variance=template_variance, mask=np.zeros(shape, np.uint16)),
        psf=constant_psf(shape, template_sigma),
        coverage=1.0,
    )
    return Scene(exposure=exposure, template=warped, stars=stars, x=tx, y=ty, flux=transient_flux, sky_sigma=sky_sigma)
