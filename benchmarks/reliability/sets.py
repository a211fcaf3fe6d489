"""The simulated skies that the model learns from and those that judge it: other seeds, PSFs and cosmic rays."""

from dataclasses import dataclass
from typing import Any, Final

from benchmarks.simulator.config import SimulationConfig, preset


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSet:
    """One dataset: a sky of its own, one detector, a few visits."""

    name: str
    is_test: bool
    seed: int
    changes: dict[str, Any]

    def config(self) -> SimulationConfig:
        """What is simulated."""
        return preset("quality", seed=self.seed, visits=len(self.changes["seeing_arcsec"]), **self.changes)


_RICH: Final[dict[str, Any]] = {
    "transients": 400,
    "variables": 150,
    "movers": 60,
    "cosmic_rays": 150,
    "streak_fraction": 0.3,
    "star_density_factor": 2.0,
}
"""More of everything than a night has, so that few frames give many examples of each class."""

_OTHER: Final[dict[str, Any]] = {"psf_family": "moffat", "cosmic_ray_model": "muons", "variables": 80, "movers": 40}
"""The test's PSFs and cosmic rays are of another make; what is bogus stays as dense as the bench of quality has it."""


def _training(seed: int, detector: int, bands: tuple[str, ...], seeing: tuple[float, ...]) -> SimulatedSet:
    place = {"ra_deg": 36.9 + 4.0 * (seed - 21), "dec_deg": -4.8 - 3.0 * (seed - 21)}
    changes = {"detectors": (detector,), "bands": bands, "seeing_arcsec": seeing, **place, **_RICH}
    return SimulatedSet(name=f"train-{seed}", is_test=False, seed=seed, changes=changes)


def _test(seed: int, detector: int, bands: tuple[str, ...], seeing: tuple[float, ...]) -> SimulatedSet:
    place = {"ra_deg": 28.0 - 4.0 * (seed - 31), "dec_deg": -22.0 - 6.0 * (seed - 31)}
    changes = {"detectors": (detector,), "bands": bands, "seeing_arcsec": seeing, **place, **_OTHER}
    return SimulatedSet(name=f"test-{seed}", is_test=True, seed=seed, changes=changes)


SETS: Final = (
    _training(21, 94, ("r", "g"), (0.8, 0.55, 1.1, 0.7)),
    _test(31, 94, ("r", "i", "g"), (0.8, 0.55, 1.1)),
    _training(22, 4, ("i", "r"), (0.6, 0.9, 0.75, 1.15)),
    _training(23, 4, ("g", "z"), (0.65, 1.0, 0.85, 0.6)),
    _test(32, 4, ("g", "r", "i"), (0.8, 0.55, 1.1)),
    _training(24, 94, ("i", "y"), (1.05, 0.8, 0.55, 0.7)),
    _test(33, 94, ("i", "g"), (0.7, 0.95)),
    _training(25, 94, ("r", "u"), (0.7, 0.9, 0.95, 0.75)),
    _test(34, 4, ("r",), (0.65, 0.9)),
)
"""Each detector-visit costs half a minute to simulate, once; seeds 21 to 29 train, 31 to 39 test."""
