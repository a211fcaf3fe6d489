"""A service that answers as mpSky does, and orbits whose places are known without it."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
from numpy.polynomial import chebyshev, polynomial
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Orbits:
    """Paths that are powers of the days since ``tmin`` (MJD TAI): (n, 3, k) of objects, (3, m) of the observer [AU]."""

    objects: Float64
    observer: Float64
    tmin: float
    tmax: float

    def places(self, mjd_tai: float) -> tuple[Float64, Float64]:
        """ICRS directions [deg] from the observer."""
        days = mjd_tai - self.tmin
        x, y, z = (
            polynomial.polyval(days, self.objects.T) - polynomial.polyval(days, self.observer.T)[:, None]
        ).reshape(3, -1)
        return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def make_orbits(n: int, mjd_tai: float, *, n_terms: int = 4, seed: int = 4) -> Orbits:
    """Objects 1-3 AU away, at least 0.2 deg/day; an observer on a turning Earth (eight terms, as the service has)."""
    random = np.random.default_rng(seed)
    scale = np.array([2.0, 8e-3, 3e-5, 1e-7, *np.full(36, 1e-10)])[:n_terms]
    objects = random.normal(0, 1, (n, 3, n_terms)) * scale
    objects[:, 0, 0] = random.uniform(1.5, 3, n)
    objects[:, 1, 1] = 0.02
    k = np.arange(8)
    factorials = np.cumprod([1, 1, 2, 3, 4, 5, 6, 7])
    year, day = 2 * np.pi / 365.25, 2 * np.pi
    observer = np.zeros((3, 8))
    for radius, rate in ((1.0, year), (4.2e-5, day)):
        observer[0] += radius * np.cos(k * np.pi / 2) * rate**k / factorials
        observer[1] += radius * np.sin(k * np.pi / 2) * rate**k / factorials
    return Orbits(objects=objects, observer=observer, tmin=mjd_tai - 0.2, tmax=mjd_tai + 0.25)


def make_answer(orbits: Orbits, names: list[str], **columns: Any) -> bytes:
    """The body of an answer: two tensors and a stream, as the service writes them."""
    n = len(orbits.objects)
    sink = pa.BufferOutputStream()
    for tensor in (_series(orbits.objects).T, _series(orbits.observer).T):
        pa.ipc.write_tensor(pa.Tensor.from_numpy(np.ascontiguousarray(tensor)), sink)
    zeros = np.zeros(n)
    table = {"name": pa.array(names, pa.string()), "ra": zeros, "dec": zeros}
    table |= {"tmin": np.full(n, orbits.tmin), "tmax": np.full(n, orbits.tmax)} | columns
    batch = pa.record_batch({name: pa.array(values) for name, values in table.items()})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _series(powers: Float64) -> Float64:
    """Chebyshev series (…, k) of sums of powers (…, k)."""
    n_terms = powers.shape[-1]
    of_one = [np.pad(found := chebyshev.poly2cheb(one), (0, n_terms - found.size)) for one in np.eye(n_terms)]
    with np.errstate(invalid="ignore"):
        return np.asarray(powers @ np.array(of_one))


@dataclass
class MpSkyServer:
    """On a free port of this machine; what it does may be changed at any time."""

    body: bytes = b""
    status: int = 200
    delay_s: float = 0.0
    """Before the first byte."""
    drip_s: float = 0.0
    """Between bytes, if not 0."""
    asked: list[Mapping[str, str]] = field(default_factory=list)
    """Parameters of all questions so far."""

    def __enter__(self) -> Self:
        outer, self._stopping = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append({k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()})
                outer._stopping.wait(outer.delay_s)
                self.send_response(outer.status)
                self.end_headers()
                try:
                    self._write()
                except OSError:
                    return

            def _write(self) -> None:
                if not outer.drip_s:
                    self.wfile.write(outer.body)
                    return
                for i in range(len(outer.body)):
                    if outer._stopping.wait(outer.drip_s):
                        return
                    self.wfile.write(outer.body[i : i + 1])

            def log_message(self, *_: object) -> None:
                """Silent."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that has gone is no error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}/ephemerides/"

    def settle(self, n: int, timeout_s: float = 5.0) -> None:
        """Wait until so many questions have come."""
        until = time.monotonic() + timeout_s
        while len(self.asked) < n and time.monotonic() < until:
            time.sleep(0.01)
