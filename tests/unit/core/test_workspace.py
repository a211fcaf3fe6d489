"""Threads that share a stage's loops: each part is done once, errors come through, CPU is counted."""

import itertools
import threading
import time

import numpy as np
import pytest

from core.workspace import Workspace, bands


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_every_part_is_done_once(n_threads: int) -> None:
    workspace, done = Workspace(n_threads), np.zeros(100, np.int64)

    def count(part: tuple[int, int]) -> None:
        done[part[0] : part[1]] += 1

    workspace.share(count, bands(done.size, n_threads))
    assert (done == 1).all()


def test_two_threads_do_two_parts() -> None:
    workspace, names = Workspace(2), []
    meeting = threading.Barrier(2, timeout=10)

    def meet(part: int) -> None:
        meeting.wait()
        names.append((part, threading.current_thread().name))

    workspace.share(meet, [0, 1])
    assert sorted(part for part, _ in names) == [0, 1]
    assert len({name for _, name in names}) == 2


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_any_part_comes_through_when_all_have_stopped(failing: int) -> None:
    workspace, finished = Workspace(2), []

    def work(part: int) -> None:
        if part == failing:
            raise ValueError(part)
        finished.append(part)

    with pytest.raises(ValueError, match=str(failing)):
        workspace.share(work, [0, 1])
    assert finished == [1 - failing]


def test_the_helpers_cpu_is_counted() -> None:
    workspace = Workspace(2)

    def burn(_: int) -> None:
        begin = time.thread_time()
        while time.thread_time() - begin < 0.02:
            pass

    workspace.share(burn, [0, 1])
    assert 0.02 <= workspace.helper_cpu_s < 0.2


def test_bands_cover_the_range_without_overlap() -> None:
    for n in (1, 2, 7, 100):
        edges = bands(n, 3)
        assert edges[0][0] == 0
        assert edges[-1][1] == n
        assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
