"""JSON schemas from custom resource definitions: ``python helm/schemas/derive.py CRD.yaml …`` writes them here.

Needs PyYAML. Stricter than a cluster, which drops unknown fields in silence: here they are refused.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

DROPPED: Final = ("description", "default", "format")


def strict(schema: Any) -> Any:
    """``schema`` without texts, closed wherever it lists properties, Kubernetes' extensions said in JSON schema."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: {name: strict(part) for name, part in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and not (key in DROPPED and not isinstance(value, dict))
    }
    if schema.get("x-kubernetes-int-or-string"):
        kept.pop("anyOf", None)
        kept["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = False
    return kept


def derive(definition: dict[str, Any]) -> dict[str, Any]:
    """Kind, version and schema of a definition's stored version."""
    (version,) = (version for version in definition["spec"]["versions"] if version["storage"])
    kind = definition["spec"]["names"]["kind"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["apiVersion"] = {"const": f"{definition['spec']['group']}/{version['name']}"}
    schema["properties"]["kind"] = {"const": kind}
    schema["required"] = sorted({*schema.get("required", ()), "apiVersion", "kind", "metadata"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, **schema}


def main() -> None:
    """Write one file a definition."""
    for path in sys.argv[1:]:
        schema = derive(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        out = Path(__file__).parent / f"{schema['title'].lower()}.json"
        out.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
