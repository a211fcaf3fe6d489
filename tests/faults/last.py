"""What comes last: the whole night reconciled by ``sub60 audit``'s own code."""

from service.audit import audit
from service.bundle_loader import open_apdb
from service.clock import SystemClock
from service.log import open_log
from tests.faults.trial import Trial, fault

SETTLE_S = 2.0


@fault(
    "the whole night, audited",
    "events, manifests, alerts, results, APDB and files agree",
    is_around_commit=True,
    is_last=True,
)
def whole_night(trial: Trial) -> None:
    """Over everything that was done to this site before."""
    site = trial.site
    visit = trial.send()[0]
    site.wait_for(lambda: all(site.ledger.is_whole(key) for key in visit.keys), 60, "the last visit is out")

    def is_clean() -> bool:
        with open_log(site.log_server.direct_url) as log:
            found = audit(
                log, site.settings, SystemClock(), apdb=open_apdb(site.settings.apdb_config), settle_s=SETTLE_S
            )
        is_whole = found.n_visit_detectors >= site.night.n_made * len(visit.keys) - len(visit.keys)
        trial.note = f"{found.n_visit_detectors} visit-detectors: {[str(d) for d in found.discrepancies[:5]]}"
        return found.is_clean and is_whole

    trial.expect("the audit is clean", is_clean)
