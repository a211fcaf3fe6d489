"""Everything a detector needs before its pixels come, and where each part came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    EPHEMERIS,
    REFERENCE_STAR,
    Catalog,
)
from core.contracts.checks import check_array
from core.contracts.exposure import Template

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrations:
    """Calibrations of one detector and band, all inside their validity at the visit's time.

    Parameters
    ----------
    gain, read_noise, saturation : (n_amp,) float32 [e-/ADU], [e-], [ADU after overscan].
    linearity : (n_amp, n) float32: ``true = raw + sum_j linearity[:, j] * raw**(j + 2)`` [ADU], j from 0.
    crosstalk : (n_amp, n_amp) float32: ``[i, j]`` is the fraction of amplifier j's signal seen in i; zero diagonal.
    brighter_fatter : (n_amp,) float32: shift of the boundary of two pixels per electron of their difference [pixel/e-].
    bias : (ny, nx) float32 [ADU], assembled detector, after overscan.
    dark : (ny, nx) float32 [e-/s].
    flat : (ny, nx) float32, mean one over the detector.
    defects : (ny, nx) uint16 bits of :class:`core.flags.Mask`.
    """

    gain: Float32
    read_noise: Float32
    saturation: Float32
    linearity: Float32
    crosstalk: Float32
    brighter_fatter: Float32
    bias: Float32
    dark: Float32
    flat: Float32
    defects: NDArray[np.uint16]

    def __post_init__(self) -> None:
        n_amp = self.gain.shape[0]
        check_array("gain", self.gain, np.float32, (None,))
        check_array("read_noise", self.read_noise, np.float32, (n_amp,))
        check_array("saturation", self.saturation, np.float32, (n_amp,))
        check_array("linearity", self.linearity, np.float32, (n_amp, None))
        check_array("crosstalk", self.crosstalk, np.float32, (n_amp, n_amp))
        check_array("brighter-fatter coefficients", self.brighter_fatter, np.float32, (n_amp,))
        check_array("bias", self.bias, np.float32, (None, None))
        check_array("dark", self.dark, np.float32, self.bias.shape)
        check_array("flat", self.flat, np.float32, self.bias.shape)
        check_array("defects", self.defects, np.uint16, self.bias.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Twelve months of the sky around a detector, each table sorted by (diaObjectId, midpointMjdTai)."""

    dia_objects: Catalog
    dia_sources: Catalog
    dia_forced_sources: Catalog

    def __post_init__(self) -> None:
        check_array("dia_objects", self.dia_objects, DIA_OBJECT, (None,))
        check_array("dia_sources", self.dia_sources, DIA_SOURCE, (None,))
        check_array("dia_forced_sources", self.dia_forced_sources, DIA_FORCED_SOURCE, (None,))


INDEXED: Final = (
    "diaObjectId", "midpointMjdTai", "visit", "detector", "timeWithdrawnMjdTai", "band", "psfFlux", "psfFluxErr",
    "scienceFlux", "scienceFluxErr", "ra", "dec", "raErr", "decErr", "ra_dec_Cov",
)  # fmt: skip
"""Columns of history tables that are read after the pixels: who, when, light curve, position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableIndex:
    """A history table's columns one by one: a row of DIASource is 700 bytes, and most of them nobody asks for."""

    columns: Mapping[str, NDArray[Any]]
    """Those of :data:`INDEXED` that the table has, contiguous, in its order."""

    @classmethod
    def of(cls, table: Catalog) -> "TableIndex":
        """Copy them out of a table."""
        names = [name for name in INDEXED if name in (table.dtype.names or ())]
        return cls(columns={name: np.ascontiguousarray(table[name]) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryIndex:
    """Made before the pixels come, for look-ups after."""

    dia_sources: TableIndex
    dia_forced_sources: TableIndex

    @classmethod
    def of(cls, history: History) -> "HistoryIndex":
        """Of both tables of rows."""
        return cls(
            dia_sources=TableIndex.of(history.dia_sources),
            dia_forced_sources=TableIndex.of(history.dia_forced_sources),
        )


class PartSource(StrEnum):
    """Where a part of a bundle came from."""

    MEMORY = "memory"
    REDIS = "redis"
    COLD = "cold"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePart:
    """One line of a bundle's manifest."""

    kind: str
    source: PartSource
    digest: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Inputs of one detector-visit known before its readout; ``template`` is None where the sky has none."""

    calibrations: Calibrations
    template: Template | None
    reference_stars: Catalog
    history: History
    ephemerides: Catalog
    parts: tuple[BundlePart, ...] = field(default=())
    history_index: HistoryIndex = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "history_index", HistoryIndex.of(self.history))
        check_array("reference_stars", self.reference_stars, REFERENCE_STAR, (None,))
        check_array("ephemerides", self.ephemerides, EPHEMERIS, (None,))
