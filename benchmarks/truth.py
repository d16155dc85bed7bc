"""Every estimator on cases with known mutual information: mean, bias, error and time, over ten samples.

Run it as ``python benchmarks/truth.py``. A row is added to ``benchmarks/results/truth.csv`` as soon as it is there, and
a row that is there already is skipped: stop it at any time, and the same command goes on. ``--summary`` only prints
the summary of that file, ``--docs docs/truth.md`` writes the tables; ``--quick`` is a first look.

A call that raises is kept as a failure, with its message; so is a value that is NaN or infinite. The cases are in
``cases.py``, the estimators, the kinds of cases for each and their limits in ``estimators.py``.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import statistics
import time
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch
from cases import CASES
from estimators import ESTIMATORS
from records import Key, Row, append, read, write
from tables import page, summary

SIZES, SEEDS = (1000, 5000, 10_000), 10
RESULTS = Path(__file__).parent / "results" / "truth.csv"
QUICK = Path(__file__).parents[1] / "build" / "truth_quick.csv"


def measure(case_name: str, estimator_name: str, n: int, seeds: int) -> Row:
    """Run one estimator on ``seeds`` samples of one case, the same samples for every estimator."""
    case, estimator = CASES[case_name], ESTIMATORS[estimator_name]
    finite: list[float] = []
    seconds: list[float] = []
    troubles: list[str] = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{case_name}/{n}/{seed}".encode()))
        x, y = (variable[: estimator.rows] for variable in case.sample(n, generator))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.perf_counter()
            try:
                value = float(estimator.estimate(x, y))
            except Exception as error:
                troubles.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
                value = math.inf
            else:
                if not math.isfinite(value):
                    troubles.append(f"gave {value}")
            seconds.append(time.perf_counter() - start)
        troubles += [f"warned: {w.message}" for w in caught]
        if math.isfinite(value):
            finite.append(value)
    mean = statistics.fmean(finite) if finite else math.nan
    rmse = math.sqrt(statistics.fmean((f - case.truth) ** 2 for f in finite)) if finite else math.nan
    cut = [f"the first {estimator.rows} rows"] if estimator.rows and estimator.rows < n else []
    return Row(
        case=case_name,
        kind=case.kind,
        dims="+".join(map(str, case.dims)),
        truth_bits=round(case.truth, 6),
        estimator=estimator_name,
        n=n,
        seeds=seeds,
        mean=round(mean, 5),
        bias=round(mean - case.truth, 5),
        rmse=round(rmse, 5),
        median_seconds=float(f"{statistics.median(seconds):.3g}"),
        values=" ".join(f"{f:.5g}" for f in finite),
        note="; ".join(cut + summarized(troubles, seeds)),
    )


def summarized(troubles: Sequence[str], seeds: int) -> list[str]:
    """How many samples each trouble befell, in the words of the first of them: they may differ in numbers only."""
    alike: dict[str, list[str]] = {}
    for trouble in troubles:
        alike.setdefault(re.sub(r"\d+", "#", trouble), []).append(trouble)
    return [f"{len(same)} of {seeds}: {same[0]}" for same in alike.values()]


def chosen(names: Sequence[str], asked: Sequence[str] | None, what: str) -> list[str]:
    """The names that equal or else contain one of the words asked for; all for ``None``.

    Raises:
        SystemExit: a word lacks a match.
    """
    if asked is None:
        return list(names)
    matches: set[str] = set()
    for word in asked:
        found = {name for name in names if name == word} or {name for name in names if word.lower() in name.lower()}
        if not found:
            raise SystemExit(f"no {what} is called {word!r}: there are {', '.join(names)}.")
        matches |= found
    return [name for name in names if name in matches]


def tasks(cases: Sequence[str], estimators: Sequence[str], sizes: Sequence[int], seeds: int) -> dict[Key, int]:
    """The rows to run, the largest N first, and how many seeds of each.

    Raises:
        SystemExit: there is nothing to run.
    """
    found: dict[Key, int] = {}
    for n in sorted(sizes, reverse=True):
        for estimator_name in estimators:
            estimator = ESTIMATORS[estimator_name]
            if samples := estimator.seeds(n, seeds):
                fit = [case for case in cases if CASES[case].kind in estimator.kinds]
                found |= {(case, estimator_name, n): samples for case in fit}
    if not found:
        raise SystemExit("none of these estimators is meant for any of these cases at this N: ask for others.")
    return found


def one_thread() -> None:
    """A process of the pool works on one core, and ends at once where the user stops the run."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(todo: dict[Key, int], path: Path, jobs: int) -> None:
    """Run the rows that are missing in the file, and add each to it as soon as it is there."""
    rows = read(path)
    left = {key: seeds for key, seeds in todo.items() if key not in rows or rows[key].seeds < seeds}
    write(path, rows.values())  # a row that was cut off is gone now
    print(f"{len(todo)} rows asked for, {len(todo) - len(left)} there already, in {path}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes are yet to be started
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread)
    try:
        futures = [pool.submit(measure, *key, seeds) for key, seeds in left.items()]
        for i, future in enumerate(as_completed(futures), 1):
            row = future.result()
            append(path, row)
            rows[row.key] = row
            shown = f"{row.mean:.3f}, truth {row.truth_bits:.3f}, rmse {row.rmse:.3f}, {row.median_seconds:.3g} s"
            note = f" ({row.note})" if row.note else ""
            print(f"{i}/{len(left)} {row.case} · {row.estimator} · {row.n}: {shown}{note}", flush=True)
    except KeyboardInterrupt:
        raise SystemExit(f"\nstopped; {path} keeps what was done, and the same command goes on.") from None
    except BrokenProcessPool:
        raise SystemExit(
            f"a process was killed, most likely for memory; {path} keeps what was done: go on with fewer --jobs."
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    write(path, rows.values())


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="WORD", help="only cases with one of these in their name")
    parser.add_argument("--estimators", nargs="+", metavar="WORD", help="only estimators with one of these in theirs")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="N", default=None, help=f"default: {SIZES}")
    parser.add_argument("--seeds", type=int, default=None, help=f"samples of each case, default: {SEEDS}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="N = 1000, two seeds, in a file of its own")
    parser.add_argument("--again", action="store_true", help="run what is asked for even if it is in the file")
    parser.add_argument("--results", type=Path, default=None, help=f"default: {RESULTS}")
    parser.add_argument("--summary", action="store_true", help="run nothing, print the summary of the file")
    parser.add_argument("--docs", type=Path, help="run nothing, write the tables to this Markdown file")
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or ([1000] if options.quick else list(SIZES))
    options.seeds = options.seeds if options.seeds is not None else (2 if options.quick else SEEDS)
    options.results = options.results or (QUICK if options.quick else RESULTS)
    for name, value in (("seeds", options.seeds), ("jobs", options.jobs), ("sizes", min(options.sizes))):
        if value < 1:
            parser.error(f"--{name} must be at least 1, got {value}.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or print, or write."""
    options = parsed(arguments)
    if not (options.summary or options.docs):
        cases = chosen(list(CASES), options.cases, "case")
        estimators = chosen(list(ESTIMATORS), options.estimators, "estimator")
        todo = tasks(cases, estimators, options.sizes, options.seeds)
        if options.again:
            write(options.results, (row for row in read(options.results).values() if row.key not in todo))
        run(todo, options.results, options.jobs)
    rows = read(options.results)
    if not rows:
        raise SystemExit(f"{options.results} has no rows: run without --summary and --docs first.")
    if options.docs:
        options.docs.write_text(page(rows.values()), encoding="utf-8")
    else:
        print(summary(rows.values()))


if __name__ == "__main__":
    main()
