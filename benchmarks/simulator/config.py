"""What one dataset simulates: numbers and switches, frozen, with a digest that names the result."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Final

from benchmarks.simulator.hard import HARD_BASE, HARD_SKIES
from benchmarks.simulator.photometry import BANDS

PSF_FAMILIES: Final = ("von_karman", "moffat")
COSMIC_RAY_MODELS: Final = ("tracks", "muons")
NEVER_SIMULATED: Final = (
    "charge transfer inefficiency and tree rings",
    "differential refraction, aberration and DCR elongation inside a PSF",
    "scattered light beyond aureole and ghosts",
    "fringing and amplifier glow",
    "template inputs are simulated as calibrated frames: no readout effects but noise and saturation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """One switch an effect; all that are off are named in ``not_simulated``."""

    aureole: bool = True
    psf_variation: bool = True
    chromatic_psf: bool = True
    brighter_fatter: bool = True
    turbulence: bool = True
    dcr: bool = True
    proper_motion: bool = True
    pointing_error: bool = True
    shutter: bool = True
    sky_gradient: bool = True
    overscan_drift: bool = True
    bias_structure: bool = True
    nonlinearity: bool = True
    crosstalk: bool = True
    dark: bool = True
    flat: bool = True
    dome_error: bool = True
    defects: bool = True
    saturation: bool = True
    bleeds: bool = True
    cosmic_rays: bool = True
    satellite_streaks: bool = True
    """On ``streak_fraction`` of the detector-visits."""
    ghosts: bool = False
    calibration_noise: bool = True
    reference_errors: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """One dataset. Angles degrees, lengths arcsec or pixel as named, times seconds."""

    preset: str = "demo"
    seed: int = 1
    camera: str = "lsstcam"
    detectors: tuple[int, ...] = (94, 4)
    visits: int = 3
    bands: tuple[str, ...] = ("r", "i")
    """Bands of the visits, in turn."""
    seeing_arcsec: tuple[float, ...] = (0.80, 0.70, 0.95)
    """Delivered FWHM of the visits, in turn."""
    ra_deg: float = 36.9
    dec_deg: float = -4.8
    rot_sky_deg: float = 8.0
    pointing_offset_arcsec: float = 0.0
    """On top of the usual pointing error of 1-5 arcsec."""
    dither_arcsec: float = 20.0
    dither_rot_deg: float = 0.1
    start_mjd_tai: float = 61364.13
    day_obs: int = 20261119
    first_sequence: int = 120
    exposure_s: float = 30.0
    readout_s: float = 2.4
    cadence_s: float = 11.0
    """Between readouts of consecutive visits in the replayed events; the headers' times follow the real cadence."""
    lead_s: float = 9.0
    """Between a visit's next-visit event and its readouts in the replayed events."""
    gaia_stars_deg2: float = 8800.0
    star_density_factor: float = 1.0
    brightest_mag: float = 12.0
    galaxies_arcmin2: float = 17.5
    """Galaxies with r < 24.5."""
    faintest_mag: float = 25.2
    variables: int = 80
    transients: int = 160
    bright_transients: int = 8
    """Transients far above ``snr_range``: they measure the floor of astrometry and the bias of fluxes."""
    movers: int = 8
    bright_star_mag: float | None = None
    """A star this bright in every band, on the first detector."""
    large_galaxy_mag: float | None = None
    """A galaxy of 3 arcmin in the middle of the first detector."""
    foreign_reference: bool = False
    """The reference catalog is of another field: right density, wrong stars."""
    edge_margin_pix: float = 200.0
    """Variables and lasting transients keep this much away from the detector's edge."""
    snr_range: tuple[float, float] = (3.0, 100.0)
    bright_snr_range: tuple[float, float] = (200.0, 2000.0)
    variable_snr_range: tuple[float, float] = (8.0, 100.0)
    template_inputs: int = 5
    template_seeing_arcsec: tuple[float, float] = (0.65, 0.95)
    """Range of the inputs' seeing: good seeing is preferred as in real coadds."""
    template_coverage: float = 1.0
    """Fraction of a group of detectors that the template reaches, from the east."""
    template_padding_arcsec: float = 56.0
    template_rotation_deg: float = 4.0
    tract_shape: tuple[int, int] = (81920, 81920)
    patch_size: int = 1024
    cell_size: int = 256
    template_psf_size: int = 41
    history_days: float = 365.0
    history_sources: int = 44
    history_forced: int = 66
    other_objects: int = 150
    """DIAObjects of the past that do not vary now."""
    psf_family: str = "von_karman"
    """Or ``moffat``: another family, aureole and spatial structure, for test sets."""
    cosmic_ray_model: str = "tracks"
    """Or ``muons``: Landau deposits, scattered electrons and spots, for test sets."""
    cosmic_rays: int = 50
    streak_fraction: float = 0.0
    """Of the detector-visits that a satellite crosses."""
    calibration_frames: int = 20
    psf_grid: int = 5
    effects: Effects = field(default_factory=Effects)

    def digest(self) -> str:
        """Short hash of everything above; equal digests mean equal datasets."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def band(self, visit_index: int) -> str:
        """Band of a visit by its place in the sequence."""
        return self.bands[visit_index % len(self.bands)]

    def not_simulated(self) -> list[str]:
        """Names of what is missing from the pixels."""
        off = [f.name for f in fields(self.effects) if not getattr(self.effects, f.name)]
        if self.effects.satellite_streaks and self.streak_fraction == 0:
            off.append("satellite_streaks")
        return [*off, *NEVER_SIMULATED]

    def __post_init__(self) -> None:
        unknown = set(self.bands) - set(BANDS)
        if unknown:
            raise ValueError(f"unknown bands {sorted(unknown)}")
        if self.psf_family not in PSF_FAMILIES:
            raise ValueError(f"psf_family {self.psf_family!r} is none of {PSF_FAMILIES}")
        if self.cosmic_ray_model not in COSMIC_RAY_MODELS:
            raise ValueError(f"cosmic_ray_model {self.cosmic_ray_model!r} is none of {COSMIC_RAY_MODELS}")


def preset(name: str, **changes: object) -> SimulationConfig:
    """Configuration ``demo``, ``test``, ``quality`` or of a hard sky (``hard-...``) with fields changed."""
    values: dict[str, object] = {"preset": name, **_PRESETS[name], **changes}
    return SimulationConfig(**values)  # type: ignore[arg-type]


_QUALITY: Final[dict[str, object]] = {
    "bands": ("g", "r", "i"),
    # each band meets each seeing
    "seeing_arcsec": (0.8, 0.55, 1.1, 0.55, 1.1, 0.8, 1.1, 0.8, 0.55),
    "variables": 60,
    "transients": 206,
    "template_seeing_arcsec": (0.55, 0.75),
    "streak_fraction": 0.15,
    "effects": Effects(ghosts=True),
}
_PRESETS: Final[dict[str, dict[str, object]]] = {
    "demo": {},
    "quality": _QUALITY,
    "test": {
        "camera": "testcam",
        "detectors": (0, 1),
        "bands": ("r", "i"),
        "dither_arcsec": 2.0,
        "rot_sky_deg": 5.0,
        "template_padding_arcsec": 14.0,
        "tract_shape": (4096, 4096),
        "patch_size": 256,
        "cell_size": 64,
        "template_psf_size": 31,
        "star_density_factor": 14.0,
        "brightest_mag": 15.5,
        "variables": 8,
        "transients": 12,
        "bright_transients": 2,
        "movers": 3,
        "edge_margin_pix": 24.0,
        "cosmic_rays": 5,
        "other_objects": 6,
        "psf_grid": 3,
    },
}
_PRESETS.update({f"hard-{sky.name}": {**_QUALITY, **HARD_BASE, **sky.changes} for sky in HARD_SKIES})
PRESETS: Final = tuple(_PRESETS)
