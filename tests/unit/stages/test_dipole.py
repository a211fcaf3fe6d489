"""Dipoles with known lobes."""

import numpy as np
import pytest

from core.stages.measure import MeasureConfig, Measurement, ProcessingStamp, measure
from core.workspace import Workspace
from tests.support.sky_scene import Scene, detections_at

STAMP = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)


def run(
    scene: Scene, x: list[float], y: list[float], snr: list[float], config: MeasureConfig | None = None
) -> Measurement:
    difference, exposure, template = scene.build()
    return measure(
        difference, exposure, template, detections_at(x, y, snr), Workspace(), config or MeasureConfig(), STAMP
    )


def test_resolved_dipole_gives_fluxes_length_and_bearing() -> None:
    scene = Scene(rotation_deg=0.0, fwhm=4.0)
    flux = scene.flux_of_snr(60)
    scene.add_point(130.2, 128.0, flux)
    scene.add_point(124.7, 128.6, 0.9 * flux, plane="template")
    row = run(scene, [130.2], [128.0], [60.0]).sources[0]
    assert row["dipoleFitAttempted"] == 1
    assert row["isDipole"] == 1
    assert row["dipoleMeanFlux"] == pytest.approx(0.95 * flux, rel=0.04)
    assert abs(row["dipoleMeanFlux"] - 0.95 * flux) < 4 * row["dipoleMeanFluxErr"]
    assert abs(row["dipoleFluxDiff"] - 0.1 * flux) < 4 * row["dipoleFluxDiffErr"]
    assert row["dipoleLength"] == pytest.approx(0.2 * np.hypot(5.5, 0.6), rel=0.04)
    # rotation 0: +x is west and +y north, so the positive lobe lies west (bearing 270) and a little south
    truth = np.degrees(np.arctan2(-5.5, -0.6)) % 360
    assert (row["dipoleAngle"] - truth + 180) % 360 - 180 == pytest.approx(0, abs=2)
    assert row["dipoleChi2"] / row["dipoleNdata"] == pytest.approx(1, abs=0.3)


def test_star_subtracted_off_its_place_is_a_dipole() -> None:
    scene = Scene(fwhm=4.0)
    flux = scene.flux_of_snr(800)
    scene.add_point(128.0, 128.0, flux)
    scene.add_point(127.85, 128.05, flux, plane="template")
    row = run(scene, [130.0], [127.5], [20.0]).sources[0]
    assert row["isDipole"] == 1


def test_points_of_either_sign_are_no_dipoles() -> None:
    scene = Scene(shape=(510, 510))
    ticks = np.arange(40.0, 490.0, 40.0)
    x, y = (list(g.ravel()) for g in np.meshgrid(ticks, ticks))
    signs = np.resize([1.0, -1.0], len(x))
    for xi, yi, sign in zip(x, y, signs, strict=True):
        scene.add_point(xi, yi, scene.flux_of_snr(12), plane="science" if sign > 0 else "template")
    sources = run(scene, x, y, list(12 * signs)).sources
    assert (sources["isDipole"] == 1).mean() < 0.01
    assert np.isnan(sources["dipoleLength"][sources["dipoleFitAttempted"] == 0]).all()


def test_the_fit_can_be_dropped() -> None:
    scene = Scene()
    scene.add_point(130.0, 128.0, scene.flux_of_snr(60))
    scene.add_point(125.0, 128.0, scene.flux_of_snr(60), plane="template")
    config = MeasureConfig(is_dipole_fitted=False, is_trail_fitted=False)
    row = run(scene, [130.0], [128.0], [60.0], config).sources[0]
    assert row["dipoleFitAttempted"] == -1
    assert np.isnan(row["dipoleMeanFlux"])
