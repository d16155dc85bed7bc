"""Small networks trained inside an estimator: several copies at once, with a generator of their own.

Written on plain tensors, so that the hooks a user has set on all modules and optimizers stay idle. ``torch.optim.Adam``
would call those of optimizers. It gives the same values to four digits in 1.05 (SMILE), 1.16 (MLP probe) and 1.46
(InfoNCE) times the time, on one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

# How often the copies are scored, in steps, and after how many scores without a better one training ends.
_EVERY = 20
_PATIENCE = 10


@contextmanager
def full_precision_training(device: torch.device) -> Iterator[None]:
    """Training in full precision inside any context: gradients on, inference mode and autocast off.

    Example:
        >>> with torch.inference_mode(), full_precision_training(torch.device("cpu")):
        ...     torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        (True, False)
    """
    known = torch.amp.is_autocast_available(device.type)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False) if known else nullcontext(),
    ):
        yield


def sample_rows(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Sample n different rows of each copy: ``(copies, M)`` row numbers give ``(copies, n)``.

    Sampled on the CPU, so that every device gets the same rows.
    """
    chance = torch.ones(rows.shape, device="cpu", dtype=torch.float32)
    return rows.gather(1, torch.multinomial(chance, n, generator=generator).to(rows.device))


def mlp_weights(sizes: Sequence[int], copies: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """The first weights of a network of ReLU layers, for every copy others (He et al. 2015); float32 ``(copies, P)``.

    Layer by layer, the matrix and then the bias, which is zero.
    """
    parts = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        drawn = torch.randn(copies, n_in * n_out, generator=generator, device="cpu", dtype=torch.float32)
        parts += [drawn * math.sqrt(2 / n_in), drawn.new_zeros(copies, n_out)]
    return torch.cat(parts, 1).to(device)


def mlp(weights: Tensor, sizes: Sequence[int], x: Tensor) -> Tensor:
    """The outputs of every copy on its rows: ``(copies, N, sizes[0])`` gives ``(copies, N, sizes[-1])``.

    Args:
        weights: from :func:`mlp_weights`, ``(copies, P)``.
        sizes: the widths of the layers, from the input to the output.
        x: float32, each copy's own rows.
    """
    layers = list(zip(sizes, sizes[1:]))
    parts = weights.split([size for n_in, n_out in layers for size in (n_in * n_out, n_out)], 1)
    for i, (n_in, n_out) in enumerate(layers):
        x = torch.baddbmm(parts[2 * i + 1].unsqueeze(1), x if i == 0 else x.relu_(), parts[2 * i].view(-1, n_in, n_out))
    return x


def train(
    weights: Tensor,
    loss: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    *,
    steps: int,
    learning_rate: float,
) -> Tensor:
    """Adam (Kingma & Ba 2015), stopped early: every copy's weights where its score was lowest.

    The initial weights count as well, so that training can only lower a score. A copy ends where its score has stayed
    above its lowest for a while; where all have ended, training ends before ``steps``.

    Args:
        weights: the first weights, ``(copies, P)``.
        loss: of weights, one number: the copies' losses on rows that it samples itself, added up.
        score: of weights, ``(copies,)``: each copy's loss on other rows than those of ``loss``.
        steps: the largest number of steps.
        learning_rate: Adam's.
    """
    with torch.no_grad():
        best, lowest = weights, score(weights)
    mean, square, stale = torch.zeros_like(weights), torch.zeros_like(weights), torch.zeros_like(lowest)
    for step in range(1, steps + 1):
        weights = weights.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(weights), weights)
        with torch.no_grad():
            mean = mean.lerp(gradient, 0.1)
            square = square.lerp(gradient.square(), 0.001)
            scale = (square / (1 - 0.999**step)).sqrt() + 1e-8
            weights = weights - learning_rate / (1 - 0.9**step) * mean / scale
            if step % _EVERY == 0:
                now = score(weights)
                better = (now < lowest) & (stale < _PATIENCE)
                best = torch.where(better.unsqueeze(1), weights, best)
                lowest = torch.where(better, now, lowest)
                stale = torch.where(better, 0, stale + 1)
                if (stale >= _PATIENCE).all():
                    break
    return best.detach()
