"""Prometheus' rules of the compose file."""

from importlib.util import module_from_spec, spec_from_file_location

import yaml

from tests.image.compose import COMPOSE, filled_example, read_compose
from tests.image.dockerfile import ROOT

SPEC = spec_from_file_location("rules", COMPOSE.parent / "prometheus" / "rules.py")
RULES = module_from_spec(SPEC)
SPEC.loader.exec_module(RULES)
CHART = ROOT / "helm" / "sub60" / "files" / "alerts.yaml"
ALERTS = """
alerts:
  - alert: A
    expr: sum(owned{job="$JOB"}) < $PARTITIONS
    for: 3m
    severity: critical
    row: worker lost a partition
    summary: "{{ $value }} of $PARTITIONS; {{ $labels.pod }}"
"""


def test_placeholders_are_filled_and_prometheus_own_are_left():
    (group,) = RULES.rules_of(ALERTS, "sub60", "4")["groups"]
    assert group["rules"] == [
        {
            "alert": "A", "expr": 'sum(owned{job="sub60"}) < 4', "for": "3m", "labels": {"severity": "critical"},
            "annotations": {
                "summary": "{{ $value }} of 4; {{ $labels.pod }}",
                "runbook_row": "worker lost a partition", "runbook": "docs/runbook.md",
            },
        }
    ]  # fmt: skip


def test_without_alerts_there_are_no_rules():
    assert RULES.rules_of("", "sub60", "4") == {"groups": [{"name": "sub60", "rules": []}]}


def test_step_writes_where_prometheus_looks(tmp_path, monkeypatch):
    services = read_compose(filled_example())["services"]
    _, target, job, partitions = services["rules"]["command"]
    source = tmp_path / "alerts.yaml"
    source.write_text(ALERTS)
    monkeypatch.setattr("sys.argv", ["rules.py", str(source), str(tmp_path / "rules.yaml"), job, partitions])
    RULES.main()
    assert yaml.safe_load((tmp_path / "rules.yaml").read_text())["groups"][0]["rules"]
    config = yaml.safe_load((COMPOSE.parent / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert job == config["scrape_configs"][0]["job_name"]
    written = {item.rpartition("/")[0]: item for item in services["rules"]["volumes"]}
    assert "rules:/var/lib/sub60" in written.values()
    assert "rules:/etc/sub60/rules:ro" in services["prometheus"]["volumes"]
    assert config["rule_files"] == ["/etc/sub60/rules/" + target.removeprefix("/var/lib/sub60/")]


def test_the_charts_alerts_become_rules():
    text = CHART.read_text(encoding="utf-8") if CHART.exists() else ALERTS
    (group,) = RULES.rules_of(text, "sub60", "4")["groups"]
    assert len(group["rules"]) == text.count("- alert:")
    assert not any("$JOB" in rule["expr"] or "$PARTITIONS" in rule["expr"] for rule in group["rules"])
