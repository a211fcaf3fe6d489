"""What a camera is: detectors on a focal plane, amplifiers on detectors, and the way from pixel to sky.

Detector pixels (x, y) are zero-based with (0, 0) at the center of the first pixel; focal plane in millimetres; field
angles and sky in degrees. All mappings take scalars or arrays and work in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Half-open, zero-based ``(y0, y1, x0, x1)``."""


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amplifier:
    """One segment: where its parts lie in the raw HDU and where its data go in the detector.

    ``data``, ``serial_overscan`` and ``parallel_overscan`` are boxes of the segment as read; ``bbox`` is the box of the
    assembled detector that the data fill after reversing x (``flip_x``) and y (``flip_y``). Overscans span the data's
    rows (serial) or columns (parallel).
    """

    name: str
    extname: str
    raw_shape: tuple[int, int]
    data: Box
    serial_overscan: Box
    parallel_overscan: Box
    bbox: Box
    flip_x: bool
    flip_y: bool
    gain: float
    """Nominal [e-/ADU]."""
    read_noise: float
    """Nominal [e-]."""
    saturation_adu: float
    """Full well after overscan [ADU]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """One detector; ``shape`` is (ny, nx), the focal-plane position is that of its central point."""

    detector: int
    name: str
    kind: str
    serial: str
    shape: tuple[int, int]
    focal_plane_x_mm: float
    focal_plane_y_mm: float
    yaw_deg: float
    amplifiers: tuple[Amplifier, ...]
    pixel_mm: float = 0.01

    @property
    def raft_bay(self) -> str:
        """First half of the name, ``R22``."""
        return self.name.partition("_")[0]

    @property
    def ccd_slot(self) -> str:
        """Second half of the name, ``S11``."""
        return self.name.partition("_")[2]

    def pixel_to_focal_plane(self, x: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
        """Focal-plane position [mm] of pixels."""
        u, v = _pair(x, y)
        u = (u - (self.shape[1] - 1) / 2) * self.pixel_mm
        v = (v - (self.shape[0] - 1) / 2) * self.pixel_mm
        c, s = np.cos(np.radians(self.yaw_deg)), np.sin(np.radians(self.yaw_deg))
        return self.focal_plane_x_mm + c * u - s * v, self.focal_plane_y_mm + s * u + c * v

    def focal_plane_to_pixel(self, x_mm: ArrayLike, y_mm: ArrayLike) -> tuple[Float64, Float64]:
        """Inverse of :meth:`pixel_to_focal_plane`."""
        u, v = _pair(x_mm, y_mm)
        u, v = u - self.focal_plane_x_mm, v - self.focal_plane_y_mm
        c, s = np.cos(np.radians(self.yaw_deg)), np.sin(np.radians(self.yaw_deg))
        x = (c * u + s * v) / self.pixel_mm + (self.shape[1] - 1) / 2
        y = (-s * u + c * v) / self.pixel_mm + (self.shape[0] - 1) / 2
        return x, y


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A camera and its site.

    ``radial`` holds c1, c2, … of ``r_field = r (1 + c1 r + c2 r**2 + …)`` with r in millimetres; the field angle
    is r_field times the plate scale and is used as gnomonic plane coordinate.
    """

    name: str
    instrument: str
    plate_scale_arcsec_per_mm: float
    radial: tuple[float, ...]
    pixel_mm: float
    latitude_deg: float
    longitude_deg: float
    """East positive."""
    height_m: float
    detectors: Mapping[int, Detector]

    @property
    def pixel_scale_arcsec(self) -> float:
        """Pixel size on the sky at the field's center [arcsec]."""
        return self.plate_scale_arcsec_per_mm * self.pixel_mm

    def _stretch(self, r: Float64) -> Float64:
        factor = np.ones_like(r)
        for power, coefficient in enumerate(self.radial, start=1):
            factor = factor + coefficient * r**power
        return factor

    def focal_plane_to_field(self, x_mm: ArrayLike, y_mm: ArrayLike) -> tuple[Float64, Float64]:
        """Field angles (thx, thy) [deg] of focal-plane positions."""
        x, y = _pair(x_mm, y_mm)
        scale = self._stretch(np.hypot(x, y)) * (self.plate_scale_arcsec_per_mm / 3600.0)
        return x * scale, y * scale

    def field_to_focal_plane(self, thx_deg: ArrayLike, thy_deg: ArrayLike) -> tuple[Float64, Float64]:
        """Inverse of :meth:`focal_plane_to_field`; fixed-point iteration to below 1e-10 mm."""
        thx, thy = _pair(thx_deg, thy_deg)
        mm_per_deg = 3600.0 / self.plate_scale_arcsec_per_mm
        target = np.hypot(thx, thy) * mm_per_deg
        r = target
        for _ in range(50):
            following = target / self._stretch(r)
            change = np.abs(following - r)
            r = following
            if not (change > 1e-11).any():
                break
        scale = mm_per_deg / self._stretch(r)
        return thx * scale, thy * scale

    def pixel_to_sky(
        self, detector: int, x: ArrayLike, y: ArrayLike, ra0_deg: float, dec0_deg: float, rot_sky_deg: float
    ) -> tuple[Float64, Float64]:
        """ICRS (ra, dec) [deg] of a detector's pixels; ``rot_sky`` is the position angle of the focal plane's +y."""
        thx, thy = self.focal_plane_to_field(*self.detectors[detector].pixel_to_focal_plane(x, y))
        c, s = np.cos(np.radians(rot_sky_deg)), np.sin(np.radians(rot_sky_deg))
        xi, eta = np.radians(-thx * c + thy * s), np.radians(thx * s + thy * c)
        sin0, cos0 = np.sin(np.radians(dec0_deg)), np.cos(np.radians(dec0_deg))
        north = cos0 - eta * sin0
        ra = np.degrees(np.arctan2(xi, north)) + ra0_deg
        return ra % 360.0, np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(xi, north)))

    def sky_to_pixel(
        self, detector: int, ra_deg: ArrayLike, dec_deg: ArrayLike, ra0_deg: float, dec0_deg: float, rot_sky_deg: float
    ) -> tuple[Float64, Float64]:
        """Pixel (x, y) of ICRS positions [deg]; NaN on the far hemisphere."""
        ra, dec = _pair(ra_deg, dec_deg)
        delta, dec = np.radians(ra - ra0_deg), np.radians(dec)
        sin0, cos0 = np.sin(np.radians(dec0_deg)), np.cos(np.radians(dec0_deg))
        cosine = np.sin(dec) * sin0 + np.cos(dec) * cos0 * np.cos(delta)
        safe = np.where(cosine > 0, cosine, np.nan)
        xi = np.degrees(np.cos(dec) * np.sin(delta) / safe)
        eta = np.degrees((np.sin(dec) * cos0 - np.cos(dec) * sin0 * np.cos(delta)) / safe)
        c, s = np.cos(np.radians(rot_sky_deg)), np.sin(np.radians(rot_sky_deg))
        plane = self.field_to_focal_plane(-xi * c + eta * s, xi * s + eta * c)
        return self.detectors[detector].focal_plane_to_pixel(*plane)
