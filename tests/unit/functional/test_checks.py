"""The checks of arguments: their sentences, booleans that are no integers, swapped arguments, and documentation."""

import inspect
import math
import re
import typing

import numpy as np
import pytest
import torch

import lightning_ib.functional as f
from lightning_ib import CellQuantizer, QuantileBins, UniformBins
from lightning_ib.estimators import KDE, KNN, KSG, SMILE, MixedKNN, Probe, Quantized, Renyi, Soft
from lightning_ib.functional import checks
from tests.helpers.messages import exactly
from tests.helpers.samples import normal

FUNCTIONS = [name for name in f.__all__ if inspect.isfunction(getattr(f, name))]
CLASSES = [name for name in f.__all__ if inspect.isclass(getattr(f, name))]


# --- The checks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "limits", "error", "message"),
    [
        (True, {}, TypeError, "k must be an integer, got True: give a whole number such as 1."),
        (
            2.0,
            {"at_least": 1},
            TypeError,
            "k must be an integer of at least 1, got 2.0: give a whole number such as 1.",
        ),
        ("3", {"at_most": 9}, TypeError, "k must be an integer of at most 9, got '3': give a whole number such as 9."),
        (0, {"at_least": 1}, ValueError, "k must be an integer of at least 1, got 0: give at least 1."),
        (9, {"at_least": 1, "at_most": 8}, ValueError, "k must be an integer from 1 to 8, got 9: give at most 8."),
        (9, {"at_most": 8, "advice": "lower it"}, ValueError, "k must be an integer of at most 8, got 9: lower it."),
        (np.True_, {}, TypeError, f"k must be an integer, got {np.True_!r}: give a whole number such as 1."),
        (
            torch.ones(2),
            {},
            TypeError,
            "k must be an integer, got a tensor of shape (2,): give a whole number such as 1.",
        ),
    ],
)
def test_an_integer_is_checked(value, limits, error, message):
    with pytest.raises(error, match=exactly(message)):
        checks.checked_integer(value, "k", **limits)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_an_integer_is_pythons_afterwards(value):
    assert type(checks.checked_integer(value, "k", at_least=3, at_most=3)) is int


@pytest.mark.parametrize(
    ("value", "limits", "error", "message"),
    [
        (True, {}, TypeError, "a must be a finite number, got True: give a float."),
        ("1", {"above": 0}, TypeError, "a must be a positive finite number, got '1': give a float."),
        (
            None,
            {"at_least": 0, "at_most": 1},
            TypeError,
            "a must be a finite number from 0 to 1, got None: give a float.",
        ),
        (0, {"above": 0}, ValueError, "a must be a positive finite number, got 0."),
        (math.inf, {"above": 0}, ValueError, "a must be a positive finite number, got inf."),
        (math.nan, {"above": 0, "infinite": True}, ValueError, "a must be a positive number, got nan."),
        (1.5, {"at_least": 0, "at_most": 1}, ValueError, "a must be a finite number from 0 to 1, got 1.5."),
        (1, {"above": 2, "advice": "raise it"}, ValueError, "a must be a finite number above 2, got 1: raise it."),
    ],
)
def test_a_number_is_checked(value, limits, error, message):
    with pytest.raises(error, match=exactly(message)):
        checks.checked_number(value, "a", **limits)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor(2)])
def test_a_number_is_a_float_afterwards(value):
    number = checks.checked_number(value, "a", above=0)
    assert (type(number), number) == (float, 2.0)


@pytest.mark.parametrize(
    ("value", "choices", "error", "message"),
    [
        ("bit", ("bits", "nats"), ValueError, "u must be 'bits' or 'nats', got 'bit': did you mean 'bits'?"),
        ("?", ("one", "two", "six"), ValueError, "u must be 'one', 'two' or 'six', got '?'."),
        (3, ("bits", "nats"), TypeError, "u must be 'bits' or 'nats', got 3."),
        (True, (1, 2), TypeError, "u must be 1 or 2, got True."),
        (3, (1, 2), ValueError, "u must be 1 or 2, got 3."),
        (torch.ones(2), ("bits",), TypeError, "u must be 'bits', got a tensor of shape (2,)."),
    ],
)
def test_a_choice_is_checked(value, choices, error, message):
    with pytest.raises(error, match=exactly(message)):
        checks.checked_choice(value, "u", choices)
    assert all(checks.checked_choice(choice, "u", choices) == choice for choice in choices)


# --- The rule for integers -------------------------------------------------------------------------------------------

Y = torch.arange(40) % 2
T = normal(40, 2) + Y.unsqueeze(1)

