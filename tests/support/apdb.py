"""Fresh APDBs without paying for their tables each time."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from service.storage.apdb import ApdbStore, create_apdb


@cache
def _made_once() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sub60-apdb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    create_apdb(f"sqlite:///{folder}/apdb.sqlite", folder / "config.yaml")
    return folder


def make_apdb(folder: Path) -> ApdbStore:
    """An empty APDB in ``folder``."""
    source = _made_once()
    shutil.copy(source / "apdb.sqlite", folder)
    config = (source / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace(str(source), str(folder)))
    return ApdbStore(str(folder / "config.yaml"))
