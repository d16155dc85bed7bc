"""The bound in a run: logged, monitored, drawn, handed to the page, kept in a resume, and absent from training."""

import json
import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlaneCallback
from lightning_ib.plot import plot_information_plane, plot_layers, plot_runs
from lightning_ib.records import History, parse_tag
from lightning_ib.records.bound import BoundLine, line_of
from lightning_ib.records.measurement_json import measurement_from_json, measurement_to_json
from tests.helpers.callbacks import equal
from tests.helpers.records import exact
from tests.helpers.tiny import TinyModule, fit, pl

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures", "few_pictures", "few_probes")]


def repeated(n=240):
    """Eight inputs, each with all four labels, mostly one."""
    generator = torch.Generator().manual_seed(0)
    inputs = 2 * torch.randn(8, 6, generator=generator)
    which = torch.arange(n) % 8
    y = torch.where(torch.rand(n, generator=generator) < 0.7, which % 4, torch.randint(4, (n,), generator=generator))
    return DataLoader(TensorDataset(inputs[which], y), 24)


def planes(figure):
    return [axes for axes in figure.axes if axes.get_xlabel() or axes.get_title()]


def shades(figure):
    return [one for axes in figure.axes for one in axes.collections]


def has_curve(axes, bound):
    """Whether the corners of a bound are a line on the axes."""
    return any(list(line.get_xdata())[: len(bound.i_xt)] == bound.i_xt for line in axes.lines)


@pytest.mark.usefixtures("pictures")
def test_a_run_logs_monitors_and_draws_its_distance_to_the_bound(tmp_path):
    callback = InformationPlaneCallback(["hidden", "out"], bound=["data", "finite_sample", "input_compression"])
    stopping = pl.callbacks.EarlyStopping("ib_diagnostics/bits/I_TY_gap/out", patience=5)
    _, run = fit(tmp_path, callback, stopping, train=repeated(), val=repeated(), max_epochs=2)
    assert len(callback.history) == 6
    for point in callback.history:
        assert 0 <= point.i_ty_gap == pytest.approx(point.i_ty_bound - point.i_ty, abs=1e-9)
        assert point.i_xt_finite_sample > 0 < point.error_heuristic
    for quantity in ("I_TY_bound", "I_TY_gap", "I_XT_finite_sample", "I_TY_finite_sample"):
        name = f"ib_diagnostics/bits/{quantity}/out"
        assert parse_tag(name).quantity == quantity
        assert math.isfinite(run.callback_metrics[name])
    assert math.isfinite(run.callback_metrics["ib_diagnostics/error_heuristic/out"])
    assert (callback.figure_path).is_file()
    assert History.read_csv(callback.figure_path.with_suffix(".csv")) == callback.history
    bound = callback.reporter.bound
    assert bound.label == "IB bound of the data"
    figure = plot_information_plane(callback.history, callback.history.estimates(), bound=bound)
    assert has_curve(figure.axes[0], bound)
    assert "IB bound of the data" in [one.get_text() for one in figure.legends[0].get_texts()]


def test_training_is_bit_identical_with_a_bound(tmp_path):
    found = []
    for callbacks in ([InformationPlaneCallback(bound="data")], []):
        model, _ = fit(tmp_path, *callbacks, train=repeated(), val=repeated(), max_epochs=2)
        found.append((model.state_dict(), model.losses, torch.get_rng_state()))
    for with_it, without in zip(*found):
        assert equal(with_it, without)


