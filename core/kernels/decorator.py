"""The one way to compile a kernel."""

from collections.abc import Callable
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile with numba: cached on disk, GIL released, IEEE division; typed as identity.

    Kernels write into output arguments, loop ``y`` then ``x``, allocate nothing in loops and raise nothing.
    ``cache=True`` does not notice an edited helper in another file: helpers live in the kernel's own file.
    """
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]


def fast_kernel(function: F) -> F:
    """As :func:`kernel`, with reassociation and contraction allowed so that reductions vectorize.

    NaN and infinity keep their meaning (``nnan`` and ``ninf`` are off). Only where a benchmark shows the gain and a
    test holds the tolerance against the plain twin.
    """
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})(  # type: ignore[no-any-return]
        function
    )
