"""When to measure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.callbacks.schedule import Schedule


@pytest.mark.parametrize(
    ("options", "by", "words"),
    [
        ({}, "epoch", "after every epoch"),
        ({"every_n_epochs": 3}, "epoch", "after every 3 epochs"),
        ({"epochs": [4, 2]}, "epoch", "after the epochs 2, 4"),
        ({"epochs": [4]}, "epoch", "after the epoch 4"),
        ({"every_n_train_steps": 1}, "step", "after every step"),
        ({"every_n_train_steps": 50}, "step", "after every 50 steps"),
    ],
)
def test_it_says_what_it_is(options, by, words):
    schedule = Schedule(**options)
    assert (schedule.by, str(schedule)) == (by, words)


@given(st.integers(1, 7), st.integers(1, 40), st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_however_many_moments_are_skipped_each_is_made_up_for_once(n, first, gaps):
    for schedule in (Schedule(n), Schedule(epochs=[first, first + n]), Schedule(every_n_train_steps=n)):
        now = last = 0
        measured = []
        for gap in gaps:
            now += gap
            if schedule.is_due(now, last):
                measured.append(now)
                last = now
            assert not schedule.is_due(now, last), "never twice at one moment"
        if schedule.epochs is not None:
            assert len(measured) <= 2
            assert all(any(epoch <= moment for moment in measured) for epoch in schedule.epochs if epoch <= now)
        elif schedule.by == "epoch":
            assert all(b - a >= n for a, b in zip([0, *measured], measured))
        else:
            assert [moment // n for moment in measured] == sorted({moment // n for moment in measured})


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"every_n_epochs": True}, TypeError, "every_n_epochs must be an integer of at least 1, got True"),
        ({"every_n_train_steps": 0}, ValueError, "every_n_train_steps must be an integer of at least 1, got 0"),
        ({"epochs": [1, 2.5]}, TypeError, "epochs must be an integer of at least 0, got 2.5"),
        ({"epochs": []}, ValueError, r"epochs must be a list of whole numbers such as \[1, 2, 4, 8\], got \[\]."),
        ({"epochs": "12"}, TypeError, r"epochs must be a list of whole numbers such as \[1, 2, 4, 8\], got '12'."),
        (
            {"epochs": [1], "every_n_train_steps": 2},
            ValueError,
            "give one schedule, got epochs and every_n_train_steps.",
        ),
    ],
)
def test_what_is_no_schedule_is_refused(options, kind, said):
    with pytest.raises(kind, match=said):
        Schedule(**options)


def test_it_is_a_value():
    assert Schedule(epochs=[2, 1]) == Schedule(epochs=(1, 2))
    with pytest.raises(AttributeError):
        Schedule().every_n_epochs = 2
