"""Files of one detector for people: images and catalogs as FITS."""

from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel
from core.flags import Mask

Header = dict[str, Any]


def write_image(path: Path, frame: Frame, psf: PsfModel, header: Header) -> None:
    """IMAGE, VARIANCE, MASK (bits named in the header) and the PSF at the image's center."""
    planes = {f"MP_{bit.name}"[:8]: int(bit) for bit in Mask}
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with fitsio.FITS(str(partial), "rw", clobber=True) as file:
        file.write(None, header=header)
        file.write(frame.image, extname="IMAGE", header=header, compress=None)
        file.write(frame.variance, extname="VARIANCE")
        file.write(frame.mask, extname="MASK", header=planes)
        file.write(psf.center(), extname="PSF")
    partial.replace(path)


def write_catalog(path: Path, catalog: Catalog) -> None:
    """A binary table with the catalog's columns; texts as ASCII, nulls as the catalog has them."""
    dtype = np.dtype([(name, _fits_type(catalog.dtype[name])) for name in catalog.dtype.names or ()])
    table = np.empty(catalog.size, dtype)
    for name in dtype.names or ():
        column = catalog[name]
        table[name] = np.char.encode(column, "ascii", "replace") if column.dtype.kind == "U" else column
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with fitsio.FITS(str(partial), "rw", clobber=True) as file:
        file.write(table, extname="CATALOG")
    partial.replace(path)


def _fits_type(dtype: np.dtype[Any]) -> str | np.dtype[Any]:
    if dtype.kind == "U":
        return f"S{dtype.itemsize // 4}"
    # FITS has no signed bytes; our nullable booleans (-1, 0, 1) fit in two.
    return np.dtype("i2") if dtype == np.int8 else dtype
