"""Prometheus metrics: labels from closed sets, never an id; buckets shaped to the 60-second clock."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CLOCK_BUCKETS_S: Final = (
    0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120, 300,
)  # fmt: skip
STAGE_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 15)
CALL_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)


class Metrics:
    """All metrics of a process, made in the registry passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"sub60_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"sub60_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"sub60_{name}", text, labels, registry=registry, buckets=buckets)

        self.registry = registry
        self.stage = histogram("stage_seconds", "Wall time of a stage", STAGE_BUCKETS_S, "stage")
        self.stage_cpu = histogram("stage_cpu_seconds", "CPU time of a stage", STAGE_BUCKETS_S, "stage")
        self.latency = histogram("alert_latency_seconds", "End of readout to alerts committed", CLOCK_BUCKETS_S)
        self.shutter_latency = histogram(
            "shutter_latency_seconds", "Shutter close to alerts committed", CLOCK_BUCKETS_S
        )
        self.queue = histogram("queue_seconds", "End of readout to start of its job", CLOCK_BUCKETS_S)
        self.commit = histogram("commit_seconds", "Commit of one readout", CALL_BUCKETS_S)
        self.visits = counter("visits_total", "Readouts committed", "outcome")
        self.alerts = counter("alerts_total", "Alerts committed")
        self.alert_bytes = counter("alert_bytes_total", "Bytes of alerts committed")
        self.features = counter("features_total", "Light-curve features written, of one object each")
        self.features_dropped = counter("features_dropped_total", "Objects without light-curve features: no time")
        self.failures = counter("failures_total", "Failures by cause", "code")
        self.dead_letters = counter("dead_letters_total", "Messages given up", "code")
        self.bundle_parts = counter("bundle_parts_total", "Where bundle parts came from", "kind", "source")
        self.deadline_missed = counter("deadline_missed_total", "Readouts committed after the deadline")
        self.clock_suspect = counter("clock_suspect_total", "Readouts received far from t0")
        self.redis_skipped = counter("redis_skipped_total", "Bounded Redis calls given up", "call")
        self.child_restarts = counter("child_restarts_total", "Compute children replaced", "reason")
        self.events = counter("events_total", "Events taken by fan-out", "topic", "verdict")
        self.prepares = counter("prepares_total", "Hints by fate", "state")
        self.prefetch = histogram("prefetch_seconds", "Wall time of one bundle", CLOCK_BUCKETS_S)
        self.prefetch_cpu = histogram("prefetch_cpu_seconds", "CPU time of one bundle", CLOCK_BUCKETS_S)
        self.fenced = counter("fenced_total", "Commits refused because the partition moved on")
        self.log_errors = counter("log_errors_total", "Calls of the log that failed and were tried again")
        self.waiting = gauge("work_waiting", "Readouts waiting in this worker")
        self.partitions = gauge("partitions_owned", "Partitions this worker owns")
        self.partitions_stopped = gauge("partitions_stopped", "Partitions whose next work is another release's")
        self.alerts_held = gauge("alerts_held", "1 while this worker sends no alerts, by an operator's order")
        self.child_busy = gauge("child_busy", "1 while the compute child works")
        self.sink_lag = gauge("sink_lag_records", "Records a sink has not written", "sink")
        self.sink_records = counter("sink_records_total", "Records a sink has written", "sink")
        self.sink_errors = counter("sink_errors_total", "Writes of a sink that failed and were tried again", "sink")
