"""The template's cutout, put together from its patches."""

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from core.contracts.exposure import Frame, Template
from core.contracts.wcs import Wcs
from core.flags import MASK_DTYPE, Mask
from core.workspace import Workspace
from service.storage.codec import PackedArray, unpack_array

Array = NDArray[Any]

_PLANES: Final[tuple[tuple[str, DTypeLike, float], ...]] = (
    ("IMAGE", np.float32, 0.0),
    ("VARIANCE", np.float32, 1.0),
    ("MASK", MASK_DTYPE, float(Mask.NODATA)),
)
"""HDU, type and what stands where there is no patch."""
_CAPACITY_STEP_PIX: Final = 1 << 24


def unpack_template(meta: dict[str, Any], arrays: dict[str, PackedArray], workspace: Workspace) -> Template | None:
    """The cutout that ``meta['box']`` describes; None where no patch has data.

    Pixels without a patch have mask NODATA, image 0 and variance 1. Buffers (``bundle.template.*``) are kept larger
    than needed, so that the next cutout, of another shape, does not need new memory.
    """
    if not arrays:
        return None
    y0, y1, x0, x1 = meta["box"]
    size = int(meta["patch_size"])
    planes = {}
    for hdu, dtype, fill in _PLANES:
        plane = _buffer(workspace, f"bundle.template.{hdu.lower()}", (y1 - y0, x1 - x0), dtype)
        scratch = workspace.array(f"bundle.patch.{np.dtype(dtype)}", (size, size), dtype)
        for row in range(y0 // size, (y1 - 1) // size + 1):
            for column in range(x0 // size, (x1 - 1) // size + 1):
                packed = arrays.get(f"{row} {column} {hdu}")
                _place(plane, (y0, x0), (row * size, column * size), size, packed, scratch, fill)
        planes[hdu] = plane
    header = dict(meta["wcs"])
    wcs = Wcs.from_header(header)
    cells, offset = _psf_cells(meta, arrays)
    return Template(
        frame=Frame(image=planes["IMAGE"], variance=planes["VARIANCE"], mask=planes["MASK"]),
        wcs=Wcs(crpix=wcs.crpix - np.array([x0, y0]), crval=wcs.crval, cd=wcs.cd, sip_a=wcs.sip_a, sip_b=wcs.sip_b),
        psf_cells=cells,
        cell_size_pix=int(meta["cell_size"]),
        cell_offset_pix=offset,
        n_inputs=int(meta["n_inputs"]),
        epoch_mjd_tai=float(meta["epoch_mjd_tai"]),
    )


def _buffer(workspace: Workspace, name: str, shape: tuple[int, int], dtype: DTypeLike) -> Array:
    n = shape[0] * shape[1]
    capacity = -(-n // _CAPACITY_STEP_PIX) * _CAPACITY_STEP_PIX
    return workspace.array(name, (capacity,), dtype)[:n].reshape(shape)


def _place(
    plane: Array,
    origin: tuple[int, int],
    corner: tuple[int, int],
    size: int,
    packed: PackedArray | None,
    scratch: Array,
    fill: float,
) -> None:
    """Copy the part of one patch that lies in the cutout."""
    top, left = corner[0] - origin[0], corner[1] - origin[1]
    ys = slice(max(top, 0), min(top + size, plane.shape[0]))
    xs = slice(max(left, 0), min(left + size, plane.shape[1]))
    if packed is None:
        plane[ys, xs] = fill
        return
    patch = unpack_array(packed, scratch if packed.shape == scratch.shape else None)
    plane[ys, xs] = patch[ys.start - top : ys.stop - top, xs.start - left : xs.stop - left]


def _psf_cells(meta: dict[str, Any], arrays: dict[str, PackedArray]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """PSF images of the cutout's cells (zero without data), and where the cutout begins in its first cell (y, x)."""
    y0, y1, x0, x1 = meta["box"]
    cell, size = int(meta["cell_size"]), int(meta["patch_size"])
    first = (y0 // cell, x0 // cell)
    shape = ((y1 - 1) // cell + 1 - first[0], (x1 - 1) // cell + 1 - first[1])
    patches = {role: unpack_array(packed) for role, packed in arrays.items() if role.endswith(" PSF")}
    side = max(patch.shape[-1] for patch in patches.values())
    cells = np.zeros((*shape, side, side), np.float32)
    for role, patch in patches.items():
        row, column = (int(word) for word in role.split()[:2])
        margin = (side - patch.shape[-1]) // 2
        for i in range(patch.shape[0]):
            for j in range(patch.shape[1]):
                cy, cx = row * (size // cell) + i - first[0], column * (size // cell) + j - first[1]
                if 0 <= cy < shape[0] and 0 <= cx < shape[1]:
                    inner = slice(margin, margin + patch.shape[-1])
                    cells[cy, cx, inner, inner] = patch[i, j]
    return cells, (y0 - first[0] * cell, x0 - first[1] * cell)
