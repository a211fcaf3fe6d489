"""Detector-visits of the simulated skies as labelled features, kept on disk."""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

import core
from benchmarks.quality.false_positives import cause_of
from benchmarks.quality.products import Products
from benchmarks.quality.reliability import classify
from benchmarks.quality.rerun import open_dataset, truth_file
from benchmarks.quality.truth import read_truth
from benchmarks.replay import read_events, readouts
from core.errors import UnusableDataError
from core.overrides import with_changes

_JUDGES: Final = ("false_positives", "matching", "products", "reliability", "rerun", "truth")
"""Modules of ``benchmarks/quality`` that a label depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """DIASources that passed the flag cuts, or looser ones.

    Parameters
    ----------
    names : (m,) features.    features : (n, m) float32.
    label : (n,) int8, see :mod:`benchmarks.quality.reliability`.
    cause : (n,) int8 in :data:`benchmarks.quality.false_positives.CAUSES`: what it would be, were it false.
    snr : (n,) float32, of the detection.    visit : (n,) int64, the detector-visit, counted.
    is_kept : (n,) bool, passed the cuts as they are.
    """

    names: NDArray[np.str_]
    features: NDArray[np.float32]
    label: NDArray[np.int8]
    cause: NDArray[np.int8]
    snr: NDArray[np.float32]
    visit: NDArray[np.int64]
    is_kept: NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """All rows, the detector-visits counted through."""
        rows = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls) if f.name != "names"}
        rows["visit"] = np.repeat(np.arange(len(parts)), [part.label.size for part in parts])
        return cls(names=parts[0].names, **rows)


LOOSER: Final[dict[str, Any]] = {
    "flag_cuts.max_star_residual": 0.012,
    "flag_cuts.max_dipole_share": 0.2,
    "flag_cuts.min_wing_share": 0.05,
    "flag_cuts.min_sharpness_sigma": 6.0,
    "flag_cuts.max_size_ratio": 4.0,
    "flag_cuts.max_halo_ratio": 12.0,
    "flag_cuts.max_aperture_excess_sigma": 5.0,
    "flag_cuts.max_chi2_sigma": 60.0,
    "flag_cuts.min_good_fraction": 0.6,
}
"""Cuts that let through what the usual ones just catch: more to learn from, and a model that survives new limits."""


WORSE: Final[dict[str, Any]] = {
    **LOOSER,
    "psf.structure.is_mapped": False,
    "subtract.kernel.local.is_mapped": False,
    "subtract.kernel.noise_removed": 0.0,
    "subtract.kernel.spatial_order": 0,
}
"""A pipeline that leaves a few percent of every star: what better subtraction leaves on other PSFs than the training's
looks the same, and on the training skies there is too little of it to learn from."""


def read_examples(dataset: Path, cache: Path, changes: Mapping[str, Any] = LOOSER) -> Iterator[Examples]:
    """Examples of every detector-visit of a dataset that gives a difference, from ``cache`` where nothing changed.

    Measured by the pipeline with these ``changes``. With others than :data:`LOOSER` no example counts as one that
    passes the usual cuts: the survey never sees it.
    """
    events = readouts(read_events(dataset))
    key = _digest(dataset)
    opened = None
    for event in events:
        name = f"{event['visit']}_{event['detector']:03d}" + ("" if changes is LOOSER else "_worse")
        path = cache / f"{name}-{key}.npz"
        if not path.is_file():
            opened = opened or open_dataset(dataset)
            for older in cache.glob(f"{name}-*.npz"):
                older.unlink()
            _write(path, _examine(opened, event, changes))
        with np.load(path, allow_pickle=False) as arrays:
            if arrays["label"].size:
                yield Examples(**{name: arrays[name] for name in Examples.__dataclass_fields__})


def _digest(dataset: Path) -> str:
    """Of the dataset's description, and of all code that makes, measures and labels DIASources; not of comments."""
    digest = hashlib.sha256((dataset / "dataset.json").read_bytes())
    here = Path(__file__)
    judges = (here.parent.parent / "quality" / f"{name}.py" for name in _JUDGES)
    for path in sorted([here, *Path(core.__file__).parent.rglob("*.py"), *judges]):
        digest.update(ast.dump(ast.parse(path.read_bytes())).encode())
    return digest.hexdigest()[:12]


def _examine(opened: Any, event: dict[str, Any], changes: Mapping[str, Any]) -> Examples:
    """The pipeline's first half, its features caught where they are scored, and the truth's word on each source."""
    from core.stages.flag_cuts import flag_cuts
    from core.stages.reliability import Reliability
    from core.stages.reliability_features import source_features

    usual = opened.pipeline.config
    caught: list[tuple[Any, Any]] = []

    def catch(measured: Any, around: Any) -> Reliability:
        """Number the rows instead of scoring them: sources without an object are dropped later."""
        caught.append((source_features(measured, around), flag_cuts(measured, usual.flag_cuts).is_kept))
        return Reliability(probability=np.arange(measured.sources.size, dtype=np.float32), version="none")

    opened.pipeline.score, opened.pipeline.config = catch, with_changes(usual, dict(changes))
    raw, bundle = opened.load(event)
    try:
        first = opened.measure(raw, bundle)
    except UnusableDataError:
        return _nothing()
    finally:
        opened.pipeline.config = usual
    if first.subtraction is None:
        return _nothing()
    products = _products(first, event)
    truth = read_truth(truth_file(opened.dataset, event["visit"], event["detector"]))
    rows = products.dia_sources["reliability"].astype(np.int64)
    table, is_kept = caught[-1]
    return Examples(
        names=np.array(table.names),
        features=table.values[rows],
        label=classify(products, truth),
        cause=cause_of(products, truth),
        snr=products.dia_sources["snr"],
        visit=np.zeros(rows.size, np.int64),
        is_kept=is_kept[rows] & (changes is LOOSER),
    )


def _products(first: Any, event: dict[str, Any]) -> Products:
    done = first.subtraction
    return Products(
        visit=event["visit"],
        detector=event["detector"],
        band=first.exposure.visit_info.band,
        difference=done.difference.frame,
        psf=done.difference.psf,
        dia_sources=done.sources,
        sources=first.sources,
        pixel_scale_arcsec=first.exposure.wcs.pixel_scale_arcsec,
    )


def _nothing() -> Examples:
    none = np.zeros(0, np.int8)
    return Examples(
        names=np.zeros(0, "U1"), features=np.zeros((0, 0), np.float32), label=none, cause=none,
        snr=np.zeros(0, np.float32), visit=np.zeros(0, np.int64), is_kept=np.zeros(0, bool),
    )  # fmt: skip


def _write(path: Path, examples: Examples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **{name: getattr(examples, name) for name in Examples.__dataclass_fields__})
    part.rename(path)
