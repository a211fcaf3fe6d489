"""``make chart``: lint the chart, render every profile, hold each object against the schemas of Kubernetes.

Needs no cluster. Helm is built by Go into ``var/chart/bin`` once (minutes); the schemas are a package in a virtual
environment of their own, ``var/chart/venv``. Where Helm cannot be had, the last line says ``not checked`` and why, and
the exit status is 0: a machine without Go can still check everything else.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
CHART: Final = HERE / "sub60"
HELM: Final = "helm.sh/helm/v3/cmd/helm"
HELM_VERSION: Final = "v3.22.0"
VALUES: Final = {path.stem.removeprefix("values-"): path for path in sorted(CHART.glob("values-*.yaml"))} | {
    "everything": HERE / "everything.yaml",
    "redis-log": HERE / "redis-log.yaml",
}
"""Profiles, then what exercises the branches that no profile takes."""
KUBERNETES: Final = "1.28.0"
"""The oldest that the chart takes; Helm built by Go believes in 1.20."""


class NotCheckedError(Exception):
    """Helm or the schemas cannot be had here."""


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def find_helm(folder: Path, limit_s: float) -> Path:
    """Helm of our version, built if it is not there yet; raises NotCheckedError."""
    helm = folder / "bin" / f"helm-{HELM_VERSION}"
    if helm.exists():
        return helm
    if (go := shutil.which("go")) is None:
        raise NotCheckedError("there is no go to build helm with")
    say(f"building helm {HELM_VERSION} (once; 4 minutes of CPU)")
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"GOBIN": str(folder / "bin"), "GOFLAGS": "-buildvcs=false"}
    started = time.monotonic()
    process = subprocess.Popen(
        [go, "install", f"{HELM}@{HELM_VERSION}"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # go's compilers go with it
    )
    try:
        _, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        process.wait()
        raise NotCheckedError(
            f"helm was not built within {limit_s:.0f} s; what is compiled stays in go's cache"
        ) from None
    if process.returncode != 0:
        raise NotCheckedError(
            f"go cannot build helm: {said.strip().splitlines()[-1] if said.strip() else 'no reason given'}"
        )
    (folder / "bin" / "helm").rename(helm)
    say(f"helm built in {time.monotonic() - started:.0f} s")
    return helm


def find_python(folder: Path) -> Path:
    """A Python with the schemas, from the hashed lock; raises NotCheckedError."""
    lock = ROOT / "requirements" / "chart.lock"
    venv = folder / "venv"
    python, stamp = venv / "bin" / "python", venv / ".lock"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return python
    say("setting up the schemas of Kubernetes (once; 108 MB)")
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    done = subprocess.run([*install, "-r", str(lock)], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise NotCheckedError(f"the schemas cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    shutil.copyfile(lock, stamp)
    return python


def render(helm: Path, name: str, values: Path, out: Path) -> bool:
    """Lint the chart with these values and write what it renders; whether both went well."""
    chart = [str(CHART), "--values", str(values), "--kube-version", KUBERNETES]
    lint = subprocess.run(
        [str(helm), "lint", "--strict", "--quiet", *chart], capture_output=True, text=True, check=False
    )
    template = subprocess.run(
        [str(helm), "template", "night", *chart, "--namespace", "sub60"], capture_output=True, text=True, check=False
    )
    if lint.returncode != 0 or template.returncode != 0:
        say(f"{name}: {lint.stdout}{lint.stderr}{template.stderr}")
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(template.stdout, encoding="utf-8")
    return True


def main() -> int:
    """Exit status: 0 all well or not checked, 1 something is wrong with the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "chart", help="for helm and what is rendered")
    parser.add_argument("--build-limit-s", type=float, default=300.0, help="longest that helm may take to build [s]")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    started = time.monotonic()
    try:
        helm = find_helm(folder, arguments.build_limit_s)
        python = find_python(folder)
    except NotCheckedError as reason:
        say(f"not checked: {reason}")
        return 0
    rendered = folder / "rendered"
    shutil.rmtree(rendered, ignore_errors=True)
    went_well = [render(helm, name, values, rendered / f"{name}.yaml") for name, values in VALUES.items()]
    is_right = all(went_well)
    command = [str(python), str(HERE / "validate.py"), *map(str, sorted(rendered.glob("*.yaml")))]
    is_right &= subprocess.run(command, check=False).returncode == 0
    say(f"chart {'checked' if is_right else 'WRONG'} in {time.monotonic() - started:.0f} s")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
