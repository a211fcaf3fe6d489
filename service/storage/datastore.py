"""The dataset's folder: which files a detector-visit needs, and their arrays."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray

from core.camera import Camera, load_camera
from core.contracts.catalogs import EPHEMERIS, REFERENCE_STAR, Catalog
from core.contracts.wcs import Wcs, separation_arcsec
from core.errors import ConfigurationError, RejectedInputError
from core.flags import MASK_DTYPE, Mask
from service.storage.footprint import covering_patches, detector_corners, detector_radius_deg
from service.storage.mpsky import MpSky, is_of_service
from service.storage.recipe import BundleKey, PartKind, PartRecipe, Recipe
from service.storage.sky_pixels import cone_cells

Array = NDArray[Any]

FORMAT: Final = 1
TEMPLATE_PAD_ARCSEC: Final = 60.0
"""Template beyond the predicted footprint: 50 for pointing errors and kernels, the rest for a late correction."""
REFERENCE_PAD_DEG: Final = 0.02
REFERENCE_ORDER: Final = 6
IMAGE_KINDS: Final = ("bias", "dark", "flat", "defects")
AMPLIFIER_COLUMNS: Final = ("gain", "read_noise", "saturation", "linearity", "crosstalk", "brighter_fatter")
OPTIONAL_COLUMNS: Final = ("brighter_fatter",)
"""Zero for all amplifiers where a table lacks them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """Content of ``dataset.json``."""

    instrument: str
    camera: str
    tracts: tuple[int, ...]
    release: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tract:
    """Grid of one tract."""

    number: int
    wcs: Wcs
    header: dict[str, Any]
    shape: tuple[int, int]
    patch_size: int
    cell_size: int


_NAME: Final = re.compile(
    r"(?:refcat|(?:calib|template|ephemerides)(?:/[A-Za-z0-9_-]+)+\.fits)@[0-9A-Za-z_.-]*#[A-Za-z0-9_,. -]*"
)
"""``path@size-time#selector``."""


