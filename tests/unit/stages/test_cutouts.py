"""Stamps against slices of the frames."""

import numpy as np

from core.contracts.catalogs import DIA_SOURCE, empty_catalog
from core.stages.cutouts import cut_stamps
from tests.support.sky_scene import Scene


def test_stamps_are_the_frames_pixels_and_nan_outside() -> None:
    scene = Scene(gradient=0.1)
    scene.add_point(100.4, 60.2, 5000.0)
    difference, exposure, template = scene.build()
    sources = empty_catalog(DIA_SOURCE, 2)
    sources["x"], sources["y"], sources["bboxSize"] = [100.4, 3.0], [60.2, 250.0], [31, 30]
    cutouts = cut_stamps(difference, exposure, template, sources)
    assert (cutouts.x0[0], cutouts.y0[0]) == (85, 45)
    image, variance = cutouts.difference[0]
    np.testing.assert_array_equal(image, difference.frame.image[45:76, 85:116])
    np.testing.assert_array_equal(variance, difference.frame.variance[45:76, 85:116])
    np.testing.assert_array_equal(cutouts.science[0][0], exposure.frame.image[45:76, 85:116])
    np.testing.assert_array_equal(cutouts.template[0][0], template.frame.image[45:76, 85:116])
    edge, _ = cutouts.science[1]
    assert edge.shape == (30, 30)
    assert np.isnan(edge[:, :12]).all()
    assert np.isnan(edge[21:]).all()
    np.testing.assert_array_equal(edge[:21, 12:], exposure.frame.image[235:256, 0:18])
    np.testing.assert_allclose(cutouts.difference_psf.sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_array_equal(cutouts.science_psf[1], exposure.psf.at(3.0, 250.0))


def test_stamps_outlive_the_frames() -> None:
    difference, exposure, template = Scene().build()
    sources = empty_catalog(DIA_SOURCE, 1)
    sources["x"], sources["y"], sources["bboxSize"] = 100, 100, 30
    cutouts = cut_stamps(difference, exposure, template, sources)
    before = cutouts.difference[0][0].copy()
    difference.frame.image[:] = 0
    np.testing.assert_array_equal(cutouts.difference[0][0], before)
