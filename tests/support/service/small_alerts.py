"""Valid sources and alerts that cost nothing to make."""

import numpy as np

from alerts.codec import encode_alert
from core.contracts.catalogs import DIA_SOURCE, Catalog, empty_catalog
from core.ids import source_ids
from tests.unit.alerts.records import plain_record

NOTHING = (
    "observation_reason", "target_name", "prvDiaSources", "prvDiaForcedSources", "diaObject", "ssSource",
    "mpc_orbits", "cutoutDifference", "cutoutScience", "cutoutTemplate",
)  # fmt: skip
MIDPOINT_MJD_TAI = 60000.0


def small_sources(visit: int, detector: int, n: int) -> Catalog:
    """The first ``n`` sources of a visit-detector, as filled as an APDB wants them."""
    sources = empty_catalog(DIA_SOURCE, n)
    sources["diaSourceId"] = source_ids(1, visit, detector, np.arange(n))
    sources["visit"], sources["detector"], sources["band"] = visit, detector, "r"
    sources["midpointMjdTai"] = sources["timeProcessedMjdTai"] = MIDPOINT_MJD_TAI
    sources["ra"], sources["dec"] = 150.0 + 0.01 * np.arange(n), 2.0
    return sources


def small_alerts(sources: Catalog) -> list[bytes]:
    """One framed alert a source, with nothing but the source."""
    return [
        encode_alert(
            {"diaSourceId": int(row["diaSourceId"]), "diaSource": plain_record("diaSource", row)}
            | dict.fromkeys(NOTHING)
        )
        for row in sources
    ]
