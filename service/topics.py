"""The names of the topics; all but ``work`` have one partition on Redis Streams."""

from typing import Final

NEXT_VISIT: Final = "next-visit"
READOUT: Final = "readout"
WORK: Final = "work"
ALERTS: Final = "alerts"
MANIFESTS: Final = "manifests"
RESULTS: Final = "results"
COMMITTED: Final = "committed"
DEAD_LETTERS: Final = "deadletters"
STATUS: Final = "status"

INPUTS: Final = (NEXT_VISIT, READOUT)
ALL: Final = (*INPUTS, WORK, ALERTS, MANIFESTS, RESULTS, COMMITTED, DEAD_LETTERS, STATUS)
