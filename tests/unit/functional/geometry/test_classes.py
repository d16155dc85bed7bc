"""Class geometry: streamed against two passes in NumPy, in any batches and parts; classes that are missing or alone."""

import math

import numpy as np
import pytest
import torch

from lightning_ib.functional import ClassSums, class_geometry
from lightning_ib.functional.geometry.rows import rounding_of


def two_pass(t, y):
    """From the definitions, all rows at once, in NumPy."""
    x, y = t.double().numpy(), y.numpy()
    classes = np.unique(y)
    n = len(x)
    means = np.stack([x[y == c].mean(0) for c in classes])
    spreads = [((x[y == c] - mean) ** 2).sum() for c, mean in zip(classes, means)]
    sizes = np.array([(y == c).sum() for c in classes])
    within = sum(spreads) / n
    between = (sizes * ((means - x.mean(0)) ** 2).sum(1)).sum() / n
    variances = np.array(spreads) / sizes
    pairs = [(i, j) for i in range(len(classes)) for j in range(i)]
    cdnv = np.mean([(variances[i] + variances[j]) / (2 * ((means[i] - means[j]) ** 2).sum()) for i, j in pairs])
    centered = means - means.mean(0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    cosines = np.array([centered[i] @ centered[j] for i, j in pairs])
    etf = np.abs(cosines + 1 / (len(classes) - 1)).mean()
    return (within, between, within / between, cdnv, cosines.mean(), cosines.std(), etf)


def clusters(n=600, d=12, n_classes=5, shift=0.0):
    y = torch.randint(n_classes, (n,))
    return torch.randn(n_classes, d).double()[y] + torch.randn(n, d).double() + shift, y


def summed(t, y, sizes, **arguments):
    sums = ClassSums(t.shape[1], **arguments)
    for some, labels in zip(t.split(sizes), y.split(sizes)):
        sums.update(some, labels)
    return sums


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("sizes", [600, 64, 13])
def test_streamed_as_two_passes(shift, sizes):
    t, y = clusters(shift=shift)
    found = summed(t, y, sizes).result()
    assert found[:7] == pytest.approx(two_pass(t, y), rel=1e-9)
    assert (found.n, found.n_classes, found.reason) == (600, 5, "")
    assert found.smallest_class == int(y.bincount().min())


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_three_parts_merged(shift):
    t, y = clusters(shift=shift)
    t, y = t[y.argsort()], y.sort().values  # each part lacks some classes
    parts = [
        summed(t[k::3] if shift else t[200 * k :][:200], y[k::3] if shift else y[200 * k :][:200], 50) for k in range(3)
    ]
    merged = ClassSums(12)
    for part in parts:
        merged.merge(part.state())
    assert merged.result()[:7] == pytest.approx(two_pass(t, y), rel=1e-9)


def test_float32_rows_are_summed_in_float64():
    t, y = clusters(shift=100.0)
    t = t.float()
    assert summed(t, y, 50).result()[:7] == pytest.approx(two_pass(t, y), rel=1e-9)


def test_known_variances():
    n, d, k = 20_000, 10, 4
    y = torch.arange(n) % k
    found = class_geometry(3 * torch.eye(k, d)[y] + torch.randn(n, d), y)
    assert found.within_variance == pytest.approx(d, rel=0.02)
    assert found.between_variance == pytest.approx(9 * 3 / 4, rel=0.03)
    assert found.cdnv == pytest.approx(d / 18, rel=0.03)
    assert found.class_mean_cosine == pytest.approx(-1 / 3, abs=0.01)
    assert found.etf_distance < 0.02


def test_equal_means_scatter_by_their_own_error():
    n, k = 4000, 40
    found = class_geometry(torch.randn(n, 30), torch.arange(n) % k)
    assert found.between_variance == pytest.approx((k - 1) / n * found.within_variance, rel=0.15)


def test_the_function_takes_any_labels():
    t, y = clusters()
    assert class_geometry(t, 7 * y - 3)[:7] == pytest.approx(summed(t, y, 100).result()[:7], rel=1e-12)
    assert class_geometry(t, y == 0).n_classes == 2


def test_two_class_means_are_opposite():
    t, y = clusters(n_classes=2)
    found = class_geometry(t, y)
    assert found.class_mean_cosine == pytest.approx(-1)
    assert found.etf_distance == pytest.approx(0, abs=1e-12)


def test_one_class():
    found = class_geometry(torch.tensor([[1.0], [3.0]]), torch.tensor([2, 2]))
    assert found.within_variance == 1
    assert all(map(math.isnan, found[1:7]))
    assert found.reason == "all 2 rows are of one class, and nothing lies between classes"


def test_a_class_with_one_sample_has_no_variance():
    found = class_geometry(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 0, 1]))
    assert found.smallest_class == 1
    assert found.within_variance == pytest.approx(2 / 3)
    assert found.cdnv == pytest.approx(1 / (2 * 49))


def test_classes_at_one_place():
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    constant = class_geometry(torch.full((6, 2), 0.1), y)
    assert constant[:2] == (0, 0)
    assert constant.reason == "all 6 rows are the same up to rounding"
    assert math.isnan(constant.nc1)
    two = class_geometry(torch.tensor([1.0, 2.0, 1.0, 2.0, 5.0, 6.0]).unsqueeze(1), y)
    assert two.nc1 > 0
    assert math.isnan(two.cdnv)
    assert two.reason == "two classes have the same mean"
    middle = class_geometry(torch.tensor([-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]).unsqueeze(1), y)
    assert middle.cdnv == 0
    assert math.isnan(middle.class_mean_cosine)
    assert middle.reason == "the mean of a class is the mean of them all, and has no direction"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_without_a_value(bad):
    t, y = clusters()
    t[7, 3] = bad
    found = summed(t, y, 100).result()
    assert all(map(math.isnan, found[:7]))
    assert found.reason == "rows of 1 of 5 classes are NaN, infinite or too large"


