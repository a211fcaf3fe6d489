"""Runs a target in processes of its own, watches them, and gathers what they say."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from tests.fuzz.child import DESCRIPTORS, Orders
from tests.fuzz.finds import ROOT, Find, keep
from tests.fuzz.mailbox import Mailbox
from tests.fuzz.target import ACCEPTED, Lane
from tests.fuzz.targets import Entry

HANG_S: Final = 5.0
READY_S: Final = 300.0
"""For building a target: kernels are compiled then."""
MAX_DEATHS: Final = 20
REGRESSIONS: Final = ROOT / "tests" / "data" / "fuzz"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one target."""

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    """Time in which inputs were tried, without set-up; of all lanes."""
    answers: Counter[str] = field(default_factory=Counter)
    hangs: int = 0
    leak_bytes: int = 0
    descriptors: int = 0
    finds: dict[str, Find] = field(default_factory=dict)
    error: str = ""
    """Why the target could not be run to its end."""

    @property
    def is_good(self) -> bool:
        """Nothing found, and something tried."""
        return not self.finds and not self.error and self.inputs > 0

    def as_report(self) -> dict[str, Any]:
        """Its section of the report."""
        rejected = {name: n for name, n in sorted(self.answers.items()) if name not in (ACCEPTED, "crash")}
        return {
            "inputs": self.inputs,
            "seconds": round(self.seconds, 1),
            "inputs_per_s": round(self.inputs / self.seconds, 1) if self.seconds else None,
            "accepted": self.answers[ACCEPTED],
            "rejected": rejected,
            "crashes": self.answers["crash"],
            "hangs": self.hangs,
            "leak_bytes": self.leak_bytes,
            "descriptors": self.descriptors,
            "seed": self.seed,
            "finds": [asdict(find) for find in self.finds.values()],
            "error": self.error or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one target is run."""

    target: str
    entry: Entry
    seed: int
    seconds: float
    finds: Path
    hang_s: float = HANG_S
    regressions: Path | None = REGRESSIONS
    notice: Callable[[Outcome], None] = lambda outcome: None
    """Told now and then how far it is."""


def run_target(plan: Plan) -> Outcome:
    """All lanes of a target, one after the other; a process that dies is replaced and goes on with another seed."""
    outcome = Outcome(target=plan.target, seed=plan.seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number, lane in enumerate(plan.entry.lanes):
            left, deaths = plan.seconds * lane.share, 0
            while left > 0 and not outcome.error:
                watched = _Watched(plan, outcome, lane, Path(folder))
                seconds = watched.run(left, plan.seed + 1000 * number + deaths, with_kept=number == deaths == 0)
                left = left - seconds if watched.died else 0.0
                deaths += watched.died
                if deaths > MAX_DEATHS:
                    outcome.error = f"its process died {deaths} times"
    if outcome.leak_bytes > plan.entry.leak_bytes:
        _add(outcome, "leak", f"resident memory grew by {outcome.leak_bytes} bytes over the last half", "")
    if outcome.descriptors > DESCRIPTORS:
        _add(outcome, "descriptors", f"{outcome.descriptors} more open at the end than half-way", "")
    return outcome


class _Watched:
    """One process and what it says."""

    def __init__(self, plan: Plan, outcome: Outcome, lane: Lane, folder: Path) -> None:
        self._plan, self._outcome, self._lane = plan, outcome, lane
        self._path, self._errors = folder / "mailbox", folder / "stderr"
        self._replay = " ".join((*(f"{k}={v}" for k, v in lane.env.items()), "python -m tests.fuzz --replay"))
        self._mailbox = Mailbox(self._path)
        self._mailbox.clear()
        self._counted: Counter[str] = Counter()
        self._n = 0
        self._has_ended = False
        self.died = False

    def run(self, seconds: float, seed: int, *, with_kept: bool) -> float:
        """Try inputs for so long; returns for how long they were."""
        plan = self._plan
        orders = Orders(
            target=plan.target, spec=plan.entry.spec, replay=self._replay, seed=seed, seconds=seconds,
            mailbox=str(self._path), finds=str(plan.finds),
            regressions=str(plan.regressions) if with_kept and plan.regressions else "",
        )  # fmt: skip
        command = [sys.executable, "-m", "tests.fuzz.child", json.dumps(asdict(orders))]
        env = dict(os.environ) | dict(self._lane.env)
        with self._errors.open("wb") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert process.stdout is not None
        reader = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
        reader.start()
        began = self._watch(process)
        reader.join(timeout=10)
        process.stdout.close()
        ran = time.monotonic() - began if began else 0.0
        self._outcome.seconds += ran
        self._close(process, began is None)
        return ran

    def _watch(self, process: "subprocess.Popen[str]") -> float | None:
        """Until the process ends; kills one that hangs. Returns when it began to try inputs."""
        started, began, deadline = time.monotonic(), None, self._plan.seconds + READY_S
        while process.poll() is None:
            time.sleep(0.05)
            if began is None and self._mailbox.number:
                began = time.monotonic()
            if self._mailbox.busy_s > self._plan.hang_s or time.monotonic() - started > deadline:
                process.send_signal(signal.SIGABRT)  # its traceback goes to standard error
                try:
                    process.wait(2)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                self.died = True
        return began

    def _close(self, process: "subprocess.Popen[str]", never_began: bool) -> None:
        outcome, data = self._outcome, self._mailbox.data
        outcome.inputs += max(self._mailbox.number, self._n)
        tail = self._errors.read_text(encoding="utf-8", errors="replace")[-3000:]
        if not self._has_ended:
            was_hung, self.died = self.died, True
            if data is None:
                outcome.error = (
                    f"exit status {process.returncode} {'before' if never_began else 'between'} inputs: {tail}"
                )
            else:
                self._take_death(data, was_hung, process.returncode, tail)
        self._mailbox.close()

    def _take_death(self, data: bytes, was_hung: bool, status: int, tail: str) -> None:
        kind = "hang" if was_hung else "crash"
        self._outcome.hangs += was_hung
        self._outcome.answers["crash"] += not was_hung
        place = next((line.strip() for line in tail.splitlines() if line.strip().startswith('File "')), "?")
        what = f"longer than {self._plan.hang_s} s" if was_hung else f"ended by signal {-status}"
        path = keep(self._plan.finds, self._plan.target, data, self._replay, f"{kind}: {what}\n\n{tail}")
        _add(self._outcome, kind, f"{what}: {place}", tail, str(path))

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            said = json.loads(line)
            if said["event"] == "progress":
                answers = Counter(said["answers"])
                self._outcome.answers.update(answers - self._counted)
                self._counted, self._n = answers, said["n"]
                self._plan.notice(self._outcome_with(said["n"]))
            elif said["event"] == "find":
                find = Find(**said["find"])
                self._outcome.finds[find.where] = find
            else:
                self._has_ended = True
                self._outcome.leak_bytes = max(self._outcome.leak_bytes, said["leak_bytes"])
                self._outcome.descriptors = max(self._outcome.descriptors, said["descriptors"])

    def _outcome_with(self, n: int) -> Outcome:
        """The outcome as it stands, this process's inputs counted."""
        now = self._outcome
        return Outcome(target=now.target, seed=now.seed, inputs=now.inputs + n, finds=now.finds, hangs=now.hangs)


def _add(outcome: Outcome, kind: str, where: str, detail: str, file: str = "") -> None:
    outcome.finds[f"{kind} {where}"] = Find(kind=kind, where=where, detail=detail, file=file)
