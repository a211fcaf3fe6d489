"""The chart's files, and what helm makes of them where `make chart` has built it."""

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "sub60"
PROFILES: Final = {path.stem.removeprefix("values-"): path for path in sorted(CHART.glob("values-*.yaml"))}
CASES: Final = PROFILES | {name: ROOT / "helm" / f"{name}.yaml" for name in ("everything", "redis-log")}
"""Profiles, and the values that take the branches no profile takes."""

Document = dict[str, Any]


def load(path: Path) -> Document:
    """One YAML document."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    """Values as helm puts them together: maps are merged, all else replaced."""
    return dict(under) | {
        key: merged(under[key], value) if isinstance(value, Mapping) and isinstance(under.get(key), Mapping) else value
        for key, value in over.items()
    }


@cache
def _helm() -> Path | None:
    return next((ROOT / "var" / "chart" / "bin").glob("helm-*"), None)


@cache
def rendered_objects(name: str) -> tuple[Document, ...]:
    done = run_helm("--values", str(CASES[name]))
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm template` of a release `night`; skips where helm has not been built."""
    if (helm := _helm()) is None:
        pytest.skip("no helm in var/chart/bin: `make chart` builds it")
    command = [str(helm), "template", "night", str(CHART), "--namespace", "sub60", "--kube-version", "1.28.0"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def kinds(objects: tuple[Document, ...], kind: str) -> list[Document]:
    """Objects of a kind."""
    return [document for document in objects if document["kind"] == kind]


def pods(objects: tuple[Document, ...]) -> dict[str, Document]:
    """Pod templates by role."""
    templates = [d["spec"]["template"] for d in objects if d["kind"] in ("Deployment", "StatefulSet", "Job")]
    found = {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}
    assert len(found) == len(templates)
    return found


def environment(pod: Document) -> dict[str, str]:
    """Variables of a pod's container; what comes from a Secret or the pod's number is made up."""
    (container,) = pod["spec"]["containers"]
    values = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        values[variable["name"]] = variable.get("value", "7" if "fieldRef" in source else "made-up")
    assert len(values) == len(container["env"]), "a variable is set twice"
    return values
