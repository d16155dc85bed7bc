"""What values are logged under: from a value to its name, and back."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.estimators.base import Estimator
from lightning_ib.estimators.geometry import BY_NAME as GEOMETRY
from lightning_ib.estimators.registry import BY_NAME, checked_estimators
from lightning_ib.records.names import checked_target_name
from lightning_ib.records.record import COMPANIONS, COUNTED, GRADIENT, VARIATIONAL, is_about_target
from lightning_ib.records.tags import QUANTITIES, RESERVED, SHARES, UNITS, Tag, format_tag, is_diagnostic, parse_tag

ESTIMATORS = BY_NAME | GEOMETRY
LAYERS = ["out", "encoder.0", "a/b", "a/I_TY/out", "bits", "I_TY", "probe", "/out", "a//b", "schräg ü", "_orig_mod"]


@pytest.mark.parametrize("prefix", ["ib", "val", "a/b", "ib_diagnostics"])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_name_says_what_it_was_made_of(layer, prefix):
    counted = [(quantity, "") for quantity in sorted(RESERVED - {*UNITS, *COUNTED, *COMPANIONS, GRADIENT, VARIATIONAL})]
    of_estimators = [(figure, name) for name, one in ESTIMATORS.items() for figure in one().outputs]
    of_estimators += [(figure, VARIATIONAL) for figure in ("I_XT", "I_TY")]
    for (quantity, estimator), unit in itertools.product(counted + of_estimators, ("", *UNITS)):
        name = format_tag(prefix, quantity, layer, source=estimator, unit=unit)
        assert parse_tag(name, prefix) == Tag(quantity, layer, estimator, unit), name


def is_name(text):
    try:
        return checked_target_name(text) == text
    except ValueError:
        return False


@given(
    target=st.text(min_size=1, max_size=12).filter(is_name) | st.sampled_from(["coarse", "next token", "I_TY_", "0"]),
    layer=st.sampled_from(LAYERS) | st.text("ab@/._ ", min_size=1),
    value=st.sampled_from(
        [(quantity, "") for quantity in sorted(RESERVED) if is_about_target(quantity)]
        + [(figure, name) for name, one in ESTIMATORS.items() for figure in one().outputs if is_about_target(figure)]
    ),
    unit=st.sampled_from(["", *UNITS]),
    prefix=st.sampled_from(["ib", "val", "a@b"]),
)
def test_a_name_says_which_target_it_is_about(target, layer, value, unit, prefix):
    quantity, estimator = value
    name = format_tag(prefix, quantity, layer, source=estimator, unit=unit, target=target)
    assert parse_tag(name, prefix) == Tag(quantity, layer, estimator, unit, target), name
    assert parse_tag(name.replace(f"@{target}", "", 1) if "@" not in prefix else name, prefix) is not None


def test_no_two_values_have_one_name():
    counted = [(quantity, "") for quantity in RESERVED - {*UNITS, *COUNTED, *COMPANIONS, GRADIENT, VARIATIONAL}]
    of_estimators = [(figure, name) for name, one in ESTIMATORS.items() for figure in one().outputs]
    of_estimators += [(figure, VARIATIONAL) for figure in ("I_XT", "I_TY")]
    names = [
        format_tag("ib", quantity, layer, source=estimator, unit=unit)
        for quantity, estimator in counted + of_estimators
        for unit in ("", *UNITS)
        for layer in LAYERS
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name",
    [
        "train_loss",
        "ib",
        "ib/",
        "ib/information_plane",
        "ib/I_XT",
        "ib/probe/I_TY",
        "ib/saturation/out",
        "ibis/I_XT/out",
    ]
    + ["ib_diagnostics/bits", "ib_diagnostics/bits/", "ib_diagnostics/bits/I_TY", "ib_diagnostics/I_XT/out"],
)
def test_a_name_of_another_kind_says_nothing(name):
    assert parse_tag(name) is None


def test_on_the_first_page_are_three_quantities_those_of_gradients_and_the_values_of_estimators():
    assert [quantity for quantity in sorted(RESERVED) if not is_diagnostic(quantity)] == sorted(
        [*QUANTITIES, "grad_mean", "grad_snr", "grad_std", "noise_scale", "weight_distance", "weight_norm"]
    )
    assert all(is_diagnostic(share) for share in SHARES)
    assert not is_diagnostic("accuracy", "probe")
    shown = {
        name: [figure for figure in one().outputs if not is_diagnostic(figure, name)] for name, one in BY_NAME.items()
    }
    assert shown["kde"] == ["I_XT", "I_TY"]
    assert shown["probe"] == ["I_TY", "accuracy"]
    assert shown["renyi"] == ["I_XT", "I_TY"]
    assert set(shown["soft"]) == {"H_T", "I_XT", "I_TY"}


@pytest.mark.parametrize("name", ["I_TY", "saturation", "bits", "cells", "binned", "a/b", ""])
def test_an_estimator_cannot_take_the_name_of_another_value(name):
    class Mine(Estimator):
        def estimate(self, rows, calibration, unit):
            return {}

    mine = Mine()
    mine.name = name
    with pytest.raises(ValueError, match=f"an estimator cannot log as '{name}'"):
        checked_estimators([mine])


def test_names_can_be_read_without_torch():
    code = (
        "import sys; from lightning_ib.records import parse_tag; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
