"""Twelve bits on the corners of an icosahedron, a rule for their label, and small networks that learn it.

The task of Shwartz-Ziv & Tishby (2017), used by ``tanh_vs_relu.py``. Its joint distribution p(x, y) is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (12, 10, 7, 5, 4, 3, 2)
LAYERS = {f"layer{k}": width for k, width in enumerate(WIDTHS[1:-1], 1)} | {"out": WIDTHS[-1]}
"""Layer → its number of units."""
NARROWEST = "layer5"
"""The layer of three units, which the dispute is about."""

LEARNING_RATE = 4e-4
BATCH_SIZE = 512
TRAINING_SHARE = 0.85
N_PATTERNS = 2 ** WIDTHS[0]
INFORMATION = 0.99
"""I(X;Y) in bits, by the rule that labels are drawn by."""

# -- the data: twelve bits on the corners of an icosahedron ------------------------------------------------------------


def vertices() -> Tensor:
    """The corners of an icosahedron, unit vectors, float64 ``(12, 3)``."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    turned = [corner[k:] + corner[:k] for k in range(3) for corner in corners]
    return F.normalize(torch.tensor(turned, dtype=torch.float64))


def rotations() -> Tensor:
    """The rotations of an icosahedron as permutations of its corners, ``(60, 12)``: corner i goes to ``[…, i]``.

    A rotation is determined by the image of one directed edge, and an icosahedron has 30 edges.
    """
    v = vertices()
    cosines = v @ v.T
    nearest = (cosines - cosines[cosines < 0.99].max()).abs() < 1e-9
    starts, ends = nearest.nonzero().unbind(1)

    across = v[ends] - cosines[starts, ends, None] * v[starts]
    across = F.normalize(across)
    frames = torch.stack([v[starts], across, torch.linalg.cross(v[starts], across)], dim=2)
    turned = v @ (frames @ frames[0].T).mT
    return (turned @ v.T).argmax(2)


def patterns() -> Tensor:
    """All subsets of the corners, a row each: bits, float64 ``(4096, 12)``."""
    return (torch.arange(4096)[:, None] >> torch.arange(12) & 1).double()


def n_orbits(x: Tensor, turns: Tensor) -> int:
    """How many patterns there are, where rotated ones count as one.

    Args:
        x: all patterns.
        turns: the rotations.
    """
    numbers = (x[:, turns].long() << torch.arange(12)).sum(2)
    return len(numbers.amin(1).unique())


def power(x: Tensor) -> Tensor:
    r"""The power of a pattern on the sphere in the spherical harmonics of degree 1, which is invariant under rotations.

    For the corners :math:`v_i` of the pattern, by the harmonics' addition theorem,

    .. math:: f(x) = \frac{4\pi}{3} \sum_m \Big|\sum_{i \in x} Y_{1m}(v_i)\Big|^2 = \Big|\sum_{i \in x} v_i\Big|^2

    Args:
        x: bits, ``(N, 12)``.

    Returns:
        f, float64 ``(N,)``. Equal values are equal to the last bit.
    """
    return (x @ vertices()).square().sum(1).mul(1e9).round().div(1e9)


def information(p: Tensor) -> float:
    r"""I(X;Y) in bits of a label that is 1 with probability ``p[x]``, over equally likely x.

    .. math:: I(X;Y) = H(Y) - H(Y|X) = h(\overline{p}) - \overline{h(p)}
    """

    def h(p: Tensor) -> Tensor:
        entropy: Tensor = (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)
        return entropy

    return float(h(p.mean()) - h(p).mean())


class Rule(NamedTuple):
    """How labels are drawn: p(y = 1 | x) = 1/(1 + exp(−γ (f(x) − θ)))."""

    theta: float
    gamma: float
    p: Tensor


