"""Segments made by inverting the electronics come back as the electrons they were made of."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.camera import Detector, load_camera
from core.contracts.bundle import Calibrations
from core.contracts.exposure import RawExposure, VisitInfo
from core.errors import Outcome, RejectedInputError, UnusableDataError
from core.flags import Mask
from core.stages.isr import IsrConfig, isr
from core.workspace import Workspace
from tests.support.reference.isr import calibrate
from tests.support.starfield import draw_stars

Float64 = NDArray[np.float64]

EXPOSURE_S = 30.0
INFO = VisitInfo(
    instrument="TestCam", group="g", visit=1, detector=0, band="r", exposure_start_mjd_tai=61000.0,
    exposure_end_mjd_tai=61000.0 + EXPOSURE_S / 86400, exposure_time_s=EXPOSURE_S, ra_deg=10.0, dec_deg=-5.0,
    rot_sky_deg=0.0,
)  # fmt: skip


def make_calibrations(detector: Detector, rng: np.random.Generator) -> Calibrations:
    n, shape = len(detector.amplifiers), detector.shape
    crosstalk = rng.uniform(1e-4, 4e-4, (n, n)).astype(np.float32)
    np.fill_diagonal(crosstalk, 0)
    defects = np.zeros(shape, np.uint16)
    defects[:, 40] = Mask.BAD
    return Calibrations(
        gain=np.linspace(1.4, 1.7, n, dtype=np.float32),
        read_noise=np.full(n, 6, np.float32),
        saturation=np.full(n, 90_000, np.float32),
        linearity=np.stack([np.full(n, 4e-7), np.full(n, -1e-12)], axis=-1).astype(np.float32),
        crosstalk=crosstalk,
        brighter_fatter=np.zeros(n, np.float32),
        bias=rng.normal(0, 4, shape).astype(np.float32),
        dark=np.full(shape, 0.2, np.float32),
        flat=(1 + 0.05 * np.sin(np.arange(shape[1]) / 40))[None, :].repeat(shape[0], 0).astype(np.float32),
        defects=defects,
    )


def read_out(electrons: Float64, cal: Calibrations, detector: Detector, rng: np.random.Generator) -> NDArray[np.int32]:
    """The forward model: flat and dark, gain, non-linearity, crosstalk, bias, overscan levels, read noise."""
    charge = electrons * cal.flat + cal.dark * EXPOSURE_S
    raw_shape = detector.amplifiers[0].raw_shape
    y0, y1, x0, x1 = detector.amplifiers[0].data
    signals, biases = [], []
    for i, amplifier in enumerate(detector.amplifiers):
        b = amplifier.bbox
        flip = np.s_[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]
        true = charge[b[0] : b[1], b[2] : b[3]][flip] / cal.gain[i]
        raw = true.copy()
        for _ in range(6):
            raw = true - cal.linearity[i, 0] * raw**2 - cal.linearity[i, 1] * raw**3
        signals.append(raw)
        biases.append(cal.bias[b[0] : b[1], b[2] : b[3]][flip])
    stack = np.stack(signals)
    stack = stack + np.tensordot(cal.crosstalk, stack, axes=1) + np.stack(biases)
    segments = np.zeros((len(signals), *raw_shape))
    segments[:, y0:y1, x0:x1] = stack
    segments += 20_000 + 5 * np.sin(np.arange(raw_shape[0]) / 9.0)[None, :, None]
    segments += rng.normal(0, 1, segments.shape) * (cal.read_noise / cal.gain)[:, None, None]
    return np.round(segments).astype(np.int32)


@pytest.fixture(scope="module")
def scene() -> tuple[Detector, Calibrations, Float64, NDArray[np.int32]]:
    rng = np.random.default_rng(5)
    detector = load_camera("testcam").detectors[0]
    cal = make_calibrations(detector, rng)
    x, y = rng.uniform(20, 490, (2, 25))
    signal = draw_stars(detector.shape, x, y, np.full(25, 2e5), 4.0) + 800
    signal += draw_stars(detector.shape, np.array([100.0]), np.array([120.0]), np.array([1.2e6]), 4.0)
    return detector, cal, signal, read_out(rng.poisson(signal).astype(float), cal, detector, rng)


def test_isr_recovers_electrons(scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]]) -> None:
    detector, cal, signal, segments = scene
    frame = isr(RawExposure(visit_info=INFO, segments=segments), cal, detector, Workspace(), IsrConfig())
    pull = (frame.image - signal) / np.sqrt(signal + 36)
    # the sky's own crosstalk, half an electron, is left to the background
    assert abs(pull.mean()) < 0.03
    assert 0.97 < pull.std() < 1.03
    np.testing.assert_allclose(np.median(frame.variance), 836, rtol=0.02)
    assert (frame.mask[:, 40] & Mask.BAD).all()
    assert np.count_nonzero(frame.mask & Mask.SAT) == 0


def test_isr_equals_its_plain_twin(scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]]) -> None:
    detector, cal, _, segments = scene
    config = IsrConfig(overscan_clip_sigma=1e6, crosstalk_threshold_adu=-1e9, column_smoothing_pix=1)
    smooth = replace(config, skip_parallel_pix=10_000)
    frame = isr(RawExposure(visit_info=INFO, segments=segments), cal, detector, Workspace(), smooth)
    image, variance = calibrate(segments, cal, detector, EXPOSURE_S)
    # the twin takes the exact median as the crosstalk's zero, the kernel that of a sample
    np.testing.assert_allclose(frame.image, image, rtol=2e-5, atol=0.1)
    np.testing.assert_allclose(frame.variance, variance, rtol=1e-4, atol=0.1)


def test_saturation_is_marked_grown_and_its_ghosts_flagged(
    scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]],
) -> None:
    detector, cal, _, segments = scene
    hot = segments.copy()
    amplifier = detector.amplifiers[2]
    y0, _, x0, _ = amplifier.data
    hot[2, y0 + 30 : y0 + 34, x0 + 50] = 20_000 + 95_000
    frame = isr(RawExposure(visit_info=INFO, segments=hot), cal, detector, Workspace(), IsrConfig())
    saturated = (frame.mask & np.uint16(Mask.SAT)) != 0
    assert saturated.sum() == (4 + 4) * 3
    where = np.argwhere(saturated)
    box = amplifier.bbox
    assert (where >= (box[0], box[2])).all()
    assert (where < (box[1], box[3])).all()
    assert np.count_nonzero(frame.mask & np.uint16(Mask.CROSSTALK)) == 4 * 3
    assert np.isfinite(frame.image).all()
    assert (frame.variance > 0).all()


def test_a_dead_amplifier_is_masked_and_the_rest_goes_on(
    scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]],
) -> None:
    detector, cal, signal, segments = scene
    dead = segments.copy()
    dead[1] = 0
    frame = isr(RawExposure(visit_info=INFO, segments=dead), cal, detector, Workspace(), IsrConfig())
    y0, y1, x0, x1 = detector.amplifiers[1].bbox
    lost = np.zeros(detector.shape, bool)
    lost[y0:y1, x0:x1] = True
    assert ((frame.mask & np.uint16(Mask.NODATA)) != 0)[lost].all()
    assert not ((frame.mask & np.uint16(Mask.NODATA)) != 0)[~lost].any()
    assert abs(np.median((frame.image - signal)[~lost])) < 2


@pytest.mark.parametrize("level", [0, 262_143])
def test_a_raw_without_signal_is_unusable(
    scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]], level: int
) -> None:
    detector, cal, _, segments = scene
    raw = RawExposure(visit_info=INFO, segments=np.full_like(segments, level))
    with pytest.raises(UnusableDataError) as caught:
        isr(raw, cal, detector, Workspace(), IsrConfig())
    assert caught.value.outcome is Outcome.BAD_RAW


def test_saturated_data_above_a_live_overscan_are_unusable(
    scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]],
) -> None:
    detector, cal, _, segments = scene
    bright = segments.copy()
    y0, y1, x0, x1 = detector.amplifiers[0].data
    bright[:, y0:y1, x0:x1] += 200_000
    with pytest.raises(UnusableDataError):
        isr(RawExposure(visit_info=INFO, segments=bright), cal, detector, Workspace(), IsrConfig())


def test_segments_of_another_shape_are_rejected(
    scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]],
) -> None:
    detector, cal, _, segments = scene
    raw = RawExposure(visit_info=INFO, segments=np.ascontiguousarray(segments[:, :-4]))
    with pytest.raises(RejectedInputError):
        isr(raw, cal, detector, Workspace(), IsrConfig())


def test_nan_in_a_calibration_becomes_bad(scene: tuple[Detector, Calibrations, Float64, NDArray[np.int32]]) -> None:
    detector, cal, _, segments = scene
    bias = cal.bias.copy()
    bias[200, 300] = np.nan
    broken = replace(cal, bias=bias)
    frame = isr(RawExposure(visit_info=INFO, segments=segments), broken, detector, Workspace(), IsrConfig())
    assert frame.mask[200, 300] & Mask.BAD
    assert np.isfinite(frame.image).all()
    assert np.isfinite(frame.variance).all()
