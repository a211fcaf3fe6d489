"""Every fault there is, in the order in which they are tried. Run by ``make faults``; not part of ``make test``."""

import pytest

from tests.faults import crashes, events, last, outages, raws  # noqa: F401 - each adds its faults
from tests.faults.trial import FAULTS, Fault, Row
from tests.faults.volume import NoVolumeError

__all__ = ["FAULTS", "test_fault"]


@pytest.mark.timeout(400)
def test_fault(sites, transport: str, fault: Fault) -> None:  # type: ignore[no-untyped-def]
    """Its promise is kept: what went in came out, once, in time, and said what happened."""
    row: Row | None = None
    try:
        site = sites.get(transport)
        row = sites.rows[f"{fault.name} [{transport}]"] = fault.try_on(site)
    except NoVolumeError as error:
        pytest.skip(str(error))
    finally:
        if row is None or not row.passed:
            sites.keep_evidence(transport)
    assert row is not None
    assert row.passed, f"{row}\n{sites.evidence}"
