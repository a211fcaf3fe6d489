"""A check of the noise: PSF fluxes at random empty places of the difference."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import DifferenceImage, VisitInfo
from core.contracts.results import SkyCheck
from core.flags import UNCLAIMED, Mask
from core.stages.point_source import PsfOnFrame

_OCCUPIED: Final = int(UNCLAIMED | Mask.DETECTED | Mask.DETECTED_NEGATIVE | Mask.SAT_TEMPLATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyConfig:
    """Parameters of :func:`check_sky`."""

    n_positions: int = 100
    n_tries: int = 2000


def check_sky(difference: DifferenceImage, visit_info: VisitInfo, config: SkyConfig | None = None) -> SkyCheck:
    """Mean and standard deviation of flux over error at empty positions; N(0, 1) where the variance is right.

    No masked or detected pixel lies in the fit's window. The positions depend on visit and detector only. NaN with
    fewer than two positions.
    """
    config = config or SkyConfig()
    random = np.random.default_rng([visit_info.visit, visit_info.detector])
    ny, nx = difference.frame.shape
    y = random.integers(0, ny, config.n_tries)
    x = random.integers(0, nx, config.n_tries)
    plane = PsfOnFrame.of(difference.frame, difference.psf)
    empty = _is_empty(difference.frame.mask, y, x, plane.half)
    chosen = np.flatnonzero(empty)[: config.n_positions]
    if chosen.size < 2:
        return SkyCheck(n=int(chosen.size), mean=float("nan"), sd=float("nan"))
    fits = plane.forced(x[chosen].astype(np.float64), y[chosen].astype(np.float64))
    pulls = fits.flux / fits.flux_err
    pulls = pulls[np.isfinite(pulls)]
    return SkyCheck(n=int(pulls.size), mean=float(pulls.mean()), sd=float(pulls.std(ddof=1)))


def _is_empty(mask: NDArray[np.uint16], y: NDArray[np.int64], x: NDArray[np.int64], radius: int) -> NDArray[np.bool_]:
    ny, nx = mask.shape
    offsets = np.arange(-radius, radius + 1)
    yy = np.clip(y[:, None, None] + offsets[:, None], 0, ny - 1)
    xx = np.clip(x[:, None, None] + offsets, 0, nx - 1)
    return np.asarray(((mask[yy, xx] & _OCCUPIED) == 0).all(axis=(1, 2)))
