"""The predicted WCS against the camera it comes from."""

import numpy as np
import pytest

from core.camera import load_camera
from core.contracts.wcs import separation_arcsec
from core.stages.pointing import predict_wcs


@pytest.mark.parametrize(
    ("detector", "dec", "rot"), [(94, -30.0, 0.0), (0, -5.0, 37.0), (4, 60.0, 190.0), (188, -80.0, 300.0)]
)
def test_predicted_wcs_follows_the_camera_to_one_mas(detector: int, dec: float, rot: float) -> None:
    camera = load_camera("lsstcam")
    wcs = predict_wcs(camera, detector, 359.9, dec, rot)
    ny, nx = camera.detectors[detector].shape
    rng = np.random.default_rng(detector)
    x, y = rng.uniform(-0.5, nx - 0.5, 500), rng.uniform(-0.5, ny - 0.5, 500)
    truth = camera.pixel_to_sky(detector, x, y, 359.9, dec, rot)
    assert separation_arcsec(*wcs.pixel_to_sky(x, y), *truth).max() < 1e-3
    back = wcs.sky_to_pixel(*truth)
    assert np.hypot(back[0] - x, back[1] - y).max() < 5e-3
    np.testing.assert_allclose(wcs.crpix, [(nx - 1) / 2, (ny - 1) / 2])
