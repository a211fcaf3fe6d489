"""Small boxes of frames: unions of mask bits, and copies for the alerts."""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]


@kernel
def mask_unions(
    mask: UInt16, footprint_bits: int, y0: Int32, y1: Int32, x0: Int32, x1: Int32, y: Int32, x: Int32,
    footprint: UInt16, center: UInt16,
) -> None:  # fmt: skip
    """Union of mask bits of n sources: over the footprint, and over 3 x 3 pixels at (y, x).

    The footprint is the pixels of the box ``[y0, y1) x [x0, x1)`` with any of ``footprint_bits``, or all of the box
    where none has. Pixels off the image do not count.
    """
    ny, nx = mask.shape
    for i in range(y.size):
        inside, everything = np.uint16(0), np.uint16(0)
        for v in range(max(y0[i], 0), min(y1[i], ny)):
            for u in range(max(x0[i], 0), min(x1[i], nx)):
                bits = mask[v, u]
                everything |= bits
                if bits & footprint_bits:
                    inside |= bits
        footprint[i] = inside if inside != 0 else everything
        core = np.uint16(0)
        for v in range(max(y[i] - 1, 0), min(y[i] + 2, ny)):
            for u in range(max(x[i] - 1, 0), min(x[i] + 2, nx)):
                core |= mask[v, u]
        center[i] = core


@kernel
def copy_stamp(plane: Float32, y0: int, x0: int, out: Float32) -> None:
    """Copy the box of ``out``'s shape whose first pixel is (y0, x0); NaN outside the image."""
    ny, nx = plane.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if 0 <= y0 + y < ny and 0 <= x0 + x < nx:
                out[y, x] = plane[y0 + y, x0 + x]
            else:
                out[y, x] = np.nan
