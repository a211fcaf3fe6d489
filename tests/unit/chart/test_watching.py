"""Alerts and dashboard name only what the code exports; each alert leads to a row of the runbook."""

import json
import re
import runpy
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.records import Outcome
from tests.support.chart import CHART, ROOT, Document, kinds, load

ALERTS: Final = load(CHART / "files" / "alerts.yaml")["alerts"]
DASHBOARD: Final = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
OF_PROMETHEUS: Final = {"job", "role", "pod", "le"}
"""Labels that scraping adds, and a bucket's bound."""
SUFFIXES: Final = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def exported() -> dict[str, set[str]]:
    """Series by name -> their labels."""
    found = {}
    for metric in vars(Metrics(CollectorRegistry())).values():
        if isinstance(metric, CollectorRegistry):
            continue
        (family,) = metric.describe()
        for suffix in SUFFIXES[family.type]:
            found[family.name + suffix] = set(metric._labelnames)
    return found


EXPORTED: Final = exported()


def expressions() -> Iterator[tuple[str, str]]:
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


EXPRESSIONS: Final = list(expressions())


def test_the_code_exports_what_this_test_believes() -> None:
    assert EXPORTED["sub60_visits_total"] == {"outcome"}
    assert EXPORTED["sub60_alert_latency_seconds_bucket"] == set()
    assert "sub60_nothing_total" not in EXPORTED


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[f"{w}-{n}" for n, (w, _) in enumerate(EXPRESSIONS)])
def test_metrics_and_their_labels_exist(where: str, expression: str) -> None:
    names = set(re.findall(r"\bsub60_\w+", expression))
    assert names <= set(EXPORTED), where
    assert names or expression.startswith("up{")
    for name, selector in re.findall(r"\b(sub60_\w+|up)\{(.*?)\}", expression):
        labels = re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector)
        assert {label for label, _, _ in labels} <= EXPORTED.get(name, set()) | OF_PROMETHEUS
        for label, _, value in labels:
            if label == "outcome":
                assert set(value.split("|")) <= {outcome.value for outcome in Outcome}
    known = set[str]().union(*(EXPORTED[name] for name in names), OF_PROMETHEUS)
    for group in re.findall(r"by \((.*?)\)", expression):
        assert set(group.split(", ")) <= known


def test_no_metric_is_left_off_the_dashboard() -> None:
    shown = " ".join(expression for _, expression in expressions())
    missing = {
        name for name in EXPORTED if not name.endswith(("_sum", "_count")) and not re.search(rf"\b{name}\b", shown)
    }
    assert not missing


def test_the_dashboard_is_what_its_table_makes() -> None:
    text = runpy.run_path(str(ROOT / "helm" / "dashboard.py"))["text"]()
    assert (CHART / "files" / "dashboard.json").read_text(encoding="utf-8") == text


def test_every_alert_says_what_to_do_and_waits_a_while() -> None:
    rows = {
        line.split("|")[1].strip()
        for line in (ROOT / "docs" / "runbook.md").read_text().splitlines()
        if line.startswith("| ")
    }
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert alert["row"] in rows, alert["alert"]
        assert re.fullmatch(r"[1-9][0-9]?m", alert["for"])
        assert alert["severity"] in ("critical", "warning")
        used = set(re.findall(r"\$labels\.(\w+)", alert["summary"]))
        grouped = re.search(r"by \((.*?)\)", alert["expr"])
        kept = set(grouped.group(1).split(", ")) if grouped else set()
        if alert["expr"].startswith("up{"):
            kept = OF_PROMETHEUS  # nothing is added up
        assert used <= kept, alert["alert"]


def test_rendered_alerts_are_of_this_release(rendered: Callable[[str], tuple[Document, ...]]) -> None:
    objects = rendered("survey")
    (rule,) = kinds(objects, "PrometheusRule")
    rules = rule["spec"]["groups"][0]["rules"]
    assert [item["alert"] for item in rules] == [alert["alert"] for alert in ALERTS]
    for item in rules:
        assert 'job="sub60/night-sub60"' in item["expr"]
        assert "$JOB" not in json.dumps(item)
        assert "$PARTITIONS" not in json.dumps(item)
        assert item["annotations"]["runbook"] == "docs/runbook.md"
    (monitor,) = kinds(objects, "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["path"] == "/metrics"
    (board,) = (d for d in kinds(objects, "ConfigMap") if d["metadata"]["name"].endswith("-dashboard"))
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["sub60.json"]) == DASHBOARD
