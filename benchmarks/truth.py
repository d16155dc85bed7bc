"""Every estimator on cases with known mutual information: mean, bias, error and time, over ten samples.

Run it as ``python benchmarks/truth.py``. A row is added to ``benchmarks/results/truth.csv`` as soon as it is there, and
a row that is there already is skipped: stop it at any time, and the same command goes on. ``--summary`` only prints
the summary of that file, ``--docs docs/truth.md`` writes the tables, with those of
``peers.py`` beside; ``--quick`` is a first look.

A call that raises is kept as a failure, with its message; so is a value that is NaN or infinite. The cases are in
``cases/``, the estimators, the kinds of cases for each and their limits in ``estimators.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from estimators import ESTIMATORS
from records import read
from runs import completed, parser, run_asked
from tables import page, summary

RESULTS = Path(__file__).parent / "results" / "truth.csv"
PEERS = RESULTS.with_name("peers.csv")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    found = parser(__doc__, RESULTS)
    found.add_argument("--docs", type=Path, help="run nothing, write the tables to this Markdown file")
    found.add_argument("--peers", type=Path, default=PEERS, help="the results of peers.py for the tables")
    return completed(found, arguments, RESULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or print, or write."""
    options = parsed(arguments)
    if not (options.summary or options.docs):
        run_asked(options, list(ESTIMATORS))
    rows = read(options.results)
    if not rows:
        raise SystemExit(f"{options.results} has no rows: run without --summary and --docs first.")
    if options.docs:
        options.docs.write_text(page(rows.values(), read(options.peers).values()), encoding="utf-8")
    else:
        print(summary(rows.values()))


if __name__ == "__main__":
    main()
