"""The Dockerfile's instructions carried out in a folder, by chroot: what an engine's build does, without one.

Needs root, and a folder with Debian bookworm and its python3.11 that stands in for the base image. Mounts are made in a
mount namespace of its own and vanish with the process, however it ends.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.image.dockerfile import DOCKERIGNORE, PASSIVE, ROOT, DockerfileError, Ignored, Instruction, Stage, expand

PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
REQUIRED: Final = "python3-venv,ca-certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The last stage: its folder and its environment."""

    root: Path
    environment: Mapping[str, str]


def make_base(folder: Path) -> None:
    """Debian bookworm with its Python, where there is none yet, from Debian's archive: about a minute."""
    if (folder / "usr/local/bin/python3.11").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={REQUIRED}", "bookworm", str(partial)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in ("python3.11", "python3", "python"):  # where the official image has its own
        (partial / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    shutil.rmtree(partial / "var/cache/apt", ignore_errors=True)
    partial.rename(folder)


def build(stages: Sequence[Stage], base: Path, folder: Path) -> Built:
    """Carry out all stages below ``folder``, which is empty; each starts as a copy of ``base``. The last is kept."""
    done: dict[str, Path] = {}
    environment: dict[str, str] = {}
    for stage in stages:
        root = folder / stage.name
        subprocess.run(["cp", "-a", str(base), str(root)], check=True)
        done[stage.name] = root
        environment = _StageBuild(root, done).run(stage)
    for used in done.values():
        if used != root:
            shutil.rmtree(used)
    return Built(root=root, environment=environment)


def environment_of(stage: Stage) -> dict[str, str]:
    """What ENV leaves of a stage whose values name no argument."""
    return {"PATH": PATH} | stage.environment()


class _StageBuild:
    """State of one stage under way."""

    def __init__(self, root: Path, done: Mapping[str, Path]) -> None:
        self._root = root
        self._done = done
        self._environment = {"PATH": PATH}
        self._arguments: dict[str, str] = {}
        self._folder = "/"
        self._ignored = Ignored(DOCKERIGNORE.read_text(encoding="utf-8").splitlines())

    def run(self, stage: Stage) -> dict[str, str]:
        """All instructions; the environment they leave."""
        for item in stage.instructions:
            if item.keyword == "RUN":
                started = time.monotonic()
                self._shell(item.value)
                print(f"RUN of {time.monotonic() - started:.0f} s: {item.value[:60]}…", flush=True)
            elif item.keyword == "COPY":
                self._copy(item)
            elif item.keyword == "ENV":
                known = self._arguments | self._environment
                self._environment |= {name: expand(value, known) for name, value in item.pairs.items()}
            elif item.keyword == "ARG":
                self._arguments |= item.pairs
            elif item.keyword == "WORKDIR":
                self._folder = item.value
                self._inside(item.value).mkdir(parents=True, exist_ok=True)
            elif item.keyword not in PASSIVE:
                raise DockerfileError(f"cannot be carried out: {item.keyword}")
        return self._environment

    def _shell(self, command: str) -> None:
        """Under /bin/sh -c, as an engine does; name resolution and authorities are this machine's."""
        with mounted_for_build(self._root):
            subprocess.run(
                ["chroot", str(self._root), "/bin/sh", "-c", f"cd {self._folder} && {command}"],
                env=self._arguments | self._environment | {"SSL_CERT_FILE": f"/{CERTIFICATES}"}
                | {"PIP_CERT": f"/{CERTIFICATES}", "HOME": "/root"},
                check=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _copy(self, item: Instruction) -> None:
        unknown = set(item.flags) - {"from"}
        if unknown:
            raise DockerfileError(f"COPY with {unknown} cannot be carried out")
        *sources, target = item.words
        inside = self._inside(target)
        if "from" in item.flags:
            source = self._done[item.flags["from"]] / sources[0].lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", str(source), str(inside)], check=True)
            return
        for name in sources:
            source = ROOT / name
            if source.is_dir():
                self._copy_context(source, inside)
            else:
                self._copy_file(source, inside / source.name if target.endswith("/") else inside)

    def _copy_context(self, source: Path, target: Path) -> None:
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.relative_to(ROOT) not in self._ignored:
                self._copy_file(path, target / path.relative_to(source))

    def _copy_file(self, source: Path, target: Path) -> None:
        if source.relative_to(ROOT) in self._ignored:
            raise DockerfileError(f"{source.relative_to(ROOT)} is kept out by .dockerignore")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if os.access(source, os.X_OK) and source.stat().st_mode & 0o111 else 0o644)

    def _inside(self, path: str) -> Path:
        return self._root / os.path.normpath(Path("/", self._folder, path)).lstrip("/")


@contextmanager
def mounted_for_build(root: Path) -> Iterator[None]:
    """/proc, /dev, resolv.conf and the authorities of this machine inside a root, for one command."""
    mount(root, "proc", kind="proc")
    mount(root, "dev", source="/dev")
    (root / "etc/resolv.conf").touch()
    borrowed = [name for name in ("etc/resolv.conf", CERTIFICATES) if Path("/", name).exists()]
    for name in borrowed:
        mount(root, name, source=f"/{name}")
    try:
        yield
    finally:
        for name in (*borrowed, "dev", "proc"):
            subprocess.run(["umount", str(root / name)], check=True)


def mount(root: Path, name: str, *, source: str = "", kind: str = "", options: str = "") -> None:
    """Mount a file system of a kind, or a folder or file of this machine, below ``root``.

    Only ever in a mount namespace of our own, which ``__main__.root`` makes.
    """
    target = root / name
    if source:
        subprocess.run(["mount", "--bind", source, str(target)], check=True)
        if options:
            subprocess.run(["mount", "-o", f"remount,bind,{options}", str(target)], check=True)
    else:
        extra = ["-o", options] if options else []
        subprocess.run(["mount", "-t", kind, *extra, kind, str(target)], check=True)
