"""Points, records and values that are awkward to keep."""

import math

from lightning_ib import History, InformationPoint, Record
from tests.helpers.records import ERRORS, VERSION_1, estimate

FIGURES = ("i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y", "saturation")
DOUBTS = ("i_ty_permuted", "i_ty_permuted_sd", "singleton_fraction", "clipped_fraction")
CERTAIN = ("explained_variance", "accuracy", "i_ty_fano", "fano_shortfall")
BOUNDS = ("i_ty_bound", "i_ty_gap", "i_ty_gap_se", "i_xt_finite_sample", "i_ty_finite_sample", "error_heuristic")
VALUES = (*FIGURES, *ERRORS, *DOUBTS, *CERTAIN, *BOUNDS)


def point(value=1.5, *, layer="conv1", **changes):
    figures = dict.fromkeys(VALUES, value)
    rest = {"epoch": 3, "step": 1200, "layer": layer, "n_samples": 60_000, "n_codes": 17, "unit": "bits"}
    return InformationPoint(**{**figures, **rest, **changes})


def record(value=1.5, *, layer="conv1", **changes):
    rest = {"epoch": 3, "step": 1200, "layer": layer, "source": "probe", "quantity": "I_TY", "n_samples": 60_000}
    return Record(**{**rest, "value": value, "standard_error": value / 2, "unit": "bits", "verdict": "ok", **changes})


def measured(epoch, layers=("conv", "out"), estimators=("probe",), value=1.5):
    """One measurement, without a bound, as every version made it."""
    at = {"epoch": epoch, "step": 10 * epoch, **dict.fromkeys(BOUNDS, math.nan)}
    points = [point(value, layer=layer, **at) for layer in layers]
    estimates = [estimate(epoch, 10 * epoch, layer, name, "I_TY", value) for layer in layers for name in estimators]
    return History.of(points, estimates)


def written(tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text, encoding="utf-8")
    return path


OLD_HEADER = (VERSION_1 / "information.csv").read_text().splitlines()[0]
