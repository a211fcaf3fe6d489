"""Trails with known length and bearing."""

import numpy as np
import pytest

from core.stages.measure import MeasureConfig, ProcessingStamp, measure
from core.workspace import Workspace
from tests.support.reference.measurement import trail_image
from tests.support.sky_scene import Scene, detections_at, psf_image

STAMP = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)


@pytest.mark.parametrize(("length_pix", "angle_deg"), [(6.0, 20.0), (15.0, 75.0), (40.0, 140.0)])
def test_length_bearing_and_flux(length_pix: float, angle_deg: float) -> None:
    scene = Scene(rotation_deg=0.0, shape=(200, 200))
    flux = scene.flux_of_snr(120)
    a, b = length_pix / 2 * np.cos(np.radians(angle_deg)), length_pix / 2 * np.sin(np.radians(angle_deg))
    scene.science += flux * trail_image(psf_image(4.0), 100.3, 99.8, a, b, scene.shape)
    difference, exposure, template = scene.build()
    detections = detections_at([100.3], [99.8], [60.0], half=6 + round(length_pix / 2))
    row = measure(difference, exposure, template, detections, Workspace(), MeasureConfig(), STAMP).sources[0]
    assert row["trail_flag"] == 0
    assert row["trailLength"] == pytest.approx(0.2 * length_pix, rel=0.06)
    assert abs(row["trailLength"] - 0.2 * length_pix) < 4 * row["trailLengthErr"]
    assert row["trailFlux"] == pytest.approx(flux, rel=0.05)
    # rotation 0: +x is west, +y north; a bearing is taken modulo 180
    truth = np.degrees(np.arctan2(-a, b)) % 180
    assert (row["trailAngle"] - truth + 90) % 180 - 90 == pytest.approx(0, abs=2.5)
    assert row["trailAngleErr"] < 3
    ra, dec = exposure.wcs.pixel_to_sky(100.3, 99.8)
    assert abs(row["trailRa"] - ra) * np.cos(np.radians(dec)) < 4 * row["trailRaErr"] < 0.2 / 3600
    assert abs(row["trailDec"] - dec) < 4 * row["trailDecErr"] < 0.2 / 3600
    assert row["trailChi2"] / row["trailNdata"] == pytest.approx(1, abs=0.2)
    assert row["trailAlgorithm"] == 1


def test_points_have_no_trail() -> None:
    scene = Scene(shape=(510, 510))
    ticks = np.arange(40.0, 490.0, 40.0)
    x, y = (list(g.ravel()) for g in np.meshgrid(ticks, ticks))
    for xi, yi in zip(x, y, strict=True):
        scene.add_point(xi, yi, scene.flux_of_snr(15))
    difference, exposure, template = scene.build()
    sources = measure(
        difference, exposure, template, detections_at(x, y, [15.0] * len(x)), Workspace(), MeasureConfig(), STAMP
    ).sources
    assert np.isfinite(sources["trailLength"]).mean() < 0.03
    assert (sources["trailNdata"][np.isnan(sources["trailLength"])] == 0).all()
