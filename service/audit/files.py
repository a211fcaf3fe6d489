"""Ids of the alert files, without decoding the rest of their alerts."""

import re
from array import array
from pathlib import Path
from typing import Final

import numpy as np

from alerts.files import read_ids
from core.errors import RejectedInputError
from core.ids import visits_of
from service.audit.collect import Progress
from service.audit.holdings import Filed, Int64, Key, by_visit
from service.audit.report import Discrepancy, Kind, SourceRange

NAME: Final = "alert files"
_PATTERN: Final = re.compile(r"alerts-(\d+)-(\d+)\.avro$")


def collect_files(folder: Path, progress: Progress) -> tuple[Filed, SourceRange, list[Discrepancy]]:
    """Ids in every file of the folder; a file that cannot be read to its end is a discrepancy."""
    paths = sorted(folder.glob("alerts-*.avro"))
    ids, file = array("q"), array("i")
    first_offset: dict[int, int] = {}
    edge: dict[int, int] = {}
    problems: list[Discrepancy] = []
    for number, path in enumerate(paths):
        if (found := _PATTERN.search(path.name)) is not None:
            partition, offset = int(found[1]), int(found[2])
            if first_offset.setdefault(partition, offset) == offset:  # paths are sorted: the partition's oldest
                edge[partition] = len(ids)
        try:
            found_ids = read_ids(path)
            ids.frombytes(found_ids.tobytes())
            file.extend([number] * found_ids.size)
        except (OSError, RejectedInputError) as error:
            detail = f"{path}: {type(error).__name__}: {error}"
            problems.append(Discrepancy(kind=Kind.FILE_UNREADABLE, detail=detail))
        progress(NAME, number + 1, len(paths))
    order = by_visit(np.frombuffer(ids, np.int64))
    filed = Filed(
        ids=np.frombuffer(ids, np.int64)[order],
        file=np.frombuffer(file, np.int32)[order],
        names=tuple(path.name for path in paths),
        first_offset=first_offset,
        edge=_edge(np.frombuffer(ids, np.int64), [n for p, n in edge.items() if first_offset[p] > 0]),
    )
    is_trimmed = any(offset > 0 for offset in first_offset.values())
    note = f"{len(paths)} files in {folder}" + (", older ones are gone" if is_trimmed else "")
    return filed, SourceRange(name=NAME, n_records=len(ids), is_trimmed=is_trimmed, note=note), problems


def _edge(ids: Int64, places: list[int]) -> frozenset[Key]:
    visits, detectors = visits_of(ids[[place for place in places if place < ids.size]])
    return frozenset(zip(visits.tolist(), detectors.tolist(), strict=True))
