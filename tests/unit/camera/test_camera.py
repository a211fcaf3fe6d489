"""Camera geometry against the public description of LSSTCam, real raw headers, and astropy's projection."""

import hashlib
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from core.camera import Box, load_camera
from core.errors import ConfigurationError


def test_lsstcam_has_all_science_detectors_and_amplifiers() -> None:
    camera = load_camera("lsstcam")
    assert len(camera.detectors) == 189
    assert sum(len(d.amplifiers) for d in camera.detectors.values()) == 3024
    assert {d.kind: d.shape for d in camera.detectors.values()} == {"E2V": (4004, 4096), "ITL": (4000, 4072)}
    assert (camera.detectors[94].name, camera.detectors[94].kind) == ("R22_S11", "E2V")
    assert load_camera("lsstcam") is camera


def test_unknown_camera_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown camera"):
        load_camera("decam")


@pytest.mark.parametrize("name", ["lsstcam", "testcam"])
def test_amplifiers_tile_each_detector_and_sections_tile_each_segment(name: str) -> None:
    for detector in load_camera(name).detectors.values():
        covered = np.zeros(detector.shape, np.int8)
        for amp in detector.amplifiers:
            y0, y1, x0, x1 = amp.bbox
            covered[y0:y1, x0:x1] += 1
            assert (y1 - y0, x1 - x0) == (amp.data[1] - amp.data[0], amp.data[3] - amp.data[2])
            assert amp.serial_overscan[2] == amp.data[3]
            assert amp.serial_overscan[3] == amp.raw_shape[1]
            assert amp.parallel_overscan[0] == amp.data[1]
            assert amp.parallel_overscan[1] == amp.raw_shape[0]
        assert (covered == 1).all()


@pytest.mark.parametrize(("name", "detector"), [("lsstcam", 94), ("lsstcam", 4), ("lsstcam", 188), ("testcam", 3)])
def test_pixel_sky_round_trip(name: str, detector: int) -> None:
    camera = load_camera(name)
    x = np.array([0.0, 17.3, 511.0, 300.0])
    y = np.array([0.0, 500.0, 2.5, 300.0])
    ra, dec = camera.pixel_to_sky(detector, x, y, 359.9, -33.0, 71.5)
    back_x, back_y = camera.sky_to_pixel(detector, ra, dec, 359.9, -33.0, 71.5)
    np.testing.assert_allclose(back_x, x, atol=1e-6)
    np.testing.assert_allclose(back_y, y, atol=1e-6)


def test_projection_agrees_with_astropy_and_the_rotation_convention() -> None:
    """At rot_sky = 0 the focal plane's +y is north and +x is west; rot_sky turns +y to the east."""
    camera = load_camera("lsstcam")
    scale = camera.pixel_scale_arcsec / 3600
    for rot in (0.0, 30.0):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [150.0, -30.0]
        wcs.wcs.crpix = [2048.5, 2002.5]
        c, s = np.cos(np.radians(rot)), np.sin(np.radians(rot))
        wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
        x, y = np.array([0.0, 4095.0, 2047.5, 1000.0]), np.array([0.0, 100.0, 4003.0, 2001.5])
        ra, dec = camera.pixel_to_sky(94, x, y, 150.0, -30.0, rot)
        expected = wcs.all_pix2world(x, y, 0)
        # only the radial distortion (8e-9 at 30 mm) separates the two
        np.testing.assert_allclose(ra, expected[0], atol=3e-3 / 3600)
        np.testing.assert_allclose(dec, expected[1], atol=3e-3 / 3600)


def test_radial_distortion_at_the_edge_of_the_field() -> None:
    camera = load_camera("lsstcam")
    thx, _ = camera.focal_plane_to_field(317.0, 0.0)
    assert thx * 3600 - 317.0 * camera.plate_scale_arcsec_per_mm == pytest.approx(-5.4, abs=0.2)
    np.testing.assert_allclose(camera.field_to_focal_plane(thx, 0.0), (317.0, 0.0), atol=1e-9)


