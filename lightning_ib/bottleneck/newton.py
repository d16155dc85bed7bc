r"""Newton's method for the weights and reproductions of a bottleneck, at a batch of β.

With :math:`Z_x = \sum_t w_t e^{-\beta d(x, s_t)}` the solution minimizes

.. math:: J(w, s) = -\sum_x p(x) \ln Z_x + \sum_t w_t - 1, \qquad w \ge 0

Its Hessian is a block D for each cluster, positive where the cluster is a local maximum of the certificate's G(s), plus
a matrix of rank at most :math:`|\mathcal X|`. Woodbury's identity leaves one linear system of size
:math:`\min(|\mathcal X|, T |\mathcal Y|)` and one of size T. Close to a critical β, where the fixed-point iteration of
Blahut and Arimoto takes 10⁵ steps, this takes about ten.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ib.bottleneck.distortion import Distortion, move

_EMPTY = 1e-14


@dataclass
class Clusters:
    """Weights and reproductions of a batch of solutions; clusters of weight 0 are padding.

    Attributes:
        weights: p(t), shape ``(B, T)``.
        s: p(y|t) or the dual's decoder, shape ``(B, T, Y)``.
    """

    weights: Tensor
    s: Tensor

    def __getitem__(self, chosen: Tensor) -> Clusters:
        """The solutions of some β."""
        return Clusters(self.weights[chosen], self.s[chosen])

    def compacted(self) -> Clusters:
        """Without the padding that no β needs; the clusters in order of their weight."""
        order = self.weights.argsort(dim=1, descending=True, stable=True)
        order = order[:, : max(1, int((self.weights > 0).sum(1).max()))]
        n = self.s.shape[2]
        return Clusters(self.weights.gather(1, order), self.s.gather(1, order[..., None].expand(-1, -1, n)))


@dataclass(frozen=True)
class Encoding:
    """The encoder that belongs to weights and reproductions.

    Attributes:
        log_z: ln Z_x, shape ``(B, X)``.
        p_t_given_x: shape ``(B, X, T)``.
        objective: J, shape ``(B,)``: F of this encoder, or above it.
    """

    log_z: Tensor
    p_t_given_x: Tensor
    objective: Tensor


def encode(problem: Distortion, beta: Tensor, clusters: Clusters) -> Encoding:
    """The encoder p(t|x) ∝ p(t) exp(−β d(x, s_t))."""
    w = clusters.weights
    log_w = torch.where(w > 0, w, torch.ones_like(w)).log().masked_fill(w <= 0, -torch.inf)
    logits = log_w[:, None, :] - beta[:, None, None] * problem.distances(clusters.s)
    log_z = logits.logsumexp(2)
    objective = -(log_z @ problem.joint.p_x) + w.sum(1) - 1
    return Encoding(log_z, (logits - log_z[..., None]).exp(), objective)


def blahut_arimoto(problem: Distortion, clusters: Clusters, encoding: Encoding) -> Clusters:
    """One fixed-point step: the marginal of the encoder, and the centroid of each cluster."""
    flow = problem.joint.p_x[:, None] * encoding.p_t_given_x
    w = flow.sum(1)
    live = w > _EMPTY
    means = (flow.mT @ problem.features) / torch.where(live, w, torch.ones_like(w))[..., None]
    s = torch.where(live[..., None], problem.centroid(means), clusters.s)
    w = torch.where(live, w, torch.zeros_like(w))
    return Clusters(w / w.sum(1, keepdim=True), s)


def newton_step(
    problem: Distortion, beta: Tensor, clusters: Clusters, encoding: Encoding, damping: Tensor
) -> tuple[Clusters, Tensor]:
    """One damped Newton step, and the size of the gradient that it starts from.

    Args:
        problem: the distortion.
        beta: shape ``(B,)``.
        clusters: the current solution.
        encoding: its encoder.
        damping: added to the Hessian in units of the fixed-point step, shape ``(B,)``.
    """
    b, t, y = clusters.s.shape
    p = problem.joint.p_x
    flow = p[:, None] * encoding.p_t_given_x
    w, q = clusters.weights, flow.sum(1)
    live = (w > 0) & (q > _EMPTY)
    inv_w = torch.where(live, w, torch.ones_like(w)).rsqrt() * live
    inv_q = torch.where(live, q, torch.ones_like(q)).rsqrt() * live
    scale = beta[:, None]
    mean, second = problem.moments(clusters.s, flow * (inv_q**2)[:, None, :])
    grad_a = (w - q) * inv_w
    grad_k = -scale[..., None] * q.sqrt()[..., None] * mean * live[..., None]
    inverse = _inverse_blocks(second * scale[..., None, None], damping, scale)
    root = p.sqrt()[:, None] * encoding.p_t_given_x
    r_a = root * inv_w[:, None, :]
    slopes = problem.slopes(clusters.s) * (root * inv_q[:, None, :] * scale[..., None]).mT[..., None]
    v = slopes.transpose(1, 2).reshape(b, -1, t * y)
    step_k = (inverse @ grad_k[..., None]).reshape(b, t * y, 1)
    rhs = torch.cat([r_a, v @ step_k], 2)
    solved = _woodbury(v, slopes, inverse, rhs)
    k_matrix = r_a.mT @ solved[..., :t]
    k_matrix.diagonal(dim1=1, dim2=2).add_(damping[:, None] + ~live)
    right = r_a.mT @ solved[..., t:] - grad_a[..., None]
    alpha = torch.linalg.solve_ex(k_matrix, right)[0]
    shift = (solved[..., :t] @ alpha) - solved[..., t:]
    step = -grad_k.reshape(b, t * y, 1) - v.mT @ shift
    kappa = (inverse @ step.reshape(b, t, y, 1))[..., 0]
    new_w = (w + w.sqrt() * alpha[..., 0]).clamp_min(0) * live
    new_w = torch.where(new_w > _EMPTY, new_w, torch.zeros_like(new_w))
    size = grad_a.abs().amax(1) + (grad_k / scale[..., None]).abs().amax((1, 2))
    return Clusters(new_w, move(clusters.s, kappa * inv_q[..., None])), size


def _inverse_blocks(curvature: Tensor, damping: Tensor, scale: Tensor) -> Tensor:
    """Inverse of β(I − curvature) of each cluster, with negative eigenvalues turned positive."""
    eye = torch.eye(curvature.shape[-1], dtype=curvature.dtype, device=curvature.device)
    block = (eye - curvature).nan_to_num(0.0, 0.0, 0.0)
    factor, info = torch.linalg.cholesky_ex(block + damping[:, None, None, None] * eye)
    if bool((info > 0).any()):
        bad = info > 0
        values, vectors = torch.linalg.eigh(block[bad])
        values = values.abs().clamp_min(1e-6) + damping[:, None].expand_as(bad)[bad][:, None]
        factor[bad] = torch.linalg.cholesky_ex((vectors * values[:, None, :]) @ vectors.mT)[0]
    return torch.cholesky_inverse(factor) / scale[..., None, None]


def _woodbury(v: Tensor, slopes: Tensor, inverse: Tensor, rhs: Tensor) -> Tensor:
    """Solve (I + V D⁻¹ Vᵀ) u = rhs, in the smaller of the two dimensions of V; ``slopes`` is V by clusters."""
    b, x, n = v.shape
    if x <= n:
        small = (slopes @ inverse).transpose(1, 2).reshape(b, x, n) @ v.mT
        small.diagonal(dim1=1, dim2=2).add_(1)
        return torch.cholesky_solve(rhs, torch.linalg.cholesky_ex(small)[0])
    factor = torch.linalg.cholesky_ex(inverse)[0]
    v = (slopes @ factor).transpose(1, 2).reshape(b, x, n)
    small = v.mT @ v
    small.diagonal(dim1=1, dim2=2).add_(1)
    return rhs - v @ torch.cholesky_solve(v.mT @ rhs, torch.linalg.cholesky_ex(small)[0])


def polish(
    problem: Distortion, beta: Tensor, clusters: Clusters, *, steps: int, target: float, merge: float
) -> Clusters:
    """Fixed-point steps as long as they converge fast, then Newton steps with adaptive damping.

    A Newton step that raises J is replaced by a fixed-point step. β that are done leave the batch.

    Args:
        problem: the distortion.
        beta: shape ``(B,)``.
        clusters: where to start.
        steps: the most steps of each kind.
        target: the size of the gradient at which a β is done.
        merge: β times the squared Hellinger distance below which clusters that still move are merged.
    """
    weights, s = clusters.weights.clone(), clusters.s.clone()
    running = torch.arange(len(beta), device=beta.device)
    before = torch.full_like(beta, torch.inf)
    for step in range(steps):
        part = Clusters(weights[running], s[running])
        moved = blahut_arimoto(problem, part, encode(problem, beta[running], part))
        size = fixed_point_residual(part, moved)
        weights[running], s[running] = moved.weights, moved.s
        going = size > target
        if step % 5 == 4:  # five steps must gain two digits, or Newton's are faster
            slow = size > 1e-2 * before[running]
            before[running] = size
            if bool((slow | ~going).all()):
                break
        running = running[going]
        if len(running) == 0:
            break
    return _newton(problem, beta, Clusters(weights, s), steps, target, merge)


def fixed_point_residual(clusters: Clusters, moved: Clusters) -> Tensor:
    """How far a fixed-point step goes, in the scale of the gradient of :func:`newton_step`."""
    mass = (clusters.weights - moved.weights).abs() * moved.weights.clamp_min(1e-300).rsqrt()
    shift = (clusters.s.sqrt() - moved.s.sqrt()).abs().amax(2) * 2 * moved.weights.sqrt()
    return torch.maximum(torch.where(moved.weights > 0, mass, clusters.weights), shift).amax(1)


def _newton(problem: Distortion, beta: Tensor, clusters: Clusters, steps: int, target: float, merge: float) -> Clusters:
    weights, s = clusters.weights, clusters.s
    damping = torch.full_like(beta, 1e-3)
    running = torch.arange(len(beta), device=beta.device)
    for step in range(steps):
        betas, part = beta[running], Clusters(weights[running], s[running]).compacted()
        if step % 5 == 4:
            part = tidy(part, merge / betas.clamp_min(1))
        encoding = encode(problem, betas, part)
        proposed, size = newton_step(problem, betas, part, encoding, damping[running])
        going = size > target
        if not bool(going.any()):
            break
        running, betas, part, proposed = running[going], betas[going], part[going], proposed[going]
        after = encode(problem, betas, proposed)
        encoding = Encoding(encoding.log_z[going], encoding.p_t_given_x[going], encoding.objective[going])
        fine = after.objective <= encoding.objective + 1e-15 * (1 + encoding.objective.abs())
        other = blahut_arimoto(problem, part, encoding)
        width = part.weights.shape[1]
        weights[running, :width] = torch.where(fine[:, None], proposed.weights, other.weights)
        weights[running, width:] = 0
        s[running, :width] = torch.where(fine[:, None, None], proposed.s, other.s)
        damping[running] = torch.where(fine, damping[running] / 10, damping[running] * 30).clamp(1e-13, 1e3)
    return Clusters(weights, s)


def tidy(clusters: Clusters, near: Tensor) -> Clusters:
    """Merge clusters whose squared Hellinger distance is below a threshold, shape ``(B,)``, and drop empty ones."""
    w, s = clusters.weights, clusters.s
    root = s.sqrt()
    close = (root[:, :, None] - root[:, None]).square().sum(3) < near[:, None, None]
    close &= (w > 0)[:, None, :]
    first = close.float().argmax(2)
    merged = torch.zeros_like(w).scatter_add(1, first, w)
    means = torch.zeros_like(s).scatter_add(1, first[..., None].expand_as(s), w[..., None] * s)
    s = torch.where(merged[..., None] > 0, means / merged.clamp_min(1e-300)[..., None], s)
    return Clusters(merged, s / s.sum(2, keepdim=True)).compacted()
