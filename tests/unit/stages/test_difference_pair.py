"""Two real exposures of one field, 74 s apart: apart from one event of a star's shape nothing changes."""

from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from scipy.ndimage import binary_dilation

from core.flags import Mask
from core.stages.difference_pair import difference_pair, frames_of_pair
from core.workspace import Workspace


def read(path: Path) -> np.ndarray:
    with fits.open(path) as hdus:
        return np.ascontiguousarray(hdus[0].data, np.float32)


def near_sources(image: np.ndarray) -> np.ndarray:
    """Pixels of SEP's sources above 5 sigma, grown by four."""
    background = sep.Background(image)
    _, segments = sep.extract(image - background.back(), 5.0, err=background.globalrms, segmentation_map=True)
    return binary_dilation(segments > 0, iterations=4)


@pytest.fixture(scope="module")
def pair(reference_data: Path):
    a, b = (read(reference_data / "real_pairs" / f"eso085-030_{name}.fits") for name in "ab")
    science, template = frames_of_pair(a, b)
    workspace = Workspace()
    result = difference_pair(science, template, workspace)
    is_open = ~(near_sources(a) | near_sources(b))
    is_open[:12] = is_open[-12:] = False
    is_open[:, :12] = is_open[:, -12:] = False
    return result, workspace.array("difference.snr", science.shape).copy(), is_open


def test_only_the_event_stays(pair) -> None:
    result, _, is_open = pair
    found = result.detections
    open_rows = is_open[found.y, found.x]
    is_event = np.hypot(found.y - 90, found.x - 192) < 2
    assert is_event.any()
    assert found.snr[is_event].max() > 8
    assert np.count_nonzero(open_rows & ~is_event) <= 2


def test_noise_is_calibrated_without_a_gain(pair) -> None:
    result, snr, is_open = pair
    sky = snr[is_open & (result.difference.frame.mask == 0)]
    assert 0.95 < 1.4826 * np.median(np.abs(sky - np.median(sky))) < 1.05
    assert 0.9 < sky.std() < 1.1
    assert result.difference.kernel_sum == pytest.approx(1.0, abs=0.03)


def test_single_pixel_hits_are_no_detections(pair) -> None:
    result, _, _ = pair
    found = result.detections
    for y, x in ((548, 991), (605, 830)):
        assert not np.any((np.abs(found.y - y) <= 2) & (np.abs(found.x - x) <= 2))
    assert result.difference.frame.mask[605, 830] & Mask.CR
    assert not result.difference.frame.mask[90, 192] & Mask.CR
