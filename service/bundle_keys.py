"""Which bundle a piece of work needs."""

from core.timescales import unix_tai_to_mjd_tai
from service.records import Prepare, Readout
from service.storage.recipe import BundleKey


def prepare_key(work: Prepare) -> BundleKey:
    """Bundle of a next-visit's detector."""
    return _key(work, work.start_tai_s, work.duration_s)


def readout_key(work: Readout) -> BundleKey:
    """Bundle of a readout."""
    return _key(work, work.exposure_start_tai_s, work.exposure_end_tai_s - work.exposure_start_tai_s)


def _key(work: Prepare | Readout, start_tai_s: float, duration_s: float) -> BundleKey:
    return BundleKey(
        instrument=work.instrument,
        group=work.group,
        detector=work.detector,
        band=work.band,
        mjd_tai=unix_tai_to_mjd_tai(start_tai_s),
        ra_deg=work.ra_deg,
        dec_deg=work.dec_deg,
        rot_sky_deg=work.rot_sky_deg,
        visit=work.visit,
        duration_s=duration_s,
    )
