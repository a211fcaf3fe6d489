"""Small exposures with known contents, drawn without any code of the stages."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import DifferenceImage, Exposure, Frame, PhotoCalib, VisitInfo, WarpedTemplate
from core.contracts.psf import PsfModel, n_terms
from core.contracts.results import Detections
from core.contracts.wcs import Wcs
from core.flags import Mask

Float64 = NDArray[np.float64]

PSF_SIZE = 31


def moffat(dx: Float64, dy: Float64, fwhm: float, beta: float = 3.0) -> Float64:
    """Moffat profile of unit integral sampled at offsets [pixel]."""
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return (beta - 1) / (np.pi * alpha**2) * (1 + (dx**2 + dy**2) / alpha**2) ** -beta


def psf_image(fwhm: float, x: float = 0.0, y: float = 0.0, size: int = PSF_SIZE) -> Float64:
    """(size, size) Moffat offset (x, y) from the central pixel, on the scale of one of unit sum on the stamp."""
    axis = np.arange(size) - size // 2
    norm = moffat(axis[None, :], axis[:, None], fwhm).sum()
    return moffat(axis[None, :] - x, axis[:, None] - y, fwhm) / norm


def psf_model(fwhm: float, shape: tuple[int, int], order: int = 1, gradient: float = 0.0) -> PsfModel:
    """Model whose width grows by ``gradient`` of itself from the middle to the right edge."""
    coefficients = np.zeros((n_terms(order), PSF_SIZE, PSF_SIZE), np.float32)
    coefficients[0] = psf_image(fwhm)
    if gradient:
        coefficients[1] = psf_image(fwhm * (1 + gradient)) - psf_image(fwhm)
    return PsfModel(coefficients=coefficients, shape=shape, order=order)


def tilted_wcs(shape: tuple[int, int], rotation_deg: float = 30.0, scale_arcsec: float = 0.2) -> Wcs:
    """A rotated sky with +x to the west at zero rotation."""
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    cd = scale_arcsec / 3600 * np.array([[-c, s], [s, c]])
    return Wcs(crpix=np.array([shape[1] / 2, shape[0] / 2]), crval=np.array([150.0, -30.0]), cd=cd)


VISIT = VisitInfo(
    instrument="LSSTCam", group="g", visit=2026112300042, detector=94, band="r", exposure_start_mjd_tai=61000.1,
    exposure_end_mjd_tai=61000.1 + 30 / 86400, exposure_time_s=30.0, ra_deg=150.0, dec_deg=-30.0, rot_sky_deg=0.0,
)  # fmt: skip


@dataclass
class Scene:
    """Sky noise of sigma ``noise`` in science and difference, a template five times deeper; add sources, then build."""

    shape: tuple[int, int] = (256, 256)
    fwhm: float = 4.0
    noise: float = 10.0
    seed: int = 1
    gradient: float = 0.0
    rotation_deg: float = 30.0
    science: Float64 = field(init=False)
    template: Float64 = field(init=False)
    mask: NDArray[np.uint16] = field(init=False)

    def __post_init__(self) -> None:
        self.science, self.template = np.zeros(self.shape), np.zeros(self.shape)
        self.mask = np.zeros(self.shape, np.uint16)

    def flux_of_snr(self, snr: float) -> float:
        """Flux of a point whose matched filter gives ``snr`` on the sky."""
        return float(snr * self.noise / np.sqrt(np.square(psf_image(self.fwhm)).sum()))

    def add_point(self, x: float, y: float, flux: float, *, plane: str = "science") -> None:
        """A star; ``plane`` is science or template (negative in the difference)."""
        target = getattr(self, plane)
        xc, yc, half = round(x), round(y), PSF_SIZE // 2
        fwhm = self.fwhm * (1 + self.gradient * (2 * x / (self.shape[1] - 1) - 1))
        stamp = flux * psf_image(fwhm, x - xc, y - yc)
        ylo, xlo = max(yc - half, 0), max(xc - half, 0)
        yhi, xhi = min(yc + half + 1, self.shape[0]), min(xc + half + 1, self.shape[1])
        target[ylo:yhi, xlo:xhi] += stamp[ylo - yc + half : yhi - yc + half, xlo - xc + half : xhi - xc + half]

    def build(self) -> tuple[DifferenceImage, Exposure, WarpedTemplate]:
        """Noisy frames; the difference is science minus template."""
        random = np.random.default_rng(self.seed)
        variance = np.full(self.shape, self.noise**2, np.float32)
        science = self.science + random.normal(0, self.noise, self.shape)
        deep = np.full(self.shape, (self.noise / 5) ** 2, np.float32)
        template = self.template + random.normal(0, self.noise / 5, self.shape)
        model = psf_model(self.fwhm, self.shape, gradient=self.gradient)
        mask = self.mask

        def frame(image: Float64, plane: NDArray[np.float32]) -> Frame:
            return Frame(image=image.astype(np.float32), variance=plane, mask=mask.copy())

        exposure = Exposure(
            frame=frame(science, variance), psf=model, wcs=tilted_wcs(self.shape, self.rotation_deg),
            photo_calib=PhotoCalib(njy_per_electron=1.0, relative_error=0.0, n_stars=1, scatter_mag=0.0),
            visit_info=VISIT,
        )  # fmt: skip
        difference = DifferenceImage(
            frame=frame(science - self.template, variance), psf=model, kernel_sum=1.0, is_science_convolved=False,
            variance_scale=1.0,
        )  # fmt: skip
        return difference, exposure, WarpedTemplate(frame=frame(template, deep), psf=model, coverage=1.0)


def detections_at(x: list[float], y: list[float], snr: list[float], half: int = 6) -> Detections:
    """Peaks at the pixels nearest to (x, y), each in a square footprint of its own."""
    xi = np.floor(np.array(x) + 0.5).astype(np.int32)
    yi = np.floor(np.array(y) + 0.5).astype(np.int32)
    n = xi.size
    return Detections(
        y=yi, x=xi, snr=np.array(snr, np.float32), y0=yi - half, y1=yi + half + 1, x0=xi - half, x1=xi + half + 1,
        n_pixels=np.full(n, (2 * half + 1) ** 2, np.int32), parent=np.arange(n, dtype=np.int32),
    )  # fmt: skip


def mark_detected(mask: NDArray[np.uint16], detections: Detections) -> None:
    """Set DETECTED in the boxes, as detection does in footprints."""
    for i in range(detections.y.size):
        box = (
            slice(max(detections.y0[i], 0), detections.y1[i]),
            slice(max(detections.x0[i], 0), detections.x1[i]),
        )
        mask[box] |= np.uint16(Mask.DETECTED)
