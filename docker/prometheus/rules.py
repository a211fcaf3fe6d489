"""Prometheus' rules from the chart's alerts: run once by the compose file, in our image.

``python rules.py ALERTS.yaml RULES.yaml JOB PARTITIONS``; without alerts the rules are empty.
"""

import sys
from pathlib import Path
from typing import Any

import yaml


def rules_of(alerts: str, job: str, partitions: str) -> dict[str, Any]:
    """One group of rules; ``$JOB`` and ``$PARTITIONS`` filled in, as the chart does."""
    filled = alerts.replace("$JOB", job).replace("$PARTITIONS", str(int(partitions)))
    rules = [
        {
            "alert": item["alert"],
            "expr": item["expr"],
            "for": item["for"],
            "labels": {"severity": item["severity"]},
            "annotations": {"summary": item["summary"], "runbook_row": item["row"], "runbook": "docs/runbook.md"},
        }
        for item in (yaml.safe_load(filled) or {}).get("alerts", [])
    ]
    return {"groups": [{"name": "sub60", "rules": rules}]}


def main() -> None:
    """Read, fill in, write."""
    source, target, job, partitions = sys.argv[1:]
    path = Path(source)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rules = rules_of(text, job, partitions)
    Path(target).write_text(yaml.safe_dump(rules, sort_keys=False, width=1000), encoding="utf-8")


if __name__ == "__main__":
    main()
