"""The state of a history in a checkpoint, and what is kept of one that is damaged."""

import math

import pytest
import torch

from lightning_ib import History, Record
from tests.helpers.histories import measured, point
from tests.helpers.records import bits


def test_a_state_comes_back_with_all_its_fields():
    history = measured(0, value=math.nan) + History.of([point(layer="out", verdict="target_saturated")])
    state = history.state_dict()
    assert list(state) == list(Record._fields)
    assert {type(value) for column in state.values() for value in column} == {int, float, str}
    found, faults = History.restored({"history": state})
    assert (bits(found), faults) == (bits(history), [])
    assert History.restored({"history": History().state_dict()}) == (History(), [])


def test_a_state_needs_no_more_than_weights_only(tmp_path):
    torch.save(measured(0).state_dict(), tmp_path / "state.pt")
    found, _ = History.restored({"history": torch.load(tmp_path / "state.pt", weights_only=True)})
    assert found == measured(0)


def state(**changes):
    """A state of one measurement, with columns changed by functions of the old ones."""
    columns = measured(0, ["out"]).state_dict()
    return {"history": columns | {name: change(columns[name]) for name, change in changes.items()}}


def lacking(name):
    columns = measured(0, ["out"]).state_dict()
    del columns[name]
    return {"history": columns}


@pytest.mark.parametrize(
    ("damaged", "n_kept", "fault"),
    [
        ({}, 0, "its history is missing, and a mapping of columns is expected"),
        ({"history": 3}, 0, "its history is of type int, and a mapping of columns is expected"),
        ({"history": {}}, 0, "the columns of its history differ in length or kind"),
        (state(value=lambda of: of[1:]), 0, "the columns of its history differ in length or kind"),
        (state(value=tuple), 0, "the columns of its history differ in length or kind"),
        (state(value=lambda of: ["1", *of[1:]]), -1, "a record of its history has value='1', of type str, and float"),
        (state(epoch=lambda of: [True, *of[1:]]), -1, "a record of its history has epoch=True, of type bool, and int"),
        (state(value=lambda of: [1, *of[1:]]), None, None),
        (lacking("quantity"), 0, "records of its history lack ['quantity']"),
        (lacking("source"), 0, "records of its history lack ['source']"),
        (lacking("unit"), 0, "records of its history lack ['unit']"),
        (lacking("n_samples"), None, "records of its history lack ['n_samples']"),
        (lacking("value"), None, "records of its history lack ['value']"),
        ({"history": [3]}, 0, "a point of its history is of type int, and a mapping is expected"),
        ({"history": [], "estimates": [3]}, 0, "an estimate of its history is of type int, and a mapping is expected"),
        ({"history": [], "estimates": {}}, 0, "its estimates are of type dict, and a list is expected"),
    ],
)
def test_of_a_damaged_state_is_kept_what_can_be_read(damaged, n_kept, fault):
    found, faults = History.restored(damaged)
    n = len(measured(0, ["out"]).records())
    assert len(found.records()) == (n if n_kept is None else n - 1 if n_kept else 0)
    assert len(faults) == (fault is not None)
    assert all(told.startswith(fault) for told in faults)
    assert len(found.points()) <= 1
