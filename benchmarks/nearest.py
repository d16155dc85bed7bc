"""Who is nearest to the truth: the best of our estimators beside the best of other packages, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cases import CASES
from estimators import ESTIMATORS, spaced
from peer_estimators import PEERS
from records import Row


def best(rows: Iterable[Row]) -> Row | None:
    """The row of the least error; one with a sample that failed is none."""
    return min((row for row in rows if not row.failed), key=lambda row: row.rmse, default=None)


def words(row: Row | None) -> str:
    """Whose error it is."""
    return "not run" if row is None else f"{({**ESTIMATORS, **PEERS})[row.estimator].label}: {row.rmse:.3f}"


def as_near(ours: Row, peer: Row) -> bool:
    """Whether our error is at most the peer's, to a thousandth of a bit."""
    return round(ours.rmse, 3) <= round(peer.rmse, 3)


def versions(rows: Iterable[Row]) -> dict[str, set[str]]:
    """The versions of packages that each peer was run with."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.estimator, set()).add(row.note.split("; ")[0])
    return found


def compared(rows: Sequence[Row], peers: Sequence[Row], n: int) -> tuple[list[list[str]], list[str]]:
    """The rows of the table at N, and sentences about who is nearer where."""
    body: list[list[str]] = []
    won, lost = 0, []
    for case in CASES.values():
        ours, peer = (
            best(row for row in of if row.case == case.name and row.n == n and row.truth_bits == round(case.truth, 6))
            for of in (rows, peers)
        )
        if ours is None and peer is None:
            continue
        mark = "–"
        if ours is not None and peer is not None:
            mark = "ours" if as_near(ours, peer) else "**peer**"
            won += as_near(ours, peer)
            if not as_near(ours, peer):
                lost.append(case.name)
        body.append([case.name, f"{case.truth:.2f}", words(ours), words(peer), mark])
    both = won + len(lost)
    sentences = [f"At N = {spaced(n)} the best of ours is as near as the best peer or nearer in {won} of {both} cases."]
    if lost:
        sentences.append(f"A peer is nearer in {len(lost)}: {'; '.join(lost)}.")
    return body, sentences
