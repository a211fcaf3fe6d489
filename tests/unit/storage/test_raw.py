"""Raw files: pixels equal astropy's, hostile files are refused with the right error."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from core.camera import Camera, load_camera
from core.errors import Outcome, RejectedInputError, TransientError, UnusableDataError
from core.workspace import Workspace
from service.storage.fits_structure import read_structure
from service.storage.raw import RawLimits, read_raw

KEYWORDS = {
    "INSTRUME": "TestCam", "TIMESYS": "TAI", "GROUPID": "2026-11-23T00:01:02.345", "DAYOBS": "20261122", "SEQNUM": 42,
    "DETECTOR": 0, "BAND": "r", "EXPTIME": 30.0, "DATE-BEG": "2026-11-23T00:01:02.500",
    "DATE-END": "2026-11-23T00:01:33.500", "DATE": "2030-01-01T00:00:00", "RA": 10.5, "DEC": -20.25, "ROTPA": 33.0,
    "AMSTART": 1.1, "AMEND": 1.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def camera() -> Camera:
    return load_camera("testcam")


def write_raw(
    path: Path, camera: Camera, compression: str | None = "RICE_1", dtype: str = "i4", **changes: object
) -> NDArray[np.int32]:
    """A raw file of noise with hard rows (constant, full range, steps); returns its segments."""
    rng = np.random.default_rng(5)
    amplifiers = camera.detectors[0].amplifiers
    segments = rng.normal(25000, 20, (len(amplifiers), *amplifiers[0].raw_shape)).astype(dtype)
    segments[0, 3] = 7
    limits = np.iinfo(dtype)
    segments[0, 4] = rng.integers(limits.min, limits.max, segments.shape[2])
    segments[0, 5, 10:20] = limits.max
    primary = fits.PrimaryHDU()
    for key, value in (KEYWORDS | {"INSTRUME": camera.instrument} | changes).items():
        if value is not None:
            primary.header[key] = value
    hdus = [primary]
    for amplifier, data in zip(amplifiers, segments, strict=True):
        if compression is None:
            hdus.append(fits.ImageHDU(data, name=amplifier.extname))
        else:
            hdus.append(fits.CompImageHDU(data, name=amplifier.extname, compression_type=compression))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return segments.astype(np.int32)


@pytest.mark.parametrize(
    ("compression", "dtype"),
    [("RICE_1", "i4"), ("GZIP_1", "i4"), ("GZIP_2", "i4"), (None, "i4"), (None, "i2"), ("GZIP_2", "i2")],
)
def test_segments_equal_what_was_written(tmp_path: Path, camera: Camera, compression: str | None, dtype: str) -> None:
    written = write_raw(tmp_path / "raw.fits", camera, compression, dtype)
    raw = read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    np.testing.assert_array_equal(raw.segments, written)
    info = raw.visit_info
    assert (info.visit, info.detector, info.band, info.group) == (2026112200042, 0, "r", KEYWORDS["GROUPID"])
    assert info.midpoint_mjd_tai == pytest.approx(61367 + (78 - 0) / 86400, abs=1e-9)
    assert (info.exposure_time_s, info.ra_deg, info.dec_deg, info.rot_sky_deg) == (30.0, 10.5, -20.25, 33.0)
    assert info.airmass == pytest.approx(1.2)


def test_unsigned_pixels_are_shifted(tmp_path: Path, camera: Camera) -> None:
    write_raw(tmp_path / "raw.fits", camera, None, "i2")
    with fits.open(tmp_path / "raw.fits", mode="update") as hdus:
        for hdu in hdus[1:]:
            hdu.data = (np.arange(hdu.data.size) % 65536).astype(np.uint16).reshape(hdu.data.shape)
    raw = read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    np.testing.assert_array_equal(raw.segments[0].reshape(-1), np.arange(raw.segments[0].size) % 65536)


def test_pixels_beyond_32_bits_after_the_shift_are_refused(tmp_path: Path, camera: Camera) -> None:
    write_raw(tmp_path / "raw.fits", camera, "GZIP_1")  # its first segment has pixels of 2**31 - 1
    content = (tmp_path / "raw.fits").read_bytes()
    card = b"BZERO   =                32768".ljust(80)
    at = content.index(b"ZCMPTYPE")
    header_end = content.index(b"END".ljust(80), at)
    assert content[header_end + 80 : header_end + 160] == b" " * 80  # room for one more card
    spoiled = content[:header_end] + card + content[header_end : header_end + 80] + content[header_end + 160 :]
    (tmp_path / "raw.fits").write_bytes(spoiled)
    with pytest.raises(UnusableDataError, match="32 bits") as caught:
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    assert caught.value.outcome is Outcome.BAD_RAW


def test_a_second_read_reuses_the_buffers(tmp_path: Path, camera: Camera) -> None:
    write_raw(tmp_path / "raw.fits", camera)
    workspace = Workspace()
    first = read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), workspace)
    n_bytes = workspace.nbytes
    second = read_raw(f"file://{tmp_path}/raw.fits", camera, RawLimits(roots=(tmp_path,)), workspace)
    assert second.segments is first.segments
    assert workspace.nbytes == n_bytes


@pytest.mark.parametrize(
    "changes",
    [
        {"INSTRUME": "HSC"},
        {"TIMESYS": "UTC"},
        {"DETECTOR": 999},
        {"BAND": "w"},
        {"RA": 400.0},
        {"DEC": -91.0},
        {"RA": "east"},
        {"DATE-BEG": "1970-01-01T00:00:00", "DATE-END": "1970-01-01T00:00:30"},
        {"DATE-BEG": "2200-01-01T00:00:00", "DATE-END": "2200-01-01T00:00:30"},
        {"DATE-END": "2026-11-23T00:01:00"},
        {"DATE-END": None},
        {"EXPTIME": -1.0},
        {"DAYOBS": "19700101"},
        {"DAYOBS": "20261331"},
        {"SEQNUM": -1},
    ],
)
def test_absurd_keywords_are_rejected(tmp_path: Path, camera: Camera, changes: dict[str, object]) -> None:
    write_raw(tmp_path / "raw.fits", camera, None, **changes)
    with pytest.raises(RejectedInputError):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())


@pytest.mark.parametrize("compression", ["RICE_1", None])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.98])
def test_a_truncated_file_is_a_bad_raw(
    tmp_path: Path, camera: Camera, compression: str | None, fraction: float
) -> None:
    path = tmp_path / "raw.fits"
    write_raw(path, camera, compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UnusableDataError) as caught:
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    assert caught.value.outcome is Outcome.BAD_RAW


def test_missing_and_misshapen_segments_are_bad_raws(tmp_path: Path, camera: Camera) -> None:
    path = tmp_path / "raw.fits"
    write_raw(path, camera, None)
    with fits.open(path, mode="update") as hdus:
        del hdus[3]
    with pytest.raises(UnusableDataError, match="missing segment"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    write_raw(path, camera, None)
    with fits.open(path, mode="update") as hdus:
        hdus[2].data = hdus[2].data[:-1]
    with pytest.raises(UnusableDataError, match="pixels"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())


def with_card(path: Path, hdu: int, key: str, value: object) -> None:
    """Change one card of an HDU as bytes: no library that would mend it."""
    content = bytearray(path.read_bytes())
    start = read_structure(memoryview(content), max_hdus=64)[hdu - 1]
    begin = start.data_start + -(-start.data_size // 2880) * 2880
    at = next(i for i in range(begin, len(content), 80) if content[i : i + 8] in (f"{key:<8}".encode(), b"END     "))
    if content[at : at + 8] == b"END     ":
        content[at + 80 : at + 160] = content[at : at + 80]
    content[at : at + 80] = f"{key:<8}= {value}".encode().ljust(80)
    path.write_bytes(content)


@pytest.mark.parametrize("heap", [-(2**31), -1, 0, 2**31 - 1, 2**62])
def test_a_heap_outside_its_hdu_is_a_bad_raw(tmp_path: Path, camera: Camera, heap: int) -> None:
    write_raw(tmp_path / "raw.fits", camera)
    with_card(tmp_path / "raw.fits", 2, "THEAP", heap)
    with pytest.raises(UnusableDataError, match=r"heap|THEAP"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())


def test_a_last_segment_without_pixels_is_rejected(tmp_path: Path, camera: Camera) -> None:
    path = tmp_path / "raw.fits"
    write_raw(path, camera, None)
    workspace = Workspace()
    read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), workspace)
    last = read_structure(memoryview(path.read_bytes()), max_hdus=64)[4]
    with_card(path, 4, "GCOUNT", 0)
    path.write_bytes(path.read_bytes()[: last.data_start])
    with pytest.raises(RejectedInputError, match="random groups"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), workspace)


def test_two_segments_of_one_name_are_a_bad_raw(tmp_path: Path, camera: Camera) -> None:
    path = tmp_path / "raw.fits"
    write_raw(path, camera, None)
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(hdus[1].data + 1, name=hdus[1].name))
    with pytest.raises(UnusableDataError, match="more than one segment"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())


def test_a_flipped_byte_never_escapes_as_another_error(tmp_path: Path, camera: Camera) -> None:
    path = tmp_path / "raw.fits"
    write_raw(path, camera)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(11)
    workspace = Workspace()
    for position in rng.integers(0, len(content), 60):
        before = content[position]
        content[position] = int(rng.integers(0, 256))
        path.write_bytes(content)
        content[position] = before
        try:
            read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), workspace)
        except (UnusableDataError, RejectedInputError):
            continue


def test_other_compressions_bombs_and_files_are_refused(tmp_path: Path, camera: Camera) -> None:
    path = tmp_path / "raw.fits"
    write_raw(path, camera, "HCOMPRESS_1")
    with pytest.raises(RejectedInputError, match="HCOMPRESS_1"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    path.write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(RejectedInputError, match="not a FITS file"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    path.write_bytes(b"")
    with pytest.raises(RejectedInputError):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace())
    with pytest.raises(RejectedInputError, match="larger"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,), max_bytes=-1), Workspace())


def test_only_files_under_the_root_are_read(tmp_path: Path, camera: Camera) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_raw(tmp_path / "raw.fits", camera, None)
    (root / "link.fits").symlink_to(tmp_path / "raw.fits")
    for uri in ("../raw.fits", str(tmp_path / "raw.fits"), "link.fits", "http://host/raw.fits", "s3://b/raw.fits"):
        with pytest.raises(RejectedInputError):
            read_raw(uri, camera, RawLimits(roots=(root,)), Workspace())
    with pytest.raises(TransientError):
        read_raw("nowhere.fits", camera, RawLimits(roots=(root,)), Workspace())


def test_the_digest_is_checked(tmp_path: Path, camera: Camera) -> None:
    write_raw(tmp_path / "raw.fits", camera, None)
    with pytest.raises(UnusableDataError, match="digest"):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), Workspace(), expected_sha256="0" * 64)
