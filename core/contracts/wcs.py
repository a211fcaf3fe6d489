"""World coordinate system: gnomonic projection with SIP distortion (TAN-SIP)."""

from dataclasses import dataclass, field
from math import cos, radians, sin
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.contracts.local_maps import LocalMaps
from core.errors import RejectedInputError

Float64 = NDArray[np.float64]


def _no_terms() -> Float64:
    return np.zeros((1, 1))


def _polynomial(coefficients: Float64, u: Float64, v: Float64) -> Float64:
    """Sum of ``coefficients[p, q] * u**p * v**q``."""
    return np.asarray(np.polynomial.polynomial.polyval2d(u, v, coefficients), np.float64)


def _polynomial_gradient(coefficients: Float64, u: Float64, v: Float64) -> tuple[Float64, Float64]:
    if coefficients.shape[0] < 2:
        return np.zeros_like(u), np.zeros_like(u)
    du = np.asarray(np.polynomial.polynomial.polyder(coefficients, axis=0), np.float64)
    dv = np.asarray(np.polynomial.polynomial.polyder(coefficients, axis=1), np.float64)
    return _polynomial(du, u, v), _polynomial(dv, u, v)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wcs:
    """TAN-SIP mapping of one detector.

    Parameters
    ----------
    crpix : (2,) reference pixel (x, y) [pixel], zero-based.
    crval : (2,) ICRS right ascension and declination there [deg].
    cd : (2, 2) linear part [deg/pixel]; rows are the intermediate world axes (east, north).
    sip_a, sip_b : (n + 1, n + 1) forward distortion of x and y [pixel], ``[p, q]`` multiplies ``u**p v**q``.
    maps : two maps (x, y) [pixel] added to a pixel before all else: turbulence of this exposure. A header cannot
        hold them; what they add is a few mas.

    The inverse is solved by Newton steps on the forward distortion, so it needs no AP/BP terms.
    Reference: Shupe et al. 2005, ASP Conf. 347, 491.
    """

    crpix: Float64
    crval: Float64
    cd: Float64
    sip_a: Float64 = field(default_factory=_no_terms)
    sip_b: Float64 = field(default_factory=_no_terms)
    maps: LocalMaps | None = None

    def __post_init__(self) -> None:
        if self.crpix.shape != (2,) or self.crval.shape != (2,) or self.cd.shape != (2, 2):
            raise RejectedInputError("crpix, crval must be (2,) and cd (2, 2)", code="bad_wcs")
        if self.sip_a.shape != self.sip_b.shape or self.sip_a.shape[0] != self.sip_a.shape[1]:
            raise RejectedInputError("SIP coefficients must be square and equal in shape", code="bad_wcs")
        if not (np.isfinite(self.cd).all() and abs(np.linalg.det(self.cd)) > 0):
            raise RejectedInputError("the CD matrix is singular", code="bad_wcs")

    @property
    def pixel_scale_arcsec(self) -> float:
        """Root of the pixel's area [arcsec]."""
        return float(3600 * np.sqrt(abs(np.linalg.det(self.cd))))

    def pixel_to_plane(self, x: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
        """Intermediate world coordinates (xi east, eta north) [deg] of pixels."""
        u = np.asarray(x, np.float64) - self.crpix[0]
        v = np.asarray(y, np.float64) - self.crpix[1]
        if self.maps is not None:
            shift = self.maps.at(x, y)
            u, v = u + shift[..., 0], v + shift[..., 1]
        u2 = u + _polynomial(self.sip_a, u, v)
        v2 = v + _polynomial(self.sip_b, u, v)
        return self.cd[0, 0] * u2 + self.cd[0, 1] * v2, self.cd[1, 0] * u2 + self.cd[1, 1] * v2

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
        """ICRS (ra, dec) [deg] of pixel positions."""
        xi, eta = self.pixel_to_plane(x, y)
        return plane_to_sky(xi, eta, self.crval)

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Float64, Float64]:
        """Pixel (x, y) of ICRS positions [deg]; NaN more than 90 deg away. Newton to 1e-9 pixel."""
        xi, eta = sky_to_plane(ra_deg, dec_deg, self.crval)
        inverse = np.linalg.inv(self.cd)
        f = inverse[0, 0] * xi + inverse[0, 1] * eta
        g = inverse[1, 0] * xi + inverse[1, 1] * eta
        u, v = f.copy(), g.copy()
        for _ in range(20):
            residual_u = u + _polynomial(self.sip_a, u, v) - f
            residual_v = v + _polynomial(self.sip_b, u, v) - g
            a_u, a_v = _polynomial_gradient(self.sip_a, u, v)
            b_u, b_v = _polynomial_gradient(self.sip_b, u, v)
            determinant = (1 + a_u) * (1 + b_v) - a_v * b_u
            step_u = ((1 + b_v) * residual_u - a_v * residual_v) / determinant
            step_v = ((1 + a_u) * residual_v - b_u * residual_u) / determinant
            u -= step_u
            v -= step_v
            size = np.abs(step_u) + np.abs(step_v)
            if not (size > 1e-9).any():
                break
        return self._without_maps(u + self.crpix[0], v + self.crpix[1])

    def _without_maps(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """Pixels that the maps move to (x, y): they are so small and smooth that three steps give 1e-6 pixel."""
        if self.maps is None:
            return x, y
        found_x, found_y = x, y
        for _ in range(3):
            shift = self.maps.at(found_x, found_y)
            found_x, found_y = x - shift[..., 0], y - shift[..., 1]
        return found_x, found_y

    def local_cd(self, x: float, y: float) -> Float64:
        """(2, 2) Jacobian of the sky's local tangent plane (east, north) by pixel (x, y) [deg/pixel]."""
        ra0, dec0 = self.pixel_to_sky(x, y)
        ra, dec = self.pixel_to_sky(np.array([x + 0.5, x - 0.5, x, x]), np.array([y, y, y + 0.5, y - 0.5]))
        xi, eta = sky_to_plane(ra, dec, np.array([float(ra0), float(dec0)]))
        return np.array([[xi[0] - xi[1], xi[2] - xi[3]], [eta[0] - eta[1], eta[2] - eta[3]]])

    def to_header(self) -> dict[str, float | str | int]:
        """FITS keywords (one-based CRPIX) in the order FITS readers expect."""
        header: dict[str, float | str | int] = {
            "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
            "CRPIX1": float(self.crpix[0]) + 1, "CRPIX2": float(self.crpix[1]) + 1,
            "CRVAL1": float(self.crval[0]), "CRVAL2": float(self.crval[1]),
            "CD1_1": float(self.cd[0, 0]), "CD1_2": float(self.cd[0, 1]),
            "CD2_1": float(self.cd[1, 0]), "CD2_2": float(self.cd[1, 1]),
        }  # fmt: skip
        order = self.sip_a.shape[0] - 1
        if order < 1:
            header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
            return header
        for prefix, table in (("A", self.sip_a), ("B", self.sip_b)):
            header[f"{prefix}_ORDER"] = order
            for p in range(order + 1):
                for q in range(order + 1 - p):
                    if table[p, q] != 0:
                        header[f"{prefix}_{p}_{q}"] = float(table[p, q])
        return header

    @classmethod
    def from_header(cls, header: dict[str, float | str | int]) -> Self:
        """Read TAN or TAN-SIP keywords (CD, or PC with CDELT)."""
        if not str(header.get("CTYPE1", "")).startswith("RA---TAN"):
            raise RejectedInputError("only TAN and TAN-SIP are read", code="bad_wcs", ctype=header.get("CTYPE1"))

        def number(key: str, default: float) -> float:
            return float(header.get(key, default))

        if "CD1_1" in header:
            cd = np.array([[number(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)])
        else:
            pc = np.array([[number(f"PC{i}_{j}", float(i == j)) for j in (1, 2)] for i in (1, 2)])
            cd = np.array([[number("CDELT1", 1.0)], [number("CDELT2", 1.0)]]) * pc
        tables = []
        for prefix in ("A", "B"):
            order = int(header.get(f"{prefix}_ORDER", 0))
            table = np.zeros((order + 1, order + 1))
            for p in range(order + 1):
                for q in range(order + 1 - p):
                    table[p, q] = number(f"{prefix}_{p}_{q}", 0.0)
            tables.append(table)
        size = max(t.shape[0] for t in tables)
        a, b = (np.pad(t, (0, size - t.shape[0])) for t in tables)
        return cls(
            crpix=np.array([number("CRPIX1", 1.0) - 1, number("CRPIX2", 1.0) - 1]),
            crval=np.array([number("CRVAL1", 0.0), number("CRVAL2", 0.0)]),
            cd=cd,
            sip_a=a,
            sip_b=b,
        )


def plane_to_sky(xi_deg: ArrayLike, eta_deg: ArrayLike, center_deg: Float64) -> tuple[Float64, Float64]:
    """Deproject gnomonic plane coordinates (xi east, eta north) [deg] about ``center_deg`` to ICRS [deg]."""
    xi, eta = np.radians(np.asarray(xi_deg, np.float64)), np.radians(np.asarray(eta_deg, np.float64))
    ra0, dec0 = radians(center_deg[0]), radians(center_deg[1])
    north = cos(dec0) - eta * sin(dec0)
    ra = ra0 + np.arctan2(xi, north)
    dec = np.arctan2(sin(dec0) + eta * cos(dec0), np.hypot(xi, north))
    return np.degrees(ra) % 360.0, np.degrees(dec)


def sky_to_plane(ra_deg: ArrayLike, dec_deg: ArrayLike, center_deg: Float64) -> tuple[Float64, Float64]:
    """Gnomonic projection of ICRS positions [deg] about ``center_deg``; NaN on the far hemisphere."""
    ra, dec = np.radians(np.asarray(ra_deg, np.float64)), np.radians(np.asarray(dec_deg, np.float64))
    ra0, dec0 = radians(center_deg[0]), radians(center_deg[1])
    cosine = np.sin(dec) * sin(dec0) + np.cos(dec) * cos(dec0) * np.cos(ra - ra0)
    safe = np.where(cosine > 0, cosine, np.nan)
    xi = np.cos(dec) * np.sin(ra - ra0) / safe
    eta = (np.sin(dec) * cos(dec0) - np.cos(dec) * sin(dec0) * np.cos(ra - ra0)) / safe
    return np.degrees(xi), np.degrees(eta)


def separation_arcsec(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Float64:
    """Great-circle separation [arcsec] of ICRS positions [deg], by the haversine (exact for small angles)."""
    ra1_, dec1_, ra2_, dec2_ = (np.radians(np.asarray(v, np.float64)) for v in (ra1, dec1, ra2, dec2))
    half = np.sin((dec2_ - dec1_) / 2) ** 2 + np.cos(dec1_) * np.cos(dec2_) * np.sin((ra2_ - ra1_) / 2) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(half))) * 3600.0, np.float64)