# Functions of a representation and class labels, with the arguments that they cannot do without.
OF_LABELS = {
    "class_geometry": {},
    "mutual_information_bounds_kde": {"noise_variance": 1.0},
    "mutual_information_gaussian_copula_labels": {},
    "mutual_information_knn": {},
    "mutual_information_quantized": {},
    "mutual_information_renyi_labels": {},
    "probe_information": {},
    "soft_information": {},
    "usable_information": {},
}
OF_NUMBERS = [
    "critic_information",
    "mutual_information_gaussian_copula",
    "mutual_information_infonce",
    "mutual_information_ksg",
    "mutual_information_ksg_corrected",
    "mutual_information_mixed",
    "mutual_information_renyi",
    "mutual_information_smile",
]
OF_ANY = {
    "linear_cka": {},
    "conditional_mutual_information_gaussian_copula": {"given": T[:, 1:] ** 2},
    "conditional_mutual_information_ksg": {"given": T},
    "conditional_mutual_information_mixed": {"given": T},
    "mutual_information_projected": {},
}
"""Functions whose arguments may be of several kinds, or are three; their own tests are beside those of the values."""
OF_IDS = [
    "conditional_entropy",
    "conditional_mutual_information",
    "entropy",
    "mutual_information",
    "symbols",
]
"""Functions of symbols."""
ONE = {
    "cka_sketch": {},
    "differential_entropy_knn": {},
    "entropy_bounds_kde": {"noise_variance": 1.0},
    "entropy_renyi": {},
    "kernel_width_of": {},
    "noise_variance_of": {},
    "cells": {},
    "quantized_ids": {},
}
"""Functions of one real variable."""


def test_every_function_of_two_variables_is_here():
    first = {name: tuple(inspect.signature(getattr(f, name)).parameters)[:2] for name in FUNCTIONS}
    assert {name for name, of in first.items() if of == ("t", "y")} == OF_LABELS.keys()
    assert {name for name, of in first.items() if of == ("x", "y")} == {*OF_NUMBERS, *OF_ANY}
    assert {name for name, of in first.items() if of[0] in ("t", "x")} == {*OF_LABELS, *OF_NUMBERS, *OF_ANY, *ONE}


@pytest.mark.parametrize("name", OF_LABELS)
def test_a_representation_and_labels_cannot_be_swapped(name):
    function, options = getattr(f, name), OF_LABELS[name]
    with pytest.raises(
        TypeError, match=r"^t must be real numbers in floating point, got torch.int64: give t.double\(\)"
    ):
        function(Y, T, **options)
    with pytest.raises(TypeError, match=r"^t must be real numbers in floating point, got torch.bool"):
        function(T > 0, Y, **options)
    with pytest.raises(
        TypeError, match=r"^y must be class labels, a tensor of integers .* got torch.float32: give y.long"
    ):
        function(T, Y.float(), **options)
    assert repr(function(T, Y > 0, **options)) == repr(function(T, Y, **options))


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_and_labels_are_never_guessed(name):
    function = getattr(f, name)
    for integers in (Y, Y > 0, Y.int()):
        both = (
            r"give y.double\(\) if these are numbers, or use .*(\(y\).double\(\)|\(t, y\)) if they are class labels\.$"
        )
        with pytest.raises(
            TypeError, match=rf"^y must be real numbers in floating point, got {integers.dtype}: {both}"
        ):
            function(T, integers)
        with pytest.raises(TypeError, match=rf"^x must be real numbers in floating point, got {integers.dtype}: "):
            function(integers, T)


@pytest.mark.parametrize("name", ["gaussian_copula", "ksg", "mixed", "renyi"])
def test_two_real_variables_are_symmetric(name):
    function, y = getattr(f, f"mutual_information_{name}"), T[:, :1] + normal(40, 1, seed=1)
    assert function(T, y) == pytest.approx(function(y, T), abs=1e-10)


@pytest.mark.parametrize("name", ONE)
def test_one_real_variable_is_in_floating_point(name):
    with pytest.raises(
        TypeError, match=r"^[tx] must be real numbers in floating point, got torch.int64: give [tx].double"
    ):
        getattr(f, name)(Y, **ONE[name])


@pytest.mark.parametrize("bad", [3, 2.5, torch.tensor(3), torch.tensor(2.5)], ids=repr)
@pytest.mark.parametrize("name", [*OF_LABELS, *OF_NUMBERS, *OF_ANY, *OF_IDS, *ONE])
def test_a_number_is_no_variable(name, bad):
    """Python's, and tensors without a shape: in place of each variable there is one sentence, which names it."""
    function, symbols = getattr(f, name), name in OF_IDS
    parameters = inspect.signature(function).parameters
    options = NEEDED.get(name, {}) | ({"given": Y} if symbols and "given" in parameters else {})
    variables = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    right = {one: Y if symbols or (one == "y" and name in OF_LABELS) else T for one in variables} | options
    for one in [*variables, *({"given"} & set(right))]:
        with pytest.raises((TypeError, ValueError), match=rf"^{'ids' if symbols else one} must (be|have) .*\.$"):
            function(**right | {one: bad})


@pytest.mark.parametrize("name", OF_IDS)
def test_symbols_are_integers(name):
    function = getattr(f, name)
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    given = {"given": Y} if "given" in inspect.signature(function).parameters else {}
    for k in range(len(positional)):
        arguments = [Y] * len(positional)
        arguments[k] = T[:, 0]
        with pytest.raises(
            TypeError,
            match=r"^ids must be symbols, a tensor of integers .* got torch.float64: discretize real values first",
        ):
            function(*arguments, **given)


