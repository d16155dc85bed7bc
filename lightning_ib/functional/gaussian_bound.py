r"""A bound on the information that one layer can pass to the next through Gaussian noise.

The next layer's pre-activation is :math:`U = W T + \xi`, with noise :math:`\xi \sim \mathcal N(0, N)` that is
independent of T. Among all variables with one covariance the Gaussian has the largest entropy, so the covariance of T
alone bounds I(T;U).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    Unit,
    checked_number,
    checked_unit,
    checked_values,
    in_unit,
    plain_tensor,
)

_ROUNDING = 1e-8
"""Of the largest entry or eigenvalue: asymmetry and negative eigenvalues up to here are rounding, in float64."""


class GaussianBound(NamedTuple):
    """Bounds on the information between a layer and the noisy pre-activations of the next one.

    Attributes:
        joint: over all units together, the smaller one.
        per_unit: the sum over single units; NaN where noise is correlated between units, since the sum bounds nothing
            there.
    """

    joint: float
    per_unit: float


def gaussian_compression_bound(
    weight: Tensor, *, covariance: Tensor, noise_covariance: float | Tensor, unit: Unit = "bits"
) -> GaussianBound:
    r"""Bounds on I(T;U), :math:`U = W T + \xi`, from the covariance S of T and the covariance N of the noise.

    .. math::

        I(T;U) \le \tfrac12 \log\det(I + N^{-1} W S W^\top)
               \le \tfrac12 \sum_i \log\Big(1 + \frac{(W S W^\top)_{ii}}{N_{ii}}\Big)

    The first holds by maximum entropy (Cover & Thomas 2006, theorem 8.6.5), for T of any distribution with covariance
    S; equality is reached by Gaussian T. The second holds by Hadamard's inequality, for noise that is independent
    between units. By data processing :math:`I(X;T_{k+1}) \le I(T_k;U_{k+1})`, so the smallest value up to a layer
    bounds what that layer knows of the input.

    N is part of the question. A deterministic layer has no noise, and its information has no finite bound: any value is
    one at the noise that was chosen. Name it "bound, Gaussian, at noise σ²" wherever it is shown.

    Args:
        weight: W, floating point, shape ``(K, D)``, as in ``nn.Linear``.
        covariance: S, of the layer before, floating point, shape ``(D, D)``, symmetric, with eigenvalues of at least 0;
            or the variances of uncorrelated units, shape ``(D,)``.
        noise_covariance: N, positive definite: the variance of every unit's noise, a number; the variance of each,
            shape ``(K,)``; or shape ``(K, K)``.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        Both bounds in ``unit``, at least 0. All is computed in float64, from the singular values of
        :math:`N^{-1/2} W S^{1/2}`, so that S may be of any rank and K larger than D.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a shape differs, a value is NaN or infinite, a matrix is asymmetric, S has a negative eigenvalue,
            or the noise is 0 in some direction.

    Example:
        One unit, with noise as strong as its signal: half a bit at most.

        >>> one = torch.ones(1, 1)
        >>> gaussian_compression_bound(one, covariance=one, noise_covariance=1.0)
        GaussianBound(joint=0.5, per_unit=0.5)
    """
    checked_unit(unit)
    w = _checked(weight, "weight", "(K, D)")
    if w.ndim != 2 or w.numel() == 0:
        raise ValueError(f"weight must have shape (K, D), K and D at least 1, got {tuple(w.shape)}.")
    k, d = w.shape
    root, (whitener, independent) = _root(covariance, d).to(w), _whitener(noise_covariance, k)
    signal = w * root if root.ndim == 1 else w @ root
    whitener = whitener.to(w)
    scaled = whitener[:, None] * signal if independent else whitener @ signal
    # log(1 + s²) from log s: squares of very large or small values leave the range of float64.
    joint = _sum_of_logs(torch.linalg.svdvals(scaled))
    per_unit = _sum_of_logs(torch.linalg.vector_norm(scaled, dim=1)) if independent else math.nan
    return GaussianBound(in_unit(joint, unit), in_unit(per_unit, unit))


def influence_on_gaussian_bound(rows: Tensor, root: Tensor, noise_variance: float) -> Tensor:
    r"""The influence of samples on the bound at their covariance S, up to a constant, in nats.

    .. math:: \psi_i = \tfrac12 z_i^\top (\sigma^2 I + S)^{-1} z_i

    for :math:`\tfrac12 \log\det(I + S / \sigma^2)`: its derivative in S, at the rank-one covariance of the sample.

    Args:
        rows: samples less the mean of all, float64, shape ``(M, D)``: all of them where D is larger than N.
        root: R of the QR decomposition: :math:`R^\top R = S`, shape ``(D, D)``, or where D is larger than N, the Gram
            matrix of the samples over N, shape ``(N, N)``.
        noise_variance: :math:`\sigma^2`.

    Returns:
        float64, shape ``(M,)``.

    Example:
        >>> rows = torch.tensor([[1.0], [-1.0]]).double()
        >>> influence_on_gaussian_bound(rows, torch.ones(1, 1).double(), 1.0)
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    variances, directions = torch.linalg.eigh(root.mT @ root)
    variances = variances.clamp(min=0)  # singular but for rounding, where coordinates repeat
    if rows.shape[1] > len(root):  # z' (σ² + S)⁻¹ z is N times the diagonal of K (σ² + K)⁻¹, K being the Gram matrix
        shares: Tensor = directions.square() * (variances / (variances + noise_variance))
        return shares.sum(1) * (len(root) / 2)
    projected: Tensor = (rows @ directions).square() / (variances + noise_variance)
    return projected.sum(1) / 2


