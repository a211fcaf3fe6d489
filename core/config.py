"""Configuration of the whole pipeline: the small frozen configs of the stages, side by side."""

from dataclasses import dataclass, field

from core.stages.associate import AssociateConfig
from core.stages.astrometry import AstrometryConfig
from core.stages.background import BackgroundConfig
from core.stages.bright_stars import BrightStarConfig
from core.stages.cosmic_rays import CosmicRayConfig
from core.stages.detect import DetectConfig
from core.stages.flag_cuts import FlagCutConfig
from core.stages.forced import ForcedConfig
from core.stages.isr import IsrConfig
from core.stages.measure import MeasureConfig
from core.stages.photometry import PhotometryConfig
from core.stages.psf import PsfConfig
from core.stages.sky_sources import SkyConfig
from core.stages.sources import SourcesConfig
from core.stages.streaks import StreakConfig
from core.stages.subtract import SubtractConfig
from core.stages.template import TemplateConfig
from core.stages.wide_features import WideFeaturesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """How every stage runs; the defaults are those of the survey."""

    release: int = 1
    """Data release in the ids, 0-63."""
    expected_fwhm_arcsec: float = 0.9
    """Seeing assumed until the PSF is measured."""
    min_template_coverage: float = 0.1
    """Below this fraction of pixels with template the outcome is ``no_template``."""
    n_threads: int = 2
    """Threads that share the long loops of a detector; the result is the same for any number."""
    optional_work_s: float = 20.0
    """With less of the clock left than this, dipole and trail fits and wide features are dropped."""
    isr: IsrConfig = field(default_factory=IsrConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    cosmic_rays: CosmicRayConfig = field(default_factory=CosmicRayConfig)
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    psf: PsfConfig = field(default_factory=PsfConfig)
    astrometry: AstrometryConfig = field(default_factory=AstrometryConfig)
    photometry: PhotometryConfig = field(default_factory=PhotometryConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    subtract: SubtractConfig = field(default_factory=SubtractConfig)
    streaks: StreakConfig = field(default_factory=StreakConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    flag_cuts: FlagCutConfig = field(default_factory=FlagCutConfig)
    bright_stars: BrightStarConfig = field(default_factory=BrightStarConfig)
    sky: SkyConfig = field(default_factory=SkyConfig)
    associate: AssociateConfig = field(default_factory=AssociateConfig)
    forced: ForcedConfig = field(default_factory=ForcedConfig)
    wide_features: WideFeaturesConfig = field(default_factory=WideFeaturesConfig)
