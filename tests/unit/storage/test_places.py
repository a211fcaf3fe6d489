"""Addresses in events: a corpus of attempts to read something else, through the one function that resolves them."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RejectedInputError
from service.settings import allowed_roots, read_settings
from service.storage.places import open_regular, read_small, resolve_uri

ATTACKS = [
    "",
    "..",
    "../secret",
    "raw/../../secret",
    "raw/..",
    "./../secret",
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "%2e%2e/secret",
    "%2E%2E%2Fsecret",
    "..%2fsecret",
    "raw/%2e%2e/%2e%2e/secret",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "file://localhost/etc/passwd",
    "file://host/etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "file:////host/share",
    "file://[::1]/etc/passwd",
    "file://[",
    "//[",
    "file:secret",
    "file:../secret",
    "FILE:///etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "https://host/raw.fits",
    "s3://bucket/raw.fits",
    "ftp://host/raw.fits",
    "gopher://host:70/_x",
    "data:text/plain,x",
    "jar:file:///x!/y",
    "//host/share/raw.fits",
    "\\\\host\\share\\raw.fits",
    "C:\\raw.fits",
    "raw\\..\\..\\secret",
    "raw.fits\0.json",
    "raw.fits%00.json",
    "raw.fits\n",
    "raw.fits\r\nHost: x",
    "\ud800",
    "a" * 5000,
    "a/" * 600,
    "link/secret",
    "link-to-secret",
    "circle/x",
]
NAMES_ONLY = ["%252e%252e/secret", "\uff0e\uff0e/secret", "..\u2215secret", "\u2024\u2024/secret", "~root/x", "$HOME/x"]
"""Look like a way out and are plain names below the root."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "raw").mkdir(parents=True)
    (root / "raw" / "good.fits").write_bytes(b"good")
    (root / "link").symlink_to(tmp_path)
    (root / "link-to-secret").symlink_to(tmp_path / "secret")
    (root / "circle").symlink_to(root / "circle")
    (root / "inner-link").symlink_to(root / "raw" / "good.fits")
    return root


@pytest.mark.parametrize("uri", ATTACKS)
def test_no_attack_resolves(root: Path, uri: str) -> None:
    with pytest.raises(RejectedInputError) as caught:
        resolve_uri(uri, (root,))
    assert caught.value.code == "bad_uri"
    str(caught.value.context).encode()  # can be logged


@pytest.mark.parametrize("uri", NAMES_ONLY)
def test_what_only_looks_like_a_way_out_is_a_name_inside(root: Path, uri: str) -> None:
    found = resolve_uri(uri, (root,))
    assert found.is_relative_to(root.resolve())
    assert not found.exists()


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["..", "/", "%2e", "%2f", "%", "file:", "a", "\\", "~"])).map("".join)
)
def test_whatever_is_asked_for_lies_inside_or_is_refused(uri: str) -> None:
    root = Path("/nowhere/root")
    try:
        found = resolve_uri(uri, (root,))
    except RejectedInputError:
        return
    assert found.is_relative_to(root)


@pytest.mark.parametrize("uri", ["raw/good.fits", "raw/%67ood.fits", "inner-link", "./raw//good.fits"])
def test_a_file_inside_is_found_however_it_is_named(root: Path, uri: str) -> None:
    for address in (uri, f"file://{root}/{uri}", f"file://localhost{root}/{uri}", f"{root}/{uri}"):
        assert read_small(resolve_uri(address, (root,)), (root,), 10) == b"good"


def test_every_allowed_folder_counts_and_no_other(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.fits").write_bytes(b"other")
    assert resolve_uri(f"{other}/x.fits", (root, other)) == other / "x.fits"
    with pytest.raises(RejectedInputError):
        resolve_uri(f"{other}/x.fits", (root,))
    settings = read_settings({}, raw_roots=f"{root}:{other}", dataset=tmp_path)
    assert allowed_roots(settings) == (root, other)
    assert allowed_roots(read_settings({}, dataset=tmp_path)) == (tmp_path,)


def test_a_sibling_with_the_roots_name_as_its_beginning_is_outside(root: Path) -> None:
    sibling = root.with_name("root-too")
    sibling.mkdir()
    with pytest.raises(RejectedInputError):
        resolve_uri(f"{sibling}/x", (root,))


def test_only_regular_files_are_opened_and_nothing_is_waited_for(root: Path) -> None:
    os.mkfifo(root / "fifo")
    for name in ("fifo", "raw"):

        def read(name: str = name) -> None:
            with pytest.raises(RejectedInputError, match="regular"):
                read_small(resolve_uri(name, (root,)), (root,), 100)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        reading.join(5.0)
        assert not reading.is_alive()


def test_device_files_are_not_read_even_below_a_root() -> None:
    with pytest.raises(RejectedInputError, match="regular"):
        read_small(Path("/dev/zero"), (Path("/dev"),), 100)


def test_a_larger_file_is_not_read(root: Path) -> None:
    with pytest.raises(RejectedInputError, match="larger"):
        read_small(root / "raw/good.fits", (root,), 3)


def test_a_link_swapped_in_after_the_check_is_not_followed(root: Path, tmp_path: Path) -> None:
    path = resolve_uri("raw/good.fits", (root,))
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        read_small(path, (root,), 100)
    path.unlink()
    (root / "raw").rmdir()
    (root / "raw").symlink_to(tmp_path)  # a folder on the way
    (tmp_path / "good.fits").write_bytes(b"secret")
    with pytest.raises(RejectedInputError, match="outside"), open_regular(path, (root,), 100):
        pass
