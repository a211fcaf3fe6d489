"""What the electronics do to known charge."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.electronics import collect, disassemble, read_out, saturate
from benchmarks.simulator.hardware import make_hardware
from benchmarks.simulator.particles import add_cosmic_rays
from core.camera import load_camera

CONFIG = preset("test")
DETECTOR = load_camera("testcam").detectors[1]
HARDWARE = make_hardware(CONFIG, DETECTOR)


def quiet(**on: bool) -> SimulationConfig:
    names = CONFIG.effects.__slots__
    return replace(CONFIG, effects=replace(CONFIG.effects, **{n: on.get(n, False) for n in names}))


def test_bleeding_keeps_the_charge_and_stays_in_its_half() -> None:
    charge = np.full(DETECTOR.shape, 100.0, np.float32)
    charge[120, 60] = 3.0e6
    before = charge.sum(dtype=np.float64)
    saturate(charge, DETECTOR, HARDWARE, CONFIG)
    assert charge.max() <= HARDWARE.full_well.max() * 1.0001
    assert charge.sum(dtype=np.float64) == pytest.approx(before, rel=1e-5)
    assert (charge[256:, 60] == 100.0).all()
    up, down = (charge[120:256, 60] > 1000).sum(), (charge[:120, 60] > 1000).sum()
    assert abs(int(up) - int(down)) <= 2


def test_no_bleeds_without_the_switch() -> None:
    charge = np.full(DETECTOR.shape, 100.0, np.float32)
    charge[120, 60] = 3.0e6
    saturate(charge, DETECTOR, HARDWARE, quiet(saturation=True))
    assert (charge > 101).sum() == 1


def test_brighter_fatter_keeps_charge_and_widens_bright_spots_only() -> None:
    axis = np.arange(512) - 256.0
    spot = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / 8.0).astype(np.float32)
    peaks = []
    for amplitude in (1e3, 1e5):
        expected = amplitude * spot + 500
        plain = collect(expected, HARDWARE, quiet(), np.random.default_rng(1), 0.0)
        widened = collect(expected, HARDWARE, quiet(brighter_fatter=True), np.random.default_rng(1), 0.0)
        assert widened.sum(dtype=np.float64) == pytest.approx(plain.sum(dtype=np.float64), rel=1e-5)
        peaks.append(float(widened[256, 256] / plain[256, 256]))
    assert peaks[0] == pytest.approx(1.0, abs=0.002)
    assert 0.95 < peaks[1] < 0.995


def test_segments_hold_the_pixels_in_reading_order() -> None:
    image = np.arange(512 * 512, dtype=np.float32).reshape(512, 512)
    segments = disassemble(image, DETECTOR)
    for segment, amp in zip(segments, DETECTOR.amplifiers, strict=True):
        y0, y1, x0, x1 = amp.bbox
        first = segment[amp.data[0], amp.data[2]]
        assert first == image[y1 - 1 if amp.flip_y else y0, x1 - 1 if amp.flip_x else x0]


def test_readout_gives_gain_linearity_and_noise() -> None:
    charge = np.full(DETECTOR.shape, 60_000.0, np.float32)
    hardware = make_hardware(quiet(nonlinearity=True), DETECTOR)
    segments = read_out(charge, DETECTOR, hardware, quiet(nonlinearity=True), np.random.default_rng(2))
    for i, amp in enumerate(DETECTOR.amplifiers):
        oy0, oy1, ox0, ox1 = amp.serial_overscan
        overscan = segments[i, oy0:oy1, ox0:ox1]
        dy0, dy1, dx0, dx1 = amp.data
        raw = segments[i, dy0:dy1, dx0:dx1].mean() - overscan.mean()
        c0, c1 = (float(c) for c in hardware.linearity[i])
        assert (raw + c0 * raw**2 + c1 * raw**3) * hardware.gain[i] == pytest.approx(60_000, rel=1e-4)
        assert overscan.std() * hardware.gain[i] == pytest.approx(hardware.read_noise[i], rel=0.05)


def test_crosstalk_puts_a_ghost_into_other_amplifiers() -> None:
    charge = np.zeros(DETECTOR.shape, np.float32)
    charge[100:110, 40:50] = 1.2e5
    config = quiet(crosstalk=True)
    hardware = make_hardware(config, DETECTOR)
    with_ghost = read_out(charge, DETECTOR, hardware, config, np.random.default_rng(3))
    without = read_out(charge, DETECTOR, hardware, quiet(), np.random.default_rng(3))
    source = next(i for i, s in enumerate(without) if s.max() > 60_000)
    signal = without[source] - np.median(without[source])
    where = signal > 50_000
    for i in range(4):
        if i != source:
            ghost = (with_ghost[i] - without[i])[where].mean()
            assert ghost == pytest.approx(float(hardware.crosstalk[i, source]) * signal[where].mean(), abs=0.5)


def test_cosmic_rays_are_recorded_where_they_hit() -> None:
    charge = np.zeros((512, 512), np.float32)
    hits = add_cosmic_rays(charge, np.random.default_rng(4), 30)
    strong = set(zip(*(axis.tolist() for axis in np.nonzero(charge > 2 * 30)), strict=True))
    assert strong <= set(zip(hits["y"].tolist(), hits["x"].tolist(), strict=True))
    assert hits.size > 100
    assert np.unique(hits["event"]).size > 20
