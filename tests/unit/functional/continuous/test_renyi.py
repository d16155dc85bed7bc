"""Matrix-based Rényi entropy and information: against NumPy's eigenvalues, closed forms, and laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from lightning_ib.functional.continuous import gaussian_kernel
from lightning_ib.functional.continuous.renyi import (
    entropy_renyi,
    kernel_width_of,
    mutual_information_renyi,
    mutual_information_renyi_labels,
)
from tests.helpers.messages import exactly


def reference_gram(x, width):
    x = x.double().flatten(1).numpy()
    return np.exp(-cdist(x, x, "sqeuclidean") / (2 * width**2))


def reference_entropy(gram, alpha):
    """In nats."""
    p = np.clip(np.linalg.eigvalsh(gram / np.trace(gram)), 1e-300, None)
    return -np.sum(p * np.log(p)) if alpha == 1 else np.log(np.sum(p**alpha)) / (1 - alpha)


def reference_information(a, b, alpha):
    return reference_entropy(a, alpha) + reference_entropy(b, alpha) - reference_entropy(a * b, alpha)


def clusters(n=150, d=5, classes=4, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    centers = 3 * torch.randn(classes, d, generator=g, dtype=dtype)
    return centers[y] + torch.randn(n, d, generator=g, dtype=dtype), y


@pytest.mark.parametrize("alpha", [1, 1.01, 1.5, 2, 5])
@pytest.mark.parametrize("width", [0.3, 2.0, 20.0])
def test_agrees_with_numpy(width, alpha):
    x, y = clusters()
    z = torch.sin(x[:, :2])
    gram = reference_gram(x, width)
    assert entropy_renyi(x, alpha=alpha, kernel_width=width, unit="nats") == pytest.approx(
        reference_entropy(gram, alpha), abs=1e-8
    )
    delta = (y[:, None] == y[None]).double().numpy()
    of_labels = mutual_information_renyi_labels(x, y, alpha=alpha, kernel_width=width, unit="nats")
    assert of_labels == pytest.approx(reference_information(gram, delta, alpha), abs=1e-8)
    of_z = mutual_information_renyi(x, z, alpha=alpha, kernel_width_x=width, kernel_width_y=0.4, unit="nats")
    assert of_z == pytest.approx(reference_information(gram, reference_gram(z, 0.4), alpha), abs=1e-8)


def test_below_one_agrees_where_no_eigenvalue_is_lost_in_rounding():
    x, _ = clusters()
    entropy = entropy_renyi(x, alpha=0.5, kernel_width=0.7, unit="nats")
    assert entropy == pytest.approx(reference_entropy(reference_gram(x, 0.7), 0.5), abs=1e-8)


def test_the_order_two_is_the_mean_squared_kernel():
    x, _ = clusters()
    squares = (reference_gram(x, 1.5) ** 2).mean()
    assert entropy_renyi(x, alpha=2, kernel_width=1.5, unit="nats") == pytest.approx(-math.log(squares), abs=1e-12)


def test_von_neumann_is_the_limit():
    x, y = clusters()
    for near in (1 - 1e-7, 1 + 1e-7):
        assert entropy_renyi(x, alpha=near) == pytest.approx(entropy_renyi(x, alpha=1), abs=1e-6)
        assert mutual_information_renyi_labels(x, y, alpha=near) == pytest.approx(
            mutual_information_renyi_labels(x, y, alpha=1), abs=1e-6
        )


def test_float32_agrees_with_the_float64_of_the_same_values():
    x, y = clusters(dtype=torch.float32)
    assert entropy_renyi(x) == entropy_renyi(x.double())
    assert mutual_information_renyi_labels(x, y) == mutual_information_renyi_labels(x.double(), y)
    assert mutual_information_renyi(x, x[:, :2]) == mutual_information_renyi(x.double(), x[:, :2].double())


@pytest.mark.parametrize("alpha", [0.5, 1, 1.01, 2, 50])
def test_closed_forms(alpha):
    same, apart = torch.full((60, 3), 0.1), 100 * torch.arange(60.0)[:, None]
    labels = torch.arange(60) % 5

    def information(x, y, **widths):
        if not y.is_floating_point():
            return mutual_information_renyi_labels(x, y, alpha=alpha, kernel_width=1.0)
        return mutual_information_renyi(x, y, alpha=alpha, kernel_width_x=1.0, **widths)

    assert entropy_renyi(same, alpha=alpha, kernel_width=1.0) == pytest.approx(0, abs=1e-12)
    assert entropy_renyi(apart, alpha=alpha, kernel_width=1.0) == pytest.approx(math.log2(60), abs=1e-10)
    assert entropy_renyi(apart[labels], alpha=alpha, kernel_width=1.0) == pytest.approx(math.log2(5), abs=1e-10)
    # Saturated: the entropy of the labels, whatever x is.
    assert information(apart, labels) == pytest.approx(math.log2(5), abs=1e-10)
    assert information(apart[labels], labels) == pytest.approx(math.log2(5), abs=1e-10)
    assert information(apart[labels], apart[labels], kernel_width_y=1.0) == pytest.approx(math.log2(5), abs=1e-10)
    assert information(same, labels) == pytest.approx(0, abs=1e-10)
    assert information(apart, torch.zeros(60, dtype=torch.bool)) == pytest.approx(0, abs=1e-10)


def test_labels_of_unequal_size():
    """The delta kernel's eigenvalues are the shares of the classes: Rényi's own entropy of the labels."""
    y = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    p = np.array([0.5, 0.3, 0.2])
    apart = 100 * torch.arange(10.0)[:, None]
    assert mutual_information_renyi_labels(apart, y, alpha=2, kernel_width=1.0, unit="nats") == pytest.approx(
        -np.log(np.sum(p**2)), abs=1e-12
    )


def test_two_rows():
    """The eigenvalues of two samples are (1 ± k) / 2."""
    k = math.exp(-0.5)
    p = np.array([1 + k, 1 - k]) / 2
    entropy = entropy_renyi(torch.tensor([[0.0], [3.0]]), alpha=1, kernel_width=3.0, unit="nats")
    assert entropy == pytest.approx(-np.sum(p * np.log(p)), abs=1e-12)


def test_feature_maps_have_the_tensor_kernel():
    """Frobenius' norm of whole tensors; with a width for each channel, the product of the channels' matrices."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(80, 3, 4, 4, generator=g)
    assert entropy_renyi(x, kernel_width=4.0) == entropy_renyi(x.flatten(1), kernel_width=4.0)
    widths = torch.tensor([3.0, 5.0, 8.0])
    gram = np.prod([reference_gram(x[:, c], float(w)) for c, w in enumerate(widths)], axis=0)
    assert entropy_renyi(x.double() / widths.view(-1, 1, 1), kernel_width=1.0, unit="nats") == pytest.approx(
        reference_entropy(gram, 1.01), abs=1e-8
    )


