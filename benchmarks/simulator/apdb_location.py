"""Where a dataset's alert production database lies; apart from its writer, which is slow to import."""

import re
from pathlib import Path


def rebase_apdb(out: Path) -> None:
    """Point ``apdb/config.yaml`` to where the dataset lies now: its URL is absolute and folders get moved."""
    path = out / "apdb" / "config.yaml"
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    here = f"db_url: sqlite:///{(out / 'apdb' / 'apdb.sqlite').resolve()}"
    moved = re.sub(r"^db_url: .*$", lambda _: here, text, flags=re.MULTILINE)
    if moved != text:
        path.write_text(moved, encoding="utf-8")