class Datastore:
    """Read-only access to one dataset (docs/dataset.md).

    ``resolve`` says which arrays a bundle needs, by names that hold path, size and time of change of the file behind
    them; ``read`` reads one by its name. So two visits that need the same flat ask for the same name, and a rewritten
    file is another one. With ``mpsky`` ephemerides are asked of it instead of read from files.
    """

    def __init__(self, root: Path, mpsky: MpSky | None = None) -> None:
        self.root = root
        self._mpsky = mpsky
        self.info = _read_info(root / "dataset.json")
        self.camera: Camera = load_camera(self.info.camera)
        self._tracts = [_read_tract(root / "template" / str(n) / "tract.json", n) for n in self.info.tracts]

    def resolve(self, key: BundleKey, without: Collection[PartKind] = ()) -> Recipe:
        """Everything but the history; parts ``without`` which the caller can do are empty.

        Raises ``RejectedInputError`` where the dataset has no calibration valid at the time.
        """
        ways = {
            PartKind.CALIBRATIONS: self._calibrations,
            PartKind.TEMPLATE: self._template,
            PartKind.REFERENCE_STARS: self._reference_stars,
            PartKind.EPHEMERIDES: self.resolve_ephemerides,
        }
        return tuple(
            PartRecipe(kind=kind, arrays=(), meta={}) if kind in without else resolve(key)
            for kind, resolve in ways.items()
        )

    def read(self, name: str) -> Array:
        """The array behind a name that :meth:`resolve` gave; to any other there is no file.

        Names come back from Redis, and the library below would follow them anywhere.
        """
        if self._mpsky is not None and is_of_service(name):
            return self._mpsky.read(name)
        if _NAME.fullmatch(name) is None:
            raise FileNotFoundError(f"no name of an array: {name[:100]!r}")
        path, _, rest = name.partition("@")
        selector = rest.partition("#")[2]
        if path == "refcat":
            return self._read_reference_stars(selector)
        if path.startswith("ephemerides/"):
            return _as_catalog(fitsio.read(self.root / path), EPHEMERIS, path)
        if path.startswith("template/"):
            patch = fitsio.read(self.root / path, ext=selector)
            return _native(patch, MASK_DTYPE if selector == "MASK" else np.float32)
        array = np.asarray(fitsio.read(self.root / path, ext=1))
        if selector in OPTIONAL_COLUMNS and selector not in (array.dtype.names or ()):
            return np.zeros(array.size, np.float32)
        if selector in AMPLIFIER_COLUMNS:
            return _native(array[selector], np.float32)
        if selector == "defects":
            return np.where(array != 0, MASK_DTYPE(Mask.BAD), MASK_DTYPE(0))
        return _native(array, np.float32)

    def resolve_ephemerides(self, key: BundleKey) -> PartRecipe:
        """Ephemerides: mpSky's of the detector's sky, or the dataset's of the visit; none where it has no file."""
        if self._mpsky is not None:
            return self._mpsky.resolve(key, *detector_radius_deg(self._corners(key)))
        path = self.root / "ephemerides" / f"{key.visit}.fits"
        arrays = (("table", self._name(path)),) if key.visit is not None and path.is_file() else ()
        return PartRecipe(kind=PartKind.EPHEMERIDES, arrays=arrays, meta={})

    @property
    def has_ephemerides_by_visit(self) -> bool:
        """Whether ephemerides change when a visit gets its number."""
        return self._mpsky is None

    def _corners(self, key: BundleKey) -> Array:
        return detector_corners(self.camera, key.detector, key.ra_deg, key.dec_deg, key.rot_sky_deg)

    def _name(self, path: Path, selector: str = "") -> str:
        stat = path.stat()
        return f"{path.relative_to(self.root)}@{stat.st_size}-{stat.st_mtime_ns}#{selector}"

    def _calibrations(self, key: BundleKey) -> PartRecipe:
        arrays = []
        amplifiers = self._valid_file("amplifiers", key)
        arrays += [(column, self._name(amplifiers, column)) for column in AMPLIFIER_COLUMNS]
        for kind in IMAGE_KINDS:
            path = self._valid_file(f"flat-{key.band}" if kind == "flat" else kind, key)
            arrays.append((kind, self._name(path, kind)))
        return PartRecipe(kind=PartKind.CALIBRATIONS, arrays=tuple(arrays), meta={})

    def _valid_file(self, kind: str, key: BundleKey) -> Path:
        """The calibration whose validity holds the visit's time; of several the one that begins last."""
        folder = self.root / "calib" / f"{key.detector:03d}"
        valid = []
        for path in folder.glob(f"{kind}_*_*.fits"):
            start, end = path.stem.rsplit("_", 2)[1:]
            if start.isdigit() and end.isdigit() and int(start) <= key.mjd_tai < int(end):
                valid.append((int(start), path))
        if not valid:
            raise RejectedInputError(
                f"no {kind} of detector {key.detector} is valid at MJD {key.mjd_tai:.3f}",
                code="no_calibration",
                kind=kind,
                detector=key.detector,
            )
        path = max(valid)[1]
        _check_calibration(path, kind, key)
        return path

    def _template(self, key: BundleKey) -> PartRecipe:
        """Patches of the tract that covers most of the padded footprint; no arrays where none does."""
        corners = self._corners(key)
        best: PartRecipe = PartRecipe(kind=PartKind.TEMPLATE, arrays=(), meta={})
        for tract in self._tracts:
            part = self._template_in(tract, key.band, corners)
            if len(part.arrays) > len(best.arrays):
                best = part
        return best

    def _template_in(self, tract: Tract, band: str, corners: Array) -> PartRecipe:
        pad_pix = TEMPLATE_PAD_ARCSEC / tract.wcs.pixel_scale_arcsec
        box, patches = covering_patches(tract.wcs, corners, pad_pix, tract.patch_size, tract.shape)
        folder = self.root / "template" / str(tract.number) / band
        arrays: list[tuple[str, str]] = []
        inputs: list[tuple[int, float]] = []
        for row, column in patches:
            path = folder / f"{row:03d}_{column:03d}.fits"
            if path.is_file():
                names = [(f"{row} {column} {hdu}", self._name(path, hdu)) for hdu in _PATCH_HDUS]
                arrays += names
                header = fitsio.read_header(path, ext=0)
                inputs.append((int(header["NINPUT"]), float(header["EPOCH"])))
        meta: dict[str, Any] = {"box": box, "patch_size": tract.patch_size, "cell_size": tract.cell_size}
        meta["wcs"] = tract.header
        if inputs:
            meta["n_inputs"] = round(float(np.mean([n for n, _ in inputs])))
            meta["epoch_mjd_tai"] = float(np.mean([epoch for _, epoch in inputs]))
        return PartRecipe(kind=PartKind.TEMPLATE, arrays=tuple(arrays), meta=meta)

    def _reference_stars(self, key: BundleKey) -> PartRecipe:
        corners = self._corners(key)
        ra, dec, radius = detector_radius_deg(corners)
        radius += REFERENCE_PAD_DEG
        files = [
            path
            for pixel in cone_cells(ra, dec, radius, REFERENCE_ORDER)
            if (path := self._reference_path(pixel)).is_file()
        ]
        stamp = "-".join(f"{path.stem}.{path.stat().st_mtime_ns}" for path in files)
        selector = " ".join([f"{ra:.6f}", f"{dec:.6f}", f"{radius:.6f}", *(path.stem for path in files)])
        name = f"refcat@{stamp}#{selector}"
        return PartRecipe(kind=PartKind.REFERENCE_STARS, arrays=(("table", name),), meta={})

    def _reference_path(self, pixel: int) -> Path:
        return self.root / "refcat" / f"{pixel}.fits"

    def _read_reference_stars(self, selector: str) -> Catalog:
        ra, dec, radius, *pixels = selector.split()
        tables = [np.empty(0, REFERENCE_STAR)]
        for pixel in pixels:
            path = self._reference_path(int(pixel))
            stars = _as_catalog(fitsio.read(path, ext=1), REFERENCE_STAR, str(path))
            distance = separation_arcsec(stars["ra"], stars["dec"], float(ra), float(dec))
            tables.append(stars[distance <= 3600 * float(radius)])
        return np.concatenate(tables)


