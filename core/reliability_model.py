"""Reads the packaged reliability model; beside the cameras the only file that ``core`` opens."""

from functools import cache
from importlib.resources import as_file, files
from typing import Final

import numpy as np

from core.contracts.tree_model import TreeModel
from core.errors import ConfigurationError

PREFIX: Final = "reliability-"
ARRAYS: Final = ("root", "feature", "threshold", "left", "right", "value")


@cache
def load_reliability_model() -> TreeModel:
    """The one model in ``core/data``, read once a process; its version is part of the file's name."""
    found = sorted(
        (item for item in files("core").joinpath("data").iterdir() if item.name.endswith(".npz")), key=lambda i: i.name
    )
    if len(found) != 1 or not found[0].name.startswith(PREFIX):
        names = [item.name for item in found]
        raise ConfigurationError("core/data must hold one reliability model", code="bad_model", found=names)
    with as_file(found[0]) as path, np.load(path, allow_pickle=False) as arrays:
        return TreeModel(
            version=found[0].name.removeprefix(PREFIX).removesuffix(".npz"),
            feature_names=tuple(str(name) for name in arrays["feature_names"]),
            bias=float(arrays["bias"]),
            **{name: arrays[name] for name in ARRAYS},
        )
