"""The table of differences."""

import math

from lightning_ib import History
from lightning_ib.cli.differences import differences
from lightning_ib.cli.runs import Run
from tests.helpers.histories import point


def run(name, *points):
    return Run(name, None, History.of(points))


def test_the_last_common_epoch_is_compared_layer_by_layer():
    a = run("a", *(point(1.0 + epoch, layer="out", epoch=epoch, verdict="ok") for epoch in (0, 1, 5)))
    b = run("b", point(2.5, layer="out", epoch=1, verdict="saturated"), point(layer="more", epoch=1))
    lines = differences([a, b]).splitlines()
    assert lines[0] == "epoch 1, the last that all runs have, in bits; in parentheses the difference from a"
    assert lines[2].split() == ["out", "a", "2.000", "2.000", "2.000", "ok"]
    assert lines[3].split() == ["b", *["2.500", "(+0.500)"] * 3, "saturated"]
    assert lines[4:] == ["only in b: more"]


def test_conditions_that_differ_are_named():
    a, b = run("a", point(epoch=1)), run("b", point(epoch=1, n_samples=80, source="binned"))
    assert differences([a, b]).splitlines()[-2:] == [
        "not comparable as they are, N differs: a 60000, b 80",
        "not comparable as they are, the discretization differs: a cells, b binned",
    ]


def test_without_a_common_epoch_the_last_ones_are_compared():
    lines = differences([run("a", point(epoch=1, layer="x")), run("b", point(epoch=2, layer="y"))]).splitlines()
    assert lines[0].startswith("the last epochs, none of which all runs have (a 1, b 2), in bits")
    assert lines[2:] == ["The runs have no layer in common.", "only in a: x", "only in b: y"]


def test_a_missing_value_is_a_dash():
    lines = differences([run("a", point(epoch=1)), run("b", point(epoch=1, i_ty=math.nan))]).splitlines()
    assert lines[3].split()[:5] == ["b", "1.500", "(+0.000)", "-", "1.500"]


def test_layers_that_some_runs_share_are_compared_whatever_the_others_have():
    a, b = run("a", point(epoch=1, layer="x")), run("b", point(2.0, epoch=1, layer="x"))
    lines = differences([run("c", point(epoch=1, layer="y", n_samples=80)), a, b]).splitlines()
    assert lines[2].split()[:3] == ["x", "c", "-"]
    assert lines[2].endswith("no such layer")
    assert "(" not in lines[3]  # compared with the first that has it
    assert "(+0.500)" in lines[4]
    assert lines[-2:] == ["not comparable as they are, N differs: c 80, a 60000, b 60000", "only in c: y"]
