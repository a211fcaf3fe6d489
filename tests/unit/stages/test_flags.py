"""Flag cuts: what is kept, what is not, and why."""

import numpy as np
import pytest

from core.flags import Mask
from core.stages.flag_cuts import CutReason, FlagCutConfig, FlagCuts, flag_cuts
from core.stages.measure import MeasureConfig, Measurement, ProcessingStamp, measure
from core.workspace import Workspace
from tests.support.reference.measurement import trail_image
from tests.support.sky_scene import Scene, detections_at, psf_image

STAMP = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)


def run(scene: Scene, x: list[float], y: list[float], snr: list[float], half: int = 6) -> Measurement:
    difference, exposure, template = scene.build()
    detections = detections_at(x, y, snr, half=half)
    return measure(difference, exposure, template, detections, Workspace(), MeasureConfig(), STAMP)


def cut(measured: Measurement) -> FlagCuts:
    return flag_cuts(measured, FlagCutConfig())


@pytest.mark.parametrize("fwhm", [2.8, 4.0, 6.0])
@pytest.mark.parametrize("snr", [6.0, 12.0, 100.0])
def test_point_sources_pass(fwhm: float, snr: float) -> None:
    scene = Scene(shape=(510, 510), fwhm=fwhm)
    random = np.random.default_rng(3)
    ticks = 40 * (np.arange(11) + 1.0)
    x, y = (g.ravel() + random.uniform(-0.5, 0.5, 121) for g in np.meshgrid(ticks, ticks))
    for xi, yi in zip(x, y, strict=True):
        scene.add_point(xi, yi, scene.flux_of_snr(snr))
    cuts = cut(run(scene, list(x), list(y), [snr] * 121))
    # at SNR 6 noise takes 2 % below the limit on the fitted flux
    assert cuts.is_kept.mean() >= (0.93 if snr < 7 else 0.99), cuts.counts
    assert sum(cuts.counts.values()) == 121


def test_cosmic_rays_are_seen_through() -> None:
    scene = Scene(fwhm=4.0)
    for i in range(5):
        scene.science[40 + 40 * i, 100] += 600.0
        scene.science[40 + 40 * i, 160:164] += 400.0
    y = [40.0 + 40 * i for i in range(5)]
    cuts = cut(run(scene, [100.0] * 5 + [161.5] * 5, y + y, [30.0] * 10))
    assert (cuts.reason[:5] == CutReason.COSMIC_RAY).all()
    assert not cuts.is_kept.any()


@pytest.mark.parametrize("bit", [Mask.NODATA, Mask.CR, Mask.EDGE, Mask.STREAK])
def test_masked_centers_are_cut(bit: Mask) -> None:
    scene = Scene()
    scene.add_point(100.0, 100.0, scene.flux_of_snr(50))
    scene.add_point(180.0, 180.0, scene.flux_of_snr(50))
    scene.mask[100, 101] = bit
    cuts = cut(run(scene, [100.0, 180.0], [100.0, 180.0], [50.0, 50.0]))
    assert cuts.reason.tolist() == [CutReason.CENTER_MASKED, CutReason.KEPT]
    assert cuts.counts["center_masked"] == 1
    assert cuts.counts["kept"] == 1


@pytest.mark.parametrize("bit", [Mask.BAD, Mask.SAT, Mask.SAT_TEMPLATE, Mask.INTERPOLATED])
def test_a_bad_pixel_cuts_at_the_center_and_not_beside_it(bit: Mask) -> None:
    scene = Scene()
    scene.add_point(100.0, 100.0, scene.flux_of_snr(50))
    scene.add_point(180.0, 180.0, scene.flux_of_snr(50))
    scene.mask[100, 100] = bit
    scene.mask[180, 181] = bit
    cuts = cut(run(scene, [100.0, 180.0], [100.0, 180.0], [50.0, 50.0]))
    assert cuts.reason.tolist() == [CutReason.CENTER_MASKED, CutReason.KEPT]


def test_fast_trails_are_cut_and_slow_ones_kept() -> None:
    scene = Scene(shape=(400, 400))
    flux = scene.flux_of_snr(150)
    # 10 deg/day is 12.5 arcsec or 62.5 pixels in 30 s
    scene.science += 3 * flux * trail_image(psf_image(4.0), 150.0, 100.0, 35.0, 0.0, scene.shape)
    scene.science += flux * trail_image(psf_image(4.0), 150.0, 300.0, 6.0, 0.0, scene.shape)
    cuts = cut(run(scene, [150.0, 150.0], [100.0, 300.0], [50.0, 60.0], half=40))
    assert cuts.reason.tolist() == [CutReason.FAST_TRAIL, CutReason.KEPT]