def test_yaw_turns_the_pixels_about_the_center() -> None:
    detector = replace(load_camera("testcam").detectors[1], yaw_deg=90.0)
    x_mm, y_mm = detector.pixel_to_focal_plane(255.5 + 100, 255.5)
    np.testing.assert_allclose([x_mm, y_mm], [detector.focal_plane_x_mm, detector.focal_plane_y_mm + 1.0])
    np.testing.assert_allclose(detector.focal_plane_to_pixel(x_mm, y_mm), (355.5, 255.5))


def test_data_files_are_the_published_ones() -> None:
    folder = files("core.camera") / "data"
    for line in (folder / "sha256sum.txt").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def _section(text: str) -> tuple[Box, bool, bool]:
    """FITS section to zero-based box and whether its x and y ranges run backwards."""
    x0, x1, y0, y1 = (int(v) for v in re.findall(r"\d+", text))
    box = (min(y0, y1) - 1, max(y0, y1), min(x0, x1) - 1, max(x0, x1))
    return box, x1 < x0, y1 < y0


def test_segments_agree_with_a_raw_file_of_detector_94(reference_data: Path) -> None:
    detector = load_camera("lsstcam").detectors[94]
    with fits.open(reference_data / "lsstcam" / "raw_lsstCamSim_R22_S11_det094.fits.fz") as hdus:
        headers = [h.header for h in hdus[1:17]]
    for amp, header in zip(detector.amplifiers, headers, strict=True):
        assert header["EXTNAME"] == amp.extname
        assert (header["NAXIS2"], header["NAXIS1"]) == amp.raw_shape
        assert _section(header["DATASEC"])[0] == amp.data
        assert _section(header["DETSEC"]) == (amp.bbox, amp.flip_x, amp.flip_y)


def test_segments_agree_with_a_raw_file_of_an_itl_detector(reference_data: Path) -> None:
    """The teststand's DETSEC counts y from the other edge: compare after mirroring it."""
    detector = load_camera("lsstcam").detectors[29]
    with fits.open(reference_data / "lsstcam" / "raw_R10_S02_det029_itl.fits") as hdus:
        headers = [h.header for h in hdus[1:17]]
    ny = detector.shape[0]
    for amp, header in zip(detector.amplifiers, headers, strict=True):
        assert header["EXTNAME"] == amp.extname
        assert (header["NAXIS2"], header["NAXIS1"]) == amp.raw_shape
        assert _section(header["DATASEC"])[0] == amp.data
        (y0, y1, x0, x1), flip_x, flip_y = _section(header["DETSEC"])
        assert ((ny - y1, ny - y0, x0, x1), flip_x, not flip_y) == (amp.bbox, amp.flip_x, amp.flip_y)


def test_positions_and_boxes_agree_with_the_public_camera_description(reference_data: Path) -> None:
    camera = load_camera("lsstcam")
    with fits.open(reference_data / "lsstcam" / "camera_LSSTCam.fits") as hdus:
        detectors, amplifiers = hdus[3].data, hdus[6].data
    seen = 0
    for index, row in enumerate(detectors):
        if int(row["id"]) not in camera.detectors:
            continue
        seen += 1
        ours = camera.detectors[int(row["id"])]
        assert "".join(row["name"]).strip() == ours.name
        assert (row["bbox_max_y"] + 1, row["bbox_max_x"] + 1) == ours.shape
        assert (row["fpPosition_x"], row["fpPosition_y"]) == (ours.focal_plane_x_mm, ours.focal_plane_y_mm)
        assert np.cos(row["yaw"] - np.radians(ours.yaw_deg)) == pytest.approx(1.0)
        for amp, ref in zip(ours.amplifiers, amplifiers[16 * index : 16 * index + 16], strict=True):
            assert "".join(ref["name"]).strip() == amp.name
            assert (ref["bbox_min_y"], ref["bbox_min_x"]) == (amp.bbox[0], amp.bbox[2])
            assert (ref["bbox_extent_y"], ref["bbox_extent_x"]) == (
                amp.bbox[1] - amp.bbox[0],
                amp.bbox[3] - amp.bbox[2],
            )
            assert (bool(ref["flags"][1]), bool(ref["flags"][2])) == (amp.flip_x, amp.flip_y)
    assert seen == 189
