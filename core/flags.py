"""Registry of mask planes: one row per plane. Pixel flags of the alerts and the docs derive from it."""

from enum import IntFlag
from typing import Final

import numpy as np

MASK_DTYPE: Final = np.uint16


class Mask(IntFlag):
    """Bits of every ``(ny, nx) uint16`` mask plane."""

    BAD = 1 << 0
    SAT = 1 << 1
    CR = 1 << 2
    EDGE = 1 << 3
    NODATA = 1 << 4
    INTERPOLATED = 1 << 5
    SUSPECT = 1 << 6
    STREAK = 1 << 7
    DETECTED = 1 << 8
    DETECTED_NEGATIVE = 1 << 9
    SAT_TEMPLATE = 1 << 10
    HIGH_VARIANCE = 1 << 11
    INJECTED = 1 << 12
    INJECTED_TEMPLATE = 1 << 13
    CROSSTALK = 1 << 14


MASK_DOC: Final[dict[Mask, str]] = {
    Mask.BAD: "Defect of the detector (hot, dead or trapped pixel, dead column).",
    Mask.SAT: "Saturated in the science raw, with its bleed and one ring of neighbours. In a difference also where the "
    "template is saturated, and where a saturated star's wings cannot be subtracted to the noise.",
    Mask.CR: "Hit by a cosmic ray; the value is interpolated.",
    Mask.EDGE: "Too near the detector's edge for the kernels' full support.",
    Mask.NODATA: "No science or no template data; the value is meaningless.",
    Mask.INTERPOLATED: "Value replaced by an interpolation over its neighbours.",
    Mask.SUSPECT: "In the range where the linearity correction is not trusted.",
    Mask.STREAK: "Under the track of a satellite or airplane.",
    Mask.DETECTED: "Inside the footprint of a positive detection.",
    Mask.DETECTED_NEGATIVE: "Inside the footprint of a negative detection.",
    Mask.SAT_TEMPLATE: "Saturated in an input of the template.",
    Mask.HIGH_VARIANCE: "Template variance far above its median: few inputs.",
    Mask.INJECTED: "A synthetic source was injected in the science image here.",
    Mask.INJECTED_TEMPLATE: "A synthetic source was injected in the template here.",
    Mask.CROSSTALK: "Under the crosstalk ghost of a saturated pixel of another amplifier.",
}

UNCLAIMED: Final = Mask.BAD | Mask.SAT | Mask.CR | Mask.EDGE | Mask.NODATA | Mask.STREAK
"""Pixels with any of these are outside the claimed area: no completeness is promised there."""