def test_what_is_no_symbol_is_keyword_only():
    """Symmetric in what can be swapped, and by name in what cannot."""
    allowed = {("x", "y"), ("t", "y"), ("a", "b"), ("a_counts", "b_counts"), ("edges", "dtype")}
    for name in FUNCTIONS:
        parameters = inspect.signature(getattr(f, name)).parameters.values()
        positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        assert len(positional) < 2 or positional in allowed, name


def test_the_same_argument_has_the_same_default():
    found = {}
    for name in FUNCTIONS:
        for p in inspect.signature(getattr(f, name)).parameters.values():
            if p.default is not p.empty:
                found.setdefault(p.name, {})[name] = p.default
    assert {name for name, of in found.items() if len(set(map(repr, of.values()))) > 1} == set()


# --- Booleans ---------------------------------------------------------------------------------------------------------

COUNTS = torch.tensor([20, 20])
NEEDED = OF_LABELS | OF_ANY | ONE | {
    "bucketize": {"edges": torch.zeros(1)},
    "cell_limit": {},
    "fano_information": {"h_y": 1.0, "n_classes": 2},
    "gradient_signal": {"mean_square_norm": 2.0, "square_norm_of_mean": 1.0},
    "hash_table": {"n_coordinates": 2, "n_codes": 2},
    "permuted_mutual_information": {"b_counts": COUNTS},
    "permuted_symbols": {},
    "resampled_standard_error": {"estimate": len},
    "sketch": {},
}  # fmt: skip
DATA = {
    "t": T,
    "y": Y,
    "x": T,
    "values": T,
    "counts": COUNTS,
    "a_counts": COUNTS,
    "accuracy": 0.5,
    "h_t": 1.0,
    "n_samples": 100,
}


def integers_of():
    for name in FUNCTIONS:
        hints = typing.get_type_hints(getattr(f, name))
        for argument, hint in hints.items():
            if argument != "return" and (hint is int or int in typing.get_args(hint)):
                yield name, argument


@pytest.mark.parametrize(("name", "argument"), list(integers_of()))
def test_a_boolean_is_no_integer(name, argument):
    function = getattr(f, name)
    parameters = inspect.signature(function).parameters
    arguments = {p: DATA[p] for p in parameters if p in DATA and p != argument} | NEEDED.get(name, {})
    arguments["y"] = T if name in OF_NUMBERS or name in OF_ANY else Y
    arguments = {p: value for p, value in arguments.items() if p in parameters}
    with pytest.raises(TypeError, match=rf"^{argument} must be (an integer|1 or 2).*, got True"):
        function(**arguments | {argument: True})


@pytest.mark.parametrize(
    "make",
    [
        lambda: UniformBins(True),
        lambda: QuantileBins(True),
        lambda: CellQuantizer(True),
        lambda: KSG(k=True),
        lambda: KNN(k=True),
        lambda: MixedKNN(k=True),
        lambda: Probe(folds=True),
        lambda: Quantized(True),
        lambda: Soft(True),
        lambda: Soft(max_classes=True),
        lambda: SMILE(max_samples=True),
        lambda: KDE(noise_variance=True),
        lambda: Renyi(alpha=True),
        lambda: Renyi(kernel_width=True),
        lambda: f.SoftEntropy(torch.zeros(2), n_anchors=True),
        lambda: KSG(algorithm=True),
    ],
)
def test_a_boolean_is_no_number_of_an_object(make):
    with pytest.raises(TypeError, match=r"^\w+:? ?\w* must be .*, got True"):
        make()


# --- Names and documentation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_every_public_name_is_documented(name):
    public = getattr(f, name)
    lines = inspect.getdoc(public).splitlines()
    assert lines[0].endswith((".", ":"))
    assert len(lines) == 1 or not lines[1]
    if name in CLASSES:
        return
    documented = re.findall(r"^    (\w+): ", inspect.getdoc(public).partition("Args:\n")[2], re.MULTILINE)
    assert set(inspect.signature(public).parameters) <= set(documented), name


def test_the_public_names_are_listed_once_and_in_order():
    assert len(set(f.__all__)) == len(f.__all__)
    assert all(hasattr(f, name) for name in f.__all__)
    modules = [m for m in vars(f).values() if inspect.ismodule(m)]
    assert not {m.__name__ for m in modules} & {f"lightning_ib.functional.{name}" for name in f.__all__}


@pytest.mark.parametrize(
    "gone",
    ["decode", "Decoding", "codes", "Chance", "shuffled", "shuffled_mutual_information", "most_cells"]
    + ["mutual_information_quantised", "quantised_ids"],
)
def test_no_alias_of_an_old_name_is_left(gone):
    assert not hasattr(f, gone)


def test_finite_rows_may_add_up_to_more_than_floats_hold():
    rows = torch.full((4, 3), 3e38)
    assert checks.checked_rows(rows, "t").equal(rows)
    rows[1, 0], rows[2, 1] = math.inf, -math.inf
    with pytest.raises(ValueError, match="t has NaN or infinite values in 2 of 4 rows"):
        checks.checked_rows(rows, "t")
