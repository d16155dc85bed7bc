r"""Critics in training: scores of pairs of samples, by networks that have learned from other samples.

The coordinates come in two forms: as normal scores, :math:`\Phi^{-1}(r / (N + 1))` at rank r, which bounds every input,
whatever the tails; and divided by their standard deviation and clipped at six, which keeps the gaps between clusters.
Ranks and deviations are those of all samples, held-out ones included. They hold nothing about which x came with which
y, so that a critic learns no pair from them.

The samples are halved. A critic learns from each half, in float32, and is evaluated on the other, which keeps memorized
samples out of the estimate. A quarter of the training half, the judges, decides when to stop. The critic is the sum of
one in closed form (:mod:`~lightning_ib.functional.variational.normal_critic`) and a network that is 0 at first; others
lack the closed form. The better form of the coordinates, by the judges, goes on after 100 steps, and after 300 the
better start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.continuous.copula import normal_scores, standardized
from lightning_ib.functional.variational.dealing import Halves
from lightning_ib.functional.variational.normal_critic import NormalCritic, normal_start
from lightning_ib.functional.variational.training import full_precision_training, mlp, mlp_weights, sample_rows, train

Critic = Literal["separable", "joint"]
Network = Callable[[Tensor, Tensor, Tensor], Tensor]

_HIDDEN = 64
_OUTPUTS = 32
_LEARNING_RATE = 2e-3

# A joint critic scores each pair by itself, so that it learns from all pairs within groups of so many samples, and is
# judged on groups of so many.
_GROUP = 16
_JUDGED_GROUP = 64

# For so many steps a critic learns in either form of the coordinates, and for so many more from either start, the
# closed form and zero; the better one goes on.
_RACES = (100, 200)

# How many standard deviations from the mean a coordinate is at most.
_FARTHEST = 6.0

# With fewer independent judges the coordinates come as normal scores alone: chance would choose the form.
_FEWEST_JUDGES = 30

# So many batches are scored at a time: a joint critic holds its hidden units of every pair.
_BATCHES = 16


def held_out_scores(
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor], Tensor],
    estimate: Callable[[Tensor], Tensor],
    critic: Critic,
    halves: Halves,
    *,
    batch_size: int,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """The scores of all pairs within batches of the half that a critic has not seen.

    Args:
        x: real numbers ``(N, D)``, N at least 16.
        y: real numbers ``(N, E)``.
        loss: of the scores of batches, ``(2, M, B, B)``, x down and y across, for each critic its own, ``(2,)``.
        estimate: of the same scores, ``(2,)``: the information, by which the better ones are chosen.
        critic: ``"separable"`` or ``"joint"``.
        halves: the rows of each critic.
        batch_size: B at most.
        steps: of training, at most.
        generator: of all that is drawn.

    Returns:
        float64 ``(2, M, B, B)``: for the two halves, their M batches.
    """
    with full_precision_training(x.device):
        # Each critic's view begins with the half it learns from, and in that with the rows it is fitted to.
        columns = torch.arange(halves.rows.shape[1], device=x.device).expand(2, -1)
        fitted, judges, unseen = halves.split(columns)
        b = min(batch_size, fitted.shape[1])
        group = b if critic == "separable" else min(b, _GROUP)
        to_judge = _batched(judges, batch_size if critic == "separable" else min(batch_size, _JUDGED_GROUP))
        weights, network = (_separable if critic == "separable" else _joint)(
            x.shape[1], y.shape[1], generator, x.device
        )
        critics = _all_critics(x, y, halves, _batched(judges, batch_size), loss, network)
        weights = torch.cat([weights.new_ones(2, 1), weights], 1).repeat(len(critics.x) // 2, 1)
        trained = partial(
            _trained, fitted=fitted, judges=to_judge, groups=(b // group, group), loss=loss, generator=generator
        )
        of_one_form = 4 if critics.start.g.shape[2] else 2
        for kept, race in zip((of_one_form, 2), _RACES):
            if len(weights) > kept:
                race = min(steps, race)
                weights, steps = trained(critics, weights, steps=race), steps - race
                with torch.no_grad():
                    found = estimate(critics.all_scores(weights, to_judge.repeat(len(weights) // 2, 1, 1)).double())
                better = found.view(-1, kept).argmax(0) * kept + torch.arange(kept, device=x.device)
                critics, weights = critics.at(better), weights[better]
        weights = trained(critics, weights, steps=steps)
        with torch.no_grad():
            return critics.all_scores(weights, _batched(unseen, batch_size), at_once=1).double()


def _trained(
    critics: _Critics,
    weights: Tensor,
    *,
    fitted: Tensor,
    judges: Tensor,
    groups: tuple[int, int],
    loss: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    steps: int,
) -> Tensor:
    """The weights after training on groups of rows, of all copies: two, or more of the same rows two by two."""
    times, (n_groups, size) = len(weights) // 2, groups
    fitted, judges = fitted.repeat(times, 1), judges.repeat(times, 1, 1)

    def sampled_loss(weights: Tensor) -> Tensor:
        batch = sample_rows(fitted, n_groups * size, generator).unflatten(1, groups)
        return loss(critics.scores(weights, batch)).sum()

    def judged_loss(weights: Tensor) -> Tensor:
        return loss(critics.all_scores(weights, judges))

    return train(weights, sampled_loss, judged_loss, steps=steps, learning_rate=_LEARNING_RATE)


class _Critics(NamedTuple):
    """The sum of a closed form and a network, for several copies on their own views of the rows.

    The first weight of a copy is the factor of its closed form; the others are the network's.
    """

    x: Tensor
    y: Tensor
    start: NormalCritic
    network: Network

    def scores(self, weights: Tensor, chosen: Tensor) -> Tensor:
        """The scores ``(copies, M, B, B)`` of rows ``(copies, M, B)``, numbered within the views."""
        rows = chosen.flatten(1).unsqueeze(2)
        x, y = (v.gather(1, rows.expand(-1, -1, v.shape[2])).unflatten(1, chosen.shape[1:]) for v in (self.x, self.y))
        factor, rest = weights.tensor_split([1], 1)
        return factor.view(-1, 1, 1, 1) * self.start.scores(chosen) + self.network(rest, x, y)

    def all_scores(self, weights: Tensor, chosen: Tensor, *, at_once: int = _BATCHES) -> Tensor:
        """The same, some batches at a time."""
        return torch.cat([self.scores(weights, batches) for batches in chosen.split(at_once, 1)], 1)

    def at(self, copies: Tensor) -> _Critics:
        """Some of the copies."""
        start = NormalCritic(*(part[copies] for part in self.start))
        return _Critics(self.x[copies], self.y[copies], start, self.network)


def _all_critics(
    x: Tensor, y: Tensor, halves: Halves, judges: Tensor, loss: Callable[[Tensor], Tensor], network: Network
) -> _Critics:
    """The contenders: the two halves, from every start, in both forms of the coordinates.

    The starts are the closed form and zero; zero alone where there is no closed form.
    """
    forms = list(zip(_forms(x, halves.rows), _forms(y, halves.rows)))
    if halves.n_independent < _FEWEST_JUDGES:
        forms = forms[:1]
    found = [normal_start(*views, halves, judges, loss) for views in forms]
    pairs = max(start.g.shape[2] for start in found)
    of_x, of_y, starts = [], [], []
    for (x_view, y_view), start in zip(forms, found):
        start = start.with_pairs(pairs)
        for one in (start, start.nothing()) if pairs else (start,):
            of_x.append(x_view)
            of_y.append(y_view)
            starts.append(one)
    return _Critics(torch.cat(of_x), torch.cat(of_y), NormalCritic(*map(torch.cat, zip(*starts))), network)


def held_out_rows(halves: Halves, batch_size: int) -> Tensor:
    """The rows of :func:`held_out_scores`, int64 ``(2, M, B)``."""
    return _batched(halves.split(halves.rows)[2], batch_size)


def _forms(rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Both critics' views of both forms, float32 ``(2, N, D)``, of their own rows ``(2, N)``."""
    deviations = standardized(rows)
    deviations = (deviations - deviations.mean(0)).clamp(-_FARTHEST, _FARTHEST)
    scores, deviations = (
        torch.stack([form[own] for own in chosen]).float() for form in (normal_scores(rows).t(), deviations)
    )
    return scores, deviations


