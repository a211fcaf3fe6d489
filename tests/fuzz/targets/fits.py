"""Raw files through the reader of the compute child, which reuses its buffers from file to file."""

import io
import signal
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

import numba
import numpy as np
from astropy.io import fits

import service.storage.segments as segments_module
from core.camera import Camera, load_camera
from core.contracts.exposure import RawExposure
from core.errors import Outcome, RejectedInputError, TransientError, UnusableDataError
from core.kernels.rice import READ_AHEAD
from core.workspace import Workspace
from service.storage.raw import RawLimits, read_raw
from tests.fuzz.hostile_fits import Unit, spoil, take_apart
from tests.fuzz.target import ACCEPTED, Target
from tests.unit.storage.test_raw import write_raw

SMALL: Final = (24, 40)
"""Pixels of a segment of the small camera: files of 50 kB."""
KINDS: Final = (
    ("RICE_1", "i4"), ("GZIP_1", "i4"), ("GZIP_2", "i4"), ("GZIP_2", "i2"), (None, "i4"), (None, "i2"),
)  # fmt: skip
COMPARED: Final = 8
"""One accepted file in so many is read again, with other buffers and by astropy."""
ASTROPY_S: Final = 1.0
"""Longer is not waited for: it believes every size in a header."""
BUFFERS: Final = ("raw.file", "raw.segments")


class Fits(Target):
    """Pixels of the right shape, or one of the three errors; the same pixels whatever the buffers held before."""

    def __init__(self, scratch: Path) -> None:
        self._limits = RawLimits(roots=(scratch,), max_bytes=16 << 20)
        self._path = scratch / "raw.fits"
        self._workspace, self._n_bytes = Workspace(), 0
        self._camera, self._large = small_camera(), load_camera("testcam")
        self._seeds = [self._seed(self._camera, *kind) for kind in KINDS] + [self._rice_of_fitsio()]
        self._large_seeds = [self._seed(self._large, "RICE_1", "i4")]
        if numba.config.BOUNDSCHECK:
            self._tighten()
        for seed in (*self._seeds, *self._large_seeds):
            assert self.check(b"".join(unit.join() for unit in seed)) == ACCEPTED

    def make(self, random: Random) -> bytes:
        """A good file with changes; one in fifty of the large camera."""
        return spoil(random.choice(self._large_seeds if random.random() < 0.02 else self._seeds), random)

    def check(self, data: bytes) -> str:
        """See the class."""
        self._path.write_bytes(data)
        self._n_bytes = len(data)
        camera = self._large if len(data) > 200_000 else self._camera
        try:
            raw = read_raw("raw.fits", camera, self._limits, self._workspace)
        except (RejectedInputError, UnusableDataError, TransientError) as error:
            return check_refusal(error)
        amplifiers = camera.detectors[raw.visit_info.detector].amplifiers
        assert raw.segments.dtype == np.int32
        assert raw.segments.shape == (len(amplifiers), *amplifiers[0].raw_shape)
        if zlib.crc32(data) % COMPARED == 0:
            self._compare(raw, data, camera)
        return ACCEPTED

    def _compare(self, raw: RawExposure, data: bytes, camera: Camera) -> None:
        """Neither what the buffers held nor what lies behind the file may be seen; astropy reads the same."""
        found = raw.segments.copy()
        for name in BUFFERS:
            self._workspace.buffers[name].view(np.uint8)[...] = 0xA5
        again = read_raw("raw.fits", camera, self._limits, self._workspace)
        assert np.array_equal(found, again.segments), "pixels depend on what the buffers held"
        names = [amplifier.extname for amplifier in camera.detectors[raw.visit_info.detector].amplifiers]
        for name, ours in zip(names, found, strict=True):
            theirs = astropy_pixels(data, name)
            is_same_image = theirs is not None and theirs.shape == ours.shape
            assert not is_same_image or np.array_equal(ours, theirs), f"astropy reads {name} with other pixels"

    def _seed(self, camera: Camera, compression: str | None, dtype: str) -> list[Unit]:
        write_raw(self._path, camera, compression, dtype)
        return take_apart(self._path.read_bytes())

    def _rice_of_fitsio(self) -> list[Unit]:
        """As the observatory's writer makes them: cfitsio's keywords and order."""
        import fitsio

        write_raw(self._path, self._camera, None)
        with fits.open(self._path) as hdus:
            primary, pixels = hdus[0].header, [(hdu.name, np.asarray(hdu.data)) for hdu in hdus[1:]]
        self._path.unlink()
        header = [{"name": key, "value": primary[key]} for key in primary if key not in ("SIMPLE", "BITPIX", "NAXIS")]
        with fitsio.FITS(str(self._path), "rw") as file:
            file.write(None, header=header)
            for name, segment in pixels:
                file.write(segment, compress="RICE", tile_dims=(4, segment.shape[1]), extname=name)
        return take_apart(self._path.read_bytes())

    def _tighten(self) -> None:
        """Kernels that check bounds see no more of the buffer than the file and what may be read behind it."""
        decode = segments_module.rice_decode

        def decode_within(content: Any, *arguments: Any) -> None:
            decode(content[: self._n_bytes + READ_AHEAD], *arguments)

        segments_module.rice_decode = decode_within


def check_refusal(error: RejectedInputError | UnusableDataError | TransientError) -> str:
    """Its code, which every one has; a raw that cannot be used has the outcome of one."""
    assert error.code
    assert not isinstance(error, UnusableDataError) or error.outcome is Outcome.BAD_RAW
    return error.code


def small_camera() -> Camera:
    """The test camera's first detector with tiny segments; nothing but their shape matters to the reader."""
    camera = load_camera("testcam")
    detector = camera.detectors[0]
    amplifiers = tuple(replace(amplifier, raw_shape=SMALL) for amplifier in detector.amplifiers)
    return replace(camera, detectors={0: replace(detector, amplifiers=amplifiers)})


def astropy_pixels(data: bytes, name: str) -> Any:
    """A segment as astropy reads it; None where it will not, or not soon."""

    def give_up(_number: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, ASTROPY_S)
    try:
        with fits.open(io.BytesIO(data), memmap=False) as hdus:
            return np.asarray(hdus[name].data)
    except Exception:
        return None  # a judge of pixels, not of files
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
