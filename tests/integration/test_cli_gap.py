"""``lightning-ib compare --gap``: what was recorded beside a logged metric, over runs."""

import csv
import itertools
import json
import math
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from lightning_ib import History, InformationPlaneCallback
from lightning_ib.cli import main
from tests.helpers.histories import point
from tests.helpers.records import estimate
from tests.helpers.tiny import TinyModule, fit, pl
from tests.unit.plot.test_panels import history
from tests.unit.records.test_phases import gradients

pytestmark = pytest.mark.slow

scipy_stats = pytest.importorskip("scipy.stats")

# Of each run: I(X;T) of two layers at its last measurement, and its losses at the end of each epoch.
RUNS = {
    "a": ((1.0, 5.0), [(0.9, 0.8), (0.5, 0.4)]),
    "b": ((2.0, 3.0), [(0.8, 0.8), (0.4, 0.1)]),
    "c": ((3.0, 4.0), [(0.3, 0.2), (0.9, 0.1)]),
    "d": ((4.0, 1.0), [(0.7, 0.1), (1.5, 0.2)]),
    "e": ((2.5, 0.5), [(0.7, 0.6), (0.6, 0.4)]),
}
FLAT = dict.fromkeys(("i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y", "saturation"), 0.5)


def write_csv(folder, losses):
    """``metrics.csv`` as CSVLogger writes it: a row for each step that something was logged at."""
    rows = []
    for epoch, (val, train) in enumerate(losses):
        rows += [{"epoch": epoch, "step": 10 * epoch + 9, "val_loss": val, "hp_metric": 0}]
        rows += [{"epoch": epoch, "step": 10 * epoch + 9, "train_loss": train, "ib/I_XT/conv": 3.0}]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "val_loss", "train_loss", "hp_metric", "ib/I_XT/conv"])
        writer.writeheader()
        writer.writerows(rows)


def write_events(folder, losses):
    with SummaryWriter(str(folder)) as board:
        for epoch, (val, train) in enumerate(losses):
            for name, value in (("val_loss", val), ("train_loss", train), ("epoch", epoch), ("ib/I_XT/conv", 3.0)):
                board.add_scalar(name, value, 10 * epoch + 9)


@pytest.fixture(params=[write_csv])
def runs(request, tmp_path, monkeypatch):
    """Five runs in a folder that is current; before their last measurement all are the same."""
    monkeypatch.chdir(tmp_path)
    for name, (values, losses) in RUNS.items():
        points = [point(9.0, layer=layer, epoch=1, step=10, **FLAT) for layer in ("conv", "out")]
        points += [
            point(layer=layer, epoch=2, step=20, i_xt=value, verdict="saturated" if value == 5 else "ok", **FLAT)
            for layer, value in zip(("conv", "out"), values)
        ]
        History.of(points).to_csv(tmp_path / name / "information_plane.csv")
        request.param(tmp_path / name, losses)
    return list(RUNS)


def rows_of(path):
    with open(path, newline="") as file:
        return {(row["layer"], row["source"], row["quantity"]): row for row in csv.DictReader(file)}


