"""The standard errors that estimators give: beside repetition, under other orders and names, and where they are NaN."""

import math
import statistics

import matplotlib.colors
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection

from lightning_ib import History, measure
from lightning_ib.estimators import (
    KDE,
    KNN,
    KSG,
    GaussianChannel,
    GaussianCopula,
    InfoNCE,
    MixedKNN,
    Projected,
    Quantized,
    Renyi,
    Rows,
    Soft,
)
from lightning_ib.estimators.base import one_hot
from lightning_ib.functional import critic_information, mutual_information_projected
from lightning_ib.functional.continuous.projected import pointwise_projected, scatter_of_halves
from lightning_ib.functional.resampling import Pointwise
from lightning_ib.plot.estimates import plot_estimates
from lightning_ib.records import measurement_from_json, measurement_to_json
from lightning_ib.records.record import STANDARD_ERRORS
from tests.helpers.messages import exactly
from tests.helpers.samples import normal
from tests.helpers.verdicts import Layer
from tests.unit.estimators.test_reliability import estimated

N = 300
LABELED = [KNN(), MixedKNN(), GaussianCopula(), KDE(), KDE(noise_variance=0.1), Renyi(), Soft(n_anchors=64)]
REAL = [KSG(), KSG(algorithm=2), MixedKNN(), GaussianCopula()]


