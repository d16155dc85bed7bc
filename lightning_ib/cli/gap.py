"""``lightning-ib compare --gap``: which recorded quantities go with the generalization gap, over runs."""

from __future__ import annotations

import csv
import io
import json
import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_ib.cli.differences import conditions
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.logs import Metric, metric_of
from lightning_ib.cli.runs import Run
from lightning_ib.functional.ranks import N_RESAMPLES, Largest, kendall, largest_tau, spearman
from lightning_ib.records.correlation import RankCorrelation
from lightning_ib.records.files import replacing
from lightning_ib.records.history import History
from lightning_ib.records.points import points_of
from lightning_ib.records.record import ALL_LAYERS, Record
from lightning_ib.records.tags import at_target

FEWEST_RUNS = 4
MOST_SHOWN = 20
TABLES = (".csv", ".json")

# Layer, source and quantity → its record in each run that has it.
Values = Mapping[tuple[str, str, str], Mapping[str, Record]]


class Gap(NamedTuple):
    """The rank correlations of all quantities with a metric.

    Attributes:
        metric: as it was asked for.
        moment: when values and metric were taken, in words.
        of_runs: run → the metric.
        rows: the correlations, the largest in absolute value first.
        n_equal: how many quantities were left out since they are the same in all runs, up to rounding.
        n_rare: how many were left out since too few runs have them.
        largest: the test of the first row.
        conditions: what the values depend on and the runs do not share, in lines.
    """

    metric: str
    moment: str
    of_runs: Mapping[str, float]
    rows: Sequence[RankCorrelation]
    n_equal: int
    n_rare: int
    largest: Largest
    conditions: Sequence[str] = ()


def gap_of(runs: Sequence[Run], arguments: Namespace, say: Callable[[str], None]) -> Gap:
    """Correlate what was recorded with a metric.

    Args:
        runs: in one unit.
        arguments: ``gap``, and ``at_min`` or ``at_max`` where another moment than the last is wanted.
        say: takes a line, such as about a run that is left out.

    Raises:
        UsageError: too few runs, a metric that is missing, or nothing that varies.
    """
    _check_number(len(runs))
    metrics = [metric_of(run.file, arguments.gap) for run in runs]
    for run, metric in zip(runs, metrics):
        same = [other.name for other, of in zip(runs, metrics) if of.folder.resolve() == metric.folder.resolve()]
        if len(same) > 1:
            raise UsageError(
                f"{' and '.join(same)} are of one training, whose logs are in {metric.folder}, and --gap counts each "
                f"training once: give one of them, such as {run.file}."
            )
    best = arguments.at_min or arguments.at_max
    of_runs, last = {}, {}
    for run, metric in zip(runs, metrics):
        monitor = metric_of(run.file, best) if best else metric
        epoch = monitor.best_epoch(1 if arguments.at_min else -1) if best else math.inf
        value = metric.last(epoch)
        if math.isfinite(value):
            of_runs[run.name], last[run.name] = value, _at(run, epoch, monitor)
        else:
            say(f"{run.name} is left out: its {arguments.gap} is {value}.")
    _check_number(len(of_runs))
    if len(set(_tied(list(of_runs.values())))) == 1:
        raise UsageError(f"{arguments.gap} is the same in all runs, {next(iter(of_runs.values())):g}: nothing varies.")
    extreme = "lowest" if arguments.at_min else "highest"
    moment = f"where {best} is {extreme}" if best else "at the last measurement, the metric as logged last"
    found = _correlated(arguments.gap, moment, of_runs, values_of(last))
    differ = conditions({run: points_of(records) for run, records in last.items()})
    return found._replace(conditions=differ if best else differ + _lengths(last))


def _check_number(n: int) -> None:
    if n < FEWEST_RUNS:
        raise UsageError(
            f"--gap needs at least {FEWEST_RUNS} runs with the metric, got {n}: rank correlations of fewer say nothing."
        )


