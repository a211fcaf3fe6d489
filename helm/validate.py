"""Hold rendered objects against Kubernetes' schemas, strictly, and custom ones against ``schemas/``.

Runs in ``var/chart/venv``, where kubernetes-validate is: ``python helm/validate.py RENDERED.yaml …``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

SCHEMAS: Final = Path(__file__).resolve().parent / "schemas"
VERSIONS: Final = ("1.28", kubernetes_validate.latest_version())
"""The oldest that the chart takes, and the newest known."""
CUSTOM: Final = ("keda.sh/", "monitoring.coreos.com/")


def problems(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one object."""
    if document["apiVersion"].startswith(CUSTOM):
        schema = json.loads((SCHEMAS / f"{document['kind'].lower()}.json").read_text(encoding="utf-8"))
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
            yield f"{error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"


def main() -> int:
    """Exit status 1 if any object of any file is wrong, or a file has none."""
    n_wrong = 0
    for path in map(Path, sys.argv[1:]):
        documents = [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item]
        found = [
            f"{item['kind']} {item['metadata']['name']}: {text}" for item in documents for text in problems(item)
        ] or ([] if documents else ["nothing is rendered"])
        n_wrong += len(found)
        sys.stdout.write(f"{path.stem:12} {len(documents):3} objects{'' if not found else ', WRONG:'}\n")
        sys.stdout.writelines(f"  {text}\n" for text in found)
    return 1 if n_wrong or len(sys.argv) == 1 else 0


if __name__ == "__main__":
    sys.exit(main())
