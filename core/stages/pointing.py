"""The WCS that pointing and camera geometry alone predict."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.camera import Camera
from core.contracts.wcs import Wcs, sky_to_plane

Float64 = NDArray[np.float64]

SIP_ORDER: Final = 3
_GRID: Final = 17


def predict_wcs(camera: Camera, detector: int, ra_deg: float, dec_deg: float, rot_sky_deg: float) -> Wcs:
    """TAN-SIP of order 3 for a detector, with its center as reference pixel; follows the camera to below 1 mas.

    ``ra_deg``, ``dec_deg`` are the boresight (ICRS), ``rot_sky_deg`` the position angle of the focal plane's +y.
    """
    shape = camera.detectors[detector].shape
    x, y = pixel_grid(shape)
    sky = camera.pixel_to_sky(detector, x, y, ra_deg, dec_deg, rot_sky_deg)
    center = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    crval = camera.pixel_to_sky(detector, *center, ra_deg, dec_deg, rot_sky_deg)
    return fit_tan_sip(x, y, sky, np.array(center), np.array([float(crval[0]), float(crval[1])]))


def pixel_grid(shape: tuple[int, int]) -> tuple[Float64, Float64]:
    """Flat (x, y) of a grid over the detector, denser towards its edges (Chebyshev nodes hold polynomials best)."""
    nodes = np.cos(np.pi * np.arange(_GRID) / (_GRID - 1))
    y, x = np.meshgrid((nodes + 1) / 2 * (shape[0] - 1), (nodes + 1) / 2 * (shape[1] - 1), indexing="ij")
    return x.ravel(), y.ravel()


def plane_exponents(order: int) -> list[tuple[int, int]]:
    """Exponents (p, q) of ``u**p v**q`` up to total degree ``order``: 1, u, v, u², uv, …"""
    return [(n - q, q) for n in range(order + 1) for q in range(n + 1)]


def fit_tan_sip(
    x: Float64, y: Float64, sky: tuple[Float64, Float64], crpix: Float64, crval: Float64, order: int = SIP_ORDER
) -> Wcs:
    """Least-squares TAN-SIP through pixel and sky positions [deg], with given reference pixel and its sky position.

    The projection's own constant term is not free: ``crval`` must be the sky position of ``crpix``.
    """
    scale = max(float(np.abs(x - crpix[0]).max()), float(np.abs(y - crpix[1]).max()), 1.0)
    u, v = (x - crpix[0]) / scale, (y - crpix[1]) / scale
    exponents = plane_exponents(order)[1:]
    design = np.stack([u**p * v**q for p, q in exponents], axis=-1)
    plane = np.stack(sky_to_plane(*sky, crval), axis=-1)
    solution = np.linalg.lstsq(design, plane, rcond=None)[0]
    cd = np.array([[solution[0, 0], solution[1, 0]], [solution[0, 1], solution[1, 1]]]) / scale
    distortion = np.linalg.solve(cd, solution[2:].T)
    sip = np.zeros((2, order + 1, order + 1))
    for (p, q), terms in zip(exponents[2:], distortion.T, strict=True):
        sip[:, p, q] = terms / scale ** (p + q)
    return Wcs(crpix=crpix, crval=crval, cd=cd, sip_a=sip[0], sip_b=sip[1])
