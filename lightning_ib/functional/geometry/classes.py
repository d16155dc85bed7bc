r"""The geometry of classes in a representation, from running sums over its rows.

Per class stand its size, its mean and the sum of squared distances from that: K D numbers, for any number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    AS_Y,
    checked_integer,
    checked_integers,
    checked_labels,
    checked_number,
    checked_rows,
    checked_values,
    moved,
)
from lightning_ib.functional.geometry.rows import rounding_of, within_rounding


class ClassGeometry(NamedTuple):
    r"""The geometry of K classes of N rows, with the class means :math:`\mu_c` and the mean :math:`\mu` of all rows.

    Where the variance of all rows is at most :math:`u^2` of their mean squared length, with u the share by which their
    values are rounded, the layer is constant: NC1, CDNV and the cosines are NaN.

    Attributes:
        within_variance: :math:`\operatorname{tr} \Sigma_W = \frac{1}{N} \sum_i \lVert x_i - \mu_{y_i} \rVert^2`.
        between_variance: :math:`\operatorname{tr} \Sigma_B = \sum_c \frac{n_c}{N} \lVert \mu_c - \mu \rVert^2`; both
            together are the variance of all rows. NaN with one class, as are the following.
        nc1: :math:`\operatorname{tr} \Sigma_W / \operatorname{tr} \Sigma_B`. Papyan et al. (2020) take
            :math:`\operatorname{tr}(\Sigma_W \Sigma_B^+) / K` instead, another number, which weighs directions.
        cdnv: the class-distance normalized variance :math:`(v_c + v_{c'}) / (2 \lVert \mu_c - \mu_{c'} \rVert^2)`,
            averaged over the pairs of classes, with :math:`v_c` the mean squared distance from :math:`\mu_c`.
        class_mean_cosine: the mean cosine between two class means, less the mean of the class means.
        class_mean_cosine_std: the standard deviation of these cosines over pairs.
        etf_distance: the mean of :math:`\vert \cos + 1/(K-1) \vert` over pairs: 0 where the class means are a
            simplex, at the widest equal angles that K directions can have. With two classes it is 0 by construction.
        n: the number of rows.
        n_classes: the number of classes that occurred.
        smallest_class: the size of the smallest of these.
        n_outside: the number of labels out of range, which make all values NaN.
        reason: why values are NaN; empty where all are numbers.
    """

    within_variance: float
    between_variance: float
    nc1: float
    cdnv: float
    class_mean_cosine: float
    class_mean_cosine_std: float
    etf_distance: float
    n: int
    n_classes: int
    smallest_class: int
    n_outside: int
    reason: str


class ClassSums:
    r"""Running sums of the rows of each class: size, mean, and squared distance from the mean.

    Batches are joined by the update of Chan, Golub & LeVeque (1983), each batch being centered on its own class means
    first. So the sums stay exact to rounding where the mean is far from zero; sums of squares would lose all digits.
    They are in float64, in float32 on a device without it.

    Memory is 8 bytes for each of K (D + 2) numbers: 4 MiB for 1 024 classes of 512 coordinates, 64 MiB for those of
    8 192. K is the number of classes that occurred, rounded up to a power of two, and off the host ``max_classes`` + 2.

    Args:
        n_coordinates: D, the number of coordinates of a row.
        max_classes: labels are 0 … ``max_classes`` − 1.
        device: where the rows are.

    Raises:
        TypeError, ValueError: a number is of another kind, or below 1.

    Example:
        >>> sums = ClassSums(1, max_classes=2)
        >>> sums.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
        >>> sums.update(torch.tensor([[7.0], [9.0]]), torch.tensor([1, 1]))
        >>> found = sums.result()
        >>> found.within_variance, found.between_variance, round(found.nc1, 4), found.n
        (1.0, 9.0, 0.1111, 4)
    """

    def __init__(
        self, n_coordinates: int, *, max_classes: int = 1024, device: torch.device | str | None = None
    ) -> None:
        self.n_coordinates = checked_integer(n_coordinates, "n_coordinates", at_least=1)
        self.max_classes = checked_integer(max_classes, "max_classes", at_least=1)
        self._device = torch.device("cpu" if device is None else device)
        self._dtype = torch.float32 if self._device.type == "mps" else torch.float64
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        n_labels = self.max_classes + len(_OUTSIDE)  # the last ones take labels that are out of range
        size = 0 if self._grows else n_labels
        with torch.inference_mode(False), torch.no_grad():
            self._places = torch.arange(n_labels, device=self._device)
            if self._grows:
                self._places.fill_(-1)
            self._n_places = size
            self._sizes = torch.zeros(size, dtype=torch.int64, device=self._device)
            self._means = torch.zeros(size, self.n_coordinates, dtype=self._dtype, device=self._device)
            self._squares = torch.zeros(size, dtype=self._dtype, device=self._device)
        self._rounding = 0.0

    @property
    def _grows(self) -> bool:
        """Whether classes get a place when they occur; elsewhere than on the host asking for that would wait."""
        return self._device.type == "cpu"

    @torch.no_grad()
    def update(self, t: Tensor, y: Tensor) -> None:
        """Add the rows of a batch, on a GPU asynchronously.

        A row with a NaN or an infinity makes every value NaN, and so does a label outside 0 … ``max_classes`` − 1.

        Args:
            t: real floating point, shape ``(B, D)``, on the device of the sums; B may be 0.
            y: class labels, integers or booleans, shape ``(B,)``.

        Raises:
            TypeError: ``t`` or ``y`` is of another kind.
            ValueError: the shapes differ.
        """
        checked_values(t, "t", f"(B, {self.n_coordinates})")
        if t.ndim != 2 or t.shape[1] != self.n_coordinates:
            raise ValueError(f"t must have shape (B, {self.n_coordinates}), got {tuple(t.shape)}.")
        checked_integers(y, "y must be class labels", "(B,)")
        if y.shape != t.shape[:1]:
            raise ValueError(f"y must have shape ({len(t)},), one label a row, got {tuple(y.shape)}.")
        if len(t) == 0:
            return
        self._rounding = max(self._rounding, rounding_of(t.dtype))
        rows, labels = t.detach().to(self._dtype), moved(y, t.device).long()
        labels = torch.where(labels < 0, self.max_classes + 1, labels.clamp_max(self.max_classes))
        if self._grows:  # the few classes of the batch alone
            classes, labels = labels.unique(return_inverse=True)
        else:
            classes = self._places
        sizes = torch.zeros_like(classes).index_add_(0, labels, torch.ones_like(labels))
        reference = rows[0]  # taken off before rows are added up: those that are all the same have exactly one mean
        rows = rows - reference
        means = rows.new_zeros(len(classes), self.n_coordinates).index_add_(0, labels, rows)
        means /= sizes.clamp_min(1).unsqueeze(1)
        distances = torch.linalg.vector_norm(rows - means[labels], dim=1).square()
        means += reference
        squares = rows.new_zeros(len(classes)).index_add_(0, labels, distances)
        self._join(classes, sizes, means, squares)

    def _join(self, classes: Tensor, sizes: Tensor, means: Tensor, squares: Tensor) -> None:
        """Add the sums of other rows of these classes."""
        places = self._places_of(classes) if self._grows else classes
        before = self._sizes[places]
        share = sizes.to(self._dtype) / (before + sizes).clamp_min(1)
        # The first rows of a class are taken as they are, whatever they hold: 0 · ∞ is NaN.
        deltas = torch.where((sizes > 0).unsqueeze(1), means - self._means[places], 0.0)
        of_deltas = torch.linalg.vector_norm(deltas, dim=1).square()
        self._squares[places] += squares + of_deltas * (before * share)
        self._means[places] += deltas * share.unsqueeze(1)
        self._sizes[places] = before + sizes

    def _places_of(self, classes: Tensor) -> Tensor:
        """Where the sums of these classes are; those that are new get a place."""
        new = classes[self._places[classes] < 0]
        if len(new):
            n, size = self._n_places + len(new), len(self._sizes)
            with torch.inference_mode(False):
                self._places[new] = torch.arange(self._n_places, n, device=self._device)
                if n > size:
                    more = min(1 << (n - 1).bit_length(), len(self._places)) - size
                    sums = (self._sizes, self._means, self._squares)
                    grown = (torch.cat([old, old.new_zeros(more, *old.shape[1:])]) for old in sums)
                    self._sizes, self._means, self._squares = grown
            self._n_places = n
        return self._places[classes]

    def state(self) -> dict[str, Tensor]:
        """The sums of the classes that occurred, by name: copies, on the device of the sums."""
        classes = (self._places >= 0).nonzero().flatten()
        classes = classes[self._sizes[self._places[classes]] > 0]
        places = self._places[classes]
        named = {"sizes": self._sizes, "means": self._means, "squares": self._squares}
        return {"classes": classes} | {name: values[places] for name, values in named.items()}

    @torch.no_grad()
    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add the state of other rows, of sums with the same arguments.

        Args:
            state: from :meth:`state`.

        Raises:
            ValueError: it is of rows of another width, or has more classes.
        """
        classes, means = state["classes"], state["means"]
        if means.shape[1] != self.n_coordinates or (len(classes) and int(classes.max()) >= len(self._places)):
            raise ValueError(
                f"state must be of sums with {self.n_coordinates} coordinates and {self.max_classes} classes, got "
                f"{means.shape[1]} coordinates and class {int(classes.max()) if len(classes) else 'none'}."
            )
        joined = (classes, state["sizes"], means.to(self._dtype), state["squares"].to(self._dtype))
        self._join(*(values.to(self._device) for values in joined))

    @torch.no_grad()
    def result(self, *, rounding: float | None = None) -> ClassGeometry:
        """The geometry of all rows so far; the one place that waits for the device.

        Args:
            rounding: the share by which the values of rows are rounded; by default that of the dtype of the rows that
                were added here.
        """
        u = self._rounding if rounding is None else checked_number(rounding, "rounding", at_least=0)
        sums = {name: values.cpu() for name, values in self.state().items()}
        sizes, means, squares = sums["sizes"], sums["means"].double(), sums["squares"].double()
        n = int(sizes.sum())
        empty = _UNDEFINED._replace(n=n, n_classes=len(sizes), smallest_class=int(sizes.min()) if n else 0)
        if n == 0:
            return empty._replace(reason="no rows were given")
        outside = [int(sizes[sums["classes"] == self.max_classes + k].sum()) for k in range(len(_OUTSIDE))]
        for n_out, reason in zip(outside, _OUTSIDE):
            if n_out:
                reason = f"{n_out} of {n} labels are {reason.format(self.max_classes - 1)}"
                return empty._replace(n_outside=sum(outside), reason=reason)
        if not bool(squares.isfinite().all()):
            n_classes = int((~squares.isfinite()).sum())
            return empty._replace(reason=f"rows of {n_classes} of {len(sizes)} classes are NaN, infinite or too large")
        within = math.fsum(squares.tolist()) / n
        if len(sizes) == 1:
            reason = f"all {n} rows are of one class, and nothing lies between classes"
            return empty._replace(within_variance=within, reason=reason)
        return _of_classes(sizes, means, squares, within, u, empty)


