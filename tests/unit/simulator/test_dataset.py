"""A simulated dataset against docs/dataset.md and against its own truth, without any stage."""

import json
from pathlib import Path

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks.simulator.apdb_location import rebase_apdb
from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.dataset import detector_groups, n_steps, simulate
from benchmarks.simulator.ephemerides import EPHEMERIS
from benchmarks.simulator.refcat import REFERENCE_STAR, reference_magnitude
from benchmarks.simulator.selftest import check_dataset
from benchmarks.simulator.skymodel import draw_region, positions_at
from core.camera import load_camera
from core.contracts import catalogs
from core.timescales import parse_tai

PRIMARY_KEYWORDS = (
    "INSTRUME", "TELESCOP", "OBSID", "GROUPID", "DAYOBS", "SEQNUM", "RAFTBAY", "CCDSLOT", "LSST_NUM", "DETECTOR",
    "FILTER", "BAND", "EXPTIME", "DARKTIME", "SHUTTIME", "DATE-BEG", "DATE-END", "MJD-BEG", "MJD-END", "DATE", "MJD",
    "RA", "DEC", "RASTART", "DECSTART", "ROTPA", "AMSTART", "AMEND", "DETSIZE",
)  # fmt: skip


def test_self_test_passes(dataset: Path) -> None:
    failed = [check for check in check_dataset(dataset) if not check.passed]
    assert not failed


def test_a_complete_dataset_is_not_written_again(dataset: Path, config: SimulationConfig) -> None:
    before = (dataset / "dataset.json").stat().st_mtime_ns
    assert not simulate(dataset, config)
    assert (dataset / "dataset.json").stat().st_mtime_ns == before
    assert preset("test", seed=12).digest() != config.digest()


def test_raw_follows_the_camera_and_the_real_header(dataset: Path, config: SimulationConfig) -> None:
    detector = load_camera("testcam").detectors[1]
    path = dataset / "raw" / str(config.day_obs) / f"{config.day_obs}{config.first_sequence:05d}_001.fits"
    with fits.open(path) as hdus:
        primary = hdus[0].header
        for key in PRIMARY_KEYWORDS:
            assert key in primary, key
        assert (primary["TIMESYS"], primary["IMGTYPE"]) == ("TAI", "OBJECT")
        assert len(hdus) == 1 + len(detector.amplifiers)
        for amp, hdu in zip(detector.amplifiers, hdus[1:], strict=True):
            assert hdu.header["EXTNAME"] == amp.extname
            assert hdu.data.shape == amp.raw_shape
            assert hdu.data.dtype.kind == "i"
    with fits.open(path, disable_image_compression=True) as hdus:
        table = hdus[1].header
    assert table["ZCMPTYPE"].startswith("RICE")
    start, end = parse_tai(primary["DATE-BEG"]), parse_tai(primary["DATE-END"])
    assert end - start == pytest.approx(primary["EXPTIME"], abs=1e-3)


def test_lsstcam_segments_are_labelled_as_in_a_real_raw(reference_data: Path) -> None:
    from benchmarks.simulator.rawfile import segment_header

    detector = load_camera("lsstcam").detectors[94]
    with fits.open(reference_data / "lsstcam" / "raw_lsstCamSim_R22_S11_det094.fits.fz") as hdus:
        for amp, hdu in zip(detector.amplifiers, hdus[1:17], strict=True):
            ours = {card["name"]: card["value"] for card in segment_header(amp, detector)}
            for key in ("EXTNAME", "DATASEC", "DETSEC"):
                assert ours[key] == hdu.header[key]


def test_tables_have_the_contract_s_columns() -> None:
    assert REFERENCE_STAR == catalogs.REFERENCE_STAR
    assert list(EPHEMERIS.names or ()) == list(catalogs.EPHEMERIS.names or ())
    for name in ("object", "observer"):
        assert EPHEMERIS[name] == catalogs.EPHEMERIS[name]


def test_truth_has_what_was_injected(dataset: Path, config: SimulationConfig) -> None:
    for path in sorted((dataset / "truth").glob("*.fits")):
        truth = fitsio.read(str(path), ext="TRUTH")
        snr = {kind: np.abs(truth["snr_true"][truth["kind"] == kind]) for kind in ("variable", "transient", "mover")}
        assert len(snr["variable"]) == config.variables
        assert len(snr["transient"]) == config.transients + config.bright_transients
        assert (snr["transient"] > 200).sum() == config.bright_transients
        assert snr["transient"].min() >= 3
        assert snr["variable"].min() >= 8
        changed = truth["kind"] == "variable"
        np.testing.assert_allclose(
            truth["flux"][changed], (truth["science_flux"] - truth["template_flux"])[changed], rtol=1e-9
        )
        psf = fitsio.read(str(path), ext="PSF")
        np.testing.assert_allclose(psf.sum(axis=(1, 2)), 1, rtol=1e-5)


