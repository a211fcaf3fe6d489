"""Ephemerides from mpSky, Rubin's solar-system service: one question over HTTP for each detector of each pointing.

What goes over the wire follows the service's own code (mjuric/mpsky, ``core.py`` and ``service.py``) and its readers at
Rubin (lsst/ap_association ``mpSkyEphemerisQuery.py``, lsst/pipe_tasks ``ssoAssociation.py``). A question is the MJD UTC
of the middle of the exposure and a circle. An answer is, one after the other:

- an Arrow tensor (n_coef, 3, n) [AU]: Chebyshev series of x, y, z of n objects, ICRS axes, light time included;
- an Arrow tensor (m_coef, 3) [AU]: the same of the observer, from the same origin;
- an Arrow stream of one batch: ``name``, ``tmin``, ``tmax`` [MJD TAI, where the series hold], perhaps ``Vmag`` and the
  columns of the Minor Planet Center's orbits.

The argument of the series is the time since ``tmin`` in days, TAI, *not* scaled to [-1, 1].
"""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import structlog
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from core.contracts.catalogs import EPHEMERIS, N_CHEBYSHEV, Catalog
from core.designations import ss_object_id
from core.errors import ConfigurationError, RejectedInputError, TransientError
from core.timescales import mjd_tai_to_mjd_utc
from service.masking import mask_url
from service.storage.recipe import BundleKey, PartKind, PartRecipe

Float64 = NDArray[np.float64]

MARGIN_DEG: Final = 0.208
"""Around a detector: 10 deg/day for half an hour, as at Rubin."""
WINDOW_D: Final = 1 / 48
"""Half the span that a row is made for: no more than the margin is good for."""
ERROR_ARCSEC: Final = 0.5
"""The service tells no errors. Rubin writes 2 and matches within 1 arcsec; ours is matched within 1 arcsec and this, so
that of the stationary sources of a detector full of asteroids less than one in a thousand is taken for one."""
MAX_BYTES: Final = 64 << 20
MAX_TERMS: Final = 32
MAX_SPAN_D: Final = 366.0
MAX_AU: Final = 1e6
"""Farther than any comet."""
MAX_DROPPED_AU: Final = 1e-11
"""What a shorter series may differ by: 1.5 m, 0.8 mas at the distance of the Moon."""
REST: Final = 5.0
"""After a question without answer none is asked for so many times the wait: a sixth of the time is lost at most."""
_NAME: Final = re.compile(r"mpsky@([0-9.]+)#([0-9.]+) (-?[0-9.]+) ([0-9.]+)")

log = structlog.get_logger()


def is_of_service(name: str) -> bool:
    """Whether an array's name is a question to the service, which may go without answer."""
    return name.startswith("mpsky@")


