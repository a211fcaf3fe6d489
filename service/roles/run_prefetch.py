"""The prefetch process."""

from dataclasses import replace

from service import topics
from service.bundle_loader import BundleLoader
from service.roles.prefetch import GROUP, Prefetch
from service.roles.runner import make_process, open_topics, run_loops, start_http
from service.settings import Settings
from service.storage.memory import MemoryCache


def run(settings: Settings) -> int:
    """Run until the stop signal; the exit code."""
    process = make_process("prefetch", settings)
    server = start_http(process)
    log = open_topics(process)
    # what it reads goes to Redis: a copy here would serve nobody
    loader = replace(BundleLoader.open(settings), memory=MemoryCache(0))
    loader.warm_up()  # before ready: the first next-visit finds everything open
    member = log.join(GROUP, topics.WORK, settings.slot)
    prefetch = Prefetch(member, loader, process.clock, process.metrics, settings.prepare_expire_s)
    process.health.set_ready(True)
    code = run_loops(process, {"prefetch": prefetch.turn})
    member.close()
    server.stop()
    return code
