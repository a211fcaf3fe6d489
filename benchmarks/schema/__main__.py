"""``python -m benchmarks.schema`` rewrites the JSON schema of the report from its model."""

import json
from pathlib import Path

from benchmarks.report import Report

if __name__ == "__main__":
    schema = json.dumps(Report.model_json_schema(by_alias=True), indent=1)
    (Path(__file__).parent / "report-1.json").write_text(schema + "\n", encoding="utf-8")
