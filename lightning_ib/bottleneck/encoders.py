"""Encoders and their informations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.bottleneck.distortion import Distortion
from lightning_ib.bottleneck.joint import divergence, entropies, joint_of
from lightning_ib.bottleneck.newton import Clusters, blahut_arimoto, encode


class Informations(NamedTuple):
    """Values of a batch of encoders in nats, each of shape ``(B,)``."""

    i_xt: Tensor
    i_ty: Tensor
    h_t: Tensor
    distortion: Tensor
    i_ty_decoder: Tensor


def encoder_of(kind: str, beta: float, p_t: Tensor, s: Tensor, p_y_given_x: Tensor) -> Tensor:
    """p(t|x) for every original x, from weights and reproductions: soft, or hard for the deterministic bottleneck."""
    from lightning_ib.bottleneck.distortion import distortion

    uniform = torch.full_like(p_y_given_x[:, 0], 1 / len(p_y_given_x))
    problem = distortion(joint_of(uniform, p_y_given_x), dual=kind == "dual")
    logits = p_t.log() - beta * problem.distances(s)
    if kind == "deterministic":
        return torch.nn.functional.one_hot(logits.argmax(1), len(p_t)).to(p_t)
    return logits.softmax(1)


def informations(problem: Distortion, beta: Tensor, clusters: Clusters) -> tuple[Informations, Clusters]:
    """What the encoder of a solution has, and the clusters that it implies."""
    joint = problem.joint
    encoding = encode(problem, beta, clusters)
    implied = blahut_arimoto(problem, clusters, encoding)
    share = encoding.p_t_given_x
    w = implied.weights
    flow = joint.p_x[:, None] * share
    ratio = torch.where(share > 0, share / w.clamp_min(1e-300)[:, None, :], torch.ones_like(share))
    i_xt = (flow * ratio.log()).sum((1, 2)).clamp_min(0)
    mixture = (flow.mT @ joint.rows) / w.clamp_min(1e-300)[..., None]
    mixture = torch.where((w > 0)[..., None], mixture, joint.p_y)
    i_ty = (w * divergence(mixture, joint.p_y)).sum(1)
    distances = problem.distances(implied.s)
    spent = torch.where(flow > 0, flow * distances, torch.zeros_like(flow)).sum((1, 2))
    center = (w[..., None] * implied.s).sum(1, keepdim=True)
    decoder = (w * divergence(implied.s, center.expand_as(implied.s))).sum(1)
    # Rounding of I(X;T) alone must not break the data-processing inequality.
    return Informations(i_xt, torch.minimum(i_ty, i_xt), entropies(w), spent, decoder), implied
