"""Positions of the truth to positions of DIASources, one to one."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

MATCH_ARCSEC: Final = 0.5


def unit_vectors(ra_deg: Float64, dec_deg: Float64) -> Float64:
    """(n, 3) directions of ICRS positions."""
    ra, dec = np.radians(np.asarray(ra_deg, np.float64)), np.radians(np.asarray(dec_deg, np.float64))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def chord(radius_arcsec: float) -> float:
    """Straight distance on the unit sphere that spans an angle."""
    return float(2 * np.sin(np.radians(radius_arcsec / 3600) / 2))


def match_one_to_one(
    truth: tuple[Float64, Float64],
    truth_sign: NDArray[np.int8],
    found: tuple[Float64, Float64],
    found_sign: NDArray[np.int8],
    radius_arcsec: float = MATCH_ARCSEC,
) -> Int64:
    """Row of the found source that each truth is matched to, -1 none.

    Nearest pairs first, each row used once, only within the radius and of the same sign (a faded source does not find
    a new one). ``truth`` and ``found`` are (ra, dec) [deg] of n and m rows.
    """
    matched = np.full(truth[0].size, -1, np.int64)
    if truth[0].size == 0 or found[0].size == 0:
        return matched
    pairs = cKDTree(unit_vectors(*truth)).sparse_distance_matrix(
        cKDTree(unit_vectors(*found)), chord(radius_arcsec), output_type="ndarray"
    )
    pairs = pairs[truth_sign[pairs["i"]] == found_sign[pairs["j"]]]
    is_used = np.zeros(found[0].size, bool)
    for pair in pairs[np.lexsort((pairs["j"], pairs["i"], pairs["v"]))]:
        i, j = int(pair["i"]), int(pair["j"])
        if matched[i] < 0 and not is_used[j]:
            matched[i] = j
            is_used[j] = True
    return matched


def nearest_arcsec(at: tuple[Float64, Float64], to: tuple[Float64, Float64]) -> tuple[Float64, Int64]:
    """Distance [arcsec] of each of n positions to the nearest of m, and its row; inf and -1 where m is zero."""
    n = at[0].size
    if n == 0 or to[0].size == 0:
        return np.full(n, np.inf), np.full(n, -1, np.int64)
    distance, row = cKDTree(unit_vectors(*to)).query(unit_vectors(*at))
    arcsec = 2 * np.degrees(np.arcsin(np.minimum(np.asarray(distance) / 2, 1))) * 3600
    return np.asarray(arcsec, np.float64), np.asarray(row, np.int64)


def offsets_mas(truth: tuple[Float64, Float64], found: tuple[Float64, Float64]) -> tuple[Float64, Float64]:
    """Found minus true position [mas], east and north."""
    east = (found[0] - truth[0] + 180.0) % 360.0 - 180.0
    scale = 3.6e6
    return east * np.cos(np.radians(truth[1])) * scale, (found[1] - truth[1]) * scale
