"""Every fault there is, in the order in which they are tried. Run by ``make faults``; not part of ``make test``."""

import pytest

from tests.faults import crashes, events, last, outages, raws, upgrades  # noqa: F401 - each adds its faults
from tests.faults.trial import FAULTS, Fault, failed_row
from tests.faults.volume import NoVolumeError

__all__ = ["FAULTS", "test_fault"]


@pytest.mark.timeout(400)
def test_fault(sites, transport: str, fault: Fault) -> None:  # type: ignore[no-untyped-def]
    """Its promise is kept: what went in came out, once, in time, and said what happened."""
    name = f"{fault.name} [{transport}]"
    try:
        row = sites.rows[name] = fault.try_on(sites.get(transport), sites.patience)
    except NoVolumeError as error:
        pytest.skip(str(error))
    except Exception as error:
        sites.rows[name] = failed_row(fault.promise, error)
        sites.keep_evidence(transport)
        raise
    if not row.passed:
        sites.keep_evidence(transport)
    assert row.passed, f"{row}\n{sites.evidence}"