class MpSky:
    """Asks one service; safe between threads. An array's name (see ``recipe.py``) is the question that it answers."""

    def __init__(self, url: str, timeout_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._url, self._timeout_s, self._monotonic_s = url, timeout_s, monotonic_s
        self._arrow = _import_arrow()
        self._rests_until_s = -np.inf

    def resolve(self, key: BundleKey, ra_deg: float, dec_deg: float, radius_deg: float) -> PartRecipe:
        """The ephemerides around a detector's circle; nothing is asked yet."""
        middle = key.mjd_tai + key.duration_s / 2 / 86400
        name = f"mpsky@{middle:.6f}#{ra_deg:.5f} {dec_deg:.5f} {radius_deg + MARGIN_DEG:.5f}"
        return PartRecipe(kind=PartKind.EPHEMERIDES, arrays=(("table", name),), meta={"mjd_tai": middle})

    def read(self, name: str) -> Catalog:
        """The answer to the question that is a name of :meth:`resolve`; raises as :meth:`query`."""
        if (found := _NAME.fullmatch(name)) is None:
            raise FileNotFoundError(f"no question: {name[:100]!r}")
        return self.query(*map(float, found.groups()))

    def query(self, mjd_tai: float, ra_deg: float, dec_deg: float, radius_deg: float) -> Catalog:
        """EPHEMERIS rows of the known objects in a circle, good for half an hour before and after the time.

        Left out, and counted in the log line: objects without provisional designation, whose series are not finite, do
        not hold at the time, or cannot be had in N_CHEBYSHEV terms.

        Raises ``TransientError`` (``mpsky_unavailable``) where no answer comes in time, ``RejectedInputError``
        (``mpsky_garbled``) where what comes is none.
        """
        question = {
            "t": f"{mjd_tai_to_mjd_utc(mjd_tai):.8f}",
            "ra": f"{ra_deg:.6f}",
            "dec": f"{dec_deg:.6f}",
            "radius": f"{radius_deg:.6f}",
            "return_elements": "extended",
        }
        started_s = self._monotonic_s()
        body = self._ask(f"{self._url}{'&' if '?' in self._url else '?'}{urlencode(question)}")
        try:
            answer = _read_answer(self._arrow, body)
        except (*_ARROW_ERRORS, self._arrow.lib.ArrowException) as error:
            raise _garbled(f"{self._shown}: {type(error).__name__}: {str(error)[:200]}") from error
        with np.errstate(all="ignore"):  # absurd numbers end as rows left out
            rows = _rows(answer, mjd_tai)
        n_left_out = answer.n - rows.size
        wall_s = round(self._monotonic_s() - started_s, 3)
        log.info("mpsky_answered", n=int(rows.size), n_left_out=n_left_out, n_bytes=len(body), wall_s=wall_s)
        return rows

    @property
    def _shown(self) -> str:
        return mask_url(self._url)

    def _ask(self, url: str) -> bytes:
        """The answer's body, within the time-out all in all.

        In a thread of its own: a name server that does not answer, or a server that sends a byte a second, is in no
        time-out of a socket.
        """
        started_s = self._monotonic_s()
        if started_s < self._rests_until_s:
            raise TransientError(f"{self._shown} did not answer a moment ago", code="mpsky_unavailable")
        future: Future[bytes] = Future()

        def ask() -> None:
            try:
                future.set_result(_fetch(url, self._timeout_s))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=ask, name="mpsky", daemon=True).start()
        try:
            return future.result(timeout=self._timeout_s)
        except (OSError, HTTPException, ValueError) as error:
            took_s = self._monotonic_s() - started_s
            self._rests_until_s = started_s + (1 + REST) * took_s
            reason = str(error) or "no answer in time"
            raise TransientError(f"{self._shown} gives no answer: {reason}", code="mpsky_unavailable") from error


