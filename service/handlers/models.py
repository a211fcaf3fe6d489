"""What the HTTP API answers, as its OpenAPI document publishes it. A number that is not finite is null in JSON."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

Number = float | None


class Problem(BaseModel):
    """Why there is no other answer."""

    code: str = Field(description="From a closed set.")
    message: str


class Percentiles(BaseModel):
    """By nearest rank; null where there is no value."""

    p50: Number
    p95: Number
    p99: Number
    max: Number


class Latency(BaseModel):
    """Of the commits whose latency counts [s]."""

    n: int
    latency_s: Percentiles = Field(description="Return of the commit minus end of readout.")
    shutter_latency_s: Percentiles = Field(description="Return of the commit minus end of exposure.")
    commit_s: Percentiles


class Worker(BaseModel):
    """A worker's last heartbeat."""

    worker: str
    at_tai_s: Number
    is_ready: bool
    partitions: list[int]
    n_waiting: int
    current: tuple[int, int] | None = Field(description="Visit and detector in the child.")
    alerts_held: bool
    control_offset: int = Field(description="Next operator's order this worker will read: those before are obeyed.")


class Summary(BaseModel):
    """Totals since this process reads, and the workers."""

    outcomes: dict[str, int]
    alerts: int
    alerts_held: bool = Field(description="By an operator's order.")
    hold_reason: str
    dead_letters: int
    bundle: dict[str, dict[str, int]] = Field(description="Parts by kind and by where they came from.")
    workers: list[Worker]


class VisitLine(BaseModel):
    """One detector-visit in short."""

    visit: int
    detector: int
    band: str
    outcome: str
    code: str
    message: str
    n_alerts: int
    wall_s: Number
    latency_s: Number
    commit_s: Number


class CommittedStatus(BaseModel):
    """When the alerts of a detector-visit became visible."""

    visit: int
    detector: int
    band: str
    outcome: str
    n_alerts: int
    committed_tai_s: Number
    commit_s: Number
    latency_s: Number
    shutter_latency_s: Number
    is_clock_suspect: bool
    reference_cpu_s: Number
    reference_wall_s: Number
    redrive: int


class DetectorStatus(BaseModel):
    """The manifest of a detector-visit, and its commit where that is known."""

    instrument: str
    group: str
    visit: int
    detector: int
    band: str
    outcome: str
    code: str
    message: str
    exposure_end_tai_s: Number
    readout_end_tai_s: Number
    received_tai_s: Number
    started_tai_s: Number
    commit_started_tai_s: Number
    is_clock_suspect: bool
    attempt: int
    worker: str
    counts: dict[str, int]
    summary: dict[str, Number]
    timings: list[tuple[str, Number, Number]] = Field(description="Stage, wall and CPU seconds.")
    wall_s: Number
    cpu_s: Number
    bundle: list[tuple[str, str, str, int]] = Field(description="Kind, source, digest and bytes of each part.")
    redis_skipped: list[str]
    n_alerts: int
    alert_bytes: int
    id_digest: str
    n_dropped: int
    redrive: int = Field(description="How often it was sent back to work before.")
    committed: CommittedStatus | None


class Letter(BaseModel):
    """A message that was given up."""

    topic: str
    partition: int
    code: str
    message: str
    payload: Annotated[str, Field(description="Its beginning, as text.")]
    at_tai_s: Number
    visit: int | None
    detector: int | None


Answers = dict[int | str, dict[str, Any]]
LIMITED: Final[Answers] = {
    429: {
        "model": Problem,
        "description": "More requests than the limit of a client",
        "headers": {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}},
    }
}
NOT_FOUND: Final[Answers] = {404: {"model": Problem, "description": "There is no such thing"}}
INVALID: Final[Answers] = {422: {"model": Problem, "description": "A parameter, or what was asked for, is invalid"}}
"""To routes with parameters."""