def test_the_width_is_scotts_with_the_spread():
    x, _ = clusters(n=400, d=3)
    expected = math.sqrt(x.numpy().var(0).sum()) * 400 ** (-1 / 7)
    assert kernel_width_of(x) == pytest.approx(expected, rel=1e-12)
    rotation = torch.linalg.qr(x[:3]).Q
    assert kernel_width_of(3 * x @ rotation + 30) == pytest.approx(3 * expected, rel=1e-12)
    assert entropy_renyi(3 * x @ rotation + 30) == pytest.approx(entropy_renyi(x), abs=1e-10)
    assert entropy_renyi(x) == entropy_renyi(x, kernel_width=kernel_width_of(x))
    z = x[:, :1].exp()
    assert mutual_information_renyi(x, z) == mutual_information_renyi(
        x, z, kernel_width_x=kernel_width_of(x), kernel_width_y=kernel_width_of(z)
    )


def test_more_noise_tells_less():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 1, generator=g)
    noise = torch.randn(300, 1, generator=g)
    figures = [mutual_information_renyi(x, x + s * noise) for s in (0.0, 0.3, 1.0, 10.0)]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 4 * figures[-1]


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 7, 64, 5000])
def test_blocks_do_not_matter(monkeypatch, block):
    x, y = clusters(n=60)
    z = x[:, :2] ** 2
    expected = entropy_renyi(x), mutual_information_renyi_labels(x, y), mutual_information_renyi(x, z)
    monkeypatch.setattr(gaussian_kernel, "_BLOCK", block)
    found = entropy_renyi(x), mutual_information_renyi_labels(x, y), mutual_information_renyi(x, z)
    assert found == pytest.approx(expected, abs=1e-11)