def _batched(rows: Tensor, size: int) -> Tensor:
    """``(2, N)`` in batches of equal size, at most ``size``: ``(2, M, B)``; less than M samples are left over."""
    m = -(-rows.shape[1] // size)
    b = rows.shape[1] // m
    batches: Tensor = rows[:, : m * b].unflatten(1, (m, b))
    return batches


def _separable(d_x: int, d_y: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Network]:
    r"""The critic :math:`g(x)^\top h(y) / \sqrt{32}` with two networks of 64 ReLU units: first weights and scores."""
    sizes = [(d, _HIDDEN, _OUTPUTS) for d in (d_x, d_y)]
    first = [mlp_weights(s, 2, generator, device) for s in sizes]
    first[1][:, -(_HIDDEN + 1) * _OUTPUTS :] = 0  # h is 0 at first: all pairs score alike
    widths = [w.shape[1] for w in first]

    def network(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        g, h = (
            mlp(w, s, v.flatten(1, 2)).unflatten(1, v.shape[1:3])
            for w, s, v in zip(weights.split(widths, 1), sizes, (x, y))
        )
        scores: Tensor = (g / math.sqrt(_OUTPUTS)) @ h.transpose(-1, -2)
        return scores

    return torch.cat(first, 1), network


def _joint(d_x: int, d_y: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Network]:
    """A network on x and y together, of 64 and 32 ReLU units: its first weights and scores.

    The products of the first layer are computed once for each sample, and added for each pair.
    """
    d, upper = d_x + d_y, (_HIDDEN, _OUTPUTS, 1)
    first = torch.cat([mlp_weights(s, 2, generator, device) for s in ((d, _HIDDEN), upper)], 1)
    first[:, -(_OUTPUTS + 1) :] = 0
    sizes = [d_x * _HIDDEN, d_y * _HIDDEN, _HIDDEN]
    ends = list(accumulate(sizes))

    def network(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        of_x, of_y, bias, rest = weights.tensor_split(ends, 1)
        from_x = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, 2), of_x.view(-1, d_x, _HIDDEN))
        from_y = y.flatten(1, 2) @ of_y.view(-1, d_y, _HIDDEN)
        from_x, from_y = (v.unflatten(1, x.shape[1:3]) for v in (from_x, from_y))
        hidden = (from_x.unsqueeze(3) + from_y.unsqueeze(2)).relu_()
        return mlp(rest, upper, hidden.flatten(1, 3)).view(hidden.shape[:-1])

    return first, network