def test_a_resumed_run_goes_on_with_its_bound(tmp_path):
    def callback():
        return InformationPlaneCallback(["hidden", "out"], bound="data")

    whole, first, second = callback(), callback(), callback()
    fit(tmp_path / "a", whole, train=repeated(), val=repeated(), max_epochs=3)
    _, run = fit(tmp_path / "b", first, train=repeated(), val=repeated(), max_epochs=2)
    run.save_checkpoint(tmp_path / "last.ckpt")
    fit(tmp_path / "c", second, train=repeated(), val=repeated(), max_epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert [p.epoch for p in second.history] == [p.epoch for p in whole.history]
    assert all(math.isfinite(point.i_ty_gap) for point in second.history)
    assert exact(second.history[:6]) == exact(first.history[:6])
    assert second.reporter.bound == whole.reporter.bound


def test_a_measurement_that_fails_has_nan_under_the_names_of_the_bound(tmp_path):
    class Breaks(TinyModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0] if self.current_epoch == 0 else batch[0][:3])

    callback = InformationPlaneCallback(["hidden", "out"], bound="labels")
    with pytest.warns(UserWarning, match="Training goes on"):
        _, run = fit(tmp_path, callback, model=Breaks(), train=repeated(), val=repeated(), max_epochs=2)
    assert math.isnan(run.callback_metrics["ib_diagnostics/bits/I_TY_gap/out"])
    assert math.isnan(callback.history[-1].i_ty_bound)


def test_a_distribution_is_solved_once_and_refused_at_once(monkeypatch):
    from lightning_ib.measurement import bounds

    solved, solve = [], bounds.ib_curve
    monkeypatch.setattr(bounds, "ib_curve", lambda *args, **kwargs: solved.append(1) or solve(*args, **kwargs))
    p_xy = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    callback = InformationPlaneCallback(bound=[p_xy, "finite_sample"])
    callback.session.attach(TinyModule())
    callback.session.detach()
    assert len(solved) == 1
    with pytest.raises(ValueError, match="p_xy must not be negative"):
        InformationPlaneCallback(bound=-p_xy)


# -- pictures and the page ---------------------------------------------------------------------------------------------


def history(bounds=True):
    from lightning_ib import InformationPoint

    missing = InformationPoint.missing("a", n_samples=100, unit="bits")
    points = []
    for epoch in range(3):
        for k, layer in enumerate("ab"):
            x, y = 4.0 - k - 0.5 * epoch, 0.5 + 0.1 * epoch - 0.05 * k
            point = missing._replace(epoch=epoch, layer=layer, i_xt=x, i_ty=y, h_t=x, h_x=6.6, h_y=1.0, verdict="ok")
            points.append(point._replace(i_ty_bound=0.7 + 0.02 * x) if bounds else point)
    return History.of(points)


def test_pictures_draw_the_line_through_recorded_bounds_where_no_curve_is_given():
    line = line_of(history().points())
    assert line.i_xt == [0.0, 2.0, 2.5, 3.0, 3.5, 4.0]
    assert line.at(2.25) == pytest.approx(0.745)
    assert line.at(9.0) == line.i_ty[-1]
    for figure in (plot_information_plane(history()), plot_layers(history()), plot_runs({"r": history()})):
        assert all(has_curve(axes, line) for axes in planes(figure))
        assert "IB bound at the points" in [one.get_text() for one in figure.legends[0].get_texts()]
        assert not any(type(one).__name__ in ("PolyCollection", "FillBetweenPolyCollection") for one in shades(figure))
    without = plot_information_plane(history(bounds=False))
    assert not has_curve(without.axes[0], line)
    assert line_of(history(bounds=False)) is None


def test_a_bound_above_the_picture_is_named_with_an_arrow_and_the_axes_stay():
    near = plot_information_plane(history(bounds=False))
    far = BoundLine([0.0, 9.0], [40.0, 50.0], "bits", "IB bound")
    figure = plot_information_plane(history(bounds=False), bound=far)
    assert figure.axes[0].get_ylim() == near.axes[0].get_ylim()
    assert "IB bound ↑" in [one.get_text() for one in figure.legends[0].get_texts()]


def test_a_measurement_for_the_page_carries_the_curve():
    measured = history().last()
    bound = BoundLine([0.0, 1 / 3], [0.0, 0.25], "bits", "IB bound")
    text = measurement_to_json(measured, bound=bound)
    rounded = bound._replace(i_xt=[0.0, 0.333333])
    assert json.loads(text)["bound"] == rounded._asdict()
    assert measurement_from_json(text) == measured
    assert "bound" not in json.loads(measurement_to_json(measured))
