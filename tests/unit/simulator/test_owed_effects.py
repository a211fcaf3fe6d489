"""Each effect that the simulator owes, measured in what it makes."""

from pathlib import Path

import fitsio
import numpy as np
import pytest

from benchmarks.simulator.calibrations import write_calibrations
from benchmarks.simulator.changes import make_movers
from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.drawing import psf_images
from benchmarks.simulator.hardware import make_hardware, vignetting
from benchmarks.simulator.optics import Optics, make_optics
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.refcat import make_reference_catalog, reference_magnitude
from benchmarks.simulator.skymodel import Rows, draw_region
from benchmarks.simulator.visits import make_visits
from core.camera import load_camera

SIDE = 4000
GRID = tuple(g.ravel() for g in np.meshgrid(np.linspace(0, SIDE, 41), np.linspace(0, SIDE, 41)))


def optics(seed: int = 1) -> Optics:
    """Imaging of one full-size frame."""
    return make_optics(
        preset("quality"), stream(seed, "optics"), (SIDE, SIDE), 0.2, (0.0, 0.0), "r", 0.8, (0.6, 30.0), 0.0
    )


def width(frame: Optics) -> np.ndarray:
    """Relative width of the drawn PSF over the grid, from the inverse root of its peak."""
    weights = frame.weights(GRID[0], GRID[1], np.full(GRID[0].size, 0.8))
    zero = np.zeros(GRID[0].size)
    peak = psf_images(frame.basis, weights, zero, zero, 21).max(axis=(1, 2))
    return np.asarray(1 / np.sqrt(peak / np.median(peak)))


def without_polynomial(values: np.ndarray, order: int) -> np.ndarray:
    """Residual of a polynomial in x and y of a total order."""
    u, v = GRID[0] / SIDE * 2 - 1, GRID[1] / SIDE * 2 - 1
    terms = np.stack([u**i * v**j for i in range(order + 1) for j in range(order + 1 - i)], axis=-1)
    return np.asarray(values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0])


def test_width_varies_by_ten_percent_with_structure_that_no_polynomial_follows() -> None:
    spans, structure = [], []
    for seed in (1, 2, 3):
        values = width(optics(seed))
        spans.append(np.ptp(without_polynomial(values, 0)))
        structure.append(without_polynomial(values, 4).std())
    assert np.mean(spans) > 0.10
    assert 0.005 < np.mean(structure) < 0.014


def test_turbulence_is_five_mas_correlated_over_one_to_three_arcmin_and_new_each_visit() -> None:
    color = np.full(GRID[0].size, 0.8)
    fields = np.array([optics(seed).displacement(GRID[0], GRID[1], color) for seed in range(1, 9)]) * 200.0
    assert np.sqrt(np.mean(fields**2)) == pytest.approx(5.0, rel=0.15)
    maps = fields.reshape(16, 41, 41)

    def correlation(step: int) -> float:
        a, b = maps[:, :, :-step].ravel(), maps[:, :, step:].ravel()
        return float(np.mean(a * b) / np.mean(maps**2))

    # a step is 20 arcsec
    assert correlation(1) > 0.75
    assert 0.0 < correlation(2) < 0.8
    assert abs(correlation(9)) < 0.35
    assert abs(np.corrcoef(maps[0].ravel(), maps[2].ravel())[0, 1]) < 0.4


def test_dispersion_moves_blue_stars_most_in_g() -> None:
    shifts = {}
    for band in ("g", "r"):
        frame = make_optics(
            preset("quality"), stream(1, "optics"), (SIDE, SIDE), 0.2, (0.0, 0.0), band, 0.8, (1.0, 30.0), 0.0
        )
        red, blue = (frame.displacement(GRID[0], GRID[1], np.full(GRID[0].size, c)) for c in (1.8, 0.8))
        shifts[band] = 200 * float(np.hypot(*(np.median(b - r) for b, r in zip(blue, red, strict=True))))
    assert shifts["g"] == pytest.approx(35.0, rel=0.01)
    assert shifts["r"] < 0.3 * shifts["g"]


def test_calibrations_have_the_noise_of_their_frames_and_a_dome_error(tmp_path: Path) -> None:
    config, detector = preset("test", seed=5), load_camera("testcam").detectors[0]
    assert config.calibration_frames <= 20
    hardware = make_hardware(config, detector)
    write_calibrations(tmp_path, config, detector, hardware, ["r"])
    files = {path.name.split("_")[0]: path for path in (tmp_path / "calib" / "000").glob("*.fits")}
    assert fitsio.read_header(str(files["bias"]))["NFRAMES"] == config.calibration_frames
    noise = (fitsio.read(str(files["bias"])) - hardware.bias).std()
    asked = float(np.sqrt(np.mean((hardware.read_noise / hardware.gain) ** 2) / config.calibration_frames))
    assert noise == pytest.approx(asked, rel=0.05)
    good = ~hardware.is_dead
    truth = hardware.response * vignetting(config, detector, "r")
    ratio = fitsio.read(str(files["flat-r"])) / (truth / truth.mean())
    smooth = np.array([[np.median(block) for block in np.array_split(row, 16, axis=1)] for row in
                       np.array_split(np.where(good, ratio, 1.0), 16, axis=0)])  # fmt: skip
    assert smooth.std() == pytest.approx(0.005, rel=0.15)


