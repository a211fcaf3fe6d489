"""The targets, by name. The code of one is ``package.module:Class``, loaded in its own process only."""

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from tests.fuzz.target import Lane, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A target and how it is run."""

    spec: str
    lanes: tuple[Lane, ...] = (Lane(),)
    leak_bytes: int = 24 << 20
    """Growth of the resident memory over the last half of a run that is called a leak."""


TARGETS: Final = {
    "events": Entry(spec="tests.fuzz.targets.events:Events"),
    "avro": Entry(spec="tests.fuzz.targets.avro:Avro"),
    "fits": Entry(
        spec="tests.fuzz.targets.fits:Fits",
        lanes=(
            Lane(share=0.7),
            # reads behind an array's end raise there; kernels compiled so must not be mistaken for the others
            Lane(name="bounds", share=0.3, env={"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": "var/fuzz/numba_bounds"}),
        ),
    ),
    "http": Entry(spec="tests.fuzz.targets.http:Http", leak_bytes=48 << 20),
}


def load(spec: str) -> type[Target]:
    """The class of a target."""
    module, _, name = spec.partition(":")
    found: type[Target] = getattr(import_module(module), name)
    return found
