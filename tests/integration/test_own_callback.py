"""Another callback from the same parts: schedule, session, history and reporter, in a page."""

from functools import partial
from pathlib import Path

import pytest

from lightning_ib import InformationPlaneCallback
from lightning_ib.callbacks.namespaces import CallbackBase
from lightning_ib.callbacks.own_pass import run_own_pass
from lightning_ib.callbacks.schedule import Schedule
from lightning_ib.callbacks.session import Host, Moment, Phase, Session
from lightning_ib.callbacks.trainer import any_rank, logged_step
from lightning_ib.records import History
from lightning_ib.report.reporter import Destination, Reporter
from tests.helpers.tiny import fit, has_hooks, val_loader


class AtEpochs(CallbackBase):
    """Measures given data at given epochs."""

    def __init__(self, data, epochs, layers=None):
        self.data, self.schedule = data, Schedule(epochs=epochs)
        self.session = Session({"layers": layers, "estimators": ["knn"]}, "mine")
        self.reporter = Reporter("mine", "bits", by="epoch")
        self.history = History()

    def on_fit_start(self, trainer, pl_module):
        self.session.attach(pl_module, Host(partial(any_rank, trainer)))

    def on_train_epoch_end(self, trainer, pl_module):
        epoch = trainer.current_epoch + 1
        if not self.schedule.is_due(epoch, epoch - 1):
            return
        measured = self.session.measure_or_warn(
            lambda plane: run_own_pass(trainer, pl_module, plane, self.data, None),
            Moment(epoch, trainer.global_step, f"after epoch {epoch}"),
        )
        self.history.put(measured.history)
        to = Destination(trainer.loggers, Path(trainer.default_root_dir), logged_step(trainer))
        self.reporter.log_scalars(self.reporter.scalars(measured.history), to)
        self.reporter.write(self.history, measured.rows, to)

    def teardown(self, trainer, pl_module, stage):
        self.session.detach()


@pytest.mark.slow
def test_its_values_are_those_of_the_callback(tmp_path):
    mine, theirs = AtEpochs(val_loader(), [1, 3]), InformationPlaneCallback(data=val_loader(), estimators=["knn"])
    model, _ = fit(tmp_path / "mine", mine)
    fit(tmp_path / "theirs", theirs)
    assert mine.history.records() == [record for record in theirs.history.records() if record.epoch in (1, 3)]
    assert History.read_csv(tmp_path / "mine" / "information_plane_mine.csv") == mine.history
    assert (tmp_path / "mine" / "information_plane_mine.png").is_file()
    assert mine.session.phase is Phase.DETACHED
    assert not has_hooks(model)


def test_a_failure_is_one_warning_and_nan(tmp_path):
    mine = AtEpochs([("no tensor", "no label")], [1, 2])
    with pytest.warns(UserWarning, match="^mine: the measurement after epoch 1 failed, its points are NaN"):
        fit(tmp_path, mine)
    assert [point.verdict for point in mine.history] == [""] * 4
