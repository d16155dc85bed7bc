"""The rule of the verdict: which figures are called what."""

import math

import pytest

from lightning_ib.records.reliability import verdict

SOUND = {
    "saturation": 0.5,
    "singleton_fraction": 0.0,
    "n_codes": 50,
    "n_samples": 1000,
    "clipped_fraction": 0.0,
    "nominal_tail_mass": 0.0,
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "ok"),
        ({"saturation": 0.9}, "ok"),
        ({"saturation": 0.9000001}, "saturated"),
        ({"saturation": 1.0}, "saturated"),
        ({"clipped_fraction": 0.1}, "ok"),
        ({"clipped_fraction": 0.1000001}, "clipped"),
        ({"clipped_fraction": 1.0}, "clipped"),
        ({"clipped_fraction": 0.3, "nominal_tail_mass": 0.2}, "ok"),
        ({"clipped_fraction": 0.3000002, "nominal_tail_mass": 0.2}, "clipped"),
        ({"clipped_fraction": math.nan}, "ok"),
        ({"clipped_fraction": math.nan, "saturation": 0.95}, "saturated"),
        ({"singleton_fraction": 0.1, "n_codes": 200}, "ok"),
        ({"singleton_fraction": 0.101, "n_codes": 202}, "undersampled"),
        ({"singleton_fraction": 0.02, "n_codes": 20}, "ok"),
        ({"singleton_fraction": 0.1002, "n_codes": 501}, "undersampled"),
        ({"singleton_fraction": 0.101, "n_codes": 202, "clipped_fraction": math.nan}, "undersampled"),
        # a single symbol
        ({"n_codes": 1, "saturation": 0.0, "n_samples": 2}, "constant"),
        ({"n_codes": 1, "saturation": math.nan, "n_samples": 1, "singleton_fraction": 1.0}, "undersampled"),
        # the target, and the head
        ({"target_saturation": 0.9}, "ok"),
        ({"target_saturation": 0.9000001}, "target_saturated"),
        ({"target_saturation": math.nan}, "ok"),
        ({"target_singleton_fraction": 0.1}, "ok"),
        ({"target_singleton_fraction": 0.1000001}, "target_undersampled"),
        ({"below_fano": True}, "too_coarse"),
        # of several the first
        (
            {"n_codes": 1, "saturation": 0.0, "clipped_fraction": 0.9, "target_saturation": 1.0, "below_fano": True},
            "constant",
        ),
        ({"saturation": 0.95, "target_saturation": 1.0, "below_fano": True}, "saturated"),
        ({"clipped_fraction": 0.9, "target_saturation": 1.0, "below_fano": True}, "clipped"),
        ({"singleton_fraction": 0.9, "n_codes": 900, "target_saturation": 1.0}, "undersampled"),
        ({"target_saturation": 1.0, "target_singleton_fraction": 1.0, "below_fano": True}, "target_saturated"),
        ({"target_singleton_fraction": 1.0, "below_fano": True}, "target_undersampled"),
        ({"saturation": 0.95, "clipped_fraction": 0.9, "singleton_fraction": 0.9, "n_codes": 900}, "saturated"),
        ({"clipped_fraction": 0.9, "singleton_fraction": 0.9, "n_codes": 900}, "clipped"),
        ({"saturation": 0.95, "singleton_fraction": 0.9, "n_codes": 900}, "saturated"),
    ],
)
def test_what_is_called_what(changed, expected):
    assert verdict(**SOUND | changed) == expected