def sample(n, seed, labeled):
    """Two classes of normal rows in two dimensions, or their signal plus noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    t = torch.randn(n, 2, generator=generator, dtype=torch.float64) + 2.0 * y.unsqueeze(1)
    noisy = t[:, :1] + torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return Rows(t, y if labeled else noisy, t if labeled else noisy)


def repeated(estimator, name, labeled):
    """The mean standard error of a value over its standard deviation, from 20 samples."""
    found = []
    for seed in range(20):
        rows = sample(N, seed, labeled)
        found.append(estimator.estimate(rows, {"low": -4.0, "high": 8.0}, "bits"))
    return over_scatter(found, name)


def over_scatter(found, name):
    values, errors = (torch.tensor([one[of] for one in found]).double() for of in (name, f"{name}_se"))
    return float(errors.mean() / values.std())


@pytest.mark.parametrize("estimator", [*LABELED, Projected()], ids=repr)
def test_of_labels_it_holds_against_repetition(estimator):
    assert 0.6 < repeated(estimator, "I_TY", True) < 1.6


@pytest.mark.parametrize("estimator", [*REAL, Projected()], ids=repr)
def test_of_real_targets_it_holds_against_repetition(estimator):
    assert 0.6 < repeated(estimator, "I_TY", False) < 1.6


def test_where_directions_are_uncertain_it_holds_against_repetition():
    """Clusters of two variables that overlap in many dimensions: samples alone explain about half of the scatter."""
    centers = torch.nn.functional.normalize(torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(0)), dim=2)
    values, errors, of_samples = [], [], []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        cluster = torch.randint(10, (1000,), generator=generator)
        found = pointwise_projected(*2 * centers[:, cluster] + torch.randn(2, 1000, 16, generator=generator))
        values.append(found.nats)
        errors.append(found.standard_error(unit="nats"))
        of_samples.append(found._replace(added=0.0).standard_error(unit="nats"))
    scatter = statistics.stdev(values)
    assert 0.6 < statistics.fmean(errors) / scatter < 1.6
    assert statistics.fmean(of_samples) / scatter < 0.55


@pytest.mark.parametrize(
    ("values", "spread", "groups", "expected"),
    [
        ((0.5, 0.3), 0.0, None, 0.01),
        ((0.5, 0.3), 0.1, None, 0.01 - 0.1**2 / 3 / 2),  # the variance of each half: 0.1² · 4/3 / 4
        ((0.5, 0.5), 0.1, None, 0.0),
        ((0.5, 0.45), 0.1, None, 0.0),
        ((0.5, 0.3), 0.1, [0, 1, 0, 1, 2, 3, 2, 3], 0.01 - 0.1**2 / 2),  # of two groups: 0.1²
        ((0.5, 0.3), 0.1, [0, 0, 0, 0, 2, 3, 2, 3], 0.0),
    ],
)
def test_the_difference_of_halves_is_added_as_far_as_samples_do_not_explain_it(values, spread, groups, expected):
    influence = spread * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    halves = [Pointwise(value, influence) for value in values]
    groups = None if groups is None else torch.tensor(groups)
    found = scatter_of_halves(halves, torch.arange(8).view(2, 4), groups)
    assert found == pytest.approx(expected, abs=1e-12)


def test_halves_that_read_coordinates_as_they_are_add_nothing():
    for seed in range(4):
        x, noise = normal(500, seed=seed), normal(500, seed=seed + 4)
        assert pointwise_projected(x, x + 0.1 * noise).added == 0


@pytest.mark.parametrize("n_sequences", [3, 5])
def test_halves_of_different_sizes_hold_against_repetition(n_sequences):
    """The parts of samples in an estimate are up to a constant, which differs between halves of different sizes."""
    found = []
    for seed in range(20):
        rows = sample(60 * n_sequences, seed, labeled=True)
        found.append(Projected().estimate(rows._replace(sequence=torch.arange(len(rows.t)) // 60), {}, "bits"))
    assert 0.4 < over_scatter(found, "I_TY") < 1.6


@pytest.mark.parametrize(
    ("estimator", "name"),
    [(GaussianChannel(0.1), "compression_bound"), (Quantized(2), "I_TY"), (KDE(), "I_XT_lower"), (KSG(), "I_XT")],
    ids=repr,
)
def test_of_the_input_it_holds_against_repetition(estimator, name):
    assert 0.6 < repeated(estimator, name, labeled=name != "I_XT") < 1.6


@pytest.mark.parametrize("estimator", [*LABELED, Quantized(2), GaussianChannel(0.1)], ids=repr)
def test_every_information_has_one_in_its_unit(estimator):
    rows = sample(N, 0, labeled=True)
    calibration = {"low": -4.0, "high": 8.0}
    bits, nats = (estimator.estimate(rows, calibration, unit) for unit in ("bits", "nats"))
    for name in bits:
        if name.startswith(("I_X", "I_T", "H_", "compression")) and not name.endswith(("_se", "_floor")):
            assert bits[f"{name}_se"] > 0
            assert nats[f"{name}_se"] == pytest.approx(bits[f"{name}_se"] * math.log(2), rel=1e-9)


@pytest.mark.parametrize("estimator", [KNN(), MixedKNN(), GaussianCopula(), KDE(), Quantized(2)], ids=repr)
def test_the_order_of_rows_and_the_names_of_classes_mean_nothing(estimator):
    rows, calibration = sample(N, 0, labeled=True), {"low": -4.0, "high": 8.0}
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    other = Rows(rows.t[order], 9 - 4 * rows.y[order])
    first, second = (estimator.estimate(one, calibration, "bits")["I_TY_se"] for one in (rows, other))
    assert second == pytest.approx(first, rel=1e-9)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (GaussianCopula(), "I_TY"),
        (GaussianChannel(0.1), "compression_bound"),
        (Soft(64), "I_TY"),
        (Quantized(2), "I_XT"),
    ],
    ids=repr,
)
def test_the_tokens_of_one_sequence_count_once(estimator, name):
    rows, twice = sample(200, 0, labeled=True), torch.arange(400) // 2
    doubled = Rows(rows.t[twice], rows.y[twice], rows.x[twice], twice)
    once, dependent, blind = (
        estimator.estimate(one, {"low": -4.0, "high": 8.0}, "bits")[f"{name}_se"]
        for one in (rows, doubled, doubled._replace(sequence=None))
    )
    assert dependent == pytest.approx(once, rel=0.05)
    assert dependent == pytest.approx(math.sqrt(2) * blind, rel=0.05)


def test_one_sequence_has_a_value_and_no_error():
    rows = sample(N, 0, labeled=True)._replace(sequence=torch.zeros(N, dtype=torch.int64))
    for estimator in (KNN(), KDE(), GaussianCopula(), Soft(64), GaussianChannel(0.1)):
        found = estimator.estimate(rows, {}, "bits")
        errors = {name: value for name, value in found.items() if name.endswith("_se")}
        assert errors
        assert all(map(math.isnan, errors.values()))
        assert all(math.isfinite(value) for name, value in found.items() if name not in errors)


def test_few_rows_have_a_value():
    rows = sample(12, 0, labeled=True)
    for estimator in (KNN(k=1), KDE(), Renyi(), Soft(8), Quantized(2), GaussianChannel(0.1)):
        found = estimator.estimate(rows, {"low": -4.0, "high": 8.0}, "bits")
        assert all(math.isfinite(value) for name, value in found.items() if not name.endswith("_se"))


def test_more_coordinates_than_rows_have_the_same_influence():
    """A rotation into more coordinates leaves every distance as it is."""
    t = sample(40, 0, labeled=True).t
    rotation = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    narrow, wide = (GaussianChannel(0.1).estimate(Rows(one), {}, "bits") for one in (t, t @ rotation[:2]))
    assert wide == pytest.approx(narrow, rel=1e-9)


def far_classes():
    """Ten classes around the ends of orthogonal vectors that lie off the axes, far apart."""
    generator = torch.Generator().manual_seed(0)
    centers = 20 * torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q[:10]
    return centers[torch.arange(2000) % 10] + torch.randn(2000, 16, generator=generator)


def test_an_impossible_value_is_flagged_wherever_it_is_shown(tmp_path):
    loader = [(far_classes(), torch.arange(2000) % 10)]
    history = measure(Layer(), loader, ["layer"], estimators=["copula"], head=False)
    (copula,) = history.estimates()
    assert copula.value > 2 * math.log2(10)
    assert copula.verdict == "above_bound"
    assert copula.standard_error > 0
    history.to_csv(tmp_path / "plane.csv")
    page = measurement_from_json(measurement_to_json(history))
    for read in (History.read_csv(tmp_path / "plane.csv"), page):
        assert read.estimates() == [copula]
    axes = plot_estimates(history.estimates()).axes[0]
    bars = next(one for one in axes.collections if isinstance(one, LineCollection))
    markers = next(one for one in axes.collections if isinstance(one, PathCollection))
    (bar,) = bars.get_segments()
    reach = STANDARD_ERRORS * copula.standard_error
    assert bar[:, 1].tolist() == pytest.approx([copula.value - reach, copula.value + reach])
    assert matplotlib.colors.to_hex(markers.get_facecolors()[0]) == "#ffffff"


def test_running_sums_take_the_error_from_some_of_the_rows():
    rows, soft = sample(3000, 0, labeled=True), Soft(64)
    sums = soft.sums(rows.t.mean(0))
    sums.update(rows.t, rows.y)
    few, many = (soft.errors(sums, Rows(rows.t[:n], rows.y[:n]), 3000, "bits") for n in (400, 3000))
    assert few == pytest.approx(many, rel=0.15)
    assert soft.errors(sums, Rows(rows.t[:, :1], rows.y), 3000, "bits") == {}, "the layer has another width by now"


def test_the_second_measurement_of_soft_entropy_has_errors_as_the_first():
    rows = sample(N, 0, labeled=True)
    first, second = (estimated(rows.t, rows.y, [Soft(64)], again=again) for again in (None, rows.t))
    for name in ("H_T", "I_XT", "I_TY", "I_TY_above_floor"):
        errors = [found["soft", name].standard_error for found in (first, second)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-6)
        assert errors[0] > 0
    assert math.isnan(first["soft", "I_TY_floor"].standard_error)


# --- An error never costs the value ----------------------------------------------------------------------------------


def test_a_layer_whose_units_repeat_keeps_its_bound():
    q = 1e4 * normal(100, 3)
    found = GaussianChannel(1e-10).estimate(Rows(torch.cat([q, q], 1)), {}, "bits")
    assert found["compression_bound"] > 80
    assert found["compression_bound_se"] > 0


@pytest.mark.parametrize("layer", [torch.tanh, torch.relu, lambda x: torch.cat([x, 0 * x[:, :1]], 1)])
def test_a_corrected_ksg_reads_the_target_whatever_the_layer_is_of_the_input(layer):
    x = normal(300, 3)
    y = x[:, :1] + normal(300, 1, seed=1)
    found = KSG(corrected=True).estimate(Rows(layer(x), y, x), {}, "bits")
    assert 0.1 < found["I_TY"] < 1
    assert found["I_TY_se"] > 0


def test_labels_too_large_for_a_float_are_told_apart():
    y = torch.arange(400) % 2
    t = 4.0 * y.unsqueeze(1) + normal(400, 1)
    assert MixedKNN().estimate(Rows(t, 2**60 + y), {}, "bits") == MixedKNN().estimate(Rows(t, y), {}, "bits")


@pytest.mark.slow
def test_critics_and_projections_keep_the_tokens_of_a_sequence_together():
    t = normal(64, 1)
    rows = Rows(t, (t[:, 0] > 0).long(), sequence=torch.arange(64) // 8)
    found = InfoNCE().estimate(rows, {}, "bits")
    same = critic_information(t, one_hot(rows.y, 64), groups=rows.sequence)
    assert found == {"I_TY": same.information, "I_TY_se": same.standard_error}
    assert Projected().estimate(rows, {}, "bits")["I_TY"] == mutual_information_projected(
        t, rows.y, groups=rows.sequence
    )


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (InfoNCE(), "the tokens are of 1 sequences, and 8 parts of a critic's samples need as many: show more."),
        (Projected(), "the tokens are of 1 sequences, and 2 halves need as many: show more."),
    ],
)
def test_too_few_sequences_are_named(estimator, message):
    t = normal(64, 1)
    with pytest.raises(ValueError, match=exactly(message)):
        estimator.estimate(Rows(t, (t[:, 0] > 0).long(), sequence=torch.zeros(64).long()), {}, "bits")