def read_template(dataset: Path, band: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, WCS]:
    """Image, variance and mask of the whole small tract."""
    grid = json.loads((dataset / "template" / "0" / "tract.json").read_text())
    planes = [np.zeros(grid["shape"], np.float32) for _ in range(3)]
    planes[2][:] = 16
    for path in (dataset / "template" / "0" / band).glob("*.fits"):
        row, column = (int(v) for v in path.stem.split("_"))
        size = grid["patch_size"]
        box = slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)
        for plane, name in zip(planes, ("IMAGE", "VARIANCE", "MASK"), strict=True):
            plane[box] = fitsio.read(str(path), name)
        assert fitsio.read(str(path), "PSF").shape == (4, 4, 31, 31)
    return planes[0], planes[1], planes[2], WCS(grid["wcs"])


def test_template_has_the_stars_where_and_as_bright_as_they_are(dataset: Path, config: SimulationConfig) -> None:
    image, variance, mask, wcs = read_template(dataset, "r")
    path = sorted((dataset / "truth").glob("*.fits"))[0]
    truth = fitsio.read(str(path), ext="TRUTH")
    bright = truth[(truth["mag"] < 22.5)]
    stars = bright[
        (bright["kind"] == "star") & (bright["mag"] > 17) & (bright["mag"] < 20) & (bright["moved_px"] < 0.1)
    ]
    x, y = wcs.all_world2pix(stars["ra"], stars["dec"], 0)
    ratio, offset = [], []
    axis = np.arange(-3, 4)
    for star, cx, cy in zip(stars, x, y, strict=True):
        gap = np.hypot(bright["x"] - star["x"], bright["y"] - star["y"])
        ix, iy = round(cx), round(cy)
        box = slice(iy - 12, iy + 13), slice(ix - 12, ix + 13)
        if ((gap > 0) & (gap < 20)).any() or mask[box].any():
            continue
        stamp = image[box] - np.median(image[iy - 24 : iy + 25, ix - 24 : ix + 25])
        ratio.append(stamp.sum() / star["science_flux"])
        core = stamp[9:16, 9:16]
        offset.append(
            [(core * axis[None, :]).sum() / core.sum() + ix - cx, (core * axis[:, None]).sum() / core.sum() + iy - cy]
        )
    assert len(ratio) >= 5
    assert np.median(ratio) == pytest.approx(0.96, abs=0.05)
    np.testing.assert_allclose(np.median(offset, axis=0), 0, atol=0.06)
    empty = (mask == 0) & (np.abs(image) < 4 * np.sqrt(variance))
    assert np.abs(image[empty]).mean() * 1.2533 == pytest.approx(float(np.sqrt(variance[empty]).mean()), rel=0.3)


def test_detectors_that_share_patches_share_a_coadd() -> None:
    assert detector_groups(preset("test")) == [(0, 1)]
    assert detector_groups(preset("demo")) == [(94,), (4,)]
    assert n_steps(preset("demo")) == 2 * (2 * 5 + 1 + 3) + 3


def test_reference_catalog_is_the_sky_with_errors(dataset: Path, config: SimulationConfig) -> None:
    table = np.concatenate([fitsio.read(str(p)) for p in (dataset / "refcat").glob("*.fits")])
    center = load_camera("testcam").pixel_to_sky(1, 255.5, 255.5, config.ra_deg, config.dec_deg, config.rot_sky_deg)
    rows = draw_region(config, float(center[0]), float(center[1]), 0.02)
    rows = rows[rows["is_star"] & (rows["mag"][:, 2] < 19)]
    found = 0
    for row in rows:
        gap = np.hypot((table["ra"] - row["ra"]) * np.cos(np.radians(row["dec"])), table["dec"] - row["dec"]) * 3.6e6
        best = int(np.argmin(gap))
        if gap[best] < 10:
            found += 1
            assert gap[best] < 6 * table["raErr"][best]
            expected = reference_magnitude("r", row["mag"][2], row["mag"][1] - row["mag"][3])
            measured = 31.4 - 2.5 * np.log10(table["r_flux"][best])
            error = 1.09 * float(table["r_fluxErr"][best] / table["r_flux"][best])
            assert measured == pytest.approx(float(expected), abs=6 * error)
    assert 0.85 * rows.size <= found <= rows.size
    assert (~table["isStar"]).any()
    assert np.isnan(table["pmRa"][table["isStar"]]).any()


