"""Numbers in paths."""

from typing import Annotated, Final

from fastapi import Path

INT64_MAX: Final = 2**63 - 1
Number = Annotated[int, Path(ge=0, le=INT64_MAX)]
"""An id, a visit, a detector: 64 bits, not negative; anything else is answered 422."""