@pytest.fixture(scope="module")
def sky() -> tuple[SimulationConfig, Rows, np.ndarray]:
    """A region of the sky and its reference catalog."""
    config = preset("quality", seed=3)
    rows = draw_region(config, config.ra_deg, config.dec_deg, 0.25)
    return config, rows, make_reference_catalog(config, rows)


def nearest(table: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [arcsec] and index of the catalog's entry nearest to each row."""
    from scipy.spatial import cKDTree

    scale = np.array([np.cos(np.radians(rows["dec"].mean())), 1.0]) * 3600
    tree = cKDTree(np.stack([table["ra"], table["dec"]], axis=-1) * scale)
    distance, index = tree.query(np.stack([rows["ra"], rows["dec"]], axis=-1) * scale)
    return np.asarray(distance), np.asarray(index)


def test_reference_catalog_lacks_stars_and_merges_blends(sky: tuple[SimulationConfig, Rows, np.ndarray]) -> None:
    _, rows, table = sky
    stars = rows[rows["is_star"] & (rows["mag"][:, 2] < 20.5)]
    distance, _ = nearest(table, stars)
    assert 0.015 < (distance > 0.1).mean() < 0.06
    twin = stars[:200].copy()
    twin["id"] += 10**9
    twin["mag"] += 1.0
    twin["dec"] += 0.3 / 3600
    merged = make_reference_catalog(sky[0], np.concatenate([rows, twin]))
    found, _ = nearest(merged, twin)
    assert (found < 0.05).mean() < 0.05


def test_reference_catalog_has_nonlinear_color_terms_and_errors_that_grow(
    sky: tuple[SimulationConfig, Rows, np.ndarray],
) -> None:
    _, rows, table = sky
    stars = rows[rows["is_star"] & (rows["mag"][:, 2] < 18.0)]
    distance, index = nearest(table, stars)
    stars, entries = stars[distance < 0.05], table[index[distance < 0.05]]
    color = stars["mag"][:, 1] - stars["mag"][:, 3]
    excess = 31.4 - 2.5 * np.log10(entries["g_flux"]) - stars["mag"][:, 1]
    curve = np.polynomial.polynomial.polyfit(color - 0.8, excess, 2)
    # 20 mmag a magnitude, bent by 3
    assert curve[1] == pytest.approx(0.020, abs=0.004)
    assert curve[2] == pytest.approx(-0.003, abs=0.002)
    assert float(reference_magnitude("g", np.zeros(1), np.array([0.8]))[0]) == 0.0
    mag = 31.4 - 2.5 * np.log10(table["r_flux"])
    bright, faint = (table["raErr"][table["isStar"] & (np.abs(mag - m) < 0.5)].mean() for m in (16.0, 20.0))
    assert faint > 4 * bright


def test_pointing_and_ephemerides_are_off_by_what_they_owe() -> None:
    camera = load_camera("lsstcam")
    gaps, turns = [], []
    for seed in range(1, 20):
        for visit in make_visits(preset("quality", seed=seed), camera):
            east = (visit.true_ra_deg - visit.ra_deg) * np.cos(np.radians(visit.dec_deg)) * 3600
            gaps.append(np.hypot(east, (visit.true_dec_deg - visit.dec_deg) * 3600))
            turns.append(abs(visit.true_rot_sky_deg - visit.rot_sky_deg))
    assert 0.9 < min(gaps) < 2.0
    assert 4.0 < max(gaps) < 5.05
    assert 0.03 < max(turns) < 0.05
    far = make_visits(preset("hard-off-pointing"), camera)[0]
    east = (far.true_ra_deg - far.ra_deg) * np.cos(np.radians(far.dec_deg)) * 3600
    assert 60.0 < np.hypot(east, (far.true_dec_deg - far.dec_deg) * 3600) < 65.1
    movers = make_movers(preset("quality", movers=200), camera, 94)
    error = np.hypot(movers.error_east_arcsec, movers.error_north_arcsec)
    assert 0.1 <= error.min() < 0.15
    assert 0.95 < error.max() <= 1.0


def test_injections_sit_on_galaxies_in_cores_and_near_stars(dataset: Path) -> None:
    shares = []
    for path in sorted((dataset / "truth").glob("*.fits")):
        truth = fitsio.read(str(path), ext="TRUTH")
        new = truth[(truth["kind"] == "transient") & (np.abs(truth["snr_true"]) <= 100)]
        shares.append((new["hosted"].mean(), new["near_bright"].mean()))
        near = new[new["near_bright"]]
        assert (near["bright_mag"] < 18.1).all()
        assert (near["bright_arcsec"] < 5.5).all()
    hosted, near_bright = np.mean(shares, axis=0)
    assert hosted == pytest.approx(0.5, abs=0.1)
    assert 0.03 < near_bright < 0.25
