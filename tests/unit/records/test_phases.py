"""The transition from drift to diffusion, and the place of gradients in a history."""

import math

import pytest

from lightning_ib import History, Record
from lightning_ib.records import format_tag, parse_tag, phase_transition
from lightning_ib.records.record import GRADIENT_QUANTITIES
from tests.helpers.histories import measured
from tests.helpers.messages import exactly


def gradients(epoch, step=None, layers=("conv", "out"), value=1.0):
    step = 10 * epoch if step is None else step
    return History(
        Record(epoch, step, layer, "gradient", quantity, value) for layer in layers for quantity in GRADIENT_QUANTITIES
    )


def test_a_quadratic_bowl_passes_where_its_formula_says():
    """SNR_t = ‖h r^t d₀‖ / √(Σ c / B) with r = 1 − η h: below 1 from step 17 on."""
    h, d, c, rate, batch = (1.0, 0.25), (2.0, -1.0), (1.0, 0.5), 0.1, 10
    noise = math.sqrt(sum(c) / batch)
    snr = [math.hypot(*(k * (1 - rate * k) ** t * s for k, s in zip(h, d))) / noise for t in range(60)]
    assert snr[0] == pytest.approx(5.204164998665331)
    assert phase_transition(range(60), snr=snr) == 17


@pytest.mark.parametrize(
    ("snr", "found"),
    [
        ([2, 0.5, 0.5, 0.5], 1),
        ([2, 0.5, 0.5], math.nan),  # too few to say so
        ([2, 0.5, 1.0, 0.5, 0.5, 0.5], 3),
        ([0.5] * 6, math.nan),  # it was never above
        ([2] * 6, math.nan),
        ([2, math.nan, 0.5, 0.5, math.nan, 0.5], 2),
        ([math.inf, 0.5, 0.4, 0.3], 1),
        ([], math.nan),
    ],
)
def test_the_ratio_must_stay_below_one(snr, found):
    assert phase_transition(range(len(snr)), snr=snr) == pytest.approx(found, nan_ok=True)


def test_how_long_it_must_stay_can_be_said():
    assert phase_transition([1, 2, 3], snr=[2, 0.5, 0.4], patience=2) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1.0]), "times and snr must be of the same number, got 2 and 1."),
        (([2, 1], [1.0, 1.0]), "times must be in ascending order: sort them, and the ratios with them."),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    times, snr = arguments
    with pytest.raises(ValueError, match=exactly(message)):
        phase_transition(times, snr=snr)
    with pytest.raises(ValueError, match=exactly("patience must be at least 1, got 0.")):
        phase_transition([1], snr=[1.0], patience=0)


def test_gradients_and_information_stand_side_by_side():
    history = History()
    for epoch in (0, 1, 2):
        if epoch:
            history.put(gradients(epoch))
        history.put(measured(epoch))
    n = len(history.records())
    history.put(gradients(1, value=2.0))
    history.put(measured(2, value=2.0))
    assert len(history.records()) == n
    assert [one.epoch for one in history] == [0, 0, 1, 1, 2, 2]
    assert {one.value for one in history.gradients().records() if one.epoch == 1} == {2.0}
    assert history.information() + history.gradients() != history
    assert sorted(map(repr, (history.information() + history.gradients()).records())) == sorted(
        map(repr, history.records())
    )
    assert {one.source for one in history.estimates()} == {"probe"}
    assert repr(history) == "History of 6 points, 6 estimates and 32 gradient values"


def test_a_history_of_gradients_goes_to_a_file_and_back(tmp_path):
    history = gradients(1) + measured(1) + gradients(2)
    history.to_csv(tmp_path / "a.csv")
    assert History.read_csv(tmp_path / "a.csv") == history
    assert History.restored({"history": history.state_dict()}) == (history, [])


@pytest.mark.parametrize("quantity", GRADIENT_QUANTITIES)
def test_their_tags_hold_no_source(quantity):
    name = format_tag("ib", quantity, "net/0", source="gradient")
    assert name == f"{'ib_diagnostics' if quantity.endswith(('floor', 'unbiased')) else 'ib'}/{quantity}/net/0"
    assert parse_tag(name)[:3] == (quantity, "net/0", "")
