"""Which peers there are, what each needs to be installed, and which of our stages does the same job."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from benchmarks.peers.astromatic import SEX_NAMES, SWARP_NAMES, find
from core.errors import ConfigurationError

_APT: Final = "apt-get install --no-install-recommends {}"
_PIP: Final = "pip install {} (all of them, from a clone: pip install -e '.[peers]')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One tool in one role.

    Parameters
    ----------
    programs : any of these on the PATH; or ``module``, to be imported.
    our_stages : those of ours that do the same job; empty: all, from the raw to the DIASource catalog.
    requires : peers whose files it reads; ``prefers``: peers whose files it takes where they are there.
    """

    name: str
    install: str
    our_stages: tuple[str, ...]
    programs: tuple[str, ...] = ()
    module: str = ""
    requires: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether it can be run here."""
        return find(self.programs) is not None if self.programs else find_spec(self.module) is not None


_SOURCES: Final = ("background", "seeing", "detect_sources")

PEERS: Final[dict[str, Peer]] = {
    peer.name: peer
    for peer in (
        Peer(name="source_extractor", programs=SEX_NAMES, install=_APT.format("source-extractor"), our_stages=_SOURCES),
        Peer(
            name="psfex", programs=("psfex",), install=_APT.format("psfex"), our_stages=("psf",),
            requires=("source_extractor",),
        ),
        Peer(
            name="scamp", programs=("scamp",), install=_APT.format("scamp"), our_stages=("astrometry",),
            requires=("source_extractor",),
        ),
        Peer(
            name="swarp", programs=SWARP_NAMES, install=_APT.format("swarp"), our_stages=("template",),
            prefers=("scamp",),
        ),
        Peer(
            name="hotpants", programs=("hotpants",), our_stages=("subtract",), requires=("source_extractor", "swarp"),
            install="no Debian package: build https://github.com/acbecker/hotpants (libcfitsio-dev) into the PATH",
        ),
        Peer(
            name="sfft", module="sfft", install=_PIP.format("sfft"), our_stages=("subtract",),
            requires=("source_extractor", "swarp"),
        ),
        Peer(
            name="source_extractor_difference", programs=SEX_NAMES, install=_APT.format("source-extractor"),
            our_stages=("detect", "measure"), prefers=("hotpants", "sfft", "astroscrappy"),
        ),
        Peer(name="sep_background", module="sep", install="pip install sep", our_stages=("background",)),
        Peer(name="sep_extract", module="sep", install="pip install sep", our_stages=("detect_sources",)),
        Peer(
            name="astroscrappy", module="astroscrappy", install=_PIP.format("astroscrappy"),
            our_stages=("cosmic_rays",),
        ),
        Peer(
            name="photutils_background", module="photutils", install=_PIP.format("photutils"),
            our_stages=("background",),
        ),
        Peer(
            name="photutils_daostarfinder", module="photutils", install=_PIP.format("photutils"),
            our_stages=("detect_sources",),
        ),
        Peer(name="piff", module="piff", install=_PIP.format("Piff"), our_stages=("psf",)),
    )
}  # fmt: skip
"""In an order in which each comes after those whose files it may read, but for :func:`chosen`."""

DIFFERENCES: Final = ("hotpants", "sfft")
"""The first of these that ran makes the chain's difference."""
BEFORE_DIFFERENCE: Final = ("source_extractor", "psfex", "scamp", "swarp")
AFTER_DIFFERENCE: Final = "source_extractor_difference"
COSMIC_RAYS: Final = "astroscrappy"


def chosen(names: Iterable[str]) -> list[Peer]:
    """The named peers (all where none is named) and those they build on, each after what it reads."""
    wanted = list(names) or list(PEERS)
    if unknown := sorted(set(wanted) - set(PEERS)):
        raise ConfigurationError(f"unknown peers {', '.join(unknown)}; there are {', '.join(PEERS)}")
    is_difference_wanted = AFTER_DIFFERENCE in wanted and not set(wanted) & set(DIFFERENCES)
    order: list[Peer] = []

    def add(name: str) -> None:
        peer = PEERS[name]
        if peer in order:
            return
        for before in (*peer.requires, *(other for other in peer.prefers if other in wanted)):
            add(before)
        order.append(peer)

    if is_difference_wanted:
        wanted.extend(name for name in DIFFERENCES if PEERS[name].is_installed)
    for name in wanted:
        add(name)
    return order
