"""Streaks, ghosts and landmarks in the pixels: where, how wide and how bright the truth says they are."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulator.config import Effects, preset
from benchmarks.simulator.exposure import make_frame
from benchmarks.simulator.ghosts import REFLECTIONS, paint_ghosts
from benchmarks.simulator.landmarks import GALAXY_RADIUS_ARCSEC, landmark_rows, large_galaxy
from benchmarks.simulator.photometry import mag_to_njy
from benchmarks.simulator.scene import Placed, single_points
from benchmarks.simulator.streaks import draw_streaks, paint_streaks, profile_across
from benchmarks.simulator.visits import make_visits
from core.camera import load_camera


def test_streaks_cross_the_fraction_of_detector_visits_asked_for() -> None:
    config = preset("quality", streak_fraction=0.15)
    counts = [draw_streaks(config, d, v, (4000, 4072), 0.8, 0.2)[0].size for d in range(40) for v in range(20)]
    assert np.mean(np.array(counts) > 0) == pytest.approx(0.15, abs=0.04)
    off = replace(config, effects=Effects(satellite_streaks=False))
    assert all(draw_streaks(off, d, 0, (4000, 4072), 0.8, 0.2)[0].size == 0 for d in range(40))


def test_a_painted_streak_has_its_truth_s_place_width_and_peak() -> None:
    config = preset("quality", streak_fraction=1.0)
    shape = (600, 500)
    seen = 0
    for index in range(12):
        table, profiles = draw_streaks(config, 7, index, shape, 0.8, 0.2)
        for row, profile in zip(table, profiles, strict=True):
            canvas = np.zeros(shape, np.float32)
            paint_streaks(canvas, np.array([row]), [profile])
            assert canvas.max() == pytest.approx(row["peak"], rel=0.05)
            if row["period_pix"] > 0:
                continue
            seen += 1
            dx, dy = row["x1"] - row["x0"], row["y1"] - row["y0"]
            length = np.hypot(dx, dy)
            y, x = np.nonzero(canvas > row["peak"] / 2)
            across = ((x - row["x0"]) * dy - (y - row["y0"]) * dx) / length
            assert np.abs(across).max() == pytest.approx(row["width_pix"] / 2, abs=1.0)
            if length > 200:
                assert x.size / length == pytest.approx(row["width_pix"], rel=0.15)
    assert seen >= 5


def test_a_near_satellite_is_wider_than_the_seeing() -> None:
    near, far = profile_across(1.7, 17.0), profile_across(1.7, 0.01)
    assert (near >= 0.5).sum() > 1.8 * (far >= 0.5).sum()
    assert 0.2 * ((far >= 0.5).sum() - 0.5) == pytest.approx(2.3548 * 1.7, rel=0.05)


def test_ghosts_hold_their_share_of_light_on_the_line_through_the_field_center() -> None:
    config, camera = preset("quality"), load_camera("lsstcam")
    frame = make_frame(config, camera, camera.detectors[4], make_visits(config, camera)[0])
    canvas = np.zeros(frame.shape, np.float32)
    electrons = 1e10
    where = np.array([2000.0]), np.array([2100.0])
    star = Placed(
        x=where[0], y=where[1], flux=np.array([electrons * frame.njy_per_electron]), color=np.zeros(1),
        points=single_points(1),
    )  # fmt: skip
    assert paint_ghosts(canvas, frame, star) == len(REFLECTIONS)
    assert canvas.sum() == pytest.approx(electrons * sum(r[1] for r in REFLECTIONS), rel=0.03)
    widest = canvas > 0
    y, x = np.nonzero(widest)
    center = np.array(frame.optics.origin_arcsec) / -0.2
    ghost = np.array([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2])
    to_star, to_ghost = np.array([2000.0, 2100.0]) - center, ghost - center
    cosine = to_star @ to_ghost / np.linalg.norm(to_star) / np.linalg.norm(to_ghost)
    assert cosine == pytest.approx(1.0, abs=1e-4)
    assert np.linalg.norm(to_ghost) < np.linalg.norm(to_star)


def test_large_galaxy_has_its_flux_and_its_place_in_every_frame() -> None:
    config, camera = preset("quality", large_galaxy_mag=12.0, bands=("r",), detectors=(94,)), load_camera("lsstcam")
    galaxy = large_galaxy(config, camera)
    assert galaxy is not None
    for visit in make_visits(config, camera)[:2]:
        frame = make_frame(config, camera, camera.detectors[94], visit)
        canvas = np.zeros(frame.shape, np.float32)
        galaxy.paint(canvas, frame)
        total = canvas.sum(dtype=np.float64) * frame.njy_per_electron
        # a tenth of the disk's light lies beyond its rim
        assert total == pytest.approx(float(mag_to_njy(12.0)), rel=0.12)
        x, y = frame.to_pixel(np.array([galaxy.ra]), np.array([galaxy.dec]))
        rows, columns = canvas.sum(axis=1, dtype=np.float64), canvas.sum(axis=0, dtype=np.float64)
        assert (rows * np.arange(rows.size)).sum() / rows.sum() == pytest.approx(float(y[0]), abs=1.0)
        assert (columns * np.arange(columns.size)).sum() / columns.sum() == pytest.approx(float(x[0]), abs=1.0)
        extent = np.ptp(np.nonzero(canvas > 1.0)[0]) * 0.2
        assert 1.2 * GALAXY_RADIUS_ARCSEC < extent < 2.4 * GALAXY_RADIUS_ARCSEC
    assert (landmark_rows(config, camera)["re"] > 0).all()


def test_bright_star_lies_on_the_first_detector() -> None:
    config, camera = preset("hard-bright-star"), load_camera("lsstcam")
    rows = landmark_rows(config, camera)
    x, y = camera.sky_to_pixel(94, rows["ra"], rows["dec"], config.ra_deg, config.dec_deg, config.rot_sky_deg)
    ny, nx = camera.detectors[94].shape
    assert rows.size == 1
    assert 500 < x[0] < nx - 500
    assert 500 < y[0] < ny - 500
