"""A default device of the user's: every function works on that of its arguments, and of the host.

On the device "meta", which has no values, whatever is made without a device of its own fails.
"""

import inspect
import typing

import pytest
import torch

import lightning_ib.functional as f
from lightning_ib.estimators import GaussianChannel, Rows, Soft
from lightning_ib.functional.discrete.corrections import Correction
from tests.helpers.samples import normal
from tests.unit.functional.test_checks import OF_ANY, OF_IDS, OF_LABELS, OF_NUMBERS, ONE

Y = torch.arange(40) % 2
T = normal(40, 2) + Y.unsqueeze(1)
U = T + normal(40, 2, seed=1)
GROUPS = torch.arange(40) // 2


def call(name):
    function = getattr(f, name)
    parameters = inspect.signature(function).parameters
    options = OF_LABELS.get(name, {}) | OF_ANY.get(name, {}) | ONE.get(name, {})
    if name in OF_IDS:
        symbols = [Y, GROUPS, GROUPS % 3][: len([p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD])]
        return lambda: function(*symbols, **({"given": GROUPS % 5} if "given" in parameters else {}))
    if "steps" in parameters:
        options = {"steps": 2, "groups": GROUPS}
    second = Y if name in OF_LABELS else U
    return lambda: function(T, **options) if name in ONE else function(T, second, **options)


MORE = {
    "the MLP probe, with groups": lambda: f.probe_information(T, Y, probe="mlp", groups=GROUPS),
    "projected on labels, with groups": lambda: f.mutual_information_projected(T, Y, groups=GROUPS),
    "KSG 2": lambda: f.mutual_information_ksg(T, U, algorithm=2),
    "mixed with ties": lambda: f.mutual_information_mixed(T.round(), U.relu()),
    "parts": lambda: f.resampled_standard_error(f.mutual_information_knn, T, Y, n_parts=2),
    "parts of groups": lambda: f.resampled_standard_error(f.mutual_information_ksg, T, U, groups=GROUPS, n_parts=3),
    "the permutation baseline": lambda: f.expected_mutual_information(torch.bincount(GROUPS), torch.bincount(Y)),
    "permutations": lambda: f.permuted_mutual_information(torch.bincount(GROUPS), torch.bincount(Y)),
    "GaussianChannel": lambda: GaussianChannel(0.1).estimate(Rows(T, Y), {}, "bits"),
    "Soft": lambda: Soft(16).estimate(Rows(T, Y), {}, "bits"),
} | {
    f"entropy, {name}": lambda name=name: f.entropy(GROUPS % 7, correction=name) for name in typing.get_args(Correction)
}


@pytest.mark.parametrize("name", [*OF_LABELS, *OF_NUMBERS, *OF_ANY, *OF_IDS, *ONE, *MORE])
def test_the_default_device_means_nothing(name):
    function = MORE[name] if name in MORE else call(name)
    expected = function()
    torch.set_default_device("meta")
    try:
        found = function()
    finally:
        torch.set_default_device(None)
    assert str(found) == str(expected)
