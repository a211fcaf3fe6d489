"""The names of the topics; all but ``work`` have one partition on Redis Streams."""

from typing import TYPE_CHECKING, Final

from service.log.contract import Retention

if TYPE_CHECKING:
    from service.settings import Settings

NEXT_VISIT: Final = "next-visit"
READOUT: Final = "readout"
WORK: Final = "work"
ALERTS: Final = "alerts"
FEATURES: Final = "features"
MANIFESTS: Final = "manifests"
RESULTS: Final = "results"
COMMITTED: Final = "committed"
DEAD_LETTERS: Final = "deadletters"
STATUS: Final = "status"
CONTROL: Final = "control"
HEARTBEAT: Final = "heartbeat"

INPUTS: Final = (NEXT_VISIT, READOUT)
ALL: Final = (
    *INPUTS, WORK, ALERTS, FEATURES, MANIFESTS, RESULTS, COMMITTED, DEAD_LETTERS, STATUS, CONTROL, HEARTBEAT,
)  # fmt: skip


def retention(settings: "Settings") -> dict[str, Retention]:
    """How long each topic is kept where the server drops by itself; orders are kept for ever."""
    size = settings.keep_partition_mb << 20 if settings.keep_partition_mb else None
    kept = Retention(settings.keep_days, size)
    short = Retention(min(settings.keep_days, 1.0), size)
    return dict.fromkeys(ALL, kept) | {STATUS: short, HEARTBEAT: short, CONTROL: Retention()}


def partition_counts(log_url: str, partitions: int) -> dict[str, int]:
    """Partitions of every topic. On Redis the alerts are one stream; a real broker spreads them."""
    wide = (WORK, ALERTS, FEATURES) if log_url.startswith("kafka:") else (WORK,)
    return {topic: partitions if topic in wide else 1 for topic in ALL}
