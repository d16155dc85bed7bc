"""Rows as Markdown: a summary by estimator, and truth beside estimate by case."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cases import CASES, KINDS
from estimators import ESTIMATORS, N_BINS, NOISE_VARIANCE, Estimator, spaced
from nearest import compared, versions
from peer_estimators import PEERS
from records import Row, ordered

_PREFERRED = 5000
"""The N that is shown where one is."""


SUMMARY = ("<!-- summary -->", "<!-- end of summary -->")
"""Around the summary, which `docs/estimators.md` includes."""

_INFINITE_RESULTS = Path(__file__).parent / "results" / "infinite_width.md"

INFINITE = """## Ensembles of networks

What an [infinite ensemble of infinitely wide networks](reference/infinite_width.md) knows is a formula at every moment
of its training. `python examples/infinite_width.py --table benchmarks/results/infinite_width.md` trains ensembles of
finite networks on the same data, and the estimators measure their single output Z.

- Nearest neighbors (`knn`) are within 0.1 bit or 10 % in every row.
- KDE (the mean of its bounds) is 0.05 to 0.15 bits high, mostly; within 10 % where there is much to know.
- Cells group the values of this single number by clusters, and read at most 1.3 bits of I(X;Z). They are right where
  there is little more than one bit to know; of the classes of the half-moons, which interleave in Z, they miss a fifth.
- Soft entropy reads at most one bit: a single number has two directions from its center. It is for wide layers.
- At the end of training on the half-moons 64 units know less than infinitely many, 2.45 bits instead of 2.72, and 1 024
  units as much. Finite width moves the values less than the choice of an estimator does.

