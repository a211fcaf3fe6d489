"""Which alerts a wrong calibration has made: by the digests in the manifests, from topic and files."""

from pathlib import Path

import pytest

from alerts.files import write_alerts
from core.errors import Outcome
from service import topics
from service.log.contract import Record
from service.recall import find_uses, ids_of
from service.records import Manifest, pack
from tests.support.service.builders import T0, VISIT
from tests.support.service.memory_log import MemoryLog
from tests.support.service.small_alerts import small_alerts, small_sources

N = 3
DIGESTS = ("good", "wrong", "wrong", "good")
"""Of the calibrations of four visits."""


def quiet(_name: str, _n: int, _total: int) -> None:
    """Nobody watches."""


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    for n, digest in enumerate(DIGESTS):
        for detector in (0, 7):
            manifest = Manifest(
                instrument="LSSTCam",
                group="g",
                visit=VISIT + n,
                detector=detector,
                band="r",
                outcome=Outcome.ALERTS,
                readout_end_tai_s=T0 + 30 * n,
                bundle=(("calibrations", "redis", f"{digest}-{detector}", 1), ("template", "cold", "t", 1)),
                n_alerts=N,
            )
            log.append([Record(topics.MANIFESTS, b"", pack(manifest))])
            sources = small_sources(VISIT + n, detector, N)
            pairs = zip(sources["diaSourceId"].tolist(), small_alerts(sources), strict=True)
            log.append([Record(topics.ALERTS, b"%d" % number, alert) for number, alert in pairs])
    return log


def test_each_content_with_the_visits_that_it_has_made(log: MemoryLog) -> None:
    uses = find_uses(log, "calibrations", 0.0, T0 + 1000, quiet)  # type: ignore[arg-type]
    assert [(u.detector, u.digest, u.visits, sum(u.n_alerts.values())) for u in uses] == [
        (0, "good-0", [VISIT, VISIT + 3], 2 * N),
        (0, "wrong-0", [VISIT + 1, VISIT + 2], 2 * N),
        (7, "good-7", [VISIT, VISIT + 3], 2 * N),
        (7, "wrong-7", [VISIT + 1, VISIT + 2], 2 * N),
    ]
    (late,) = [u for u in find_uses(log, "calibrations", T0 + 50, T0 + 70, quiet) if not u.detector]  # type: ignore[arg-type]
    assert late.visits == [VISIT + 2]
    template = next(iter(find_uses(log, "template", 0.0, T0 + 1000, quiet)))  # type: ignore[arg-type]
    assert template.visits == [VISIT + n for n in range(4)]


def test_ids_come_from_the_topic_and_from_files_of_what_it_has_no_more(log: MemoryLog, tmp_path: Path) -> None:
    wanted = {(VISIT + n, detector) for n in (1, 2) for detector in (0, 7)}
    truth = sorted(i for key in wanted for i in small_sources(*key, N)["diaSourceId"].tolist())
    assert ids_of(log, tmp_path, wanted, quiet) == truth  # type: ignore[arg-type]
    messages = log.topics[topics.ALERTS]
    write_alerts(tmp_path / "alerts-000-000000000000000.avro", [m.value for m in messages[: 4 * N]])
    log.cut(topics.ALERTS, 4 * N)
    assert ids_of(log, tmp_path, wanted, quiet) == truth  # type: ignore[arg-type]
    (tmp_path / "alerts-000-000000000000000.avro").unlink()
    assert ids_of(log, tmp_path, wanted, quiet) == truth[2 * N :]  # type: ignore[arg-type]