def rule(f: Tensor) -> Rule:
    """The rule of Shwartz-Ziv & Tishby (2017): θ splits the patterns evenly, γ makes I(X;Y) 0.99 bit.

    Args:
        f: the invariant that labels depend on, for all patterns.
    """
    levels, counts = f.unique(return_counts=True)
    k = int((counts.cumsum(0)[:-1] / len(f) - 0.5).abs().argmin())
    theta = float(levels[k : k + 2].mean())
    low, high = 0.0, 1e6
    for _ in range(100):  # I(X;Y) grows with γ, from 0 to the entropy of the split
        gamma = (low + high) / 2
        low, high = (low, gamma) if information(torch.sigmoid(gamma * (f - theta))) > INFORMATION else (gamma, high)
    return Rule(theta, high, torch.sigmoid(high * (f - theta)))


# -- the networks ------------------------------------------------------------------------------------------------------


def network(activation: type[nn.Module], generator: torch.Generator) -> nn.Sequential:
    """A fully connected network, as it is before training.

    Args:
        activation: of the hidden layers, ``nn.Tanh`` or ``nn.ReLU``.
        generator: draws the weights: truncated normal, of variance 1/n for n inputs (2/n for ReLU); offsets are 0.
    """
    net = nn.Sequential()
    for (name, width), n_inputs in zip(LAYERS.items(), WIDTHS):
        linear = nn.utils.skip_init(nn.Linear, n_inputs, width)
        scale = math.sqrt((2 if activation is nn.ReLU else 1) / n_inputs)
        nn.init.trunc_normal_(linear.weight, std=scale, a=-2 * scale, b=2 * scale, generator=generator)
        nn.init.zeros_(linear.bias)
        net.add_module(name, nn.Sequential(linear) if name == "out" else nn.Sequential(linear, activation()))
    return net


class Team:
    """Networks of one form that learn side by side: each by itself, but all in one multiplication a layer.

    Args:
        nets: the networks; they hold the initial weights, and :meth:`write_back` writes the learned ones.
        activation: of the hidden layers.
    """

    def __init__(self, nets: Sequence[nn.Sequential], activation: nn.Module) -> None:
        self.nets, self.activation = nets, activation
        layers = list(zip(*([m for m in net.modules() if isinstance(m, nn.Linear)] for net in nets)))
        # (networks, inputs, outputs) and (networks, 1, outputs)
        self.weights = [torch.stack([one.weight.detach().T for one in layer]).requires_grad_() for layer in layers]
        self.biases = [torch.stack([one.bias.detach()[None] for one in layer]).requires_grad_() for layer in layers]
        self._layers = layers
        # The sum of the networks' losses has the gradient of each in its own weights, and Adam is elementwise.
        self.adam = torch.optim.Adam([*self.weights, *self.biases], lr=LEARNING_RATE, fused=True)

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of each network on a batch of its own: ``x`` ``(networks, B, 12)``, ``y`` ``(networks, B)``."""
        h = x
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            h = self.activation(torch.baddbmm(bias, h, weight))
        logits = torch.baddbmm(self.biases[-1], h, self.weights[-1])
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the learned weights into the networks."""
        for layer, weight, bias in zip(self._layers, self.weights, self.biases):
            for one, w, b in zip(layer, weight, bias):
                one.weight.copy_(w.T)
                one.bias.copy_(b[0])


def train(activation: type[nn.Module], x: Tensor, y: Tensor, n_seeds: int) -> Iterator[tuple[int, Team]]:
    """Train networks side by side, each with weights, training data and an order of them that its seed draws.

    Args:
        activation: of the hidden layers.
        x: all inputs, ``(N, 12)``.
        y: all labels, ``(N,)``.
        n_seeds: how many networks; their seeds are 0, 1, …

    Yields:
        The number of steps so far and the networks: before training, and after every epoch, endlessly.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_seeds)]
    team = Team([network(activation, generator) for generator in generators], activation())
    n = round(TRAINING_SHARE * len(x))
    rows = [torch.randperm(len(x), generator=generator)[:n] for generator in generators]
    step = 0
    while True:
        yield step, team
        order = torch.stack([own[torch.randperm(n, generator=g)] for own, g in zip(rows, generators)])
        for batch in order.split(BATCH_SIZE, dim=1):
            team.step(x[batch], y[batch])
            step += 1
