"""Who is nearest to the truth: the best of our estimators beside the best of other packages, case by case."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from cases import CASES
from estimators import ESTIMATORS, spaced
from peer_estimators import PEERS
from records import Row


def error(row: Row, samples: int) -> float:
    """The root mean squared error over the first samples."""
    return math.sqrt(statistics.fmean((float(f) - row.truth_bits) ** 2 for f in row.values.split()[:samples]))


def best(rows: Sequence[Row], samples: int) -> Row | None:
    """The row of the least error over the first samples."""
    return min(rows, key=lambda row: error(row, samples), default=None)


def words(row: Row | None, samples: int) -> str:
    """Whose error it is."""
    return "not run" if row is None else f"{({**ESTIMATORS, **PEERS})[row.estimator].label}: {error(row, samples):.3f}"


def as_near(ours: Row, peer: Row, samples: int) -> bool:
    """Whether our error is at most the peer's, to a thousandth of a bit."""
    return round(error(ours, samples), 3) <= round(error(peer, samples), 3)


def versions(rows: Iterable[Row]) -> dict[str, set[str]]:
    """The versions of packages that each peer was run with."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.estimator, set()).add(row.note.split("; ")[0])
    return found


def compared(rows: Sequence[Row], peers: Sequence[Row], n: int) -> tuple[list[list[str]], list[str]]:
    """The rows of the table at N, and sentences about who is nearer where.

    All estimators of a case are compared on the samples that each of them was run on; one with a sample that failed is
    left out.
    """
    body: list[list[str]] = []
    won, lost = 0, []
    for case in CASES.values():
        ours, theirs = (
            [
                row
                for row in of
                if (row.case, row.n, row.truth_bits) == (case.name, n, round(case.truth, 6)) and not row.failed
            ]
            for of in (rows, peers)
        )
        if not ours and not theirs:
            continue
        samples = min(row.seeds for row in (*ours, *theirs))
        own, peer = best(ours, samples), best(theirs, samples)
        mark = "–"
        if own is not None and peer is not None:
            near = as_near(own, peer, samples)
            mark = "ours" if near else "**peer**"
            won += near
            lost += [] if near else [case.name]
        body.append([case.name, f"{case.truth:.2f}", str(samples), words(own, samples), words(peer, samples), mark])
    both = won + len(lost)
    sentences = [f"At N = {spaced(n)} the best of ours is as near as the best peer or nearer in {won} of {both} cases."]
    if lost:
        sentences.append(f"A peer is nearer in {len(lost)}: {'; '.join(lost)}.")
    return body, sentences
