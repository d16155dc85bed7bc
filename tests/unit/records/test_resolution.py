"""The table and the file of a resolution sweep."""

import csv
import math
from typing import get_type_hints

import pytest

from lightning_ib.evaluation.resolution import ResolutionSweep, resolution_sweep
from lightning_ib.records.resolution import Resolution
from tests.helpers.sweeps import Exact, batches, exact_data, made_up, mean


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_table_is_aligned_within_120_columns_and_marks_what_is_saturated(unit):
    rows = made_up(["a", "model.encoder.layers.11.feed_forward.intermediate.linear"], ["none", "max"], unit=unit)
    lines = (
        ResolutionSweep([*rows, rows[0]._replace(layer="nan", h_t=math.nan, saturation=math.nan)]).table().splitlines()
    )
    assert max(map(len, lines)) <= 120
    assert " ".join(lines[0].split()) == "bins N H(T) I(T;Y) H(Y) H(T)/log N symbols seen once"
    assert lines[1].split() == [unit] * 3
    headings = [line for line in lines if "(pool:" in line]
    assert headings[:3] == ["a (pool: none)", "a (pool: max)", f"{rows[-1].layer} (pool: none)"]
    figures = [line for line in lines[2:] if line.startswith("  ")]
    assert len(figures) == len(rows) + 1
    assert len({len(line) for line in [lines[0], *figures]}) == 1
    assert [("*" in line) for line in figures] == [row.saturation > 0.9 for row in rows] + [False]
    assert lines[-1].startswith("* saturated: H(T) > 0.9 log N.")
    assert "saturated" not in ResolutionSweep(rows[:2]).table()


def test_a_file_holds_every_figure_to_the_last_bit(tmp_path):
    x, y = exact_data()
    sweep = resolution_sweep(Exact(), batches(x, y), ["same"], pools=[None, mean])
    sweep.write_csv(tmp_path / "deep" / "sweep.csv")
    with (tmp_path / "deep" / "sweep.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    kinds = get_type_hints(Resolution)
    assert header == list(kinds)
    assert [Resolution(*(kind(cell) for kind, cell in zip(kinds.values(), line))) for line in lines] == sweep.rows
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sweep.csv"]
