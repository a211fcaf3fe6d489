"""Our pipeline on one raw, timed stage by stage, and the frames that the peers are given."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.cost import Cost, from_run, of_runs, reference_cpu_s
from benchmarks.quality.products import signs
from benchmarks.report import DIA_STAGES_END
from core.contracts.bundle import Bundle
from core.contracts.exposure import Frame, RawExposure, Template, VisitInfo
from core.contracts.psf import PsfModel
from core.contracts.wcs import Wcs
from core.errors import ConfigurationError
from core.flags import Mask
from service.settings import read_settings, use_compiled_cache

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

REMAINING_S: Final = 60.0
"""The whole clock: no optional work is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One pass of the pipeline: stage -> (wall s, CPU s), and R before and after it."""

    stages: dict[str, tuple[float, float]]
    before_s: float
    after_s: float

    def cost(self, names: tuple[str, ...]) -> Cost:
        """Of these stages together."""
        wall_s = sum(self.stages[name][0] for name in names if name in self.stages)
        cpu_s = sum(self.stages[name][1] for name in names if name in self.stages)
        return from_run(cpu_s, wall_s, self.before_s, self.after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the peers are given of one detector-visit.

    Parameters
    ----------
    frame : as instrument signature removal leaves it [e-], with the sky; no cosmic ray is masked in it.
    template : the bundle's cutout of the coadd on the coadd's own grid [nJy].
    predicted : WCS by the pointing alone.
    stars : (n, 2) pixels (x, y) of the stars that made our PSF.
    star_ra, star_dec : (m,) reference stars at the visit's epoch [deg], with ``star_error_mas``, AB ``star_mag``.
    fwhm_pix, sky_sigma : seeing and noise of the sky [e-] as our pipeline measured them.
    read_noise, saturation : medians over the amplifiers [e-].
    """

    visit_info: VisitInfo
    frame: Frame
    template: Template
    predicted: Wcs
    stars: Float64
    star_ra: Float64
    star_dec: Float64
    star_error_mas: Float64
    star_mag: Float64
    fwhm_pix: float
    sky_sigma: float
    read_noise: float
    saturation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Our results on the same raw.

    Parameters
    ----------
    runs : the timed passes; ``dia_stages`` are those from the raw's bytes to the DIASource catalog.
    sky : (ny, nx) background that our stage subtracts from the peers' frame [e-].
    cosmic_rays : (ny, nx) pixels masked CR.
    sources : (n, 2) pixels (x, y) of our sources, with their sky positions ``ra``, ``dec`` by the solved WCS.
    dia_x, dia_y : (m,) DIASources brighter than the template that passed the flag cuts [pixel].
    """

    runs: tuple[Run, ...]
    dia_stages: tuple[str, ...]
    psf: PsfModel
    wcs: Wcs
    sky: Float32
    cosmic_rays: NDArray[np.bool_]
    sources: Float64
    ra: Float64
    dec: Float64
    dia_x: Float64
    dia_y: Float64

    def cost(self, names: tuple[str, ...] | None = None) -> Cost:
        """Median cost of some stages; of all up to the DIASource catalog where none are named."""
        return of_runs([run.cost(names or self.dia_stages) for run in self.runs])

    def reference_cpu_s(self) -> float:
        """Median R around the runs."""
        return median(value for run in self.runs for value in (run.before_s, run.after_s))


class Pass:
    """The pipeline on one readout, as often as wanted, in buffers that stay warm."""

    def __init__(self, dataset: Path, event: dict[str, Any]) -> None:
        use_compiled_cache(read_settings())  # before the first kernel is imported
        from core.config import PipelineConfig
        from core.pipeline import Pipeline
        from core.stopwatch import Clock
        from core.workspace import Workspace
        from service.storage.datastore import Datastore
        from service.storage.raw import RawLimits

        self._datastore = Datastore(dataset)
        self._clock = Clock(wall=time.perf_counter, cpu=time.thread_time)
        config = PipelineConfig(release=self._datastore.info.release)
        self.pipeline = Pipeline(self._datastore.camera, config, self._clock)
        self._limits, self._raw_workspace = RawLimits(roots=(dataset,)), Workspace()
        self._event = event
        self.raw = self._read()
        self.bundle = self._load()

    def _read(self) -> RawExposure:
        from service.storage.raw import read_raw

        return read_raw(self._event["uri"], self._datastore.camera, self._limits, self._raw_workspace)

    def _load(self) -> Bundle:
        from core.workspace import Workspace
        from service.storage.bundle import load_bundle
        from service.storage.memory import MemoryCache
        from service.storage.recipe import BundleKey

        info = self.raw.visit_info
        key = BundleKey(
            instrument=info.instrument,
            group=info.group,
            detector=info.detector,
            band=info.band,
            mjd_tai=info.midpoint_mjd_tai,
            ra_deg=info.ra_deg,
            dec_deg=info.dec_deg,
            rot_sky_deg=info.rot_sky_deg,
            visit=self._event["visit"],
        )
        return load_bundle(key, MemoryCache(1 << 20), None, self._datastore, None, Workspace())

    def calibrated(self) -> tuple[Frame, Float32]:
        """What instrument signature removal leaves [e-], and the sky our background stage sees in it [e-]."""
        from core.stages.background import subtract_background
        from core.stages.isr import isr
        from core.workspace import Workspace

        config, workspace = self.pipeline.config, Workspace()
        detector = self._datastore.camera.detectors[self.raw.visit_info.detector]
        work = isr(self.raw, self.bundle.calibrations, detector, workspace, config.isr)
        frame = Frame(image=work.image.copy(), variance=work.variance.copy(), mask=work.mask.copy())
        subtract_background(work, workspace, config.background)
        return frame, frame.image - work.image

    def run(self, image: Float32) -> tuple[Run, Any]:
        """Raw file to associated DIASources, with R on ``image`` before and after."""
        from core.stopwatch import Stopwatch

        before_s, watch = reference_cpu_s(image), Stopwatch(self.pipeline.clock)
        with watch.stage("read"):
            self.raw = self._read()
        mjd = self.raw.visit_info.midpoint_mjd_tai
        first = self.pipeline.measure(self.raw, self.bundle, lambda: None, lambda: REMAINING_S, mjd, watch)
        stages = {timing.name: (timing.wall_s, timing.cpu_s) for timing in watch.timings}
        return Run(stages=stages, before_s=before_s, after_s=reference_cpu_s(image)), first


def run_ours(dataset: Path, event: dict[str, Any], repeats: int, tell: Callable[[str], None]) -> tuple[Inputs, Ours]:
    """Run the pipeline once to warm up and ``repeats`` times with the clock; the last pass is the one compared."""
    tell("our pipeline: warming up")
    work = Pass(dataset, event)
    frame, sky = work.calibrated()
    work.run(frame.image)
    runs = []
    for turn in range(repeats):
        tell(f"our pipeline: run {turn + 1} of {repeats}")
        run, first = work.run(frame.image)
        runs.append(run)
    if first.subtraction is None:
        raise ConfigurationError("this detector-visit has no template to subtract", visit=event["visit"])
    return _inputs(work, first, frame), _results(first, tuple(runs), sky)


def _inputs(work: Pass, first: Any, frame: Frame) -> Inputs:
    from core.stages.pointing import predict_wcs
    from core.stages.star_motion import positions_at_epoch

    info, calibrations, template = first.exposure.visit_info, work.bundle.calibrations, work.bundle.template
    assert template is not None
    references = work.bundle.reference_stars
    references = references[references["isStar"] & (references[f"{info.band}_flux"] > 0)]
    ra, dec = positions_at_epoch(references, info.midpoint_mjd_tai)
    flux = references[f"{info.band}_flux"].astype(np.float64)
    stars = first.sources[first.sources["isPsfStar"]]
    return Inputs(
        visit_info=info,
        frame=frame,
        template=template,
        predicted=predict_wcs(work.pipeline.camera, info.detector, info.ra_deg, info.dec_deg, info.rot_sky_deg),
        stars=np.stack([stars["x"], stars["y"]], axis=-1),
        star_ra=ra,
        star_dec=dec,
        star_error_mas=np.hypot(references["raErr"], references["decErr"]).astype(np.float64) / np.sqrt(2),
        star_mag=31.4 - 2.5 * np.log10(flux),
        fwhm_pix=first.exposure.psf.fwhm_pix(),
        sky_sigma=first.summary["sky_sigma_electron"],
        read_noise=float(np.median(calibrations.read_noise)),
        saturation=float(np.median(calibrations.saturation * calibrations.gain)),
    )


def _results(first: Any, runs: tuple[Run, ...], sky: Float32) -> Ours:
    assert first.subtraction is not None
    names = tuple(runs[0].stages)
    found, sources = first.subtraction.sources, first.sources
    brighter = found[signs(found) > 0]
    ra, dec = first.exposure.wcs.pixel_to_sky(sources["x"], sources["y"])
    return Ours(
        runs=runs,
        dia_stages=names[: names.index(DIA_STAGES_END) + 1],
        psf=first.exposure.psf,
        wcs=first.exposure.wcs,
        sky=sky,
        cosmic_rays=(first.exposure.frame.mask & np.uint16(Mask.CR)) != 0,
        sources=np.stack([sources["x"], sources["y"]], axis=-1),
        ra=ra,
        dec=dec,
        dia_x=brighter["x"].astype(np.float64),
        dia_y=brighter["y"].astype(np.float64),
    )