def _fetch(url: str, timeout_s: float) -> bytes:
    give_up_s = time.monotonic() + timeout_s
    body = bytearray()
    try:
        with urlopen(url, timeout=timeout_s) as answer:
            while piece := answer.read1(1 << 18):
                body += piece
                if len(body) > MAX_BYTES:
                    raise _garbled(f"an answer of more than {MAX_BYTES >> 20} MB")
                if time.monotonic() > give_up_s:
                    raise TimeoutError("timed out")
    except HTTPError as error:
        with error:
            said = error.read(200).decode("ascii", "replace")
        raise OSError(f"{error.code} {said}") from error
    return bytes(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """One answer of n objects.

    Parameters
    ----------
    objects, observer : (n, 3, n_coef), (3, m_coef) series [AU].
    columns : by name, each of n; what may be null is None in texts and NaN in numbers.
    """

    objects: Float64
    observer: Float64
    columns: dict[str, Any]

    def __post_init__(self) -> None:
        lengths = {len(self.columns[name]) for name in (*self.columns, "name", "tmin", "tmax")}
        n_terms = (self.objects.shape[-1], self.observer.shape[-1])
        is_whole = self.objects.shape[:-1] == (self.n, 3) and self.observer.shape[:-1] == (3,) and lengths == {self.n}
        if not is_whole or not all(1 <= n <= MAX_TERMS for n in n_terms):
            raise ValueError(f"shapes {self.objects.shape}, {self.observer.shape} of {self.n} objects")

    @property
    def n(self) -> int:
        return len(self.columns["name"])

    def designations(self) -> list[tuple[str, int | None]]:
        """Designation and ssObjectId of each object."""
        names = self.columns["name"]
        packed = self.columns.get("packed_primary_provisional_designation", names)
        shown = self.columns.get("unpacked_primary_provisional_designation", names)
        return [
            (str(s or name or "").strip(), ss_object_id(str(p or name or "").strip()))
            for s, p, name in zip(shown, packed, names, strict=True)
        ]


_TEXTS: Final = ("name", "packed_primary_provisional_designation", "unpacked_primary_provisional_designation")
_NUMBERS: Final = ("tmin", "tmax", "Vmag")
_ARROW_ERRORS: Final = (ValueError, OSError, KeyError, TypeError, StopIteration, MemoryError, NotImplementedError)
"""Besides its own, what pyarrow raises for bytes that are not Arrow's, or not these tables."""


def _read_answer(arrow: Any, body: bytes) -> _Answer:
    stream = arrow.BufferReader(body)
    objects, observer = _tensor(arrow, stream, body), _tensor(arrow, stream, body)
    with arrow.ipc.open_stream(stream) as reader:
        batch = reader.read_next_batch()
    batch.validate(full=True)
    names = [name for name in (*_TEXTS, *_NUMBERS) if name in batch.schema.names]
    columns = {
        name: batch.column(name).to_pylist()
        if name in _TEXTS
        else np.asarray(batch.column(name).to_numpy(zero_copy_only=False), np.float64)
        for name in names
    }
    return _Answer(objects=objects, observer=observer, columns=columns)


def _tensor(arrow: Any, stream: Any, body: bytes) -> Float64:
    """The next tensor of a stream, axes reversed."""
    tensor = arrow.ipc.read_tensor(stream)
    # A shape or strides larger than the message would be read beyond it.
    if not tensor.is_contiguous or tensor.size * 8 > len(body) or tensor.type != arrow.float64():
        raise ValueError(f"a tensor of {tensor.type}, shape {tensor.shape}")
    values: Float64 = tensor.to_numpy().T
    return values


def _rows(answer: _Answer, mjd_tai: float) -> Catalog:
    """EPHEMERIS rows of those objects that can be had for this time."""
    named = answer.designations()
    tmin, tmax = answer.columns["tmin"], answer.columns["tmax"]
    start, end = np.maximum(tmin, mjd_tai - WINDOW_D), np.minimum(tmax, mjd_tai + WINDOW_D)
    keep = np.flatnonzero(
        (start < end)
        & (start <= mjd_tai)
        & (mjd_tai <= end)
        & (tmax - tmin <= MAX_SPAN_D)
        & np.isfinite(answer.objects).all(axis=(1, 2))
        & np.isfinite(answer.observer).all()
        & np.array([number is not None for _, number in named], bool)
    )
    rows = np.zeros(keep.size, EPHEMERIS)
    rows["designation"] = [named[i][0] for i in keep]
    rows["ssObjectId"] = [named[i][1] for i in keep]
    rows["startMjdTai"], rows["endMjdTai"] = start[keep], end[keep]
    rows["errorArcsec"] = ERROR_ARCSEC
    magnitudes = answer.columns.get("Vmag")
    rows["ephVmag"] = np.nan if magnitudes is None else magnitudes[keep]
    first, last = (start - tmin)[keep], (end - tmin)[keep]
    observer = np.broadcast_to(answer.observer, (keep.size, *answer.observer.shape))
    rows["object"], dropped = _on_span(answer.objects[keep], first, last)
    rows["observer"], dropped_too = _on_span(observer, first, last)
    is_near = (np.abs(rows["object"]) <= MAX_AU).all(axis=(1, 2)) & (np.abs(rows["observer"]) <= MAX_AU).all(
        axis=(1, 2)
    )
    return np.asarray(rows[is_near & (np.maximum(dropped, dropped_too) <= MAX_DROPPED_AU)])


def _on_span(series: Float64, first: Float64, last: Float64) -> tuple[Float64, Float64]:
    """Series (n, 3, m) of an unscaled argument as (n, 3, N_CHEBYSHEV) of one that is scaled from [first, last].

    The change of argument is exact; the second result (n,) bounds what cutting the series to its first terms changed.
    On a span of an hour the terms fall off so fast that a series of eight for a night loses nothing.
    """
    n_terms = max(series.shape[-1], N_CHEBYSHEV)
    nodes = np.cos(np.pi * (np.arange(n_terms) + 0.5) / n_terms)
    arguments = (first + last)[:, None] / 2 + (last - first)[:, None] / 2 * nodes
    terms = chebyshev.chebvander(arguments, series.shape[-1] - 1)
    values = np.einsum("nik,njk->nij", series, terms)
    scaled = values @ np.linalg.inv(chebyshev.chebvander(nodes, n_terms - 1)).T
    dropped = np.abs(scaled[..., N_CHEBYSHEV:]).sum(axis=-1).max(axis=-1, initial=0.0)
    return scaled[..., :N_CHEBYSHEV], dropped


def _garbled(message: str) -> RejectedInputError:
    return RejectedInputError(f"no answer of mpSky: {message}", code="mpsky_garbled")


def _import_arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        message = "SUB60_MPSKY_URL needs pyarrow: pip install 'sub60[mpsky]'"
        raise ConfigurationError(message, code="no_pyarrow") from error
    return pyarrow
