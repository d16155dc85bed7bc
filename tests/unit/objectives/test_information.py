"""The objective max I(T;Y) − λ₁ H(X|T) − λ₂ H(T|Y): its identity, its terms, what keeps them bounded."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions

from lightning_ib.objectives import (
    ConditionalPrior,
    GaussianBottleneck,
    InformationLoss,
    bernoulli_reconstruction,
    gaussian_reconstruction,
    information_objective,
)

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]], dtype=torch.float64)
Y = torch.tensor([0, 2])
DRAWN = torch.tensor([1.0, 3.0], dtype=torch.float64)
CLASS = torch.tensor([-1.0, 4.0], dtype=torch.float64)


def rows(shape, seed=0):
    return (2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).softmax(-1)


def entropy(p):
    return float(-torch.special.xlogy(p, p).sum())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5)),
    lambda1=st.floats(0, 5),
    lambda2=st.floats(0, 5),
)
def test_the_identity(seed, sizes, lambda1, lambda2):
    """I(T;Y) − λ₁ H(X|T) − λ₂ H(T|Y) = (1+λ₂) I(T;Y) − (λ₂−λ₁) I(X;T) − λ₂ H(T|X) − λ₁ H(X)."""
    x, y, t = sizes
    p = rows(x * y, seed).view(x, y)[:, :, None] * rows((x, t), seed + 1)[:, None]
    h_x, h_y, h_t = (entropy(p.sum(axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    h_xt, h_ty = entropy(p.sum(1)), entropy(p.sum(0))
    objective = h_y - information_objective(h_ty - h_t, h_xt - h_t, h_ty - h_y, lambda1=lambda1, lambda2=lambda2)
    i_ty, i_xt = h_t + h_y - h_ty, h_x + h_t - h_xt
    identity = (1 + lambda2) * i_ty - (lambda2 - lambda1) * i_xt - lambda2 * (h_xt - h_x) - lambda1 * h_x
    assert objective == pytest.approx(identity, abs=1e-12)


def test_the_terms_by_hand():
    distortion = F.cross_entropy(LOGITS, Y)
    terms = InformationLoss(0.5, 2)(LOGITS, Y, DRAWN, CLASS)
    rate, drawn = torch.tensor(1.5).double(), torch.tensor(2.0).double()
    torch.testing.assert_close(tuple(terms), (distortion + 0.5 * drawn + 2 * rate, rate, distortion, drawn))
    assert list(terms._asdict()) == ["loss", "rate", "distortion", "reconstruction"]
    several = LOGITS.expand(3, 2, 3)
    each = InformationLoss(0.5, 2, reduction="none")(several, Y, DRAWN.expand(3, 2), CLASS)
    for one, mean in zip(each, terms, strict=True):
        assert one.shape == (3, 2)
        torch.testing.assert_close(one.mean(), mean)


@pytest.mark.parametrize(("lambda1", "lambda2"), [(0.3, 0.3), (0.3, 0.1), (1, 0), (0, 0)])
def test_weights_that_do_not_compress_give_a_warning(lambda1, lambda2):
    with pytest.warns(UserWarning, match=r"does not compress: the weight of I\(X;T\) is lambda2 - lambda1, .* above"):
        InformationLoss(lambda1, lambda2)


def test_weights_that_compress_do_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for weights in ((0, 0.1), (0.1, 0.2)):
            loss = InformationLoss(*weights)
        loss.lambda1, loss.lambda2 = 1, 0  # in annealing
    assert (loss.lambda1, loss.lambda2) == (1, 0)


def test_the_reconstructions_are_those_of_torch():
    x, x_hat = torch.rand(5, 2, 3), torch.randn(4, 5, 2, 3)
    normal = distributions.Independent(distributions.Normal(x_hat, math.sqrt(0.3)), 2)
    torch.testing.assert_close(gaussian_reconstruction(x, x_hat, variance=0.3), -normal.log_prob(x))
    torch.testing.assert_close(gaussian_reconstruction(x, x_hat[0], variance=0.3), -normal.log_prob(x)[0])
    variance = torch.rand(2, 3) + 0.1
    normal = distributions.Independent(distributions.Normal(x_hat, variance.sqrt()), 2)
    torch.testing.assert_close(gaussian_reconstruction(x, x_hat, variance=variance), -normal.log_prob(x))
    bits = x.round()
    bernoulli = distributions.Independent(distributions.Bernoulli(logits=x_hat), 2)
    torch.testing.assert_close(bernoulli_reconstruction(bits, x_hat), -bernoulli.log_prob(bits))
    assert gaussian_reconstruction(torch.zeros(3), torch.zeros(3)).shape == (3,)
    half = gaussian_reconstruction(x.bfloat16(), x_hat.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("soft", [False, True])
def test_the_class_conditional_cross_entropy_is_the_mean_over_draws(soft):
    bottleneck, prior = GaussianBottleneck(6, 4).double(), ConditionalPrior(3, 4).double()
    with torch.no_grad():
        prior.mean.normal_()
        prior.rho.normal_()
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1])
    code = bottleneck(x, samples=40_000)
    mean, std = prior(y)
    drawn = -distributions.Independent(distributions.Normal(mean, std), 1).log_prob(code.sample).mean(0)
    labels = F.one_hot(y, 3).double() if soft else y
    torch.testing.assert_close(prior.cross_entropy(code, labels), drawn, rtol=0.02, atol=0.02)


def test_the_noise_bounds_the_class_conditional_entropy():
    """With σ ≥ 1/√(2πe) no code and no prior has a negative one."""
    bottleneck, prior = GaussianBottleneck(3, 2, min_std=0.242, init_std=0.25), ConditionalPrior(2, 2)
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    optimizer = torch.optim.Adam([*bottleneck.parameters(), *prior.parameters()], 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        entropy = prior.cross_entropy(bottleneck(x), y).mean()
        entropy.backward()
        optimizer.step()
    assert -1e-3 < entropy < 0.1


REFUSED = [
    (lambda: InformationLoss(-1, 0), ValueError, "InformationLoss: lambda1 must be a finite number of at least 0, got"),
    (lambda: InformationLoss(0, 1)(LOGITS, None, DRAWN, CLASS), TypeError, "y must be class labels, .* got a NoneType"),
    (
        lambda: InformationLoss(0, 1)(LOGITS, Y, DRAWN.mean(), CLASS),
        ValueError,
        r"reconstruction must have one value in nats for each of the 2 samples, .* got shape \(\): give gaussian_rec",
    ),
    (
        lambda: InformationLoss(0, 1)(LOGITS, Y, DRAWN, CLASS[:1]),
        ValueError,
        r"class_entropy must have one value .* give prior.cross_entropy\(code, y\)",
    ),
    (lambda: information_objective(1, 1, 1, lambda1=-1, lambda2=0), ValueError, "lambda1 must .* got -1"),
    (
        lambda: gaussian_reconstruction(LOGITS, LOGITS.T),
        ValueError,
        r"x and x_hat must have the same shape .* \(3, 2\)",
    ),
    (lambda: gaussian_reconstruction(LOGITS[:0], LOGITS[:0]), ValueError, "of at least one value"),
    (lambda: gaussian_reconstruction(LOGITS, LOGITS, variance=0), ValueError, "variance must be a positive finite num"),
    (
        lambda: gaussian_reconstruction(LOGITS, LOGITS, variance=0 * Y.float().mean()),
        ValueError,
        "variance must be pos",
    ),
    (lambda: gaussian_reconstruction(Y, LOGITS), TypeError, r"x must be a floating-point tensor of shape \(B, …\)"),
    (lambda: bernoulli_reconstruction(LOGITS, LOGITS), ValueError, r"x must lie in \[0, 1\], got values from -1 to 2"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_is_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert str(caught.value).endswith(".")


def test_nan_gives_nan():
    assert InformationLoss(1, 2)(LOGITS * math.nan, Y, DRAWN, CLASS).loss.isnan()
    assert gaussian_reconstruction(LOGITS, LOGITS * math.nan).isnan().all()
    assert bernoulli_reconstruction(LOGITS * math.nan, LOGITS).isnan().all()
