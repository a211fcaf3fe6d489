"""Hard skies: what a night can bring beyond the usual, what it must end in, and the gates that hold it there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSky:
    """One hard sky: preset ``hard-NAME``.

    ``changes`` to the configuration (over ``quality`` and :data:`HARD_BASE`); ``outcomes``, any of which is right;
    ``gates`` (low, high) on figures of the run, None where open. Figures: ``completeness_snr6``, ``false_positives``,
    ``snr_map_sd``, ``masked_fraction``, ``n_detected``, ``time_ratio`` (CPU over R, against an easy sky's), ``ring``
    (largest mean of the difference in rings about the galaxy, over its pixels' noise).
    """

    name: str
    meaning: str
    changes: Mapping[str, object]
    outcomes: tuple[str, ...] = ("alerts",)
    gates: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def missed(self, figures: Mapping[str, Any]) -> list[str]:
        """Gates not kept, as text; a figure that is missing misses its gate."""
        found = []
        for name, (low, high) in self.gates.items():
            value = figures.get(name)
            if value is None or (low is not None and value < low) or (high is not None and value > high):
                found.append(f"{name} {'missing' if value is None else format(value, '.3g')} not in [{low}, {high}]")
        return found


HARD_BASE: Final[Mapping[str, object]] = {
    "detectors": (94,),
    "visits": 1,
    "bands": ("r",),
    "seeing_arcsec": (0.8,),
    "history_sources": 5,
    "history_forced": 10,
    "streak_fraction": 0.0,
}
"""What all hard skies share, and the easy one that times are compared with."""

EASY: Final = HardSky(
    name="easy",
    meaning="the usual sky, for comparison",
    changes={},
    gates={"completeness_snr6": (0.97, None), "snr_map_sd": (0.97, 1.03)},
)

HARD_SKIES: Final = (
    EASY,
    HardSky(
        name="crowded",
        meaning="a field of the Milky Way: 60,000 detections on the detector",
        changes={"star_density_factor": 85.0, "brightest_mag": 13.5, "galaxies_arcmin2": 4.0, "template_inputs": 3},
        gates={"time_ratio": (None, 3.0), "completeness_snr6": (0.6, None), "snr_map_sd": (0.9, 1.15)},
    ),
    HardSky(
        name="shallow",
        meaning="a template of two visits: half of the noise is its own",
        changes={"template_inputs": 2, "visits": 2, "bands": ("r", "i")},
        gates={"completeness_snr6": (0.95, None), "snr_map_sd": (0.97, 1.03)},
    ),
    HardSky(
        name="deep",
        meaning="a template of twenty visits: systematic errors stand alone",
        changes={"template_inputs": 20},
        gates={"completeness_snr6": (0.97, None), "snr_map_sd": (0.97, 1.03)},
    ),
    HardSky(
        name="sharp",
        meaning="science of 0.55 arcsec on a template of 1.0: the template cannot be matched by blurring it",
        changes={"seeing_arcsec": (0.55,), "template_seeing_arcsec": (0.98, 1.02)},
        # SNR_true is that of the sharp image; no difference with a template this blurred keeps it
        gates={"completeness_snr10": (0.98, None), "snr_map_sd": (0.95, 1.05)},
    ),
    HardSky(
        name="large-galaxy",
        meaning="an inclined disk with bulge and knots, 3 arcmin across: no ring of background around it",
        changes={"large_galaxy_mag": 12.0},
        gates={"completeness_snr6": (0.95, None), "ring": (None, 0.1)},
    ),
    HardSky(
        name="bright-star",
        meaning="a star of magnitude 6 on the detector: bleed, aureole, ghosts",
        changes={"bright_star_mag": 6.0},
        gates={"completeness_snr6": (0.95, None), "masked_fraction": (0.005, 0.35), "false_positives": (None, 60.0)},
    ),
    HardSky(
        name="partial",
        meaning="the template covers 30 % of the detector",
        changes={"template_coverage": 0.3, "template_inputs": 3},
        gates={"completeness_snr6": (0.95, None), "masked_fraction": (0.6, 0.8)},
    ),
    HardSky(
        name="off-pointing",
        meaning="the telescope points 60 arcsec away from where it says: found, or given up, never wrong",
        changes={"pointing_offset_arcsec": 60.0, "template_inputs": 3},
        outcomes=("astrometry_failed", "alerts"),
    ),
    HardSky(
        name="wrong-catalog",
        meaning="the reference catalog of another field",
        changes={"foreign_reference": True, "template_inputs": 2},
        outcomes=("astrometry_failed",),
    ),
    HardSky(
        name="stress-cr",
        meaning="400 cosmic-ray tracks",
        changes={"cosmic_rays": 400, "template_inputs": 3},
        gates={"completeness_snr6": (0.95, None), "false_positives": (None, 60.0)},
    ),
)