def test_ephemerides_point_near_the_movers(dataset: Path, config: SimulationConfig) -> None:
    path = sorted((dataset / "truth").glob("*.fits"))[0]
    truth = fitsio.read(str(path), ext="TRUTH")
    table = fitsio.read(str(dataset / "ephemerides" / f"{path.stem.split('_')[0]}.fits"))
    middle = config.start_mjd_tai + 15 / 86400
    for mover in truth[truth["kind"] == "mover"]:
        row = table[table["ssObjectId"] == mover["id"]][0]
        t = 2 * (middle - row["startMjdTai"]) / (row["endMjdTai"] - row["startMjdTai"]) - 1
        vector = np.polynomial.chebyshev.chebval(t, (row["object"] - row["observer"]).T)
        ra, dec = (
            np.degrees(np.arctan2(vector[1], vector[0])) % 360,
            np.degrees(np.arcsin(vector[2] / np.linalg.norm(vector))),
        )
        gap = 3600 * np.hypot((ra - mover["ra"]) * np.cos(np.radians(dec)), dec - mover["dec"])
        assert 0.08 < gap < 1.05


def test_proper_motion_and_parallax_move_stars_by_their_size(config: SimulationConfig) -> None:
    rows = draw_region(config, config.ra_deg, config.dec_deg, 0.02)[:1].copy()
    rows["pm_ra"], rows["pm_dec"], rows["parallax"] = 100.0, -50.0, 0.0
    ra, dec = positions_at(rows, 57388.0 + 10 * 365.25, proper_motion=True)
    assert (ra - rows["ra"])[0] * np.cos(np.radians(rows["dec"][0])) * 3.6e6 == pytest.approx(1000.0, abs=1e-3)
    assert (dec - rows["dec"])[0] * 3.6e6 == pytest.approx(-500.0, abs=1e-3)
    rows["pm_ra"] = rows["pm_dec"] = 0.0
    rows["parallax"] = 100.0
    year = [positions_at(rows, 61000 + d, proper_motion=True) for d in range(0, 366, 10)]
    east = (np.array([r[0][0] for r in year]) - rows["ra"][0]) * np.cos(np.radians(rows["dec"][0])) * 3.6e6
    assert 1.7 * 100 < np.ptp(east) < 2.05 * 100


def test_events_are_in_order_and_name_existing_files(dataset: Path, config: SimulationConfig) -> None:
    lines = [json.loads(line) for line in (dataset / "events.jsonl").read_text().splitlines()]
    assert [line["at_s"] for line in lines] == sorted(line["at_s"] for line in lines)
    nexts = [line for line in lines if line["topic"] == "next-visit"]
    readouts = [line for line in lines if line["topic"] == "readout"]
    assert (len(nexts), len(readouts)) == (config.visits, config.visits * len(config.detectors))
    assert {line["event"]["groupId"] for line in nexts} == {line["event"]["group"] for line in readouts}
    origin = nexts[0]["event"]["private_sndStamp"] - nexts[0]["at_s"]
    for line in readouts:
        event = line["event"]
        assert (dataset / event["uri"]).is_file()
        assert json.loads((dataset / event["uri"]).with_suffix(".json").read_text()) == event
        assert parse_tai(event["readout_end_tai"]) - origin == pytest.approx(line["at_s"], abs=2e-3)


def test_what_is_switched_off_is_named() -> None:
    from dataclasses import replace

    config = preset("demo")
    off = replace(config, effects=replace(config.effects, dcr=False))
    assert "dcr" in off.not_simulated()
    assert "dcr" not in config.not_simulated()
    assert off.digest() != config.digest()


def test_moved_dataset_s_database_is_found_again(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "apdb").mkdir()
    (tmp_path / "apdb" / "config.yaml").write_text((dataset / "apdb" / "config.yaml").read_text())
    rebase_apdb(tmp_path)
    assert f"sqlite:///{tmp_path}/apdb/apdb.sqlite" in (tmp_path / "apdb" / "config.yaml").read_text()
