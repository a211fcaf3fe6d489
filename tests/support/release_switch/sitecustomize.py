"""Which release a process of a site runs; for tests of upgrades only.

Python imports this module before anything else in each process that has its folder on ``PYTHONPATH``, and nothing but
``tests.faults.releases`` puts it there. The plan, a file that ``RELEASE_PLAN`` names, says where the release's code is
and, for a release that is made up, what it writes and reads. A role stays with what it found at its start, and so do
its children, as they would from one image; the supervisor, which stands for the machinery of a deployment, starts each
role by the plan of that moment.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgpack


def choose() -> dict[str, Any]:
    """The release of this process."""
    text = os.environ.get("RELEASE_PINNED") or Path(os.environ["RELEASE_PLAN"]).read_text(encoding="utf-8")
    if "all" not in sys.orig_argv:
        os.environ["RELEASE_PINNED"] = text
    release: dict[str, Any] = json.loads(text)
    return release


def drop_unknown_settings() -> None:
    """An environment of that release would not have what it does not know."""
    settings = importlib.import_module("service.settings")
    known = {settings.PREFIX + name.upper() for name in settings.Settings.model_fields}
    for name in [name for name in os.environ if name.startswith(settings.PREFIX) and name not in known]:
        del os.environ[name]


def write_as(records: Any, lacks: list[str], adds: dict[str, Any]) -> None:
    """Records as of a release whose fields were others."""
    pack = records.pack

    def packed(record: Any) -> bytes:
        message = msgpack.unpackb(pack(record), strict_map_key=False)
        kept = {name: value for name, value in message["fields"].items() if name not in lacks}
        return bytes(msgpack.packb(message | {"fields": kept | adds}))

    records.pack = packed


def become(release: dict[str, Any]) -> None:
    """Its code first; then its numbers and fields, before any module has taken them from where they are defined."""
    sys.path.insert(0, release["code"])
    if release["is_foreign"]:
        drop_unknown_settings()
    for module, values in release["values"].items():
        for name, value in values.items():
            setattr(importlib.import_module(module), name, value)
    if release["lacks"] or release["adds"]:
        write_as(importlib.import_module("service.records"), release["lacks"], release["adds"])


become(choose())
