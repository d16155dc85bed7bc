"""Histories of earlier versions: records without a target, and points and estimates apart, under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import Record

_RENAMED = {
    "i_ty_shuffled": "i_ty_permuted",
    "i_ty_shuffled_sd": "i_ty_permuted_sd",
    "outside": "clipped_fraction",
    "explained": "explained_variance",
}
_INTEGERS = ("epoch", "step", "n_samples", "n_codes")
_TEXTS = ("layer", "unit", "verdict", "correction", "beyond", "source", "estimator", "figure")

_POINT = """
    epoch step layer i_xt i_ty h_t h_x h_y h_y_given_t i_xt_given_y n_samples n_codes saturation unit i_xt_se i_ty_se
    h_t_se h_x_se h_y_se h_y_given_t_se i_xt_given_y_se i_ty_shuffled i_ty_shuffled_sd singletons outside verdict
    correction beyond source explained accuracy i_ty_fano fano_shortfall
"""
_ESTIMATE = "epoch step layer estimator figure value unit n_samples verdict"


def _types(names: str) -> dict[str, type]:
    return {name: int if name in _INTEGERS else str if name in _TEXTS else float for name in names.split()}


POINT = _types(_POINT)
"""The fields of a point, as they were, and their types."""

ESTIMATE = _types(_ESTIMATE)
"""The fields of an estimate, as they were, and their types."""

RECORD = {name: of for name, of in get_type_hints(Record).items() if name != "target"}
"""The fields of a record before several targets were measured in one pass, and their types."""

EARLIER = (RECORD, POINT, ESTIMATE)


def present_name(estimator: str) -> str:
    """The name of an estimator today."""
    return re.sub(r"^quantised(\d*)$", r"quantized\1", estimator)


def records_of_earlier(values: Mapping[str, Any]) -> list[Record]:
    """The records of a record, a point or an estimate, from all of its former fields."""
    known = dict(values)
    if "quantity" in known:
        return [Record(**known)]
    if "estimator" in known:
        source = present_name(known.pop("estimator"))
        return [Record(source=source, quantity=known.pop("figure"), **known)]
    symbols_seen_once, n = known.pop("singletons") * known["n_codes"], known["n_samples"]
    known["singleton_fraction"] = symbols_seen_once / n if n else float("nan")
    known["source"] = "binned" if known["source"] == "bins" else known["source"] or "cells"
    del known["beyond"]
    return list(InformationPoint(**{_RENAMED.get(name, name): value for name, value in known.items()}).records())
