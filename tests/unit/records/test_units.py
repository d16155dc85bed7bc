"""Records in another unit."""

import math

import pytest

from lightning_ib import History
from lightning_ib.records.units import in_unit, unit_of_history
from tests.helpers.histories import point, record
from tests.helpers.records import exact


def test_informations_are_converted_and_shares_stay():
    history = History.of([point(1.0)], [record(1.0), record(0.5, quantity="accuracy", unit="")])
    nats = in_unit(history, "nats")
    by_quantity = {one.quantity: one for one in nats.records()}
    assert by_quantity["I_XT"].value == math.log(2)
    assert by_quantity["H_T"].standard_error == math.log(2)
    assert by_quantity["saturation"].value == 1.0
    assert by_quantity["accuracy"] == history.records()[-1]
    assert unit_of_history(nats) == "nats"
    assert exact(in_unit(history, "bits")) == exact(history)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'bytes'"):
        in_unit(History(), "bytes")
    assert unit_of_history(History()) == "bits"
