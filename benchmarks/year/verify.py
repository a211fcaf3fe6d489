"""Holds a replayed campaign against its truth, and what was emitted against itself recomputed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fastavro
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from alerts.check import check_alert
from alerts.features import decode_features
from benchmarks.year.campaign import FIRST_ASTEROID, SPURIOUS, Campaign, Visit
from benchmarks.year.recompute import FEATURES, dia_object, light_curve, worst
from core.contracts.bundle import History
from core.contracts.catalogs import BANDS, Catalog
from core.ids import source_ids
from service.bundle_loader import LazyApdb
from service.settings import Settings

Int64 = NDArray[np.int64]

RADIUS_DEG: Final = 0.6
PASSING_ARCSEC: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class YearFigures:
    """Figures of a year against truth."""

    sources: int
    objects: int
    forced_sources: int
    repeated: int
    on_right_object: float
    """Of the detections of an object after its first, the part on the object that most of its detections are on."""
    duplicate_objects: int
    """Pairs of DIAObjects within 1 arcsec that began with detections of one true object."""
    pairs_within_arcsec: int
    """All pairs of DIAObjects within 1 arcsec; detections of nothing begin objects beside true ones."""
    asteroids_detected: int
    asteroids_matched: float
    stationary_matched: float
    """Part of the detections of objects that were taken for an asteroid."""
    chi2_sources: float
    chi2_forced: float
    """Reduced, of the emitted fluxes about the true ones."""
    alerts_checked: int
    alerts_with_ss_source: int
    object_columns: tuple[str, float]
    """DIAObject column of the checked alerts that differs most from its recomputation out of the packet's rows."""
    features_checked: int
    feature_columns: tuple[str, float]
    """The same of light-curve features."""


def labels(campaign: Campaign, release: int = 1) -> tuple[Int64, Int64, NDArray[np.float64]]:
    """diaSourceId, label and true flux of every detection of the campaign, ids ascending."""
    ids, names, fluxes = [], [], []
    for visit in campaign.visits:
        for detector in campaign.config.detectors:
            found = campaign.detections(visit, detector)
            ids.append(source_ids(release, visit.visit, detector, np.arange(found.label.size, dtype=np.int64)))
            names.append(found.label)
            fluxes.append(found.true_flux)
    order = np.argsort(np.concatenate(ids))
    return np.concatenate(ids)[order], np.concatenate(names)[order], np.concatenate(fluxes)[order]


def verify(campaign: Campaign, settings: Settings, features: list[bytes]) -> YearFigures:
    """Read the whole APDB and a part of the alert files; ``features`` as far as the topic holds them."""
    config = campaign.config
    rows = LazyApdb(settings.apdb_config).read_region(config.ra_deg, config.dec_deg, RADIUS_DEG, config.end_mjd_tai + 1)
    ids, label, true_flux = labels(campaign)
    place = np.searchsorted(ids, rows.dia_sources["diaSourceId"])
    assert (ids[place] == rows.dia_sources["diaSourceId"]).all(), "a DIASource that was never detected"
    label, true_flux = label[place], true_flux[place]
    n_repeated, right, owner = _associated(rows, label)
    is_asteroid, is_object = label >= FIRST_ASTEROID, (label >= 0) & (label < FIRST_ASTEROID)
    matched = rows.dia_sources["ssObjectId"]
    pull = (rows.dia_sources["psfFlux"] - true_flux)[label != SPURIOUS]
    packets = _Packets(rows, features)
    packets.check(settings.state_dir / "alerts")
    return YearFigures(
        sources=int(rows.dia_sources.size),
        objects=int(rows.dia_objects.size),
        forced_sources=int(rows.dia_forced_sources.size),
        repeated=n_repeated,
        on_right_object=right,
        duplicate_objects=_duplicates(rows, owner),
        pairs_within_arcsec=len(_close_pairs(rows)),
        asteroids_detected=int(is_asteroid.sum()),
        asteroids_matched=float((matched[is_asteroid] == label[is_asteroid]).mean()) if is_asteroid.any() else 1.0,
        stationary_matched=float((matched[is_object] > 0).mean()),
        chi2_sources=float(np.mean((pull / rows.dia_sources["psfFluxErr"][label != SPURIOUS]) ** 2)),
        chi2_forced=_forced_chi2(campaign, rows, owner),
        alerts_checked=packets.n_alerts,
        alerts_with_ss_source=packets.n_ss,
        object_columns=packets.worst_object,
        features_checked=packets.n_features,
        feature_columns=packets.worst_feature,
    )


