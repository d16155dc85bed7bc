r"""Soft entropy: entropy and information of a representation from running sums over its rows.

A row is softly assigned to K fixed random directions, the anchors. The index of the anchor is a discrete variable
:math:`\tilde T` that a noisy channel makes of the row, so that every entropy of it is finite and is a function of mean
assignments alone. Memory is K numbers a class, for any number of samples and any width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    AS_Y,
    Unit,
    checked_integer,
    checked_integers,
    checked_labels,
    checked_number,
    checked_rows,
    checked_unit,
    checked_values,
    in_unit,
    moved,
)
from lightning_ib.functional.continuous.soft_assignment import anchors, directions
from lightning_ib.functional.continuous.soft_floor import permutation_floor
from lightning_ib.functional.discrete.counting import add_entropies

# β is this times √D: the similarities β aₖ·z then have this standard deviation over the anchors, for every D.
_SHARPNESS = 10.0

# How many assignments are held at once: 8 MiB of them.
_BLOCK = 1 << 20

_SAMPLES, _NOT_FINITE, _UNLABELED, _OUT_OF_RANGE = range(4)


def at_chance(i_ty: float, floor: float) -> bool:
    """Whether an I(T;Y) is at most twice its mean under permuted labels."""
    return i_ty <= 2 * floor


class SoftInformation(NamedTuple):
    r"""Entropies and informations of soft assignments, in the unit asked for.

    Attributes:
        h_t: :math:`H(\tilde T)`, between 0 and log K.
        i_xt: :math:`I(X;\tilde T)`, between 0 and ``h_t``.
        i_ty: :math:`I(\tilde T;Y)`, between 0 and the smaller of ``i_xt`` and ``h_y``; NaN where labels are missing.
        i_ty_floor: the mean of ``i_ty`` over permutations of the labels, the baseline.
        h_y: the plug-in entropy of the labels.
        n_samples: the number of rows read, those with NaN or infinity included.
        n_classes: the number of classes that occurred.
        reason: why values are NaN; empty where all are numbers.
    """

    h_t: float
    i_xt: float
    i_ty: float
    i_ty_floor: float
    h_y: float
    n_samples: int
    n_classes: int
    reason: str

    @property
    def at_chance(self) -> bool:
        """Whether ``i_ty`` is at most twice its floor: then there is no evidence of label information."""
        return at_chance(self.i_ty, self.i_ty_floor)


class SoftEntropy:
    r"""A streaming estimator of :math:`H(\tilde T)`, :math:`I(X;\tilde T)` and :math:`I(\tilde T;Y)`.

    .. math::

        z_n &= \frac{t_n - c}{\lVert t_n - c \rVert}, \qquad
        p(k|x_n) = \mathrm{softmax}_k(\beta\, a_k \cdot z_n), \qquad p(k) = \frac{1}{N} \sum_n p(k|x_n) \\
        H(\tilde T) &= H(p(\cdot)), \qquad
        I(X;\tilde T) = H(\tilde T) - \frac{1}{N} \sum_n H(p(\cdot|x_n)) \\
        I(\tilde T;Y) &= H(\tilde T) - \sum_y \frac{N_y}{N} H(p(\cdot|y)), \qquad
        p(k|y) = \frac{1}{N_y} \sum_{n: y_n = y} p(k|x_n)

    with fixed random unit vectors :math:`a_k` (the package ``soft-entropy`` divides by log K). The information about Y
    is the generalized Jensen–Shannon divergence of the classes (Lin 1991).

    **The center.** A cosine loses contrast where all rows share a large offset, as those of a layer with biases do:
    around zero, the second convolution of a network on MNIST reads 0.71 nats about the digit, around the mean 1.24. The
    mean of the first batch does as well as the mean of all rows, within 0.02 nats; standardizing each row changes
    little. Take the mean of the first batch, or :attr:`mean` of the measurement before; the same in every process.

    **The permutation floor.** :math:`I(\tilde T;Y)` is biased up, by more the more classes and the fewer samples there
    are: classes of a single sample read :math:`I(X;\tilde T)` for any labels. The mean of :math:`I(\tilde T;Y)` over
    permutations of the labels is recorded beside it: see :func:`soft_information`. It follows from the sizes of the
    classes and three running means of each anchor, and so is the same for every order of the data.

    A row equal to the center, up to float32 rounding (that of float64 for rows in float64), has no direction and is
    assigned to all anchors alike.

    :meth:`update` works on the device of the center and returns at once. All sums are in float64: with the default
    arguments they take 4 MiB, nearly all for the classes; the anchors take 8 K D bytes.

    Source:
        Soft entropy (Conklin 2025); the information about Y is the divergence of the classes (Lin 1991).

    Cost:
        0.1 to 0.2 s for 10 000 rows of 128 coordinates, on one core, in constant memory.

    Samples:
        Some thousand for 512 anchors: the floor falls with N and grows with the number of classes.

    Trap:
        Without its floor I(T;Y) means nothing. The lengths of rows are ignored. It is blunt: a few hundred random
        directions catch little of the information in a wide layer, a layer with a few strong coordinates is dominated
        by them, and a single coordinate reads one bit at most. Compare values with the same D, K and :math:`\beta`
        only.

    Args:
        center: the vector subtracted from each row, real, shape ``(D,)``; zeros for the cosines of the rows as they
            are. Rows must have the same D and be on the same device.
        n_anchors: the number K of anchors. The floor grows with K and falls with N: take fewer for fewer than some
            thousand samples.
        beta: the sharpness :math:`\beta` of the assignments; by default :math:`10 \sqrt D`.
        max_classes: labels are 0 … ``max_classes`` − 1.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``center`` has another shape than ``(D,)``, or another argument is 0 or less.

    Example:
        >>> soft = SoftEntropy(torch.zeros(2), n_anchors=64, max_classes=2)
        >>> soft.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
        >>> soft.update(torch.tensor([[-2.0, 0.1], [3.0, 0.1]]), torch.tensor([1, 0]))
        >>> found = soft.result()
        >>> round(found.i_ty, 3), round(found.i_ty_floor, 3), found.n_samples
        (1.0, 0.289, 4)
    """

    def __init__(
        self, center: Tensor, *, n_anchors: int = 512, beta: float | None = None, max_classes: int = 1024
    ) -> None:
        self.n_anchors = checked_integer(n_anchors, "n_anchors", at_least=1)
        self.max_classes = checked_integer(max_classes, "max_classes", at_least=1)
        center = _checked_center(center)
        sharpness = _SHARPNESS * math.sqrt(len(center))
        self.beta = sharpness if beta is None else checked_number(beta, "beta", above=0)
        with torch.inference_mode(False), torch.no_grad():
            self._center = center.double().clone()
            self._anchors = anchors(self.n_anchors, len(center), center.device)
            self._sums = {
                # one row a class, and a last one for unlabeled rows
                "classes": center.new_zeros((self.max_classes + 1, self.n_anchors), dtype=torch.float64),
                "class_sizes": center.new_zeros(self.max_classes + 1, dtype=torch.int64),
                "squares": center.new_zeros(self.n_anchors, dtype=torch.float64),
                "p_log_p": center.new_zeros(self.n_anchors, dtype=torch.float64),
                "rows": center.new_zeros(len(center), dtype=torch.float64),
                "counters": center.new_zeros(4, dtype=torch.int64),
            }

    @property
    def center(self) -> Tensor:
        """The vector subtracted from each row, float64, shape ``(D,)``."""
        return self._center.clone()

    @property
    def mean(self) -> Tensor:
        """The mean of the finite rows so far, float64, shape ``(D,)``: a center for the next measurement.

        It is computed on the device, asynchronously. Before the first row it is the center.
        """
        finite = self._sums["counters"][_SAMPLES] - self._sums["counters"][_NOT_FINITE]
        return torch.where(finite > 0, self._sums["rows"] / finite.clamp_min(1), self._center)

    @torch.no_grad()
    def update(self, t: Tensor, y: Tensor | None = None) -> None:
        """Add the rows of a batch, asynchronously on the device.

        Rows with a NaN or an infinity are counted, and make every value NaN; so are labels outside 0 …
        ``max_classes`` − 1, which make those about the labels NaN.

        Args:
            t: real floating point, shape ``(B, D)``, on the device of the center; B may be 0. Computed in float64.
            y: class labels, integers or booleans, shape ``(B,)``; given for all batches or for none.

        Raises:
            TypeError: ``t`` is of another kind (integers are), or ``y`` (real numbers are).
            ValueError: the shapes differ.
        """
        checked_values(t, "t", f"(B, {len(self._center)})")
        if t.ndim != 2 or t.shape[1] != len(self._center):
            raise ValueError(f"t must have shape (B, {len(self._center)}), as center has, got {tuple(t.shape)}.")
        if y is not None:
            checked_integers(y, "y must be class labels", "(B,)")
            if y.shape != t.shape[:1]:
                raise ValueError(f"y must have shape ({len(t)},), one label a row, got {tuple(y.shape)}.")
        size = max(1, _BLOCK // self.n_anchors)
        for start in range(0, len(t), size):
            some = slice(start, start + size)
            self._add(t[some].detach(), None if y is None else y[some])

    def _add(self, rows: Tensor, labels: Tensor | None) -> None:
        sums, counters = self._sums, self._sums["counters"]
        eps = torch.finfo(torch.float64 if rows.dtype == torch.float64 else torch.float32).eps
        rows = rows.double()
        finite = (rows - self._center).mul(0).sum(1, keepdim=True) == 0  # a NaN or an infinity makes it NaN
        rows = torch.where(finite, rows, 0.0)
        sums["rows"] += rows.sum(0)
        counters[_SAMPLES] += len(rows)
        counters[_NOT_FINITE] += len(rows) - finite.sum()

        log_p = (directions(rows, self._center, eps) @ self._anchors.T).mul_(self.beta).log_softmax(1)
        p = log_p.exp()
        sums["p_log_p"] += (log_p * p).sum(0)
        sums["squares"] += p.square().sum(0)
        if labels is None:
            counters[_UNLABELED] += len(rows)
            sums["classes"][-1] += p.sum(0)
            sums["class_sizes"][-1] += len(rows)
            return
        labels = moved(labels, rows.device).long()
        inside = (labels >= 0) & (labels < self.max_classes)
        counters[_OUT_OF_RANGE] += len(rows) - inside.sum()
        labels = torch.where(inside, labels, self.max_classes)
        sums["classes"].index_add_(0, labels, p)
        sums["class_sizes"].index_add_(0, labels, torch.ones_like(labels))

    def state(self) -> dict[str, Tensor]:
        """Copies of all sums: the sum of the states of several processes is the state of all their rows.

        The shapes depend on the arguments alone, so that a process of zero rows can take part in the reduction. To go
        on with a reduced state, :meth:`reset` and :meth:`merge` it.

        Returns:
            float64 and int64 tensors by name, on the device of the center.
        """
        return {name: value.clone() for name, value in self._sums.items()}

    @torch.no_grad()
    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add the state of other rows, of an estimator with the same center, anchors, beta and classes.

        Args:
            state: from :meth:`state`.

        Raises:
            ValueError: it is of an estimator with other shapes.
        """
        shapes = {name: tuple(value.shape) for name, value in self._sums.items()}
        came = {name: tuple(value.shape) for name, value in state.items()}
        if came != shapes:
            raise ValueError(f"state must be of an estimator with the same arguments: {shapes}, got {came}.")
        for name, value in self._sums.items():
            value += state[name].to(value.device)

    @torch.no_grad()
    def reset(self, center: Tensor | None = None) -> None:
        """Forget all rows.

        Args:
            center: a new center of the same shape, such as :attr:`mean` of the rows to be forgotten; by default it
                stays.

        Raises:
            TypeError: ``center`` is of another kind than a real tensor.
            ValueError: it has another shape.
        """
        if center is not None:
            if _checked_center(center).shape != self._center.shape:
                raise ValueError(f"center must have shape {tuple(self._center.shape)}, got {tuple(center.shape)}.")
            self._center.copy_(center)
        for value in self._sums.values():
            value.zero_()

    def result(self, *, unit: Unit = "bits") -> SoftInformation:
        """The entropies and informations of all rows so far; the one place that waits for the device.

        Args:
            unit: ``"bits"`` or ``"nats"``.

        Raises:
            ValueError: the unit is unknown.
        """
        checked_unit(unit)
        sums = {name: value.cpu() for name, value in self._sums.items()}
        n, not_finite, unlabeled, out_of_range = (int(count) for count in sums["counters"])
        sizes = sums["class_sizes"][:-1]
        classes = sizes.nonzero().flatten()
        sizes = sizes[classes].double()
        nan = math.nan
        if n == 0 or not_finite:
            reason = f"{not_finite} of {n} rows, less the center, are not finite" if n else "no rows were given"
            return SoftInformation(nan, nan, nan, nan, nan, n, len(classes), reason)

        p = sums["classes"].sum(0) / n
        h_t = _entropy(p)
        i_xt = add_entropies(h_t, float(sums["p_log_p"].sum()) / n)
        i_ty, floor, h_y, reason = nan, nan, nan, ""
        if out_of_range:
            reason = f"{out_of_range} of {n} labels are outside 0 … {self.max_classes - 1}: give a larger max_classes"
        elif unlabeled:
            reason = "no labels were given" if unlabeled == n else f"{unlabeled} of {n} rows came without labels"
        else:
            h_y = _entropy(sizes / n)
            of_class = sums["classes"][classes] / sizes[:, None]
            i_ty = add_entropies(h_t, float(torch.xlogy(of_class, of_class).sum(1) @ sizes) / n)
            floor = permutation_floor(p, sums["squares"] / n, sums["p_log_p"] / n, sizes)
        h_t, i_xt, i_ty, floor, h_y = (in_unit(nats, unit) for nats in (h_t, i_xt, i_ty, floor, h_y))
        return SoftInformation(h_t, i_xt, i_ty, floor, h_y, n, len(classes), reason)

    @torch.no_grad()
    def influences(self, t: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        r"""The influences of samples on the values of all rows so far, in nats and up to constants.

        .. math::

            \psi_H = -\sum_k p(k|x) \log p(k), \qquad
            \psi_{I(X;\tilde T)} = \sum_k p(k|x) \log \frac{p(k|x)}{p(k)}, \qquad
            \psi_{I(\tilde T;Y)} = \sum_k p(k|x) \log \frac{p(k|y)}{p(k)}

        the derivatives in the mean assignments. Their deviation over some of the rows, over the root of the number of
        all, is the standard error.

        Args:
            t: some of the rows, as in :meth:`update`, on any device.
            y: their labels, or None.

        Returns:
            ``h_t``, ``i_xt`` and, with labels, ``i_ty``: float64 ``(B,)`` each.
        """
        rows = t.detach().to(self._center.device)
        eps = torch.finfo(torch.float64 if rows.dtype == torch.float64 else torch.float32).eps
        log_p = (directions(rows.double(), self._center, eps) @ self._anchors.T).mul_(self.beta).log_softmax(1)
        p, classes = log_p.exp(), self._sums["classes"]
        tiny = torch.finfo(torch.float64).tiny  # an anchor that no row is assigned to has a weight of 0
        surprise = -p @ (classes.sum(0) / classes.sum()).clamp_min(tiny).log()
        found = {"h_t": surprise, "i_xt": surprise + (p * log_p).sum(1)}
        if y is not None:
            numbers, labels = y.to(rows.device).long().unique(return_inverse=True)
            of_class = classes[numbers]
            of_class = (of_class / of_class.sum(1, keepdim=True)).clamp_min(tiny).log()
            found["i_ty"] = surprise + (p @ of_class.T).gather(1, labels.unsqueeze(1)).squeeze(1)
        return found


def soft_information(
    t: Tensor,
    y: Tensor | None = None,
    *,
    n_anchors: int = 512,
    beta: float | None = None,
    center: Tensor | None = None,
    unit: Unit = "bits",
) -> SoftInformation:
    r"""Soft entropy and information of a representation, from all rows at once.

    The definitions are those of :class:`SoftEntropy`. As all rows are given, their mean is the center; a streaming
    estimator with the same center agrees to 1e-12. The floor is the mean of :math:`I(\tilde T;Y)` over permutations of
    the labels, in a closed form that is derived in :mod:`lightning_ib.functional.continuous.soft_floor`. Where T
    depends on Y, the bias of ``i_ty`` is less than the floor: their difference errs on the low side.

    Args:
        t: the representation, real floating point, shape ``(N, D)``; further dimensions are flattened into D.
        y: class labels, integers, shape ``(N,)``, any values; where it is None the values about labels are NaN.
        n_anchors: the number K of anchors.
        beta: the sharpness of the assignments; by default :math:`10 \sqrt D`.
        center: the vector subtracted from each row, shape ``(D,)``; by default the mean of the rows. Zeros give the
            cosines of the rows as they are.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The entropies and informations, in ``unit``.

    Raises:
        TypeError: ``t`` or ``center`` is of another kind (integers are), or ``y`` (real numbers are), or a number.
        ValueError: ``t`` has fewer than two rows, or a value that is NaN or infinite, the shapes differ, or another
            argument is 0 or less.

    Example:
        >>> t = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.1]])
        >>> round(soft_information(t, torch.tensor([5, 5, 7, 7]), n_anchors=64).i_ty, 3)
        1.0
    """
    checked_unit(unit)
    rows = checked_rows(t, "t", labels=AS_Y)
    labels, max_classes = None, 1
    if y is not None:
        labels, counts = checked_labels(y, len(rows))
        labels, max_classes = labels.to(rows.device), len(counts)
    if center is None:
        center = rows.double().mean(0)
    elif _checked_center(center).shape != rows.shape[1:]:
        raise ValueError(f"center must have shape ({rows.shape[1]},), as t has coordinates, got {tuple(center.shape)}.")
    soft = SoftEntropy(center.to(rows.device), n_anchors=n_anchors, beta=beta, max_classes=max_classes)
    soft.update(rows, labels)
    return soft.result(unit=unit)


def _entropy(p: Tensor) -> float:
    return add_entropies(-float(torch.xlogy(p, p).sum()))


def _checked_center(center: Tensor) -> Tensor:
    if not isinstance(center, Tensor) or center.is_complex():
        raise TypeError(f"center must be a real tensor of shape (D,), got {_kind(center)}.")
    if center.ndim != 1 or len(center) == 0:
        raise ValueError(f"center must have shape (D,) with D at least 1, got {tuple(center.shape)}.")
    return center.detach()


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