def refused(capsys, *arguments):
    assert main(["compare", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    return err.strip().splitlines()[-1]


@pytest.mark.parametrize("runs", [write_csv, write_events], indirect=True)
@pytest.mark.parametrize("gap", ["val_loss - train_loss", "val_loss-train_loss"])
def test_quantities_are_ranked_by_their_correlation_with_the_difference_of_two_metrics(runs, gap, capsys):
    assert main(["compare", *runs, "--gap", gap, "--table", "out/gap.csv"]) == 0
    out = capsys.readouterr().out
    of_runs = [losses[-1][0] - losses[-1][1] for _, losses in RUNS.values()]
    rows = rows_of("out/gap.csv")
    assert list(rows) == [("conv", "cells", "I_XT"), ("out", "cells", "I_XT")]
    for k, row in enumerate(rows.values()):
        x = [values[k] for values, _ in RUNS.values()]
        assert float(row["tau"]) == pytest.approx(scipy_stats.kendalltau(x, of_runs).statistic)
        assert float(row["rho"]) == pytest.approx(scipy_stats.spearmanr(x, of_runs).statistic)
        assert float(row["tau_low"]) <= float(row["tau"]) <= float(row["tau_high"])
        assert (row["n_runs"], row["n_flagged"]) == ("5", str(k))
    taus = [abs(float(row["tau"])) for row in rows.values()]
    assert taus == sorted(taus, reverse=True)
    lines = out.splitlines()
    assert lines[0] == f"{gap} over 5 runs, at the last measurement, the metric as logged last"
    assert lines[1] == "from the least to the greatest: a 0.1, e 0.2, b 0.3, c 0.8, d 1.3"
    assert lines[3].split()[:4] == ["conv", "cells", "I_XT", "5"]
    assert "2 correlations were computed. Their largest |tau-b|, 0.80, is reached in" in out
    assert "of all 120 orders of the runs: p = " in out
    assert lines[-2:] == ["picture: gap.png", "table: out/gap.csv"]
    with Image.open("gap.png") as picture:
        assert picture.size[0] == 936


def test_the_p_value_is_that_of_the_largest_of_all(runs, capsys):
    assert main(["compare", *runs, "--gap", "val_loss", "--table", "gap.json"]) == 0
    whole = json.loads(Path("gap.json").read_text())
    val = [losses[-1][0] for _, losses in RUNS.values()]
    assert list(whole["of_runs"].values()) == val

    def largest(y):
        columns = [[values[k] for values, _ in RUNS.values()] for k in range(2)]
        return max(abs(scipy_stats.kendalltau(x, y).statistic) for x in columns)

    orders = [largest(order) for order in itertools.permutations(val)]
    assert whole["largest"]["p_value"] == pytest.approx(sum(one >= largest(val) - 1e-9 for one in orders) / 120)
    assert [row["layer"] for row in whole["rows"]] == ["conv", "out"]


def test_the_best_epoch_of_a_metric_is_another_moment(runs, capsys):
    for k, name in enumerate(RUNS):  # at epoch 1, too, there is something to compare
        points = [point(layer="conv", epoch=epoch, step=10 * epoch, i_xt=k + epoch, **FLAT) for epoch in (1, 2)]
        History.of(points).to_csv(f"{name}/information_plane.csv")
    assert main(["compare", *runs, "--gap", "val_loss - train_loss", "--at-min", "val_loss", "--table", "gap.csv"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "val_loss - train_loss over 5 runs, where val_loss is lowest"
    # a, b and e are best at the end, c and d at the first epoch
    assert out[1] == "from the least to the greatest: a 0.1, c 0.1, e 0.2, b 0.3, d 0.6"
    x, y = [2, 3, 3, 4, 6], [0.1, 0.3, 0.1, 0.6, 0.2]
    expected = scipy_stats.kendalltau(x, y).statistic
    assert float(rows_of("gap.csv")["conv", "cells", "I_XT"]["tau"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("every", "last"), [(5, 10), (4, 8)])
@pytest.mark.parametrize("n_optimizers", [1, 2])
def test_the_measurements_of_the_next_epoch_come_too_late(runs, every, last, n_optimizers, capsys):
    """A record counts the epochs that came before: that of the best one stands at its end and all through the next."""
    for k, name in enumerate(RUNS):
        write_csv(Path(name), [(0.1 * k, 0.0), (1.0, 0.0), (1.0, 0.0)])
        points = [
            point(layer="conv", epoch=step // 10, step=n_optimizers * step, i_xt=k if step == last else 9.0, **FLAT)
            for step in range(0, 31, every)
        ]
        History.of(points).to_csv(f"{name}/information_plane.csv")
    asked = ["compare", *runs, "--gap", "val_loss", "--at-min", "val_loss", "--table", "gap.csv"]
    if n_optimizers == 2 and last == 8:  # nothing says where the epoch ends: the first measurement after it
        assert "differs among them: nothing varies" in refused(capsys, *asked[1:])
    else:
        assert main(asked) == 0
        assert float(rows_of("gap.csv")["conv", "cells", "I_XT"]["tau"]) == 1


def test_values_and_gaps_that_differ_by_rounding_are_ties(runs, capsys):
    for k, name in enumerate(RUNS):
        write_csv(Path(name), [(0.25, 0.0), (0.3 if k < 2 else 0.1 * (k + 1), 0.0)])  # 3 · 0.1 is more than 0.3
        of_others = FLAT | {"i_ty": k * 1e-17, "h_t": 2.0 + 1e-15 * k}
        of_drift = estimate(2, 20, "conv", "drift", "cka_to_last", 1.0 + 2e-16 * k)._replace(unit="")
        small = estimate(2, 20, "conv", "classes", "within_variance", 1e-17 * k)._replace(unit="")
        made = History.of([point(layer="conv", epoch=2, step=20, i_xt=2.0, **of_others)], [of_drift, small])
        made.to_csv(f"{name}/information_plane.csv")
    assert main(["compare", *runs, "--gap", "val_loss", "--table", "gap.csv"]) == 0
    rows = rows_of("gap.csv")
    assert list(rows) == [("conv", "classes", "within_variance")]
    expected = scipy_stats.kendalltau([0, 1, 2, 3, 4], [3, 3, 3, 4, 5]).statistic
    assert float(rows["conv", "classes", "within_variance"]["tau"]) == pytest.approx(expected)
    assert "left out, the same in all runs:" in capsys.readouterr().out


@pytest.mark.parametrize(("of", "epochs"), [("epoch", 10), ("step", 0)])
def test_runs_that_differ_in_length_are_named(runs, of, epochs, capsys):
    line = f"the runs differ in length, last measured at {of} "
    assert main(["compare", *runs, "--gap", "val_loss"]) == 0
    assert line not in capsys.readouterr().out
    for k, name in enumerate(RUNS):
        points = [point(layer="conv", epoch=epochs * n, step=10 * n, i_xt=n, **FLAT) for n in range(k + 2)]
        History.of(points).to_csv(f"{name}/information_plane.csv")
    assert main(["compare", *runs, "--gap", "val_loss"]) == 0
    assert f"{line}10 (a) to 50 (e)\n" in capsys.readouterr().out


def test_where_runs_differ_in_their_layers_extremes_over_layers_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in range(5):
        layers = [f"layer{j}" for j in range(1 + k % 2 + (k > 3))]
        points = [point(layer=layer, i_xt=j - k, **FLAT) for j, layer in enumerate(layers)]
        made = History.of(points, [estimate(3, 1200, "layer0", "kde", "I_TY", 0.3 * k)]) + gradients(k)
        made.to_csv(tmp_path / str(k) / "information_plane.csv")
        write_csv(tmp_path / str(k), [(k, 0.0)])
    assert main(["compare", *"01234", "--gap", "val_loss", "--table", "gap.csv"]) == 0
    rows = rows_of("gap.csv")
    taus = {name: float(row["tau"]) for name, row in rows.items()}
    assert taus["layer0", "cells", "I_XT"] == taus["min of layers", "cells", "I_XT"] == -1
    assert taus["layer0", "kde", "I_TY"] == taus["max of layers", "kde", "I_TY"] == 1
    best = [max(j - k for j in range(1 + k % 2 + (k > 3))) for k in range(5)]
    expected = scipy_stats.kendalltau(best, range(5)).statistic
    assert taus["max of layers", "cells", "I_XT"] == pytest.approx(expected)
    assert ("layer1", "cells", "I_XT") not in rows  # two runs have it


def test_of_several_targets_each_has_rows_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in range(5):
        ys = {"class": float(k), "coarse": float(-k)}
        points = [point(i_xt=2.0, **FLAT | {"i_ty": y}, target=name) for name, y in ys.items()]
        History.of(points).to_csv(tmp_path / str(k) / "information_plane.csv")
        write_csv(tmp_path / str(k), [(k, 0.0)])
    asked = ["compare", *"01234", "--gap", "val_loss", "--table", "gap.csv"]
    assert main(asked) == 0
    taus = {quantity: float(row["tau"]) for (_, _, quantity), row in rows_of("gap.csv").items()}
    assert taus == {"I_TY@class": 1, "I_TY@coarse": -1}
    assert main([*asked, "--target", "coarse"]) == 0
    assert [quantity for _, _, quantity in rows_of("gap.csv")] == ["I_TY@coarse"]


def test_wrong_input_is_one_sentence(runs, capsys):
    assert refused(capsys, *runs, "--gap", "val_los") == (
        "lightning-ib compare: a logged no val_los: it has train_loss, val_loss; did you mean val_loss?"
    )
    for gap, missing in (("val_loss - train", "train"), ("test-train_loss", "test"), ("x - y", "x")):
        assert f"a logged no {missing}: it has train_loss" in refused(capsys, *runs, "--gap", gap)
    assert refused(capsys, *runs[:3], "--gap", "val_loss") == (
        "lightning-ib compare: --gap needs at least 4 runs with the metric, got 3: rank correlations of fewer say "
        "nothing."
    )
    assert "--at-min is for a comparison with a metric: give --gap METRIC too." in refused(
        capsys, *runs, "--at-min", "x"
    )
    assert "--table gap.txt must end in .csv or .json." in refused(
        capsys, *runs, "--gap", "val_loss", "--table", "gap.txt"
    )
    assert "--style paper is for planes" in refused(capsys, *runs, "--gap", "val_loss", "--style", "paper")
    assert "argument --gap: expected the name of a logged metric" in refused(capsys, *runs, "--gap", " ")
    assert "b logged no val_acc: it has train_loss and val_loss." in refused(
        capsys, *runs[1:], "--gap", "val_loss", "--at-max", "val_acc"
    )


def test_logs_that_cannot_be_used_are_one_sentence(runs, tmp_path, capsys):
    arguments = (*runs, "--gap", "val_loss")
    history().to_csv(tmp_path / "c" / "information_plane_mine.csv")
    assert "c and mine are of one training, whose logs are in c, and --gap counts each training once" in refused(
        capsys, *arguments
    )
    (tmp_path / "c" / "information_plane_mine.csv").unlink()
    write_csv(tmp_path / "c", [(math.nan, 0.1)])
    assert main(["compare", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("val_loss over 4 runs")
    assert "c is left out: its val_loss is nan." in err
    (tmp_path / "c" / "metrics.csv").write_text("epoch,step,val_loss\n0,9,high\n")
    assert "c/metrics.csv, line 2: val_loss is 'high' at epoch '0', step '9': expected numbers." in refused(
        capsys, *arguments
    )
    (tmp_path / "c" / "metrics.csv").unlink()
    assert "c holds no logged metric: --gap reads metrics.csv of CSVLogger and TensorBoard's event files" in refused(
        capsys, *arguments
    )
    for name in RUNS:
        write_csv(tmp_path / name, [(0.5, 0.1)])
    assert "val_loss is the same in all runs, 0.5: nothing varies." in refused(capsys, *arguments)


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
@pytest.mark.filterwarnings("ignore:.* could not be estimated")
@pytest.mark.usefixtures("no_pictures")
def test_small_runs_from_training_to_table(tmp_path, kind, capsys):
    logger = {"csv": pl.loggers.CSVLogger, "tensorboard": pl.loggers.TensorBoardLogger}[kind]
    for k in range(4):
        callback = InformationPlaneCallback(["hidden", "out"], at_steps="log", estimators=(), verbose=False)
        model = TinyModule()
        model.drop.p = 0.2 * k
        fit(tmp_path, callback, model=model, logger=logger(tmp_path, name="runs", version=str(k)), max_epochs=1 + k)
    folders = [str(tmp_path / "runs" / str(k)) for k in range(4)]
    picture, table = tmp_path / "gap.svg", tmp_path / "gap.json"
    arguments = ["--gap", "val_loss - train_loss", "-o", str(picture), "--table", str(table)]
    assert main(["compare", *folders, *arguments]) == 0
    found = json.loads(table.read_text())
    assert {(row["layer"], row["quantity"]) for row in found["rows"]} >= {("hidden", "I_TY"), ("out", "H_T")}
    assert found["largest"]["n_orders"] == math.factorial(4)
    assert "train_loss, over 4 runs" in picture.read_text()
    assert "not comparable" not in capsys.readouterr().out