def _associated(rows: History, label: Int64) -> tuple[int, float, dict[int, int]]:
    """Repeated detections of true objects, the part on the right DIAObject, and DIAObject → true object."""
    is_object = (label >= 0) & (label < FIRST_ASTEROID)
    truth, found = label[is_object], rows.dia_sources["diaObjectId"][is_object]
    order = np.argsort(rows.dia_sources["midpointMjdTai"][is_object], kind="stable")
    truth, found = truth[order], found[order]
    n_repeated = n_right = 0
    owner: dict[int, int] = {}
    for name in np.unique(truth):
        mine = found[truth == name]
        values, counts = np.unique(mine, return_counts=True)
        right = int(values[counts.argmax()])
        n_repeated += mine.size - 1
        n_right += int((mine[1:] == right).sum())
        for value in values:
            owner.setdefault(int(value), int(name))
        owner[right] = int(name)
    return n_repeated, n_right / max(n_repeated, 1), owner


def _close_pairs(rows: History) -> set[tuple[int, int]]:
    ra, dec = np.radians(rows.dia_objects["ra"]), np.radians(rows.dia_objects["dec"])
    points = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    return set(cKDTree(points).query_pairs(np.radians(1 / 3600)))


def _duplicates(rows: History, owner: dict[int, int]) -> int:
    names = [owner.get(int(number), SPURIOUS) for number in rows.dia_objects["diaObjectId"]]
    return sum(names[a] == names[b] != SPURIOUS for a, b in _close_pairs(rows))


def _forced_chi2(campaign: Campaign, rows: History, owner: dict[int, int]) -> float:
    """Of the forced fluxes of objects that belong to one true object, asteroids that pass by left out."""
    forced = rows.dia_forced_sources
    name = np.array([owner.get(int(number), SPURIOUS) for number in forced["diaObjectId"]])
    chi2, n = 0.0, 0
    for visit in campaign.visits:
        mine = (forced["visit"] == visit.visit) & (name >= 0) & np.isfinite(forced["psfFlux"])
        mine[mine] = ~_passed(campaign, visit, forced[mine])
        truth = campaign.flux(visit)[name[mine]]
        pull = (forced["psfFlux"][mine] - truth) / forced["psfFluxErr"][mine]
        chi2, n = chi2 + float((pull**2).sum()), n + int(mine.sum())
    return chi2 / max(n, 1)


def _passed(campaign: Campaign, visit: Visit, forced: Catalog) -> NDArray[np.bool_]:
    """Whether an asteroid's light falls on a forced source."""
    ra, dec = campaign.asteroids(visit).at(visit.mjd_tai)
    east = (forced["ra"][:, None] - ra) * np.cos(np.radians(forced["dec"][:, None])) * 3600
    north = (forced["dec"][:, None] - dec) * 3600
    return np.asarray((np.hypot(east, north) < PASSING_ARCSEC).any(axis=1), bool)


class _Packets:
    """Some of the alerts, decoded, checked, and their object's columns computed again."""

    def __init__(self, rows: History, features: list[bytes]) -> None:
        forced = rows.dia_forced_sources
        self._forced = {(int(row["diaObjectId"]), int(row["visit"]), int(row["detector"])): row for row in forced}
        found = (decode_features(value) for value in features)
        self._features = {(record["diaObjectId"], record["visit"], record["detector"]): record for record in found}
        self.n_alerts = self.n_ss = self.n_features = 0
        self.worst_object: tuple[str, float] = ("", 0.0)
        self.worst_feature: tuple[str, float] = ("", 0.0)

    def check(self, folder: Path) -> None:
        """The first alert of each block of all files: one in about thirty."""
        for path in sorted(folder.glob("*.avro")):
            for record in _first_of_blocks(path):
                check_alert(record)
                self.n_alerts += 1
                if record["ssSource"] is None:
                    self._recompute(record)
                    continue
                self.n_ss += 1
                assert record["diaObject"] is None
                assert record["diaSource"]["ssObjectId"] == record["ssSource"]["ssObjectId"]

    def _recompute(self, record: dict[str, Any]) -> None:
        found, source = record["diaObject"], record["diaSource"]
        key = (found["diaObjectId"], source["visit"], source["detector"])
        sources = [*(record["prvDiaSources"] or []), source]
        forced = [*(record["prvDiaForcedSources"] or []), _as_row(self._forced[key])]
        expected = dia_object(sources, forced)
        self.worst_object = max(self.worst_object, worst(found, expected, expected), key=lambda pair: pair[1])
        if (features := self._features.get(key)) is None:
            return
        self.n_features += 1
        for band in BANDS:
            curve = {f"{band}_{name}": value for name, value in light_curve(forced, band).items()}
            names = [f"{band}_{name}" for name in FEATURES]
            self.worst_feature = max(self.worst_feature, worst(features, curve, names), key=lambda pair: pair[1])


def _first_of_blocks(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for block in fastavro.block_reader(file):
            record = next(iter(block))
            assert isinstance(record, dict)
            yield record


def _as_row(row: Any) -> dict[str, Any]:
    """A catalog's row as a packet has it: nulls for what is not finite."""
    values = {name: row[name].item() for name in row.dtype.names}
    return {n: None if isinstance(v, float) and not np.isfinite(v) else v for n, v in values.items()}