"""
"""What the table of ensembles shows, as of its last run."""


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *body])


def known(rows: Iterable[Row], estimators: Mapping[str, Estimator] = ESTIMATORS) -> list[Row]:
    """The rows of cases and estimators that are there still, in order."""
    return ordered(row for row in rows if row.case in CASES and row.estimator in estimators)


def shown_size(rows: Iterable[Row]) -> int:
    """The N of tables that show one."""
    sizes = {row.n for row in rows}
    return _PREFERRED if _PREFERRED in sizes else max(sizes)


def share(rows: Sequence[Row]) -> str:
    """How many of the rows are within 0.1 bit or 10 %."""
    return f"{sum(row.within for row in rows)}/{len(rows)}" if rows else "–"


def summary(rows: Iterable[Row], estimators: Mapping[str, Estimator] = ESTIMATORS) -> str:
    """How each estimator does at one N, by kind and by N, and how long it takes at the largest N."""
    rows = known(rows, estimators)
    shown, sizes = shown_size(rows), sorted({row.n for row in rows})
    body = []
    for name, estimator in estimators.items():
        own = [row for row in rows if row.estimator == name]
        here = [row for row in own if row.n == shown]
        finite = [row for row in here if math.isfinite(row.mean)]
        cells = [estimator.label]
        if finite:
            worst = max(finite, key=lambda row: abs(row.bias))
            cells.append(f"{statistics.median(abs(row.bias) for row in finite):.3f}")
            cells.append(f"{worst.bias:+.2f} ({worst.case})")
            cells.append(f"{statistics.median(row.rmse for row in finite):.3f}")
        else:
            cells += ["**failed**" if here else "–"] * 3
        cells += [share([row for row in here if row.kind == kind]) for kind in KINDS]
        cells += [share([row for row in own if row.n == n]) for n in sizes]
        cells.append(f"{sum(row.failed for row in own)}/{len(own)}")
        seconds = [row.median_seconds for row in own if row.n == sizes[-1]]
        cells.append(f"{statistics.median(seconds):.2g}" if seconds else "–")
        if own:
            body.append(cells)
    header = ["estimator", "median abs. bias", "worst bias", "median RMSE", *KINDS]
    header += [f"N = {spaced(n)}" for n in sizes]
    return table([*header, "failures", f"s at {spaced(sizes[-1])}"], body)


def cell(row: Row | None) -> str:
    """The mean of a row: bold where it is off, with a mark where a sample failed."""
    if row is None:
        return "–"
    if not math.isfinite(row.mean):
        return "**failed**"
    mean = f"{row.mean:.2f}".replace("-0.00", "0.00")
    return (mean if row.within else f"**{mean}**") + ("†" if row.failed else "")


def nearest(rows: Sequence[Row], peers: Iterable[Row], n: int) -> list[str]:
    """The section that compares ours with those of other packages; empty where none was run."""
    peers = known(peers, PEERS)
    if not any(row.n == n for row in peers):
        return []
    body, sentences = compared(rows, peers, n)
    run = versions(peers)
    sources = [[PEERS[name].label, " · ".join(sorted(run[name])), PEERS[name].called] for name in PEERS if name in run]
    return [
        "## Who is nearest\n\nThe root mean squared error, in bits, of the best of our estimators and of the best of "
        f"other packages for each case, at N = {spaced(n)} and on the samples that all of them were run on, by "
        "`python benchmarks/peers.py` in `benchmarks/results/peers.csv`. The best are chosen knowing the truth, which "
        "data cannot do: the table shows what there is, not what a choice in advance would give. Errors are compared "
        "to a thousandth of a bit; an estimator with a sample that failed is left out.",
        " ".join(sentences),
        table(["case", "truth", "samples", "ours", "peer", "nearer"], body),
        "What was called; the rest are the package's defaults:",
        table(["peer", "version", "call"], sources),
    ]


def page(rows: Iterable[Row], peers: Iterable[Row] = ()) -> str:
    """``docs/truth.md``: the summary, truth beside estimate for each kind of case, and who is nearest."""
    rows = known(rows)
    found, shown = {row.key: row for row in rows}, shown_size(rows)
    estimators = [name for name in ESTIMATORS if any(row.estimator == name for row in rows)]
    cases = [case for case in CASES.values() if any(row.case == case.name for row in rows)]
    policies: dict[str, list[str]] = {}
    for name in estimators:
        if policy := ESTIMATORS[name].policy():
            policies.setdefault(policy, []).append(ESTIMATORS[name].label)
    parts = [
        "# Truth beside estimate",
        f"Every estimator on {len(cases)} cases whose mutual or conditional information is known in closed form or by "
        f"quadrature: bits, means over {max(row.seeds for row in rows)} samples. Written by "
        "`python benchmarks/truth.py --docs docs/truth.md` from `benchmarks/results/truth.csv`, which holds bias, "
        "error and every value for each N. An estimator is run on the kinds of cases it is meant for; “–” was not "
        "run.",
        f"Where counts are needed, continuous coordinates go into {N_BINS} bins of equal mass each. The KDE bounds are "
        f"for X with added noise of variance {NOISE_VARIANCE}, a hundredth of a class's.",
        "".join(f"To be affordable, {policy}: {', '.join(labels)}. " for policy, labels in policies.items()).strip(),
        f"## Summary\n\nBias and error at N = {spaced(shown)}. Then the share of cases with a mean within 0.1 bit "
        "or 10 % of the truth: by kind at that N, and of all it is run on by N. Mind the kinds before comparing two "
        "estimators. Failures are rows, of all N, with a sample that failed. Seconds are the median of a call, "
        "on one core.",
        f"{SUMMARY[0]}\n\n{summary(rows)}\n\n{SUMMARY[1]}",
    ]
    for kind, words in KINDS.items():
        columns = [name for name in estimators if kind in ESTIMATORS[name].kinds]
        body = [
            [case.name, f"{case.truth:.2f}", *(cell(found.get((case.name, name, shown))) for name in columns)]
            for case in cases
            if case.kind == kind
        ]
        if body:
            parts.append(
                f"## {kind.capitalize()}, N = {spaced(shown)}\n\n{words[0].upper()}{words[1:]}. Bold: off by more than "
                "0.1 bit and 10 %."
            )
            parts.append(table(["case", "truth", *(ESTIMATORS[name].label for name in columns)], body))
    parts += nearest(rows, peers, shown)
    parts.append(INFINITE + _INFINITE_RESULTS.read_text(encoding="utf-8").strip())
    troubled: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.failed:
            troubled.setdefault((ESTIMATORS[row.estimator].label, row.case), []).append(row)
    if troubled:
        parts.append("## What failed\n\n†: the mean is over the samples with a finite value.")
        lines = []
        for (label, case), same in troubled.items():
            where = ", ".join(spaced(row.n) for row in same)
            lines.append(f"- {label}; {case}; N = {where}: {same[0].note}")
        parts.append("\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"