_NAN = math.nan
_UNDEFINED = ClassGeometry(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, 0, 0, 0, 0, "")

_OUTSIDE = (
    "above {}: give a larger max_classes",
    "negative, and classes are numbered from 0: give ignore_index for rows without a label, or other numbers",
)
"""What is wrong with labels out of range: those that are too large, and negative ones."""

_BLOCK = 512
"""The classes whose pairs with all others are looked at together."""

_CLOSE = 1e-6
"""The share of their squared lengths below which the squared distance of two means is taken from their difference."""


class _Pairs(NamedTuple):
    """What is summed up over pairs of classes: mean CDNV, and of the cosines mean, standard deviation, ETF distance."""

    cdnv: float
    cosine: float
    cosine_std: float
    etf_distance: float


def _over_pairs(directions: Tensor, variances: Tensor) -> _Pairs:
    """The means over all pairs of classes, from products of class means by blocks; NaN where one is undefined.

    Args:
        directions: the class means, less their mean, ``(K, D)``.
        variances: the mean squared distance from each.
    """
    n_classes, lengths = len(directions), torch.linalg.vector_norm(directions, dim=1)
    squares, apart = lengths.square(), 1 / (n_classes - 1)
    n, mean, spread, cdnv, etf = 0, 0.0, 0.0, [], []
    for start in range(0, n_classes - 1, _BLOCK):
        block = slice(start, start + _BLOCK)
        products = directions[block] @ directions[start:].T
        i, j = torch.triu_indices(products.shape[0], products.shape[1], offset=1, device=products.device)
        products, i, j = products[i, j], i + start, j + start
        both = squares[i] + squares[j]
        distances = both - 2 * products
        close = (distances < _CLOSE * both).nonzero().flatten()
        for some in close.split(max(1, (1 << 22) // directions.shape[1])):  # the difference of two sums has few digits
            distances[some] = (directions[i[some]] - directions[j[some]]).square().sum(1)
        cdnv.append(float(((variances[i] + variances[j]) / (2 * distances)).sum()) if distances.all() else _NAN)
        cosines = products / (lengths[i] * lengths[j])
        etf.append(float((cosines + apart).abs().sum()))
        m, of_block = len(cosines), float(cosines.mean())
        spread += float((cosines - of_block).square().sum()) + (of_block - mean) ** 2 * n * m / (n + m)
        n, mean = n + m, mean + (of_block - mean) * m / (n + m)
    return _Pairs(sum(cdnv) / n, mean, math.sqrt(spread / n), sum(etf) / n)


def _of_classes(
    sizes: Tensor, means: Tensor, squares: Tensor, within: float, u: float, empty: ClassGeometry
) -> ClassGeometry:
    """The geometry of at least two classes, whose values are rounded by a share u."""
    n, n_classes = empty.n, len(sizes)
    shares = sizes.double() / n
    mean_square = within + float(shares @ means.square().sum(1))
    means = means - means[0]
    between = math.fsum((shares * (means - shares @ means).square().sum(1)).tolist())
    reason = ""
    if between == 0 and bool(means.any()):
        reason = "the squared distances of class means are too small for float64: scale the rows up"
    elif within_rounding(within + between, mean_square, u):
        reason = f"all {n} rows are the same up to rounding"
    elif between == 0:
        reason = f"all {n_classes} classes have the same mean"
    if reason:
        return empty._replace(within_variance=within, between_variance=between, reason=reason)
    directions = means - means.mean(0)
    pairs = _over_pairs(directions, squares / sizes)
    reason = "two classes have the same mean" if math.isnan(pairs.cdnv) else ""
    if math.isnan(pairs.cosine):
        reason = "the mean of a class is the mean of them all, and has no direction"
    return empty._replace(
        within_variance=within,
        between_variance=between,
        nc1=within / between,
        cdnv=pairs.cdnv,
        class_mean_cosine=pairs.cosine,
        class_mean_cosine_std=pairs.cosine_std,
        etf_distance=pairs.etf_distance,
        reason=reason,
    )


def class_geometry(t: Tensor, y: Tensor, *, rounding: float | None = None) -> ClassGeometry:
    r"""The geometry of classes in a representation: variance within and between, NC1, CDNV, angles of class means.

    Of K classes with sizes :math:`n_c`, means :math:`\mu_c` and mean squared distances :math:`v_c` from these, and the
    mean :math:`\mu` of all N rows:

    .. math::

        \begin{aligned}
        \text{within:}\; & \operatorname{tr} \Sigma_W = \sum_c \frac{n_c}{N} v_c, \qquad
        \text{between:}\; \operatorname{tr} \Sigma_B = \sum_c \frac{n_c}{N} \lVert \mu_c - \mu \rVert^2 \\
        \mathrm{NC1} & = \frac{\operatorname{tr} \Sigma_W}{\operatorname{tr} \Sigma_B}, \qquad
        \mathrm{CDNV} = \operatorname{mean}_{c \neq c'} \frac{v_c + v_{c'}}{2 \lVert \mu_c - \mu_{c'} \rVert^2} \\
        \text{etf\ distance:}\; & \operatorname{mean}_{c \neq c'}
        \vert \cos(\mu_c - \bar\mu, \mu_{c'} - \bar\mu) + \frac{1}{K-1} \vert, \qquad
        \bar\mu = \frac{1}{K} \sum_c \mu_c
        \end{aligned}

    All variances are sums over coordinates. The cosines of the last line have a mean, ``class_mean_cosine``, and a
    standard deviation over pairs. Neural collapse takes NC1 and CDNV to 0, and these cosines to :math:`-1/(K-1)`.

    Source:
        Neural collapse is by Papyan, Han & Donoho (2020), whose first measure is
        :math:`\operatorname{tr}(\Sigma_W \Sigma_B^+) / K`, another number. CDNV is by Galanti, György & Hutter (2021).

    Cost:
        24 ms for 2 000 rows of 512 coordinates, on one core; for twelve layers of ResNet-18 1 to 4 % of the forward
        pass. Memory is 8 bytes for each of K times D numbers, whatever N; the end takes a product of :math:`K^2 D`.

    Samples:
        Two a class at least: one row has variance 0, which is flagged ``undersampled``. Class means scatter by their
        own error: the variance between equal ones is about :math:`\frac{K-1}{N} \operatorname{tr} \Sigma_W`.

    Trap:
        Compare values of one N and K. Two classes have a cosine of −1 and an ETF distance of 0 by construction. One
        close pair dominates the mean of CDNV. Real-valued targets have no classes.

    Args:
        t: real floating point, shape ``(N, D)``, N at least 2; further dimensions are flattened into D.
        y: class labels, integers, shape ``(N,)``, any values.
        rounding: u, the share by which values are rounded; by default that of the dtype, as in :func:`spectrum`.

    Returns:
        See :class:`ClassGeometry`; what is undefined is NaN, with the reason.

    Raises:
        TypeError: ``t`` or ``y`` is of another kind.
        ValueError: the shapes differ, there are too few rows, or a value is NaN or infinite.

    Example:
        >>> t = torch.tensor([[1.0, 0.0], [1.2, 0.0], [-1.0, 0.0], [-1.2, 0.0]])
        >>> found = class_geometry(t, torch.tensor([5, 5, 7, 7]))
        >>> round(found.nc1, 4), round(found.cdnv, 4), found.class_mean_cosine
        (0.0083, 0.0021, -1.0)
    """
    rows = checked_rows(t, "t", labels=AS_Y)
    labels, counts = checked_labels(y, len(rows))
    sums = ClassSums(rows.shape[1], max_classes=len(counts), device=rows.device)
    sums.update(rows, labels.to(rows.device))
    return sums.result(rounding=rounding_of(t.dtype) if rounding is None else rounding)