def test_residual_of_a_bright_star_is_cut_but_its_outburst_is_not() -> None:
    scene = Scene()
    star = scene.flux_of_snr(3000)
    for x, change in ((80.0, 0.005), (180.0, 0.5)):
        scene.add_point(x, 100.0, (1 + change) * star)
        scene.add_point(x, 100.0, star, plane="template")
    cuts = cut(run(scene, [80.0, 180.0], [100.0, 100.0], [15.0, 1500.0]))
    assert cuts.reason.tolist() == [CutReason.STAR_RESIDUAL, CutReason.KEPT]


@pytest.fixture(scope="module")
def points() -> Measurement:
    """Two points of S/N 50 on an empty sky."""
    scene = Scene()
    for x in (80.0, 180.0):
        scene.add_point(x, 100.0, scene.flux_of_snr(50))
    return run(scene, [80.0, 180.0], [100.0, 100.0], [50.0, 50.0])


def edited(points: Measurement, **columns: object) -> Measurement:
    """A copy with other values in the second row."""
    sources = points.sources.copy()
    for name, value in columns.items():
        sources[name][1] = value
    return Measurement(sources=sources, quality=points.quality)


def test_what_is_left_of_the_wings_of_a_bright_star_is_cut(points: Measurement) -> None:
    config, row = FlagCutConfig(), points.sources[1]
    flux = float(row["psfFlux"])
    # the matched template took away much more than what is left: light that neither PSF explains
    for times, reason in ((1.1, CutReason.STAR_RESIDUAL), (0.9, CutReason.KEPT)):
        wing = times * flux / config.min_wing_share
        cuts = cut(edited(points, scienceFlux=row["templateFlux"] + flux + wing))
        assert cuts.reason.tolist() == [CutReason.KEPT, reason]
    # without a significant wing nothing is said
    small = 0.9 * config.min_wing_snr * float(row["psfFluxErr"])
    lax = FlagCutConfig(min_wing_share=1e9)
    one = edited(points, scienceFlux=row["templateFlux"] + flux + small)
    assert flag_cuts(one, lax).reason[1] == CutReason.KEPT
    assert flag_cuts(one, FlagCutConfig(min_wing_share=1e9, min_wing_snr=5.0)).reason[1] == CutReason.STAR_RESIDUAL


def test_a_fit_worse_than_noise_is_cut_and_a_star_beneath_excuses_it(points: Measurement) -> None:
    config, row = FlagCutConfig(), points.sources[1]
    flux, error = float(row["psfFlux"]), float(row["psfFluxErr"])
    degrees = row["psfNdata"] - 3
    limit = 1 + config.max_chi2_sigma * np.sqrt(2 / degrees) + (config.chi2_snr_share * flux / error) ** 2
    no_star = {"scienceFlux": 0.0, "templateFlux": np.nan}
    for times, reason in ((0.99, CutReason.KEPT), (1.01, CutReason.BAD_FIT)):
        assert cut(edited(points, psfChi2=times * limit * degrees, **no_star)).reason[1] == reason
    star = 1000 * error
    on_star = {"scienceFlux": star + flux, "templateFlux": star}
    limit += (config.chi2_star_share * (star + flux) / error) ** 2
    for times, reason in ((0.99, CutReason.KEPT), (1.01, CutReason.BAD_FIT)):
        assert cut(edited(points, psfChi2=times * limit * degrees, **on_star)).reason[1] == reason
    assert cut(edited(points, psfChi2=np.nan)).reason[1] == CutReason.BAD_FIT


def test_reasons_are_counted_once_by_the_first_that_applies(points: Measurement) -> None:
    both = edited(points, psfFluxErr=points.sources["psfFlux"][1], psfChi2=np.inf)
    cuts = cut(both)
    assert cuts.reason.tolist() == [CutReason.KEPT, CutReason.BAD_FIT]
    assert cuts.counts == {why.name.lower(): int(why in (CutReason.KEPT, CutReason.BAD_FIT)) for why in CutReason}
    faint = cut(edited(points, psfFluxErr=points.sources["psfFlux"][1] / 3.9, scienceFlux=0.0, psfChi2=1.0))
    assert faint.reason[1] == CutReason.FAINT
