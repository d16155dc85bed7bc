"""The first layer that knows what the best one knows."""

import math

import pytest
import torch
from torch import nn

from lightning_ib import History, Record, measure
from lightning_ib.records import earliest_layer


def history(values, errors, *, epoch=0, source="probe"):
    pairs = zip(values, errors)
    return History(
        [Record(epoch, 0, f"layer{k}", source, "I_TY", value, error) for k, (value, error) in enumerate(pairs)]
    )


@pytest.mark.parametrize(
    ("values", "errors", "expected"),
    [
        ([0.2, 0.55, 0.6, 0.58], [0.04] * 4, "layer2"),
        ([0.2, 0.57, 0.6, 0.58], [0.04] * 4, "layer1"),
        ([0.9, 0.5, 0.6], [0.01] * 3, "layer0"),
        ([0.2, 0.55, 0.6], [0.01, 9.0, 0.06], "layer1"),  # the error of the best one counts
        ([math.nan, 0.59, 0.6], [0.1, math.nan, 0.05], "layer2"),
        ([math.nan], [math.nan], None),
        ([-0.02, -0.01, 0.03], [0.04] * 3, None),  # none knows anything
        ([-0.3, -0.1], [0.01] * 2, None),
    ],
)
def test_within_one_standard_error_of_the_best(values, errors, expected):
    assert earliest_layer(history(values, errors)) == expected


def test_the_last_measurement_is_read():
    both = history([0.9, 0.1], [0.01] * 2) + history([0.1, 0.9], [0.01] * 2, epoch=3)
    assert earliest_layer(both) == "layer1"
    assert earliest_layer(both.at(0, 0)) == "layer0"


def test_another_source_is_named():
    with pytest.raises(ValueError, match="no I_TY of source 'probe' in this history, it has kde I_TY"):
        earliest_layer(history([0.1], [0.1], source="kde"))


def test_a_later_measurement_of_another_kind_is_passed_over():
    gradients = History([Record(9, 0, "layer0", "gradient", "grad_snr", 1.0)])
    assert earliest_layer(history([0.1, 0.9], [0.01] * 2) + gradients) == "layer1"


def test_flagged_values_are_passed_over():
    records = [
        Record(0, 0, layer, "cells", "I_TY", value, 0.01, verdict=verdict)
        for layer, value, verdict in [("a", 1.0, "saturated"), ("b", 0.6, "ok"), ("c", 0.3, "ok")]
    ]
    assert earliest_layer(History(records), source="cells") == "b"


def test_values_without_errors_are_said():
    with pytest.raises(ValueError, match="source 'kde' records no standard errors of I_TY: take 'probe'"):
        earliest_layer(history([0.5], [math.nan], source="kde"), source="kde")


def test_an_empty_history_has_no_records():
    with pytest.raises(ValueError, match="in this history, it has no records"):
        earliest_layer(History())


def test_a_network_that_knows_late():
    """An exclusive or, which no linear probe reads before the first layer."""
    torch.manual_seed(0)
    x = torch.randint(2, (600, 2)).float()
    y = (x[:, 0] != x[:, 1]).long()
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        first.bias.zero_()
        second.weight.copy_(torch.eye(2))
    model = nn.Sequential(nn.Linear(2, 2), first, nn.ReLU(), second)
    found = measure(model, [(x, y)], ["0", "1", "2", "3"], estimators=["probe"], head=False)
    assert all(0 <= one.standard_error < 0.1 for one in found.estimates() if one.quantity == "I_TY")
    assert earliest_layer(found) == "2"
