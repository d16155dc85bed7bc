"""The metrics that a run logged."""

import math

import pytest
from torch.utils.tensorboard import SummaryWriter

from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.logs import metric_of


@pytest.fixture
def run(tmp_path):
    """A run of three epochs of ten steps, of which the second was trained twice."""
    with SummaryWriter(str(tmp_path)) as board:
        for epoch, value in ((0, 0.75), (1, 9.0), (1, 0.25), (2, 0.5)):
            board.add_scalar("val-loss", value, 10 * epoch + 9)
            board.add_scalar("epoch", epoch, 10 * epoch + 9)
        board.add_scalar("late", 2.0, 25)
        board.add_scalar("early", 1.0, 3)  # before any epoch was logged
    return tmp_path / "information_plane.csv"


def test_events_have_epochs_and_of_a_step_that_was_trained_twice_the_later_value(run):
    metric = metric_of(run, "val-loss")
    assert (metric.names, metric.last(), metric.best_epoch(1), metric.best_epoch(-1)) == (("val-loss",), 0.5, 1, 1)
    assert [metric.last(until) for until in (0, 1, 2)] == [0.75, 0.25, 0.5]
    assert metric_of(run, "late-val-loss").last() == metric_of(run, "late - val-loss").last() == 1.5
    with pytest.raises(UsageError, match="logged no late until the end of epoch 1."):
        metric_of(run, "late").last(0)
    with pytest.raises(UsageError, match="logged early without its epoch"):
        metric_of(run, "early").best_epoch(1)


def test_metrics_of_csv_come_first_and_events_have_the_others(run):
    (run.parent / "metrics.csv").write_text("epoch,step,val-loss,acc\n0,9,,0.5\n0,9,7.0,\n1,19,nan,0.75\n")
    assert metric_of(run, "acc").last() == 0.75
    assert math.isnan(metric_of(run, "val-loss").last())
    assert metric_of(run, "val-loss").best_epoch(1) == 0
    assert metric_of(run, "late - acc").last() == 1.25


def test_the_logs_of_a_replay_are_those_of_its_run(run):
    for folder in (run.parent / "replay", run.parent / "checkpoints" / "replay"):
        folder.mkdir(parents=True)
        with pytest.raises(UsageError, match="holds no logged metric"):
            metric_of(folder / "information_plane.csv", "val-loss")
        (folder / "replay.pt").touch()
        metric = metric_of(folder / "information_plane.csv", "val-loss")
        assert (metric.folder, metric.last()) == (run.parent, 0.5)


def test_text_in_a_column_that_nobody_asked_for_is_left_alone(run):
    (run.parent / "metrics.csv").write_text("epoch,step,note,acc\n0,9,hello,0.5\n")
    assert metric_of(run, "acc").last() == 0.5
    with pytest.raises(UsageError, match="metrics.csv, line 2: note is 'hello' at epoch '0', step '9': expected num"):
        metric_of(run, "note")


@pytest.mark.parametrize("expression", ["val-loss -", "- val-loss", "val-loss - "])
def test_a_minus_needs_a_metric_on_both_sides(run, expression):
    with pytest.raises(UsageError, match=f"{expression!r} lacks a name on one side of the minus"):
        metric_of(run, expression)


def test_a_difference_has_no_best_epoch(run):
    with pytest.raises(UsageError, match="--at-max takes one metric, got the difference of late and val-loss"):
        metric_of(run, "late - val-loss").best_epoch(-1)


def test_epochs_end_at_steps_as_far_as_the_log_counts_those_of_the_optimizer(run):
    metric = metric_of(run, "val-loss")
    assert [metric.steps_until(epoch, measured=30) for epoch in (-1, 0, 1, 2)] == [0, 10, 20, 30]
    assert math.isnan(metric.steps_until(0, measured=60))  # two optimizers