samples = st.integers(2, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4), min_size=n, max_size=n),
        st.lists(st.integers(-3, 3), min_size=n, max_size=n),
        st.sampled_from([1, 1.01, 2]),
        st.floats(0.1, 10),
        st.permutations(range(n)),
    )
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(samples)
def test_laws(sample):
    values, labels, alpha, width, order = sample
    pair, labels = torch.tensor(values, dtype=torch.float64), torch.tensor(labels)
    x, z, n = pair[:, :2], pair[:, 2:], len(pair)

    def entropy(rows, width=width):
        return entropy_renyi(rows, alpha=alpha, kernel_width=width)

    def information(x, y, width_x=width, width_y=width):
        if not y.is_floating_point():
            return mutual_information_renyi_labels(x, y, alpha=alpha, kernel_width=width_x)
        return mutual_information_renyi(x, y, alpha=alpha, kernel_width_x=width_x, kernel_width_y=width_y)

    def close(a, b):
        return a == pytest.approx(b, abs=1e-10)

    s_x, s_z, s_xz = entropy(x), entropy(z), entropy(pair)  # the product of two Gaussian kernels is that of the pair
    of_z, of_y = information(x, z), information(x, labels)
    for s in (s_x, s_z, s_xz):
        assert -1e-10 < s < math.log2(n) + 1e-10
    assert s_xz > max(s_x, s_z) - 1e-10
    assert close(of_z, s_x + s_z - s_xz)
    assert close(of_z, information(z, x))
    assert of_z < min(s_x, s_z) + 1e-10
    if alpha < 2:  # of order 2 the joint entropy can exceed the sum
        assert of_z > -1e-10
    assert -1e-10 < of_y < s_x + 1e-10
    assert entropy(x, width=2 * width) < s_x + 1e-10  # the wider, the less is told apart

    assert close(entropy(x[order]), s_x)
    assert close(information(x[order], z[order]), of_z)
    assert close(information(x[order], labels[order]), of_y)
    assert close(information(x, 7 - 3 * labels), of_y)
    assert close(information(x, 40.0 * width * labels[:, None]), of_y)  # labels so far apart that their kernel is 0
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    moved = x @ rotation + 30
    assert close(information(moved, labels), of_y)
    assert close(information(3 * x, labels, width_x=3 * width), of_y)
    assert close(entropy(torch.cat([x, x])), s_x)  # seen twice
    nats = entropy_renyi(x, alpha=alpha, kernel_width=width, unit="nats")
    assert close(nats / math.log(2), s_x)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_numbers_have_to_be_positive(value):
    x, y = clusters(n=10)
    for name, estimate in {
        "alpha": lambda: entropy_renyi(x, alpha=value),
        "alpha ": lambda: mutual_information_renyi_labels(x, y, alpha=value),
        "kernel_width": lambda: entropy_renyi(x, kernel_width=value),
        "kernel_width  ": lambda: mutual_information_renyi_labels(x, y, kernel_width=value),
        "kernel_width_x ": lambda: mutual_information_renyi(x, x, kernel_width_x=value),
        "kernel_width_y": lambda: mutual_information_renyi(x, x, kernel_width_y=value),
    }.items():
        with pytest.raises(ValueError, match=exactly(f"{name.strip()} must be a positive finite number, got {value}.")):
            estimate()