_PATCH_HDUS: Final = ("IMAGE", "VARIANCE", "MASK", "PSF")


def _read_info(path: Path) -> DatasetInfo:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ConfigurationError("unknown dataset format", code="bad_dataset", format=content["format"])
        return DatasetInfo(
            instrument=content["instrument"],
            camera=content["camera"],
            tracts=tuple(content["tracts"]),
            release=content["release"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"no dataset: {path} cannot be read", code="bad_dataset") from error


def _read_tract(path: Path, number: int) -> Tract:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Tract(
            number=number,
            wcs=Wcs.from_header(content["wcs"]),
            header=content["wcs"],
            shape=(content["shape"][0], content["shape"][1]),
            patch_size=content["patch_size"],
            cell_size=content["cell_size"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"no tract: {path} cannot be read", code="bad_dataset") from error


def _check_calibration(path: Path, kind: str, key: BundleKey) -> None:
    """Hold the file against its own header: a renamed or misplaced calibration is refused."""
    header = fitsio.read_header(path, ext=0)
    wanted_kind = "flat" if kind.startswith("flat-") else kind
    found = (str(header["KIND"]).partition("-")[0], int(header["DETECTOR"]))
    is_valid = float(header["VALIDSTA"]) <= key.mjd_tai < float(header["VALIDEND"])
    band = str(header.get("BAND", "") or "").strip()
    if found != (wanted_kind, key.detector) or not is_valid or (wanted_kind == "flat" and band != key.band):
        raise RejectedInputError(
            f"{path.name} is not what its name says", code="wrong_calibration", kind=kind, detector=key.detector
        )


def _native(array: Array, dtype: Any) -> Array:
    """C order, this dtype, the machine's byte order."""
    return np.ascontiguousarray(array, dtype=dtype)


def _as_catalog(table: Array, dtype: np.dtype[np.void], where: str) -> Catalog:
    """A table file's columns as a catalog; a missing column is a broken dataset."""
    missing = [name for name in dtype.names or () if name not in (table.dtype.names or ())]
    if missing:
        raise ConfigurationError(f"{where} lacks the columns {', '.join(missing)}", code="bad_dataset")
    catalog = np.zeros(table.size, dtype)
    for name in dtype.names or ():
        column = table[name]
        catalog[name] = np.char.rstrip(column.astype(str)) if column.dtype.kind in "SU" else column
    return catalog
