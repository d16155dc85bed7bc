"""Runs of estimators on cases: what is asked for, each row as soon as it is there, and how to go on after a stop."""

from __future__ import annotations

import argparse
import logging
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
from dataclasses import dataclass, field
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from cases import CASES
from estimators import ESTIMATORS, Estimate, Estimator
from peer_estimators import PEERS
from records import Key, Row, append, read, write
from torch import Tensor

SIZES, SEEDS = (1000, 5000, 10_000), 10

ALL: dict[str, Estimator] = {**ESTIMATORS, **PEERS}
"""Every estimator by name, ours and those of others."""


@dataclass
class Outcome:
    """What a call gave: infinite where it failed, with the troubles it had."""

    value: float = math.inf
    seconds: float = math.nan
    troubles: list[str] = field(default_factory=list)


def call(estimate: Estimate, variables: Sequence[Tensor]) -> Outcome:
    """Call an estimator here, and keep what it raises and warns of."""
    outcome = Outcome()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        try:
            outcome.value = float(estimate(*variables))
        except Exception as error:
            outcome.troubles.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            if not math.isfinite(outcome.value):
                outcome.troubles.append(f"gave {outcome.value}")
        outcome.seconds = time.perf_counter() - start
    outcome.troubles += {re.sub(r"\d+", "#", str(w.message)): f"warned: {w.message}" for w in caught}.values()
    return outcome


def _call_and_send(end: Connection, seed: int, estimate: Estimate, variables: Sequence[Tensor]) -> None:
    logging.disable(logging.WARNING)
    np.random.seed(seed)
    torch.manual_seed(seed)
    end.send(call(estimate, variables))


def call_within(timeout: float, seed: int, estimate: Estimate, variables: Sequence[Tensor]) -> Outcome:
    """Call an estimator in a forked process, with seeded global generators, and end that after some seconds."""
    fork = get_context("fork")
    receiver, sender = Pipe(duplex=False)
    process = fork.Process(target=_call_and_send, args=(sender, seed, estimate, variables), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: here is one thread
        process.start()
    sender.close()
    try:
        if receiver.poll(timeout):
            outcome: Outcome = receiver.recv()
            return outcome
        return Outcome(seconds=timeout, troubles=[f"took longer than {timeout:g} s, and was not tried again"])
    except EOFError:
        return Outcome(troubles=["its process ended without an answer"])
    finally:
        process.kill()
        process.join()
        receiver.close()


def measure(case_name: str, estimator_name: str, n: int, seeds: int, timeout: float | None = None) -> Row:
    """Run one estimator on ``seeds`` samples of one case, the same samples for every estimator."""
    case, estimator = CASES[case_name], ALL[estimator_name]
    outcomes: list[Outcome] = []
    estimator.prepare(case.kind)
    for seed in range(seeds):
        drawn = zlib.crc32(f"{case_name}/{n}/{seed}".encode())
        generator = torch.Generator().manual_seed(drawn)
        variables = [variable[: estimator.rows] for variable in case.sample(n, generator)]
        if timeout is None:
            outcomes.append(call(estimator.estimate, variables))
        else:
            outcomes.append(call_within(timeout, drawn, estimator.estimate, variables))
            if outcomes[-1].seconds == timeout:
                break
    finite = [outcome.value for outcome in outcomes if math.isfinite(outcome.value)]
    mean = statistics.fmean(finite) if finite else math.nan
    rmse = math.sqrt(statistics.fmean((f - case.truth) ** 2 for f in finite)) if finite else math.nan
    cut = [f"the first {estimator.rows} rows"] if estimator.rows and estimator.rows < n else []
    troubles = summarized([trouble for outcome in outcomes for trouble in outcome.troubles], seeds)
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
        median_seconds=float(f"{statistics.median(outcome.seconds for outcome in outcomes):.3g}"),
        values=" ".join(f"{f:.5g}" for f in finite),
        note="; ".join([*filter(None, [estimator.source]), *cut, *troubles]),
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
            estimator = ALL[estimator_name]
            if samples := estimator.seeds(n, seeds):
                fit = [case for case in cases if estimator.fits(CASES[case])]
                found |= {(case, estimator_name, n): samples for case in fit}
    if not found:
        raise SystemExit("none of these estimators is meant for any of these cases at this N: ask for others.")
    return found


def one_thread() -> None:
    """A process of the pool works on one core, and ends at once where the user stops the run."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(todo: dict[Key, int], path: Path, jobs: int, timeout: float | None = None) -> None:
    """Run the rows that are missing in the file, and add each to it as soon as it is there."""
    rows = read(path)
    left = {key: seeds for key, seeds in todo.items() if key not in rows or rows[key].seeds < seeds}
    write(path, rows.values())  # a row that was cut off is gone now
    print(f"{len(todo)} rows asked for, {len(todo) - len(left)} there already, in {path}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes are yet to be started
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread)
    try:
        futures = [pool.submit(measure, *key, seeds, timeout) for key, seeds in left.items()]
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


def parser(words: str | None, results: Path) -> argparse.ArgumentParser:
    """The arguments that all runs have."""
    found = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--cases", nargs="+", metavar="WORD", help="only cases with one of these in their name")
    found.add_argument("--estimators", nargs="+", metavar="WORD", help="only estimators with one of these in theirs")
    found.add_argument("--sizes", nargs="+", type=int, metavar="N", default=None, help=f"default: {SIZES}")
    found.add_argument("--seeds", type=int, default=None, help=f"samples of each case, default: {SEEDS}")
    found.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    found.add_argument("--quick", action="store_true", help="N = 1000, two seeds, in a file of its own")
    found.add_argument("--again", action="store_true", help="run what is asked for even if it is in the file")
    found.add_argument("--results", type=Path, default=None, help=f"default: {results}")
    found.add_argument("--summary", action="store_true", help="run nothing, print the summary of the file")
    return found


def completed(found: argparse.ArgumentParser, arguments: Sequence[str] | None, results: Path) -> argparse.Namespace:
    """The arguments of a command line, with what the others say about those that are left out."""
    options = found.parse_args(arguments)
    options.sizes = options.sizes or ([1000] if options.quick else list(SIZES))
    options.seeds = options.seeds if options.seeds is not None else (2 if options.quick else SEEDS)
    quick = results.parents[2] / "build" / f"{results.stem}_quick.csv"
    options.results = options.results or (quick if options.quick else results)
    for name, value in (("seeds", options.seeds), ("jobs", options.jobs), ("sizes", min(options.sizes))):
        if value < 1:
            found.error(f"--{name} must be at least 1, got {value}.")
    return options


def run_asked(options: argparse.Namespace, estimators: Sequence[str], timeout: float | None = None) -> None:
    """Run what a command line asks for, of these estimators."""
    cases = chosen(list(CASES), options.cases, "case")
    todo = tasks(cases, chosen(estimators, options.estimators, "estimator"), options.sizes, options.seeds)
    if options.again:
        write(options.results, (row for row in read(options.results).values() if row.key not in todo))
    run(todo, options.results, options.jobs, timeout)
