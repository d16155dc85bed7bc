"""Representations made by fixed networks that keep the information of their source.

Every map here can be undone: the weights are orthogonal, or have full column rank, and the activations are strictly
monotone or come with both signs. So a representation has the information of the pair, or of the rows, it was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.functional import leaky_relu

from cases.case import Case, Pair, Sampler, binary_entropy, uniform
from cases.clusters import circle, circle_truth, corners, corners_truth
from cases.continuous import mapped, multivariate_normal, normal_truth, pairs
from cases.labeled import clusters


def orthogonal(d: int, g: Generator) -> Tensor:
    """The product of d reflections at random."""
    product = torch.eye(d, dtype=torch.float64)
    for direction in torch.randn(d, d, generator=g, dtype=torch.float64):
        product -= 2 * torch.outer(product @ direction, direction) / direction.square().sum()
    return product


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return leaky_relu(x, 0.2)


def both_signs(x: Tensor) -> Tensor:
    """ReLU(x) and ReLU(−x), one behind the other: units with opposite weights."""
    return torch.cat([x.relu(), (-x).relu()], dim=1)


@dataclass(frozen=True)
class Network:
    """Layers of ``activation(weight · x + bias)``."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activation: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """The output of the last layer."""
        for weight, bias in zip(self.weights, self.biases):
            x = self.activation(x @ weight.T + bias)
        return x


def network(
    widths: tuple[int, ...], seed: int, activation: Callable[[Tensor], Tensor] = leaky, gain: float = 1.0
) -> Network:
    """Random layers of these widths, which do not fall: gain times columns of orthogonal matrices."""
    g = Generator().manual_seed(seed)
    weights = tuple(gain * orthogonal(b, g)[:, :a] for a, b in zip(widths, widths[1:]))
    biases = tuple(torch.randn(b, generator=g, dtype=torch.float64) / 2 for b in widths[1:])
    return Network(weights, biases, activation)


SQUARE = network((5, 5, 5, 5), 0), network((5, 5, 5, 5), 1)
TANH = network((5, 5), 2, torch.tanh), network((5, 5), 3, torch.tanh)
WIDE = network((3, 20, 20), 4)
WIDE_TANH = network((3, 20), 5, torch.tanh, 2.0), network((3, 20), 6, torch.tanh, 2.0)
OPPOSITE = network((3, 10), 7, both_signs)
CLASSES = network((16, 16, 16, 16), 8)
WIDE_CLASSES = network((2, 20, 20), 9)
BITS = network((8, 20), 10, torch.tanh)


def bits_through_a_layer(flip: float, n: int, g: Generator) -> Pair:
    """Eight fair bits through a layer of tanh; the exclusive or of the first two is the label, sometimes flipped."""
    x = torch.randint(2, (n, 8), generator=g)
    label = x[:, 0] ^ x[:, 1] ^ (uniform(n, 1, g)[:, 0] < flip).long()
    return BITS(2.0 * x.double() - 1), label


def labels_kept(sampler: Sampler, through: Network) -> Sampler:
    """The rows through a network, the labels as they are."""
    return mapped(sampler, through, lambda label: label)


def cases() -> list[Case]:
    """Pairs of representations, and representations of labels."""
    five, three = pairs(5, 0.8, 2), pairs(3, 0.8, 2)
    truth, base, small = normal_truth(five), partial(multivariate_normal, five), partial(multivariate_normal, three)
    sixteen, two = corners(10, 16, 2.0), circle(10, 4.0)
    behind = labels_kept(partial(clusters, sixteen), CLASSES), labels_kept(partial(clusters, two), WIDE_CLASSES)
    return [
        Case("leaky-ReLU networks 5+5", "continuous", (5, 5), truth, mapped(base, *SQUARE)),
        Case("tanh layers 5+5", "continuous", (5, 5), truth, mapped(base, *TANH)),
        Case("leaky-ReLU network, 3 to 20", "continuous", (20, 3), truth, mapped(small, WIDE, torch.clone)),
        Case("tanh layers, 3 to 20 each", "continuous", (20, 20), truth, mapped(small, *WIDE_TANH)),
        Case("10 classes, leaky-ReLU network", "labeled", (16, 1), corners_truth(10, 2.0), behind[0]),
        Case("10 classes, leaky-ReLU network, 2 to 20", "labeled", (20, 1), circle_truth(10, 4.0), behind[1]),
        Case(
            "exclusive or behind a tanh layer, 8 to 20",
            "labeled",
            (20, 1),
            1 - float(binary_entropy(0.1)),
            partial(bits_through_a_layer, 0.1),
        ),
        Case("ReLU layer, 3 to 20", "mixed", (20, 3), truth, mapped(small, OPPOSITE, torch.clone)),
    ]
