"""Stamps for the alerts."""

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import DifferenceImage, Exposure, Frame, WarpedTemplate
from core.contracts.results import Cutouts
from core.kernels.stamps import copy_stamp

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


def cut_stamps(difference: DifferenceImage, exposure: Exposure, template: WarpedTemplate, sources: Catalog) -> Cutouts:
    """Copy ``bboxSize`` squares around the sources out of the three images, with the PSF of each at the source.

    The source is in the central pixel of an odd stamp, in the upper right of the central four of an even one.
    """
    x, y = sources["x"].astype(np.float64), sources["y"].astype(np.float64)
    side = sources["bboxSize"]
    x0 = (np.floor(x + 0.5) - side // 2).astype(np.int32)
    y0 = (np.floor(y + 0.5) - side // 2).astype(np.int32)
    return Cutouts(
        x0=x0,
        y0=y0,
        difference=_stamps(difference.frame, x0, y0, side),
        science=_stamps(exposure.frame, x0, y0, side),
        template=_stamps(template.frame, x0, y0, side),
        difference_psf=difference.psf.at_many(x, y),
        science_psf=exposure.psf.at_many(x, y),
        template_psf=template.psf.at_many(x, y),
    )


def _stamps(frame: Frame, x0: Int32, y0: Int32, side: Int32) -> list[tuple[Float32, Float32]]:
    stamps = []
    for i in range(x0.size):
        pair = np.empty((2, int(side[i]), int(side[i])), np.float32)
        copy_stamp(frame.image, int(y0[i]), int(x0[i]), pair[0])
        copy_stamp(frame.variance, int(y0[i]), int(x0[i]), pair[1])
        stamps.append((pair[0], pair[1]))
    return stamps
