"""The Grafana dashboard of the chart, from a table of panels: ``python helm/dashboard.py`` writes it anew."""

import json
from pathlib import Path
from typing import Any, Final

OUT: Final = Path(__file__).parent / "sub60" / "files" / "dashboard.json"
JOB: Final = 'job=~"$job"'
RANGE: Final = "$__rate_interval"
WIDTH: Final = 8
"""Of a panel; Grafana's grid has 24 columns."""
HEIGHT: Final = 7

Query = tuple[str, str]
"""Expression and legend."""


def _quantiles(metric: str, selector: str = "") -> list[Query]:
    chosen = f"{JOB},{selector}" if selector else JOB
    rate = f"sum by (le) (rate({metric}_bucket{{{chosen}}}[{RANGE}]))"
    return [(f"histogram_quantile({q}, {rate})", f"p{100 * q:g}") for q in (0.5, 0.95, 0.98)]


def _by(label: str, metric: str, selector: str = "") -> list[Query]:
    chosen = f"{JOB},{selector}" if selector else JOB
    legend = " ".join(f"{{{{{name}}}}}" for name in label.split(", "))
    return [(f"sum by ({label}) (rate({metric}{{{chosen}}}[{RANGE}]))", legend)]


def _stage_quantile(metric: str, q: float) -> list[Query]:
    rate = f"sum by (stage, le) (rate({metric}_bucket{{{JOB}}}[{RANGE}]))"
    return [(f"histogram_quantile({q}, {rate})", "{{stage}}")]


PANELS: Final[tuple[tuple[str, str, list[Query]], ...]] = (
    ("Alert latency: end of readout to commit", "s", _quantiles("sub60_alert_latency_seconds")),
    ("From shutter close", "s", _quantiles("sub60_shutter_latency_seconds")),
    ("End of readout to start of its job", "s", _quantiles("sub60_queue_seconds")),
    ("Readouts by outcome", "ops", _by("outcome", "sub60_visits_total")),
    (
        "Alerts, late readouts",
        "ops",
        [
            (f"sum(rate(sub60_alerts_total{{{JOB}}}[{RANGE}]))", "alerts"),
            (f"sum(rate(sub60_deadline_missed_total{{{JOB}}}[{RANGE}]))", "late"),
            (f"sum(rate(sub60_clock_suspect_total{{{JOB}}}[{RANGE}]))", "clock suspect"),
        ],
    ),
    ("Bytes of alerts", "Bps", [(f"sum(rate(sub60_alert_bytes_total{{{JOB}}}[{RANGE}]))", "alerts")]),
    ("Stages, wall time, p50", "s", _stage_quantile("sub60_stage_seconds", 0.5)),
    ("Stages, wall time, p95", "s", _stage_quantile("sub60_stage_seconds", 0.95)),
    ("Stages, CPU, p50", "s", _stage_quantile("sub60_stage_cpu_seconds", 0.5)),
    ("Commit", "s", _quantiles("sub60_commit_seconds")),
    ("Bundle parts in workers by source", "ops", _by("kind, source", "sub60_bundle_parts_total", 'role="worker"')),
    ("Prefetch of a bundle", "s", _quantiles("sub60_prefetch_seconds")),
    ("Prefetch, CPU", "s", _quantiles("sub60_prefetch_cpu_seconds")),
    ("Hints by fate", "ops", _by("state", "sub60_prepares_total")),
    ("Events by verdict", "ops", _by("topic, verdict", "sub60_events_total")),
    (
        "Readouts waiting, children busy",
        "short",
        [
            (f'sum(sub60_work_waiting{{{JOB},role="worker"}})', "waiting"),
            (f'sum(sub60_child_busy{{{JOB},role="worker"}})', "busy"),
        ],
    ),
    ("Partitions by worker", "short", [(f'sub60_partitions_owned{{{JOB},role="worker"}}', "{{pod}}")]),
    ("Lag of the sinks", "short", [(f'max by (sink) (sub60_sink_lag_records{{{JOB},role="archive"}})', "{{sink}}")]),
    ("Records the sinks have written", "ops", _by("sink", "sub60_sink_records_total")),
    ("Failed writes of the sinks", "ops", _by("sink", "sub60_sink_errors_total")),
    ("Failures by cause", "ops", _by("code", "sub60_failures_total")),
    ("Dead letters by cause", "ops", _by("code", "sub60_dead_letters_total")),
    ("Skipped Redis calls", "ops", _by("call", "sub60_redis_skipped_total")),
    (
        "Refused commits, failed calls of the log, replaced children",
        "ops",
        [
            (f"sum(rate(sub60_fenced_total{{{JOB}}}[{RANGE}]))", "refused"),
            (f"sum(rate(sub60_log_errors_total{{{JOB}}}[{RANGE}]))", "log"),
            (f"sum by (reason) (rate(sub60_child_restarts_total{{{JOB}}}[{RANGE}]))", "child {{reason}}"),
        ],
    ),
    (
        "Light-curve features",
        "ops",
        [
            (f"sum(rate(sub60_features_total{{{JOB}}}[{RANGE}]))", "written"),
            (f"sum(rate(sub60_features_dropped_total{{{JOB}}}[{RANGE}]))", "no time"),
        ],
    ),
    ("Alerts held by an operator", "short", [(f"max(sub60_alerts_held{{{JOB}}})", "held")]),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it; the data source and the PodMonitor's job are chosen in it."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "uid": "sub60",
        "title": "sub60",
        "tags": ["sub60"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "job",
                    "type": "query",
                    "datasource": source,
                    "query": "label_values(sub60_visits_total, job)",
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                },
            ]
        },
        "panels": [_panel(number, *panel, source) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, title: str, unit: str, queries: list[Query], source: dict[str, str]) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(queries)
        ],
    }


def text() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