def _at(run: Run, epoch: float, log: Metric) -> list[Record]:
    """The records of the last measurement up to the end of an epoch, of information and of gradients."""
    found: list[Record] = []
    for part in (run.history.information(), run.history.gradients()):
        if math.isfinite(epoch):
            part = _until(part, epoch, log)
        found += part.last().records()
    if not found:
        raise UsageError(f"{run.file} holds no measurement until the end of epoch {epoch + 1:.0f}.")
    return found


def _until(history: History, epoch: float, log: Metric) -> History:
    """The measurements up to the end of an epoch; a record counts the epochs before it, and so do those that follow."""
    ended = log.steps_until(epoch, max((record.step for record in history.records()), default=0))
    if math.isnan(ended):  # the first that counts this epoch is then taken for the one at its end
        ended = min((record.step for record in history.records() if epoch < record.epoch), default=math.inf)
    within = (record for record in history.records() if record.epoch <= epoch + 1 and record.step <= ended)
    return History(within)


def _lengths(last: Mapping[str, Sequence[Record]]) -> list[str]:
    """Where the runs end, in a line, if it is at different epochs, or within one at different steps."""
    for of in ("epoch", "step"):
        ends = sorted((max(getattr(record, of) for record in records), run) for run, records in last.items())
        (least, first), (most, longest) = ends[0], ends[-1]
        if least < most:
            return [f"the runs differ in length, last measured at {of} {least} ({first}) to {most} ({longest})"]
    return []


def values_of(runs: Mapping[str, Sequence[Record]]) -> Values:
    """The records of each quantity by run; where runs differ in their layers also its extremes over them.

    A quantity about one of several targets has that one's name behind an ``@``.

    Args:
        runs: run → the records of one moment.
    """
    found: dict[tuple[str, str, str], dict[str, Record]] = {}
    extremes: dict[tuple[str, str, str], dict[str, Record]] = {}
    for run, records in runs.items():
        for record in records:
            if not math.isfinite(record.value):
                continue
            quantity = at_target(record.quantity, record.target)
            found.setdefault((record.layer, record.source, quantity), {})[run] = record
            if record.layer == ALL_LAYERS:
                continue
            for name, choose in (("max of layers", max), ("min of layers", min)):
                of = extremes.setdefault((name, record.source, quantity), {})
                of[run] = choose(of.get(run, record), record, key=lambda one: one.value)
    layers = [{record.layer for record in records} for records in runs.values()]
    differ = any(of != layers[0] for of in layers)
    return extremes | found if differ else found


def _tied(values: Sequence[float], least: float = 0.0) -> list[float]:
    """Values of which those that differ by rounding are one: by a share of 1e-9 of the largest.

    Args:
        values: of one quantity, of several runs.
        least: the size from which on values count: 1 for informations, whose rounding has that of their entropies.
    """
    near = 1e-9 * max(least, *map(abs, values))
    found: dict[float, float] = {}
    last = -math.inf
    for value in sorted(values):
        if value - last > near:
            last = value
        found[value] = last
    return [found[value] for value in values]


def _correlated(metric: str, moment: str, of_runs: Mapping[str, float], values: Values) -> Gap:
    """The correlation of every quantity that varies and that enough runs have."""
    known = {name: of for name, of in values.items() if len(of) >= FEWEST_RUNS}
    gaps = dict(zip(of_runs, _tied(list(of_runs.values()))))
    rows, tested = [], []
    for (layer, source, quantity), of in known.items():
        x = _tied([record.value for record in of.values()], any(record.unit for record in of.values()))
        y = [gaps[run] for run in of]
        tau, rho = kendall(x, y), spearman(x, y)
        if math.isnan(tau.value):  # the runs that have it share it, or their gap
            continue
        n_flagged = sum(record.verdict not in ("", "ok") for record in of.values())
        rows.append(RankCorrelation(layer, source, quantity, len(of), *tau, *rho, n_flagged))
        ranked = dict(zip(of, x))
        tested.append([ranked.get(run, math.nan) for run in of_runs])
    if not rows:
        raise UsageError(f"no recorded quantity that {FEWEST_RUNS} runs have differs among them: nothing varies.")
    rows.sort(key=lambda row: -abs(row.tau))
    largest = largest_tau(tested, list(gaps.values()))
    return Gap(metric, moment, of_runs, rows, len(known) - len(rows), len(values) - len(known), largest)


