r"""Conditional information of real variables and class labels: I(X;Y|Z), by nearest neighbors and by a Gaussian copula.

What X and Y share beyond Z: a confounder that both follow leaves nothing, and a second label leaves what the first does
not say. For symbols see :func:`~lightning_ib.functional.conditional_mutual_information`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    Unit,
    check_same_samples,
    checked_labels,
    checked_rows,
    checked_unit,
    holds_integers,
    in_unit,
)
from lightning_ib.functional.continuous.copula import fitted_normal, normal_scores
from lightning_ib.functional.continuous.copula import mutual_information_gaussian_copula as copula
from lightning_ib.functional.continuous.copula import mutual_information_gaussian_copula_labels as copula_labels
from lightning_ib.functional.continuous.neighbor_search import neighborhoods
from lightning_ib.functional.continuous.neighbors import (
    atoms_apart,
    check_apart,
    check_span,
    check_varies,
    checked_k,
    far_apart,
    local_information,
    mean,
)

_SUBSETS = [(0, 2), (1, 2), (2,)]
_SIGNS = (-1, -1, 1)


def conditional_mutual_information_ksg(
    x: Tensor, y: Tensor, *, given: Tensor, k: int = 3, unit: Unit = "bits"
) -> float:
    r"""The conditional information of continuous variables from k-nearest-neighbor counts.

    With :math:`\epsilon_i` the distance of sample i to its k-th neighbor in the joint space of x, y and z, and
    :math:`n_{xz,i}` the number of other samples nearer than :math:`\epsilon_i` in x and z:

    .. math:: I(X;Y|Z) = \psi(k) + \langle \psi(n_z + 1) - \psi(n_{xz} + 1) - \psi(n_{yz} + 1) \rangle

    By Frenzel & Pompe (2007). The max norm is taken over all coordinates, so bring x, y and z to one scale.

    It reads low where the dependence is narrower than the distance between neighbors, which grows with the coordinates
    of z: strong conditions in several coordinates need many samples. A constant z leaves
    :func:`~lightning_ib.functional.mutual_information_ksg`.

    Args:
        x: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        y: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        given: real numbers in floating point, shape ``(N, …)`` or ``(N,)``: the variable Z.
        k: the number of neighbors, 1 to N − 1.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``, which scatters around 0 where nothing is left. Where z determines x and y it is 0
        if they vary more slowly than z does, and reads bits that are not there if both vary faster: bring z to a scale
        at which it does.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: ``k`` or ``unit`` is out of range, the variables differ in their samples or hold NaN or infinity, x
            or y is constant, or rows repeat so often that a k-th neighbor lies at distance 0.

    Example:
        Two noisy copies of one signal share a bit, and nothing beyond the signal.

        >>> z, a, b = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
        >>> abs(conditional_mutual_information_ksg(z + a, z + b, given=z)) < 0.05
        True
    """
    checked_unit(unit)
    instead = "use conditional_mutual_information_mixed(x, y, given=z)"
    x, y, z = _checked(x, y, given, instead)
    k = checked_k(k, len(x))
    check_varies(x, "x")
    check_varies(y, "y")
    for of, name in ((x, "x"), (y, "y"), (z, "given")):
        check_span(of, name)
    around = neighborhoods((x, y, z), _SUBSETS, k)
    check_apart(around.radii, k, "x, y and given together", "conditional_mutual_information_mixed")
    return in_unit(mean(local_information(around, _SIGNS, k, (x, y, z))), unit)


def conditional_mutual_information_mixed(
    x: Tensor, y: Tensor, *, given: Tensor, k: int = 3, unit: Unit = "bits"
) -> float:
    r"""The conditional information of variables of any kind: k-nearest-neighbor counts with ties, and class labels.

    .. math:: I(X;Y|Z) = \langle \psi(\tilde k) + \psi(n_z) - \psi(n_{xz}) - \psi(n_{yz}) \rangle

    The counts, the sample itself among them, and :math:`\tilde k` are those of
    :func:`~lightning_ib.functional.mutual_information_mixed`, atoms and ties included. Mesner & Shalizi (2021) extend
    the estimator of Frenzel & Pompe (2007) to mixtures in this way, with closed balls.

    Each variable is real, with or without repeated values, or a class label; classes are farther apart than any real
    values. Where all are discrete it nears the plug-in estimate, with less bias.

    It reads low in many coordinates, and high where classes have fewer than ``k`` samples: neighbors then come from
    other classes. Where z determines x and y, and both vary faster than z, it reads bits that are not there: bring z
    to a scale at which it varies faster than they do.

    Args:
        x: real numbers in floating point, shape ``(N, …)`` or ``(N,)``, or class labels, integers ``(N,)``.
        y: the same, say class labels.
        given: the same: the variable Z, say another label.
        k: the number of neighbors, 1 to N − 1.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``; it can come out a little below zero.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``k`` or ``unit`` is out of range, or the variables differ in their samples or hold NaN or infinity.

    Example:
        Of two fair bits, the second is known from their exclusive or, given the first.

        >>> a, b = torch.arange(400) % 2, torch.arange(400) // 2 % 2
        >>> round(conditional_mutual_information_mixed(a ^ b, b, given=a), 2)
        1.0
    """
    checked_unit(unit)
    x, y, z = _with_classes(x, y, given)
    k = checked_k(k, len(x))
    parts = atoms_apart((x, y, z), k)
    around = neighborhoods(parts, _SUBSETS, k, ties=True)
    return in_unit(mean(local_information(around, _SIGNS, k, parts)), unit)


def conditional_mutual_information_gaussian_copula(
    x: Tensor, y: Tensor, *, given: Tensor, bias_correction: bool = True, unit: Unit = "bits"
) -> float:
    r"""The conditional information under a Gaussian copula; y and the condition are real or class labels.

    .. math:: I(X;Y|Z) = H(X,Z) + H(Y,Z) - H(Z) - H(X,Y,Z)

    with the entropies of :func:`~lightning_ib.functional.mutual_information_gaussian_copula` (Ince et al. 2017).
    Where z is a class label, it is the mean over the classes of I(X;Y) within each, weighted by their shares; where y
    is, and z is real, :math:`I(X,Z;Y) - I(Z;Y)`.

    It misses dependence that leaves correlations at 0, and is a bound in neither direction: a confounder whose effects
    are no Gaussian copula leaves some information, and one that determines x or y along a curve leaves bits that are
    not there, since the covariance is nearly singular.

    Args:
        x: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        y: real numbers in floating point, shape ``(N, …)`` or ``(N,)``, or class labels, integers ``(N,)``.
        given: the same: the variable Z.
        bias_correction: correct each entropy for the number of rows.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``; corrected, it can come out a little below zero.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``unit`` is unknown, the variables differ in their samples or hold NaN or infinity, there are fewer
            than D + 2 rows for D coordinates together (in each class, where z is a label), or a covariance is singular:
            where the condition determines a coordinate of x or y, which is named.

    Example:
        >>> z, a, b = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
        >>> abs(conditional_mutual_information_gaussian_copula(z + a, z + b, given=z)) < 0.05
        True
    """
    checked_unit(unit)
    x = checked_rows(x, "x")
    options: dict[str, Any] = {"bias_correction": bias_correction, "unit": unit}
    if holds_integers(given):
        return _by_class(x, y, given, options)
    if holds_integers(y):
        z = checked_rows(given, "given")
        check_same_samples(len(x), len(z), ("x", "given"))
        return copula_labels(torch.cat((z.double(), x.double()), 1), y, **options) - copula_labels(z, y, **options)
    x, y, z = _checked(x, y, given, "")
    parts = {"given": z, "x": x, "y": y}
    scores = {name: normal_scores(rows) for name, rows in parts.items()}

    def entropy(*of: str) -> float:
        names = [f"coordinate {d} of {name}" for name in of for d in range(parts[name].shape[1])]
        order = f" ({', '.join(of)}, in this order)" if len(of) > 1 else ""
        return fitted_normal(torch.cat([scores[name] for name in of]), None, names, order).entropy(bias_correction)

    total = entropy("given", "x") + entropy("given", "y") - entropy("given") - entropy("given", "x", "y")
    return in_unit(total, unit)


def _by_class(x: Tensor, y: Tensor, given: Tensor, options: dict[str, Any]) -> float:
    """The mean over the classes of a condition of the information within each."""
    numbers, counts = checked_labels(given, len(x), ("x", "given"))
    y = y if holds_integers(y) else checked_rows(y, "y")
    check_same_samples(len(x), len(y), ("x", "y"))
    values = []
    for number, count in enumerate(counts.tolist()):
        own = numbers == number
        if count < 2:
            raise ValueError(
                f"class {given[own][0].item()} of given has one of {len(x)} samples, too few for a covariance: leave "
                "the class out, or use conditional_mutual_information_mixed(x, y, given=z)."
            )
        try:
            value = (copula_labels if holds_integers(y) else copula)(x[own], y[own], **options)
        except ValueError as error:
            raise ValueError(f"within class {given[own][0].item()} of given: {error}") from None
        values.append(count / len(x) * value)
    return math.fsum(values)


def _checked(x: Tensor, y: Tensor, given: Tensor, instead: str) -> tuple[Tensor, Tensor, Tensor]:
    """Three real variables of the same samples, float64."""
    rows = [checked_rows(of, name, labels=instead) for of, name in ((x, "x"), (y, "y"), (given, "given"))]
    check_same_samples(len(rows[0]), len(rows[1]), ("x", "y"))
    check_same_samples(len(rows[0]), len(rows[2]), ("x", "given"))
    return rows[0].double(), rows[1].double(), rows[2].double()


def _with_classes(x: Tensor, y: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three variables, of which some may be labels, as real rows: classes are numbers far apart."""
    variables = {"x": x, "y": y, "given": given}
    real = {name: checked_rows(of, name).double() for name, of in variables.items() if not holds_integers(of)}
    for name, of in real.items():
        check_span(of, name)
    for name, of in variables.items():
        if name not in real:
            variables[name] = checked_labels(of, len(of) if of.ndim else 0, (name, name))[0]
    x, y, given = (real[name] if name in real else far_apart(of, *real.values()) for name, of in variables.items())
    check_same_samples(len(x), len(y), ("x", "y"))
    check_same_samples(len(x), len(given), ("x", "given"))
    return x, y, given
