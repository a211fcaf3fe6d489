"""Which stars the matching kernel is fitted to."""

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.stages.kernel_config import KernelConfig
from core.stages.kernel_field import UNFIT

Int64 = NDArray[np.int64]


def choose_stars(
    target: Frame,
    reference: Frame,
    stars: Catalog,
    half_stamp: int,
    half_width: int,
    max_stars: int,
    config: KernelConfig,
) -> Int64:
    """Rows of the stars to fit: clean in both images, SNR in range, the brightest of each cell of a grid."""
    ny, nx = target.shape
    border = half_stamp + half_width + 1
    x, y = np.rint(stars["x"]).astype(np.int64), np.rint(stars["y"]).astype(np.int64)
    is_good = (stars["snr"] >= config.min_snr) & (stars["snr"] <= config.max_snr) & ((stars["mask"] & UNFIT) == 0)
    is_good &= (x >= border) & (y >= border) & (x < nx - border) & (y < ny - border)
    rows = np.flatnonzero(is_good)
    rows = rows[np.argsort(-stars["snr"][rows], kind="stable")]
    n_side = max(2, round(np.sqrt(max_stars / 2.5)))
    per_cell = max(1, -(-max_stars // n_side**2))
    count = np.zeros((n_side, n_side), np.int64)
    taken = np.zeros((-(-ny // half_stamp), -(-nx // half_stamp)), np.bool_)
    chosen = []
    reach = half_width // 2
    for row in rows:
        cell = (y[row] * n_side // ny, x[row] * n_side // nx)
        here = (slice(max(0, y[row] // half_stamp - 1), y[row] // half_stamp + 2),
                slice(max(0, x[row] // half_stamp - 1), x[row] // half_stamp + 2))  # fmt: skip
        if count[cell] >= per_cell or taken[here].any():
            continue
        stamp = (
            slice(y[row] - half_stamp, y[row] + half_stamp + 1),
            slice(x[row] - half_stamp, x[row] + half_stamp + 1),
        )
        wide = (slice(y[row] - half_stamp - reach, y[row] + half_stamp + reach + 1),
                slice(x[row] - half_stamp - reach, x[row] + half_stamp + reach + 1))  # fmt: skip
        if (target.mask[stamp] & UNFIT).any() or (reference.mask[wide] & UNFIT).any():
            continue
        count[cell] += 1
        taken[y[row] // half_stamp, x[row] // half_stamp] = True
        chosen.append(row)
    return np.array(chosen, np.int64)
