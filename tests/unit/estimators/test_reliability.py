"""The verdicts of estimates."""

import math

import pytest
import torch

from lightning_ib import InformationPlane
from lightning_ib.estimators import KNN, GaussianCopula, MixedKNN, Projected, Rows
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.reliability import estimate_verdict
from lightning_ib.functional import kernel_width_of, noise_variance_of
from lightning_ib.measurement import estimation
from tests.helpers.verdicts import Layer


def estimated(layer, y, estimators, *, again=None, x=None, **options):
    """(estimator, figure) → verdict, of the last measurement."""
    plane = InformationPlane(["layer"], estimators=estimators, head=False, **options)
    for values in [layer] if again is None else [layer, again]:
        plane.reset()
        with plane.attach(model := Layer()):
            model(values)
            plane.update(values if x is None else x, y)
        found = plane.estimate()
    return {(one.source, one.quantity): one for one in found}


def verdicts(found):
    return {key: one.verdict for key, one in found.items()}


LABELS = torch.arange(300) % 3


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_kernels_that_tell_every_row_apart_are_saturated_about_the_target_too(unit):
    found = estimated(torch.randn(300, 128), LABELS, ["kde"], unit=unit)
    scale = 1.0 if unit == "bits" else math.log(2)
    assert found["kde", "I_XT"].value == pytest.approx(math.log2(300) * scale, abs=1e-6)
    assert found["kde", "I_TY"].value == pytest.approx(math.log2(3) * scale, abs=1e-6), "whatever the labels are"
    assert verdicts(found) == dict.fromkeys(
        [("kde", name) for name in ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower")], "saturated"
    ) | {("kde", "noise_variance"): ""}
    few = estimated(torch.randn(300, 1), LABELS, ["kde"], unit=unit)
    assert set(verdicts(few).values()) == {"ok", ""}


def test_an_information_above_that_of_the_target_is_above_its_bound():
    clusters = 20 * torch.eye(3)[LABELS] + torch.randn(300, 3)
    found = estimated(clusters, LABELS, ["copula", "probe"])
    assert found["copula", "I_TY"].value > math.log2(3) + 0.1
    assert verdicts(found) == {("copula", "I_TY"): "above_bound", ("probe", "I_TY"): "ok", ("probe", "accuracy"): "ok"}
    assert set(verdicts(estimated(torch.randn(300, 3), LABELS, ["copula"])).values()) == {"ok"}


@pytest.mark.parametrize(
    ("make", "name", "own"),
    [
        (lambda own: KDE(frozen=True), "kde", noise_variance_of),
        (lambda own: KDE(noise_variance=own), "kde", noise_variance_of),
        (lambda own: Renyi(frozen=True), "renyi", kernel_width_of),
        (lambda own: Renyi(kernel_width=own), "renyi", kernel_width_of),
    ],
)
def test_a_width_that_stays_is_outgrown_by_a_layer_that_grows_or_shrinks(make, name, own):
    t = torch.randn(300, 2)
    for factor, expected in ((1.0, "ok"), (2.5, "ok"), (10.0, "outgrown"), (0.1, "outgrown")):
        found = verdicts(estimated(t, LABELS, [make(own(t))], again=factor * t))
        informations = {verdict for (_, figure), verdict in found.items() if figure.startswith("I_")}
        assert informations == {expected}, factor
        assert {verdict for (_, figure), verdict in found.items() if not figure.startswith("I_")} == {""}


@pytest.mark.parametrize("make", [KDE, Renyi])
def test_a_width_that_follows_is_never_outgrown(make):
    t = torch.randn(300, 2)
    found = verdicts(estimated(t, LABELS, [make()], again=1000 * t))
    assert set(found.values()) == {"ok", ""}


@pytest.mark.parametrize("again", [False, True])
def test_soft_information_of_labels_that_say_nothing_is_at_chance(again):
    t, y = torch.randn(600, 8), torch.randint(0, 20, (600,))
    found = estimated(t, y, ["soft"], again=t if again else None)
    assert found["soft", "I_TY"].value <= 2 * found["soft", "I_TY_floor"].value
    assert verdicts(found)["soft", "I_TY"] == "at_chance"
    t[:, :4] += 6 * torch.eye(4)[y % 4]
    assert verdicts(estimated(t, y % 4, ["soft"], again=t if again else None))["soft", "I_TY"] == "ok"


def test_a_value_that_could_not_be_had_has_no_verdict():
    with pytest.warns(UserWarning, match="kde could not be estimated"):
        assert set(verdicts(estimated(torch.zeros(300, 2), LABELS, ["kde"])).values()) == {""}


def flags(values, rows, errors=None, **options):
    return estimate_verdict(values, rows, "bits", {}, KNN(), errors=errors, **options)


def test_an_information_far_below_zero_is_flagged_where_its_error_is_known():
    rows = Rows(torch.randn(300, 2), LABELS)
    values = {"I_TY": -0.41, "I_XT": -0.39, "I_TY_above_floor": -5.0}
    errors = dict.fromkeys(values, 0.1)
    assert flags(values, rows, errors) == {"I_TY": "below_zero", "I_XT": "ok", "I_TY_above_floor": "ok"}
    assert set(flags(values, rows).values()) == {"ok"}
    assert set(flags(values, rows, dict.fromkeys(values, math.nan)).values()) == {"ok"}
    assert flags({"I_TY": -1e-17}, rows, {"I_TY": 0.0}) == {"I_TY": "ok"}, "rounding"


def test_an_information_about_the_input_above_the_entropy_of_the_rows_is_above_its_bound():
    rows = Rows(torch.randn(256, 2), torch.arange(256) % 2)
    assert flags({"I_XT": 8.1, "I_TY": 0.5}, rows) == {"I_XT": "above_bound", "I_TY": "saturated"}
    assert flags({"I_XT": 8.0, "I_TY": 0.5}, rows) == {"I_XT": "saturated", "I_TY": "saturated"}


def test_the_bound_of_a_real_target_is_known_where_it_repeats():
    t, levels = torch.randn(300, 2), (torch.arange(300) % 4).double()
    for y in (levels, levels.unsqueeze(1)):
        assert flags({"I_TY": 2.1, "I_TY_lower": 1.9}, Rows(t, y)) == {"I_TY": "above_bound", "I_TY_lower": "ok"}
    assert flags({"I_TY": 2.01}, Rows(t, levels)) == {"I_TY": "ok"}, "counts read H(Y) low"
    assert flags({"I_TY": 20.0}, Rows(t, torch.randn(300))) == {"I_TY": "ok"}
    assert flags({"I_TY": 2.1}, Rows(t, levels), n_samples=600) == {"I_TY": "ok"}, "of rows that were not seen"


@pytest.mark.parametrize("n_classes", [2, 10])
def test_neighbors_of_classes_apart_reach_the_bound_and_are_not_above_it(n_classes):
    y = torch.arange(200) % n_classes
    t = 100.0 * y.unsqueeze(1) + torch.randn(200, 1, dtype=torch.float64)
    for estimator in (KNN(), MixedKNN()):
        values = estimator.estimate(Rows(t, y), {}, "bits")
        assert values["I_TY"] > math.log2(n_classes) + 1e-3
        assert flags({"I_TY": values["I_TY"]}, Rows(t, y)) == {"I_TY": "ok"}
        more = values["I_TY"] + 1.5 * n_classes / 200
        assert flags({"I_TY": more}, Rows(t, y)) == {"I_TY": "above_bound"}


@pytest.mark.parametrize("estimator", [KNN(), MixedKNN(), Projected(), GaussianCopula()], ids=repr)
def test_independent_variables_are_rarely_flagged(estimator):
    flagged = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        rows = Rows(torch.randn(80, 1, generator=generator).double(), torch.randint(2, (80,), generator=generator))
        found = estimator.estimate(rows, {}, "bits")
        flagged += flags({"I_TY": found["I_TY"]}, rows, {"I_TY": found["I_TY_se"]})["I_TY"] == "below_zero"
    assert flagged <= 1


def test_the_bound_on_information_about_the_target_is_counted_once_a_measurement(monkeypatch):
    seen = []
    monkeypatch.setattr(estimation, "bound_of_target", lambda rows, unit: seen.append(len(rows.t)) or math.inf)
    estimated(torch.randn(300, 2), LABELS, ["knn", "mixed", "copula"])
    assert seen == [300]


def test_a_bound_that_fails_leaves_the_values(monkeypatch):
    def fail(rows, unit):
        raise RuntimeError("no memory")

    monkeypatch.setattr(estimation, "bound_of_target", fail)
    found = estimated(torch.randn(300, 2), LABELS, ["knn"])
    assert math.isfinite(found["knn", "I_TY"].value)
    assert verdicts(found) == {("knn", "I_TY"): "ok"}