def test_a_constant_sets_no_width():
    x, y = clusters(n=10)
    constant = torch.full((10, 3), 0.1)
    message = "{} is constant and has no scale to take a kernel width from: give {} yourself."
    for name, argument, estimate in (
        ("x", "kernel_width", lambda: kernel_width_of(constant)),
        ("x", "kernel_width", lambda: entropy_renyi(constant)),
        ("x", "kernel_width_x", lambda: mutual_information_renyi(constant, x)),
        ("t", "kernel_width", lambda: mutual_information_renyi_labels(constant, y)),
        ("y", "kernel_width_y", lambda: mutual_information_renyi(x, constant)),
    ):
        with pytest.raises(ValueError, match=exactly(message.format(name, argument))):
            estimate()
    assert mutual_information_renyi(x, constant, kernel_width_y=1.0) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (torch.tensor([[1.0], [math.nan]]), None, ValueError, "x has NaN or infinite values in 1 of 2 rows"),
        (torch.ones(1, 3), None, ValueError, r"x must have shape \(N, D\) with N at least 2"),
        ([[1.0], [2.0]], None, TypeError, "x must be a tensor"),
        (torch.eye(2), [0, 1], TypeError, "y must be a tensor"),
        (torch.eye(2), torch.eye(2) * 1j, TypeError, "y must be real"),
        (torch.eye(2), torch.tensor([[1.0], [math.inf]]), ValueError, "y has NaN or infinite values in 1 of 2 rows"),
        (torch.eye(3), torch.eye(2), ValueError, "x and y must be of the same samples, got 3 .* and 2"),
        (
            torch.eye(3),
            torch.tensor([0, 1, 1]),
            TypeError,
            r"y must be real .* or use mutual_information_renyi_labels\(",
        ),
    ],
)
def test_what_is_not_taken(x, y, error, message):
    with pytest.raises(error, match=f"^{message}"):
        mutual_information_renyi(x, torch.eye(2) if y is None else y)
    if y is None:
        with pytest.raises(error, match=f"^{message}"):
            entropy_renyi(x)
        with pytest.raises(error, match=f"^{message}"):
            kernel_width_of(x)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.tensor([0, 1]), ValueError, "t and y must be of the same samples, got 3 .* and 2"),
        (torch.tensor([[0], [1], [1]]), ValueError, r"y must be class labels of shape \(N,\)"),
        (torch.tensor([0.0, 1.0, 1.0]), TypeError, r"y must be class labels, .* got torch.float32: give y.long\(\)"),
    ],
)
def test_labels_that_are_not_taken(y, error, message):
    with pytest.raises(error, match=f"^{message}"):
        mutual_information_renyi_labels(torch.eye(3), y)


def test_the_unit_is_checked():
    x, y = clusters(n=10)
    for estimate in (lambda: entropy_renyi(x, unit="dits"), lambda: mutual_information_renyi_labels(x, y, unit="dits")):
        with pytest.raises(ValueError, match=r"^unit must be 'bits' or 'nats', got 'dits': did you mean 'bits'\?$"):
            estimate()


def test_nothing_else_is_touched():
    """Inputs, gradients, random states; and the figures do not depend on the mode they are called in."""
    x, y = clusters(n=50, dtype=torch.float32)
    kept, kept_y, state = x.clone(), y.clone(), torch.get_rng_state()
    entropy, of_y, of_x = entropy_renyi(x), mutual_information_renyi_labels(x, y), mutual_information_renyi(x, x)
    assert {type(entropy), type(of_y), type(of_x)} == {float}
    with torch.inference_mode():
        assert mutual_information_renyi(x.clone(), x) == of_x
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert mutual_information_renyi_labels(x, y) == of_y
    assert entropy_renyi(x.clone().requires_grad_()) == entropy
    assert torch.equal(x, kept)
    assert torch.equal(y, kept_y)
    assert torch.equal(torch.get_rng_state(), state)