def weight_noise_variance(weight_covariance: Tensor, *, second_moment: Tensor) -> Tensor:
    r"""The variance of the noise in each pre-activation that random weights make, averaged over T.

    .. math:: N_{ii} = \mathrm{tr}(V_i \, E[T T^\top])

    Row i of the weights has the covariance :math:`V_i` around its mean, drawn anew for every sample.

    With this noise :func:`gaussian_compression_bound` is an *approximation* and bounds nothing, because the noise
    scales with T rather than being independent of it. For one unit T ~ N(0, 1), with a weight of mean 1 and variance
    1, the formula gives 0.347 nats and the true I(T;U) is 0.813. As the variance of the weight grows, the formula goes
    to 0 and the information to 0.420 nats. In wide layers the noise of a pre-activation is a sum over many units, and
    closer to independent. The weights of a trained network are fixed: they make no noise.

    Args:
        weight_covariance: V, floating point, shape ``(K, D, D)``; or the variances of uncorrelated weights, shape
            ``(K, D)``.
        second_moment: :math:`E[T T^\top]`, the mean of T included, floating point, shape ``(D, D)``; or its diagonal,
            shape ``(D,)``, for units with no products between them.

    Returns:
        float64, shape ``(K,)``, in units of the pre-activation squared.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a shape differs, a value is NaN or infinite, a matrix is asymmetric, or one has a negative
            eigenvalue.

    Example:
        >>> weight_noise_variance(torch.full((3, 2), 0.25), second_moment=torch.tensor([1.0, 3.0]))
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    v = _checked(weight_covariance, "weight_covariance", "(K, D) or (K, D, D)")
    if v.ndim not in (2, 3) or v.numel() == 0 or (v.ndim == 3 and v.shape[1] != v.shape[2]):
        raise ValueError(f"weight_covariance must have shape (K, D) or (K, D, D), got {tuple(v.shape)}.")
    d: int = v.shape[-1]
    if v.ndim == 2:
        _check_variances(v, "weight_covariance")
    else:
        v = torch.stack(
            [_semidefinite(one, f"weight_covariance[{i}]", _eps(weight_covariance)) for i, one in enumerate(v)]
        )
    moment = _of_units(second_moment, "second_moment", d, "D").to(v)
    if moment.ndim == 1 or v.ndim == 2:
        v = v.diagonal(dim1=1, dim2=2) if v.ndim == 3 else v
        moment = moment if moment.ndim == 1 else moment.diagonal()
        return torch.mv(v, moment)
    return torch.sum(v * moment, (1, 2))


def _sum_of_logs(s: Tensor) -> float:
    """½ Σ log(1 + s²)."""
    log_s = s.log()
    return float(torch.logaddexp(torch.zeros_like(log_s), 2 * log_s).sum() / 2)


def _root(covariance: Tensor, d: int) -> Tensor:
    """A root of S: shape ``(D,)`` where S is diagonal, or else B of shape ``(D, D)`` with B Bᵀ = S."""
    s = _of_units(covariance, "covariance", d, "D")
    if s.ndim == 1:
        return s.sqrt()
    values, vectors = torch.linalg.eigh(s)
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root


def _whitener(noise: float | Tensor, k: int) -> tuple[Tensor, bool]:
    """N^(−½), and whether it is diagonal: then its diagonal alone."""
    name = "noise_covariance"
    advice = "without noise in every direction the information has no finite bound"
    if not isinstance(noise, Tensor) or noise.ndim == 0:
        variance = checked_number(noise, name, above=0, advice=advice)
        return torch.full((k,), variance, dtype=torch.float64, device="cpu").rsqrt(), True
    n = _of_units(noise, name, k, "K")
    if n.ndim == 2 and bool((n == n.diagonal().diag()).all()):
        n = n.diagonal()
    values, vectors = (n, None) if n.ndim == 1 else torch.linalg.eigh(n)
    least, most = float(values.min()), float(values.max())
    # Of a matrix, eigenvalues below the rounding of the largest are no more than that.
    if least <= (0 if vectors is None else k * _eps(noise) * most):
        raise ValueError(f"{name} must be positive definite, got a smallest variance of {least:.3g}: {advice}.")
    if vectors is None:
        return values.rsqrt(), True
    return vectors * values.rsqrt() @ vectors.mT, False


def _of_units(value: Tensor, name: str, size: int, letter: str) -> Tensor:
    """A covariance of units in float64, or their variances."""
    shape = f"({letter},) or ({letter}, {letter})"
    of = _checked(value, name, shape)
    if tuple(of.shape) not in ((size,), (size, size)):
        raise ValueError(f"{name} must have shape {shape} with {letter} = {size}, got {tuple(of.shape)}.")
    if of.ndim == 1:
        _check_variances(of, name)
        return of
    return _semidefinite(of, name, _eps(value))


def _checked(value: Tensor, name: str, shape: str) -> Tensor:
    of = plain_tensor(checked_values(value, name, shape).detach()).double()
    if not bool(of.isfinite().all()):
        raise ValueError(f"{name} has NaN or infinite entries: leave those samples or units out.")
    return of


def _check_variances(variances: Tensor, name: str) -> None:
    if float(variances.min()) < 0:
        raise ValueError(f"{name} must hold variances of at least 0, got {float(variances.min()):.3g}.")


def _semidefinite(matrix: Tensor, name: str, eps: float) -> Tensor:
    """A symmetric matrix without negative eigenvalues, up to the rounding of the dtype it came in."""
    rounding = max(_ROUNDING, math.sqrt(len(matrix)) * eps)
    if float((matrix - matrix.mT).abs().max()) > rounding * float(matrix.abs().max()):
        raise ValueError(f"{name} must be symmetric: give ({name} + {name}.T) / 2.")
    matrix = (matrix + matrix.mT) / 2
    values = torch.linalg.eigvalsh(matrix)
    if float(values[0]) < -rounding * float(values.abs().max()):
        raise ValueError(
            f"{name} must have eigenvalues of at least 0, got {float(values[0]):.3g}: estimate it from samples, all "
            "entries from the same ones."
        )
    return matrix


def _eps(value: Tensor) -> float:
    return float(torch.finfo(value.dtype).eps)