def test_nothing_given_and_forgotten():
    sums = ClassSums(2)
    sums.update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert sums.result().reason == "no rows were given"
    sums.update(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]))
    sums.reset()
    assert sums.result().n == 0


def test_bad_arguments():
    sums = ClassSums(2)
    with pytest.raises(ValueError, match=r"t must have shape \(B, 2\), got \(3, 4\)"):
        sums.update(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match="y must be class labels, a tensor of integers"):
        sums.update(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"y must have shape \(3,\)"):
        sums.update(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="state must be of sums with 2 coordinates"):
        sums.merge(ClassSums(3).state())
    with pytest.raises(ValueError, match="n_coordinates must be an integer of at least 1, got 0"):
        ClassSums(0)


def test_the_merged_state_leaves_the_parts_alone():
    t, y = clusters()
    part = summed(t, y, 100)
    state, before = part.state(), part.result()
    state["means"].zero_()
    assert part.result() == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [21, 5])
def test_a_dead_layer_has_one_mean(dtype, batch):
    """A multiple of 0.1 divided by its number is another number than 0.1."""
    t, y = torch.full((21, 2), 0.1, dtype=dtype), torch.tensor([0] * 3 + [1] * 7 + [2] * 11)
    sums = ClassSums(2, max_classes=3)
    for some, labels in zip(t.split(batch), y.split(batch)):
        sums.update(some, labels)
    found = sums.result()
    assert (found.within_variance, found.between_variance) == (0, 0)
    assert math.isnan(found.nc1)
    assert found.reason == "all 21 rows are the same up to rounding"


def test_many_classes_and_close_ones_are_those_of_all_pairs():
    """Blocks of pairs, and two means that differ by 1e-7 of their length, as by the definition."""
    g = torch.Generator().manual_seed(0)
    means = torch.randn(600, 6, dtype=torch.float64, generator=g)
    means[550] = means[3] + 1e-7
    y = torch.arange(1800) % 600
    t = means[y] + 0.1 * torch.randn(1800, 6, dtype=torch.float64, generator=g)
    t[y == 550] += means[550] - t[y == 550].mean(0)
    t[y == 3] += means[3] - t[y == 3].mean(0)
    found = class_geometry(t, y)
    mu = np.stack([t[y == c].mean(0).numpy() for c in range(600)])
    v = np.array([float((t[y == c] - t[y == c].mean(0)).square().sum(1).mean()) for c in range(600)])
    i, j = np.triu_indices(600, 1)
    directions = mu - mu.mean(0)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = (units @ units.T)[i, j]
    assert found.cdnv == pytest.approx(((v[i] + v[j]) / (2 * ((mu[i] - mu[j]) ** 2).sum(1))).mean(), rel=1e-6)
    assert found.class_mean_cosine == pytest.approx(cosines.mean(), rel=1e-9)
    assert found.class_mean_cosine_std == pytest.approx(cosines.std(), rel=1e-9)
    assert found.etf_distance == pytest.approx(np.abs(cosines + 1 / 599).mean(), rel=1e-9)


def test_sums_grow_with_the_classes_that_occur():
    sums, t, y = ClassSums(3, max_classes=1000), torch.randn(40, 3), torch.tensor([7, 999, 3, 500] * 10)
    for k in range(4):
        sums.update(t[k::4], y[k::4])
    assert len(sums._means) == 4
    assert sums.result().nc1 == pytest.approx(class_geometry(t, y).nc1)
    sums.reset()
    assert sums.result().reason == "no rows were given"


@pytest.mark.parametrize(("label", "reason"), [(3, "1 of 2 labels are above 2"), (-1, "1 of 2 labels are negative")])
def test_labels_out_of_range(label, reason):
    sums = ClassSums(2, max_classes=3)
    sums.update(torch.randn(2, 2), torch.tensor([0, label]))
    found = sums.result()
    assert found.reason.startswith(reason)
    assert (found.n_outside, math.isnan(found.within_variance)) == (1, True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_that_differ_by_rounding_have_no_classes(dtype):
    below = torch.tensor(1 - torch.finfo(dtype).eps / 2, dtype=dtype)
    t, y = torch.where(torch.rand(300, 8) < 0.1, below, below.new_ones(())), torch.arange(300) % 4
    found = class_geometry(t, y)
    assert 0 < found.within_variance < 8 * rounding_of(dtype) ** 2
    assert all(map(math.isnan, found[2:7]))
    assert found.reason == "all 300 rows are the same up to rounding"
    sums = summed(t, y, 64)
    assert sums.result()[-5:] == found[-5:]
    assert "rounding" not in sums.result(rounding=0).reason
    assert class_geometry(t.double() + 0.1 * torch.rand(300, 8), y, rounding=rounding_of(dtype)).reason == ""


def test_means_that_are_alike_beside_rows_that_are_not():
    t, y = torch.tensor([[1.0], [2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    assert class_geometry(t, y).reason == "all 2 classes have the same mean"
    small = class_geometry(t.double() * y.unsqueeze(1) * 1e-300, y)
    assert small.reason == "the squared distances of class means are too small for float64: scale the rows up"
    assert math.isnan(small.nc1)
