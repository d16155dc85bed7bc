"""Bounds that compare the samples of a batch, beside quadrature and entropies that are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_ib.objectives import NonlinearIBLoss, SurrogateIBLoss, log_variance_bound, nonlinear_ib_bound

ZERO = 1 / (2 * math.pi * math.e)


def normal(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- the pairwise bounds -----------------------------------------------------------------------------------------------


def mixture_entropy(means, variance):
    """h of an equal mixture of Gaussians on the line, in nats, by the trapezoidal rule."""
    spread = 12 * math.sqrt(variance)
    z = torch.linspace(float(means.min()) - spread, float(means.max()) + spread, 20_001, dtype=torch.float64)
    log_p = (-(z[:, None] - means).square() / (2 * variance)).logsumexp(1)
    log_p = log_p - math.log(len(means)) - math.log(2 * math.pi * variance) / 2
    return torch.trapezoid(-log_p.exp() * log_p, z)


@settings(max_examples=30)
@given(n=st.integers(1, 8), seed=st.integers(0, 10_000), variance=st.floats(0.01, 5.0))
def test_the_exact_information_of_a_mixture_lies_between_the_bounds(n, seed, variance):
    means = 2 * normal((n, 1), seed)
    exact = mixture_entropy(means[:, 0], variance) - math.log(2 * math.pi * math.e * variance) / 2
    lower, upper = (nonlinear_ib_bound(means, variance, bound=side) for side in ("lower", "upper"))
    assert -1e-9 <= lower <= exact + 1e-9
    assert exact - 1e-9 <= upper <= math.log(n) + 1e-9


def test_means_that_coincide_and_means_far_apart_are_exact():
    together, apart = torch.zeros(8, 3), 1e3 * torch.arange(8.0)[:, None]
    for side in ("upper", "lower"):
        assert nonlinear_ib_bound(together, 1.0, bound=side) == pytest.approx(0, abs=1e-6)
        assert nonlinear_ib_bound(apart, 1.0, bound=side) == pytest.approx(math.log(8))
        assert nonlinear_ib_bound(apart[:1], 1.0, bound=side) == 0


def test_distances_are_exact_far_from_the_origin():
    means = 1e4 + torch.tensor([[0.0], [0.5]])
    expected = nonlinear_ib_bound(means.double() - 1e4, 0.01)
    assert nonlinear_ib_bound(means, 0.01).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_reach_the_means_and_the_noise():
    means, variance = normal((6, 3)).requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nonlinear_ib_bound, (means, variance))
    same = torch.zeros(4, 2, requires_grad=True)
    nonlinear_ib_bound(same, 0.1).backward()
    assert same.grad.tolist() == [[0, 0]] * 4


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("samples", [(), (3,)])
def test_the_nonlinear_loss_by_hand(power, samples):
    mean, logits, y = normal((5, 2)), normal((*samples, 5, 4), 1), torch.arange(5) % 4
    terms = NonlinearIBLoss(0.5, power=power, noise_variance=0.3)(logits, y, mean)
    distortion = F.cross_entropy(logits.reshape(-1, 4), y.repeat(max(1, *samples, 1)))
    rate = nonlinear_ib_bound(mean, 0.3)
    torch.testing.assert_close(tuple(terms), (distortion + 0.5 * rate**power, rate, distortion))
    each = NonlinearIBLoss(0.5, power=power, noise_variance=0.3, reduction="none")(logits, y, mean)
    assert each.loss.shape == each.distortion.shape == (*samples, 5)
    torch.testing.assert_close(each.loss.mean(), terms.loss)


# -- the log-variance --------------------------------------------------------------------------------------------------


def test_it_is_the_entropy_of_independent_gaussians_and_above_that_of_others():
    spread = torch.tensor([0.5, 2.0], dtype=torch.float64)
    t = spread * normal((200_000, 2))
    exact = (2 * math.pi * math.e * (spread**2 + 0.1)).log().sum() / 2
    assert log_variance_bound(t, noise_variance=0.1) == pytest.approx(exact.item(), abs=0.01)
    coins = torch.tensor([[-1.0], [1.0]]).double()
    entropy = mixture_entropy(coins[:, 0], ZERO)
    assert log_variance_bound(coins) > entropy + 0.5


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 12), d=st.integers(1, 4))
def test_given_the_class_it_is_a_mean_over_classes_and_never_higher(seed, n, d):
    t, y = normal((n, d), seed), torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    y[:2] = y[0]  # one class has two samples
    expected = sum((y == c).sum() / n * log_variance_bound(t[y == c]) for c in y.unique() if int((y == c).sum()) > 1)
    found = log_variance_bound(t, y)
    torch.testing.assert_close(found, expected)
    assert 0 <= found <= log_variance_bound(t) + 1e-12
    torch.testing.assert_close(log_variance_bound(t, 7 - 5 * y), found)


def test_a_class_with_one_sample_is_left_out():
    t, y = normal((5, 2)), torch.tensor([4, 4, 4, 4, 9])
    torch.testing.assert_close(
        log_variance_bound(t, y, noise_variance=1), 0.8 * log_variance_bound(t[:4], noise_variance=1)
    )
    t.requires_grad_()
    log_variance_bound(t, y, noise_variance=1).backward()
    assert t.grad[4].tolist() == [0, 0]
    assert (t.grad[:4] != 0).all()


def test_a_batch_of_single_samples_has_a_term_of_zero_and_warns():
    t = normal((3, 2)).requires_grad_()
    with pytest.warns(UserWarning, match="every class has one sample in the batch, .* use a larger batch"):
        bound = log_variance_bound(t, torch.arange(3))
    bound.backward()
    assert bound == 0
    assert (t.grad == 0).all()


def test_gradients_of_the_log_variance():
    t, y = normal((7, 2)).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda t: log_variance_bound(t, y), t)
    constant = torch.ones(4, 2, requires_grad=True)
    log_variance_bound(constant).backward()
    assert constant.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["log_variance_given_y", "log_variance", "square_norm"])
def test_the_surrogates_by_hand(kind):
    t, logits, y = normal((6, 2)), normal((6, 3), 1), torch.arange(6) % 3
    rate = {
        "log_variance_given_y": log_variance_bound(t, y, noise_variance=0.2),
        "log_variance": log_variance_bound(t, noise_variance=0.2),
        "square_norm": t.square().sum() / 6,
    }[kind]
    distortion = F.cross_entropy(logits, y)
    terms = SurrogateIBLoss(0.5, kind, noise_variance=0.2)(logits, y, t)
    torch.testing.assert_close(tuple(terms), (distortion + 0.5 * rate, rate, distortion))


# -- what both share ---------------------------------------------------------------------------------------------------


def test_the_square_norm_bounds_the_log_variance():
    """ln(1 + v) ≤ v, for variances in the unit of the noise."""
    t = normal((50, 3))
    assert log_variance_bound(t) <= math.pi * math.e * t.square().sum(1).mean()


@pytest.mark.parametrize(
    "loss",
    [NonlinearIBLoss(0.1, power=2), SurrogateIBLoss(0.1), SurrogateIBLoss(0.1, "log_variance")],
    ids=lambda loss: f"{type(loss).__name__}-{getattr(loss, 'kind', '')}",
)
def test_rates_are_float32_under_autocast_and_in_half_precision(loss):
    encoder, decoder, x, y = nn.Linear(6, 4), nn.Linear(4, 3), torch.randn(12, 6), torch.arange(12) % 3
    exact = loss(decoder(encoder(x)), y, encoder(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean = encoder(x)
        terms = loss(decoder(mean), y, mean)
    assert mean.dtype == torch.bfloat16
    assert {term.dtype for term in terms} == {torch.float32}
    torch.testing.assert_close(terms.rate, exact.rate, rtol=0.02, atol=0.02)
    terms.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in (*encoder.parameters(), *decoder.parameters()))
    assert loss(decoder(encoder(x)).double(), y, encoder(x).double()).rate.dtype == torch.float64


def test_nan_gives_nan():
    t, y = normal((5, 2)), torch.tensor([0, 0, 1, 1, 2])
    for place in (0, 4):
        bad = t.clone()
        bad[place, 0] = math.nan
        assert nonlinear_ib_bound(bad, 1.0).isnan()
        assert log_variance_bound(bad).isnan()
        assert log_variance_bound(bad, y).isnan()


T, Y, LOGITS = normal((4, 2)), torch.tensor([0, 0, 1, 1]), normal((4, 3), 1)
REFUSED = [
    (lambda: nonlinear_ib_bound(T[:, :0], 1.0), ValueError, r"mean must have shape \(B, D\) of .* got \(4, 0\)"),
    (lambda: nonlinear_ib_bound(T[:, 0], 1.0), ValueError, r"got \(4,\): give mean\[:, None\] for one value"),
    (lambda: nonlinear_ib_bound(T.long(), 1.0), TypeError, r"got torch.int64: give mean.double\(\)"),
    (lambda: nonlinear_ib_bound(T, 0), ValueError, "noise_variance must be a positive finite number, got 0: give the"),
    (lambda: nonlinear_ib_bound(T, T), TypeError, "noise_variance must be a positive finite number, got a tensor"),
    (lambda: nonlinear_ib_bound(T, 1, bound="uper"), ValueError, "bound must be 'upper' or 'lower', got 'uper': did"),
    (lambda: log_variance_bound(T, Y[:3]), ValueError, r"y must be class labels of shape \(4,\), got \(3,\)"),
    (lambda: log_variance_bound(T, Y.double()), TypeError, r"got torch.float64: give y.long\(\) for class numbers"),
    (lambda: log_variance_bound(T, noise_variance=0), ValueError, "noise_variance must .* got 0: give 0.0585, say"),
    (lambda: log_variance_bound(T[:0]), ValueError, r"t must have shape \(B, D\) .* got \(0, 2\)"),
    (lambda: NonlinearIBLoss(1, power=3), ValueError, "NonlinearIBLoss: power must be 1 or 2, got 3"),
    (lambda: NonlinearIBLoss(1, noise_variance=-1), ValueError, "NonlinearIBLoss: noise_variance must .* got -1"),
    (lambda: NonlinearIBLoss(1, gather=1), TypeError, "NonlinearIBLoss: gather must be True or False, got 1"),
    (lambda: NonlinearIBLoss(1)(LOGITS, Y, T[:3]), ValueError, r"mean must have shape \(4, D\) .* got \(3, 2\)"),
    (lambda: SurrogateIBLoss(1, "logvar"), ValueError, "SurrogateIBLoss: kind must be 'log_variance_given_y', "),
    (lambda: SurrogateIBLoss(1)(LOGITS, None, T), TypeError, "y must be class labels, .* got a NoneType"),
    (
        lambda: SurrogateIBLoss(1)(LOGITS, LOGITS.softmax(1), T),
        TypeError,
        r"got torch.float64: give y.argmax\(1\) for soft labels",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_is_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert str(caught.value).endswith(".") or "did you mean" in str(caught.value)
