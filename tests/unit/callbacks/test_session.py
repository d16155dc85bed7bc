"""A session: one phase at a time, and a measurement returned."""

import math
import pickle
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import History, InformationPlane, Quantizer, UniformBins
from lightning_ib.callbacks.session import Host, Moment, Phase, Session
from lightning_ib.evaluation.passes import ForwardError, run_pass
from tests.helpers.tiny import has_hooks

MOMENT = Moment(3, 12, "after epoch 3")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def batches(n=4):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 4, generator=generator), torch.arange(16) % 2) for _ in range(n)]


def session_of(model, **options):
    session = Session({"layers": ["0", "2"], **options}, "ib")
    session.attach(model)
    return session


def recorded(session, model, data):
    session.begin()
    for batch in data:
        session.watch()
        model(batch[0])
        session.see(batch, MOMENT)


def test_the_phases_of_a_loop_that_is_recorded():
    model = net()
    session = Session({"layers": ["0"]})
    assert (session.phase, session.is_attached, session.is_at_work) == (Phase.DETACHED, False, False)
    session.attach(model)
    assert (session.phase, session.is_attached, session.is_at_work) == (Phase.IDLE, True, False)
    session.begin()
    assert (session.phase, session.is_at_work) == (Phase.RECORDING, True)
    recorded(session, model, batches())
    measured = session.conclude(None, MOMENT)
    assert session.phase is Phase.IDLE
    assert [(point.epoch, point.step, point.n_samples) for point in measured.history] == [(3, 12, 64)]
    session.detach()
    session.detach()
    assert session.phase is Phase.DETACHED
    assert not has_hooks(model)


def test_its_values_are_those_of_the_plane():
    model, plane = net(), InformationPlane(["0", "2"], estimators=["probe"])
    session = session_of(model, estimators=["probe"])
    recorded(session, model, batches())
    measured = session.conclude(None, MOMENT)
    session.detach()
    with plane.attach(model), torch.no_grad():
        run_pass(plane, batches(), lambda parts: model(parts.x))
    assert measured.history == plane.compute(epoch=3, step=12) + History(plane.estimate(epoch=3, step=12))


def test_batches_are_watched_only_while_a_pass_is_recorded():
    model = net()
    session = session_of(model)
    session.watch()
    model(batches()[0][0])
    session.see(batches()[0], MOMENT)  # no pass was begun
    session.begin()
    session.watch(wanted=False)  # such as those of a second loader
    model(batches()[0][0])
    session.see(batches()[0], MOMENT)
    assert session.plane.n_seen == 0


def test_a_failure_gives_up_the_pass_in_one_warning_and_nan():
    model = net()
    session = session_of(model, target=Quantizer(bins=UniformBins(2)))
    with pytest.warns(UserWarning, match="^ib: the measurement after epoch 3 failed, its points are NaN") as caught:
        recorded(session, model, [(x, "no tensor") for x, _ in batches()])
    assert len(caught) == 1
    assert session.phase is Phase.FAILED
    measured = session.conclude(None, MOMENT)
    assert session.phase is Phase.IDLE
    assert [point.layer for point in measured.history] == ["0", "2"]
    assert all(math.isnan(point.i_xt) and point.verdict == "" for point in measured.history)
    recorded(session, model, [(x, y[:, None].float()) for x, y in batches()])  # the next pass is measured
    assert all(math.isfinite(point.i_xt) for point in session.conclude(None, MOMENT).history)


def test_a_pass_of_its_own_raises_what_was_raised_and_goes_back_to_idle():
    def run(plane):
        raise ForwardError("the model does not take that.")

    session = session_of(net())
    with pytest.raises(ForwardError, match="does not take that"):
        session.measure(run, MOMENT)
    assert session.phase is Phase.IDLE
    with pytest.warns(UserWarning, match="does not take that. Training goes on"):
        measured = session.measure_or_warn(run, MOMENT)
    assert all(math.isnan(point.i_xt) for point in measured.history)


def test_what_is_raised_in_another_process_is_raised_here():
    model = net()
    session = Session({"layers": ["0"]})
    session.attach(model, Host(any_rank=lambda fact: True))
    with pytest.raises(RuntimeError, match="failed in another process"):
        session.measure(lambda plane: None, MOMENT)


def test_an_evaluation_measures_with_the_edges_of_the_fit_and_leaves_them():
    model = net()
    session = Session({"layers": {"0": Quantizer(bins=UniformBins(3))}})
    session.attach(model)
    recorded(session, model, batches())
    session.conclude(None, MOMENT)
    edges = session.plane.fitted_quantizers["0"].edges
    session.detach()
    session.attach_for_evaluation(model)
    assert torch.equal(session.plane.fitted_quantizers["0"].edges, edges)
    session.plane.fitted_quantizers["0"].edges = edges + 1
    assert torch.equal(session.frozen_state()["layers"]["0"]["edges"], edges)
    session.attach(model, frozen=session.frozen_state())  # the next fit
    assert torch.equal(session.plane.fitted_quantizers["0"].edges, edges)


def test_without_a_layer_to_measure_nothing_is_and_one_warning_says_so():
    session = Session({"layers": None})
    with pytest.warns(UserWarning, match="^ib: nothing is measured"):
        session.attach(nn.Sequential(nn.Tanh()))
    assert session.phase is Phase.DETACHED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.watch()
        session.see(batches()[0], MOMENT)


def test_a_session_can_be_pickled_before_and_after_it_was_at_work():
    model = net()
    session = Session({"layers": ["0"]})
    for _ in range(2):
        again = pickle.loads(pickle.dumps(session))
        again.attach(model)
        recorded(again, model, batches())
        assert len(again.conclude(None, MOMENT).history) == 1
        again.detach()
        session = again


def test_a_copy_in_the_middle_of_a_fit_leaves_model_and_trainer_behind():
    model = net()
    session = Session({"layers": ["0"]})
    session.attach(model, Host(say=lambda line: None))  # a lambda cannot be pickled, as a Trainer should not be
    session.begin()
    copy = pickle.loads(pickle.dumps(session))
    assert copy.phase is Phase.DETACHED
    copy.attach(model)
    recorded(copy, model, batches())
    assert len(copy.conclude(None, MOMENT).history) == 1
    assert session.phase is Phase.RECORDING
