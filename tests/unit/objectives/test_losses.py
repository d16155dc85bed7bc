"""VIB and CEB, the weights that all losses share, and how several draws predict together."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_ib.objectives import (
    CEBLoss,
    ConditionalPrior,
    GaussianBottleneck,
    HSICLoss,
    IBTerms,
    InformationLoss,
    NonlinearIBLoss,
    SurrogateIBLoss,
    VariationalDualIBLoss,
    VIBLoss,
    mean_log_probabilities,
)

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]], dtype=torch.float64)
RATE = torch.tensor([1.0, 3.0], dtype=torch.float64)
Y = torch.tensor([0, 2])
LOSSES = {
    "VIBLoss(beta=2, reduction='mean')": VIBLoss(2),
    "CEBLoss(gamma=2, reduction='none')": CEBLoss(2, reduction="none"),
    "NonlinearIBLoss(beta=2, power=1, noise_variance=1, reduction='mean', gather=True)": NonlinearIBLoss(2),
    "SurrogateIBLoss(gamma=2, kind='square_norm', noise_variance=0.0585498, reduction='mean', gather=True)": (
        SurrogateIBLoss(2, "square_norm")
    ),
    "HSICLoss(beta=2, sigma=1, gather=True)": HSICLoss(2),
    "InformationLoss(lambda1=1, lambda2=2, reduction='mean')": InformationLoss(1, 2),
}


def test_the_terms_by_hand():
    distortion = F.cross_entropy(LOGITS, Y)
    rate = torch.tensor(2.0, dtype=torch.float64)
    expected = IBTerms(distortion + 0.5 * rate, rate, distortion)
    torch.testing.assert_close(tuple(VIBLoss(0.5)(LOGITS, Y, RATE)), tuple(expected))
    torch.testing.assert_close(CEBLoss(3)(LOGITS, Y, RATE).loss, 3 * distortion + rate)
    assert list(expected._asdict()) == ["loss", "rate", "distortion"]


@pytest.mark.parametrize("samples", [(), (4,)])
def test_they_are_the_loss_of_the_dual_without_its_term(samples):
    logits = LOGITS.expand(*samples, 2, 3)
    dual = VariationalDualIBLoss(4, 0)(logits, Y, RATE)
    torch.testing.assert_close(CEBLoss(4)(logits, Y, RATE).loss, dual.loss)
    torch.testing.assert_close(4 * VIBLoss(1 / 4)(logits, Y, RATE).loss, dual.loss)


@pytest.mark.parametrize("loss", [VIBLoss, CEBLoss])
def test_without_reduction_every_sample_has_its_terms(loss):
    logits = torch.stack([LOGITS, 2 * LOGITS, -LOGITS])
    each, means = loss(3, reduction="none")(logits, Y, RATE), loss(3)(logits, Y, RATE)
    for one, mean in zip(each, means, strict=True):
        assert one.shape == (3, 2)
        torch.testing.assert_close(one.mean(), mean)
    soft = F.one_hot(Y, 3).double()
    torch.testing.assert_close(loss(3)(logits, soft, RATE).loss, means.loss)


def test_the_distortion_of_another_decoder():
    distortion = torch.tensor([[0.5, 1.5], [1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(VIBLoss(2).combine(distortion, torch.tensor([1.0, 3.0])).loss, torch.tensor(6.0))
    with pytest.raises(ValueError, match=r"distortion must have one value in nats for each sample, .* got \(\): give"):
        VIBLoss(2).combine(distortion.mean(), torch.ones(2))
    with pytest.raises(ValueError, match=r"rate must have one value in nats for each of the 2 samples, .* got shape"):
        VIBLoss(2).combine(distortion, torch.ones(3))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_under_autocast_moves_every_part(reverse):
    bottleneck, prior, decoder = GaussianBottleneck(6, 4), ConditionalPrior(3, 4), nn.Linear(4, 3)
    x, y = torch.randn(9, 6), torch.arange(9) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = bottleneck(x)
        logits = decoder(code.sample)
        terms = CEBLoss(1)(logits, y, prior.kl(code, y)) if reverse else VIBLoss(1)(logits, y, code.kl)
    assert {term.dtype for term in terms} == {torch.float32}
    terms.loss.backward()
    for module in (bottleneck, decoder, *([prior] if reverse else [])):
        for parameter in module.parameters():
            assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(("shown", "loss"), LOSSES.items())
def test_losses_have_no_state_and_can_be_copied(shown, loss):
    assert repr(loss) == shown
    assert loss.state_dict() == {}
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == shown


@pytest.mark.parametrize("loss", LOSSES.values(), ids=lambda loss: type(loss).__name__)
def test_weights_can_change_between_steps_and_are_checked(loss):
    loss, name = copy.deepcopy(loss), type(loss).__name__
    for weight in ("beta", "gamma", "lambda1", "lambda2"):
        if hasattr(loss, weight):
            setattr(loss, weight, torch.tensor(0.25))
            assert getattr(loss, weight) == 0.25
            for wrong in (-1, math.nan, math.inf):
                with pytest.raises(ValueError, match=f"^{name}: {weight} must be a finite number of at least 0, got"):
                    setattr(loss, weight, wrong)
            with pytest.raises(TypeError, match=f"^{name}: {weight} must .* got '1': give a float"):
                setattr(loss, weight, "1")
            assert getattr(loss, weight) == 0.25
    assert type(loss).__dict__[weight if weight in type(loss).__dict__ else next(iter(weights(loss)))].__doc__


def weights(loss):
    return [name for name in ("beta", "gamma", "lambda1", "lambda2") if name in type(loss).__dict__]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: VIBLoss(-1), ValueError, "VIBLoss: beta must be a finite number of at least 0, got -1"),
        (lambda: CEBLoss(-1), ValueError, "CEBLoss: gamma must be a finite number of at least 0, got -1"),
        (lambda: VIBLoss(1, reduction="sum"), ValueError, "VIBLoss: reduction must be 'mean' or 'none', got 'sum'"),
        (lambda: VIBLoss(1)(LOGITS, None, RATE), TypeError, "y must be class labels, .* got a NoneType"),
        (lambda: VIBLoss(1)(LOGITS, Y, None), TypeError, "rate must be a floating-point tensor .* got a NoneType"),
        (lambda: VIBLoss(1)(LOGITS, Y, RATE.mean()), ValueError, r"got shape \(\): give code.kl, or prior.kl"),
        (lambda: VIBLoss(1)(LOGITS, Y + 1, RATE), ValueError, "from 0 to 2, as there are 3 classes, got 3 in 1 of 2"),
        (lambda: CEBLoss(1)(LOGITS[0], Y, RATE), ValueError, r"logits must have shape \(B, K\), .* got \(3,\)"),
        (lambda: mean_log_probabilities(LOGITS), ValueError, r"logits must have shape \(samples, B, K\), got \(2, 3\)"),
    ],
)
def test_what_is_refused_in_one_sentence(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert str(caught.value).endswith(".")


def test_nan_gives_nan():
    assert VIBLoss(1)(LOGITS * math.nan, Y, RATE).loss.isnan()
    assert CEBLoss(1)(LOGITS, Y, RATE * math.nan).loss.isnan()


def test_several_draws_predict_by_their_mean_probabilities():
    logits = 5 * torch.randn(12, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(mean_log_probabilities(logits).exp(), logits.softmax(-1).mean(0))
    far = torch.tensor([[[0.0, -2000.0]], [[0.0, -1000.0]]])
    torch.testing.assert_close(mean_log_probabilities(far), torch.tensor([[0.0, -1000 - math.log(2)]]))
    assert mean_log_probabilities(logits.bfloat16()).dtype == torch.float32


def test_a_compiled_step_is_one_graph_with_the_same_values():
    bottleneck, decoder, loss = GaussianBottleneck(6, 4).eval(), nn.Linear(4, 3), VIBLoss(2)
    nonlinear = NonlinearIBLoss(2, power=2)
    x, y = torch.randn(9, 6), torch.arange(9) % 3

    def step(x, y):
        code = bottleneck(x)
        logits = decoder(code.sample)
        return loss(logits, y, code.kl).loss, nonlinear(logits, y, code.mean).loss

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, y), step(x, y))
    torch._dynamo.reset()
