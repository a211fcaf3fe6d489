"""A small disk that can be filled: a tmpfs mounted in a folder, where this machine lets us."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SIZE_MB: Final = 1536


class NoVolumeError(RuntimeError):
    """This machine mounts nothing for us: a full disk cannot be tried."""


class Volume:
    """Mounted from :meth:`mount` until :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = False

    def mount(self) -> None:
        """Mount it; where that is not allowed the folder stays an ordinary one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0777", "sub60-test", str(self.folder)]
        with contextlib.suppress(FileNotFoundError):
            self.is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        """Take it away, with all that is in it."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
            self.is_mounted = False

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is left meanwhile."""
        if not self.is_mounted:
            raise NoVolumeError(f"no file system may be mounted at {self.folder}")
        filler = self.folder / "filler"
        block = bytes(1 << 20)
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while file.write(block[:size]) == size:
                        pass
        try:
            yield
        finally:
            filler.unlink()
