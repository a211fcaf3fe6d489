"""What the stages hand to each other and what one detector-visit yields."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.psf import PsfModel
from core.contracts.wcs import Wcs
from core.errors import Outcome

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """Sky that was subtracted from a frame [e-]."""

    level: float
    """Median of the mesh [e-/pixel]."""
    sigma: float
    """Median noise of a source-free pixel [e-]."""
    mesh: Float32
    """(n_cells_y, n_cells_x) sky at the cells' centers [e-/pixel]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PsfFit:
    """PSF of the science frame and the sources fitted with it."""

    psf: PsfModel
    sources: Catalog
    """:data:`core.contracts.catalogs.SOURCE` rows with PSF positions and fluxes, brightest first."""
    n_stars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedPairs:
    """Rows of the sources and of the reference catalog that are the same star, one to one."""

    source_index: NDArray[np.int64]
    reference_index: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Astrometry:
    """Solved WCS with the stars that made it."""

    wcs: Wcs
    pairs: MatchedPairs
    """All matches after the fit, not only the stars used in it."""
    n_stars: int
    """Stars kept in the fit."""
    rms_mas: float
    """Robust hold-out residual per axis of the stars in the fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Peaks above threshold in the S/N map of a difference, both signs, ordered by (y, x): their rows number the ids.

    Parameters
    ----------
    y, x : (n,) int32 peak pixels.    snr : (n,) float32 signed peak of the S/N map.
    y0, y1, x0, x1 : (n,) int32 footprint's bounding box, half open.    n_pixels : (n,) int32 its pixels.
    parent : (n,) int32 index of the footprint; peaks of one footprint share it.
    """

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    snr: Float32
    y0: NDArray[np.int32]
    y1: NDArray[np.int32]
    x0: NDArray[np.int32]
    x1: NDArray[np.int32]
    n_pixels: NDArray[np.int32]
    parent: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyCheck:
    """PSF fluxes over errors at random empty positions: should be N(0, 1)."""

    n: int
    mean: float
    sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """Wall and CPU seconds of one stage, measured once."""

    name: str
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """Which DIASource belongs to what. Rows follow the DIASource catalog they were made from.

    Parameters
    ----------
    history_index : (n,) int64 row of the matched DIAObject in the history, -1 none.
    ephemeris_index : (n,) int64 row of the matched ephemeris, -1 none.
    is_new : (n,) bool: may become a new DIAObject (claims decide its final id).
    """

    history_index: NDArray[np.int64]
    ephemeris_index: NDArray[np.int64]
    is_new: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutouts:
    """Pixels for the alerts, copied out of the frames; one entry per DIASource, sides from bboxSize.

    Each list holds ``(image, variance)`` float32 stamps [nJy], [nJy**2], NaN outside the image; psf stamps are (k, k).
    ``x0, y0`` are the parent pixels of the stamps' first pixel.
    """

    x0: NDArray[np.int32]
    y0: NDArray[np.int32]
    difference: list[tuple[Float32, Float32]]
    science: list[tuple[Float32, Float32]]
    template: list[tuple[Float32, Float32]]
    difference_psf: Float32
    science_psf: Float32
    template_psf: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorResult:
    """Everything one detector-visit yields, before serialization."""

    outcome: Outcome
    dia_sources: Catalog
    """All DIASources after the flag cuts; their order is by row of the detection list."""
    dia_objects: Catalog
    """New versions of the DIAObjects that this visit touched."""
    dia_forced_sources: Catalog
    ss_sources: Catalog
    object_index: NDArray[np.int64]
    """Per DIASource: row of ``dia_objects``, -1 for solar-system matches."""
    cutouts: Cutouts | None
    counts: dict[str, int]
    """n_detected = n_flagged + n_low_reliability + n_sent + n_withheld + n_dropped, and more."""
    summary: dict[str, float]
    """Figures of the images: zero point, seeing, residuals, scales."""
    timings: tuple[StageTiming, ...]
