"""Time scales against astropy; a synthetic latency survives to a millisecond."""

import numpy as np
import pytest
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RejectedInputError
from core.timescales import (
    format_tai,
    mjd_tai_to_mjd_utc,
    mjd_tai_to_unix_tai,
    parse_tai,
    unix_tai_to_mjd_tai,
    unix_tai_to_utc,
    unix_utc_to_tai,
)

moments = st.floats(63_073_000, 4_000_000_000)


@pytest.mark.parametrize(
    "text", ["1999-01-01T00:00:00", "2016-12-30T23:59:59", "2017-01-01T00:00:00", "2026-11-23T20:02:00"]
)
def test_utc_to_tai_agrees_with_astropy(text: str) -> None:
    moment = Time(text, scale="utc")
    expected = (moment.tai.mjd - 40587.0) * 86400
    assert unix_utc_to_tai(moment.unix) == pytest.approx(expected, abs=1e-4)


@given(moments)
def test_conversions_invert(unix_tai: float) -> None:
    assert unix_utc_to_tai(unix_tai_to_utc(unix_tai)) == pytest.approx(unix_tai, abs=1.001)
    assert mjd_tai_to_unix_tai(unix_tai_to_mjd_tai(unix_tai)) == pytest.approx(unix_tai, abs=1e-5)
    assert parse_tai(format_tai(unix_tai)) == pytest.approx(unix_tai, abs=1e-6)


@pytest.mark.parametrize("mjd_tai", [50000.25, 57752.99, 57754.01, 61000.5])
def test_mjd_utc_agrees_with_astropy(mjd_tai: float) -> None:
    expected = Time(mjd_tai, format="mjd", scale="tai").utc.mjd
    assert mjd_tai_to_mjd_utc(mjd_tai) == pytest.approx(expected, abs=2e-11)


def test_a_synthetic_latency_is_kept_to_a_millisecond() -> None:
    readout_end = parse_tai("2026-11-23T03:00:00.250")
    now_utc = Time("2026-11-23T02:59:35.500", scale="utc").unix  # TAI-UTC = 37 s: 12.25 s after the readout
    assert unix_utc_to_tai(now_utc) - readout_end == pytest.approx(12.25, abs=1e-3)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-23T03:00:00Z", "2026-11-23T03:00:00+00:00", "2026-13-01T00:00:00"]
)
def test_bad_times_are_rejected(text: str) -> None:
    with pytest.raises(RejectedInputError):
        parse_tai(text)


def test_before_1972_is_rejected() -> None:
    with pytest.raises(RejectedInputError):
        unix_utc_to_tai(float(np.float64(1.0)))
