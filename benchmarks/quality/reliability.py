"""Which DIASources are real, of what class, and what the reliability makes of them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.false_positives import is_false
from benchmarks.quality.matching import match_one_to_one
from benchmarks.quality.products import Products, signs
from benchmarks.quality.truth import INJECTED_KINDS, Truth

Bool = NDArray[np.bool_]
Int8 = NDArray[np.int8]

CLASSES: Final = ("transient", "variable_positive", "variable_negative", "mover")
BOGUS: Final = len(CLASSES)
UNJUDGED: Final = -1
"""Near a true change, but not what it is matched to; or a star that moved."""
MIN_SNR: Final = 6.0
THRESHOLD: Final = 0.5


def classify(products: Products, truth: Truth) -> Int8:
    """(n,) index in :data:`CLASSES` of each DIASource, :data:`BOGUS` of false positives, else :data:`UNJUDGED`."""
    sources = products.dia_sources
    label = np.where(is_false(products, truth), BOGUS, UNJUDGED).astype(np.int8)
    changes = np.flatnonzero(truth.is_change)
    rows = truth.rows[changes]
    is_negative = rows["flux"] < 0
    found = match_one_to_one(
        (rows["ra"], rows["dec"]),
        np.where(is_negative, -1, 1).astype(np.int8),
        (sources["ra"], sources["dec"]),
        signs(sources),
    )
    variable = truth.is_kind("variable")[changes]
    classes = (
        truth.is_kind(*INJECTED_KINDS)[changes],
        variable & ~is_negative,
        variable & is_negative,
        truth.is_kind("mover")[changes],
    )
    for number, is_member in enumerate(classes):
        label[found[is_member & (found >= 0)]] = number
    return label


def no_counts() -> NDArray[np.int64]:
    """Of a detector-visit without DIASources."""
    return np.zeros((BOGUS + 1, 2), np.int64)


def count(label: Int8, snr: NDArray[np.float64], reliability: NDArray[np.float64]) -> NDArray[np.int64]:
    """(classes + 1, 2): how many DIASources over six sigma there are of each class and of bogus, and how many pass.

    An unknown reliability passes, as it does where alerts are sent.
    """
    bright = np.abs(snr) > MIN_SNR
    passes = ~(reliability < THRESHOLD)
    rows = [[np.count_nonzero(bright & (label == i) & p) for p in (True, passes)] for i in range(BOGUS + 1)]
    return np.array(rows, np.int64)


def summarize_reliability(counts: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """The report's ``quality.reliability`` of many detector-visits; a figure without sources is None."""
    total = np.sum(counts, axis=0)
    share = [float(passed / n) if n else None for n, passed in total]
    return {
        "threshold": THRESHOLD,
        "recall": dict(zip(CLASSES, share[:BOGUS], strict=True)),
        "bogus_pass": share[BOGUS],
        "false_positives_snr6": float(total[BOGUS, 1] / len(counts)),
        "n": dict(zip((*CLASSES, "bogus"), total[:, 0].tolist(), strict=True)),
    }