def table(gap: Gap) -> str:
    """The correlations as lines: the strongest of them, what was left out, and what chance alone reaches."""
    by_size = sorted(gap.of_runs.items(), key=lambda one: one[1])
    shown = by_size if len(by_size) <= 12 else [*by_size[:6], *by_size[-6:]]
    of_runs = ", ".join(f"{name} {value:.4g}" for name, value in shown)
    lines = [
        f"{gap.metric} over {len(gap.of_runs)} runs, {gap.moment}",
        f"{'from the least to the greatest' if shown == by_size else 'the least and the greatest'}: {of_runs}",
    ]
    rows = gap.rows[:MOST_SHOWN]
    names = [("layer", "source", "quantity"), *((row.layer, row.source, row.quantity) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*names)]
    heads = f"{'n':>3}  {'tau-b':>6}  {'95 %':<15}  {'rho':>6}  {'95 %':<15}  flagged"
    lines.append("  ".join([*(f"{name:{width}}" for name, width in zip(names[0], widths)), heads]))
    for row in rows:
        cells = [f"{name:{width}}" for name, width in zip((row.layer, row.source, row.quantity), widths)]
        numbers = f"{row.n_runs:3}  {row.tau:+6.2f}  {_range(row.tau_low, row.tau_high):<15}  "
        numbers += f"{row.rho:+6.2f}  {_range(row.rho_low, row.rho_high):<15}  {row.n_flagged or '-'}"
        lines.append("  ".join([*cells, numbers]))
    if more := len(gap.rows) - len(rows):
        lines.append(f"and {more} more: --table FILE writes all")
    lines += [*_left_out(gap), *gap.conditions]
    lines.append(f"bars: 95 % of {N_RESAMPLES} resamples of the runs; flagged: runs whose verdict is not ok")
    lines.append(_caution(gap))
    return "\n".join(line.rstrip() for line in lines)


def _left_out(gap: Gap) -> list[str]:
    out = []
    if gap.n_equal:
        out.append(f"left out, the same in all runs: {gap.n_equal}")
    if gap.n_rare:
        out.append(f"left out, known in fewer than {FEWEST_RUNS} runs: {gap.n_rare}")
    return out


def _caution(gap: Gap) -> str:
    """What the largest of so many correlations is worth."""
    largest, n = gap.largest, len(gap.rows)
    orders = f"all {largest.n_orders} orders" if largest.exact else f"{largest.n_orders} random orders"
    n_reached, computed = round(largest.p_value * largest.n_orders), "correlations were" if n > 1 else "correlation was"
    return (
        f"{n} {computed} computed. Their largest |tau-b|, {largest.tau:.2f}, is reached "
        f"in {n_reached} of {orders} of the runs: p = {largest.p_value:.2g} for all of them together."
    )


def _range(low: float, high: float) -> str:
    return f"[{low:+.2f}, {high:+.2f}]"


def write_table(gap: Gap, path: Path) -> None:
    """Write all correlations as CSV, or with the metric of each run and the test as JSON, and print the path.

    Raises:
        UsageError: the file cannot be written.
    """
    columns = RankCorrelation._fields
    if path.suffix.lower() == ".csv":
        lines = io.StringIO()
        csv.writer(lines).writerows([columns, *gap.rows])
        text = lines.getvalue()
    else:
        rows = [{name: _plain(value) for name, value in zip(columns, row)} for row in gap.rows]
        whole = gap._asdict() | {"rows": rows, "largest": gap.largest._asdict()}
        text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    try:
        with replacing(path) as partial:
            partial.write_bytes(text.encode())
    except OSError as error:
        raise UsageError(f"--table {path} cannot be written: {error.strerror}.") from error
    print(f"table: {path}")


def _plain(value: object) -> object:
    """A cell for JSON, which has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
