"""The test camera with larger detectors: frames that outgrow everything that does not scale with them."""

from dataclasses import replace

from core.camera import Camera, load_camera
from core.camera.geometry import Amplifier, Box


def larger_testcam(factor: int) -> Camera:
    """The test camera's first detector, amplifiers ``factor`` times as high and wide; overscans stay."""
    camera = load_camera("testcam")
    number = min(camera.detectors)
    detector = camera.detectors[number]
    ny, nx = detector.shape
    amplifiers = tuple(_larger(amplifier, factor) for amplifier in detector.amplifiers)
    larger = replace(detector, shape=(factor * ny, factor * nx), amplifiers=amplifiers)
    return replace(camera, detectors={number: larger})


def _larger(amplifier: Amplifier, factor: int) -> Amplifier:
    y0, y1, x0, x1 = amplifier.data
    by_y, by_x = (factor - 1) * (y1 - y0), (factor - 1) * (x1 - x0)
    sy0, sy1, sx0, sx1 = amplifier.serial_overscan
    py0, py1, px0, px1 = amplifier.parallel_overscan
    bbox: Box = tuple(factor * edge for edge in amplifier.bbox)  # type: ignore[assignment]
    return replace(
        amplifier,
        raw_shape=(amplifier.raw_shape[0] + by_y, amplifier.raw_shape[1] + by_x),
        data=(y0, y1 + by_y, x0, x1 + by_x),
        serial_overscan=(sy0, sy1 + by_y, sx0 + by_x, sx1 + by_x),
        parallel_overscan=(py0 + by_y, py1 + by_y, px0, px1 + by_x),
        bbox=bbox,
    )
