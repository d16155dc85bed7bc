"""Estimators that do not bin, as choices of a measurement: what each needs, what it sets once, what it gives.

The arithmetic is in :mod:`lightning_ib.functional`; the rows are a sample of the pass, see
:class:`~lightning_ib.sample.Reservoir`.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from lightning_ib.functional import (
    Unit,
    decode,
    kernel_width_of,
    mutual_information_bounds_kde,
    mutual_information_gaussian_copula,
    mutual_information_infonce,
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_mixed,
    mutual_information_quantised,
    mutual_information_renyi,
    mutual_information_smile,
    noise_variance_of,
)
from lightning_ib.quantize import averaged


class Rows(NamedTuple):
    """The sampled rows of one layer.

    Attributes:
        t: the representation as the module put it out, shape ``(M, …)``.
        y: the target: class labels ``(M,)``, or real values ``(M, …)``; ``None`` where there is none.
        x: the input, shape ``(M, …)``; ``None`` where no estimator asked for it.
    """

    t: Tensor
    y: Tensor | None = None
    x: Tensor | None = None

    @property
    def labels(self) -> Tensor | None:
        """The target, where it is class labels."""
        return None if self.y is None or self.y.is_floating_point() else self.y


class Estimator(ABC):
    """One estimator at work on sampled rows.

    To add your own, give it a ``name``, the first part of what it logs, and override :meth:`figures`.

    Args:
        pool: any callable on the rows ``(M, …)`` that returns ``(M, …)``, where they are too wide as they are.
    """

    name: str
    needs_input: bool = False
    given: Sequence[str] = ("I_TY",)

    def __init__(self, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        if pool is not None and not callable(pool):
            raise TypeError(f"{type(self).__name__}: pool must be a callable on rows (M, …) or None, got {pool!r}.")
        self.pool = pool

    def pooled(self, t: Tensor) -> Tensor:
        """The rows ``(M, …)`` that it works on: all coordinates, unless there is a pool."""
        return t if self.pool is None else self.pool(t)

    def settle(self, rows: Rows) -> dict[str, float]:
        """What is set from a layer's scale at its first measurement, by name, and frozen from then on."""
        return {}

    def gives(self, rows: Rows) -> list[str]:
        """The names of the figures that can be had of such rows; those that fail are NaN."""
        return [name for name in self.given if rows.y is not None or not name.startswith(("I_TY", "accuracy"))]

    @abstractmethod
    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """The figures of a layer by name, such as ``{"I_TY": 1.5}``; those whose names end in ``accuracy`` are shares.

        Args:
            rows: its rows, pooled.
            settled: what :meth:`settle` gave at the first measurement.
            unit: ``"bits"`` or ``"nats"``.

        Raises:
            ValueError: the rows are of no use to it.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if v is not None and k != "name")
        return f"{type(self).__name__}({options})"


class _OfFewCoordinates(Estimator):
    """An estimator that means nothing in hundreds of dimensions: wide layers are averaged onto at most 128 coordinates.

    The grid is the finest of an :class:`~lightning_ib.quantize.AutoQuantizer`; a ``pool`` takes its place.
    """

    def pooled(self, t: Tensor) -> Tensor:
        """The rows averaged onto a grid of at most 128 coordinates."""
        return averaged(t) if self.pool is None else self.pool(t)


class KDE(Estimator):
    """Information of the representation with Gaussian noise added (Kolchinsky & Tracey 2017; Saxe et al. 2018).

    Gives ``I_XT`` and ``I_TY`` from the upper bounds of the entropies, ``I_XT_lower`` and ``I_TY_lower`` from the lower
    ones. See :func:`~lightning_ib.functional.mutual_information_bounds_kde`.

    Args:
        noise_variance: σ², in the squared unit of the activations; by default a share of the layer's mean variance at
            the first measurement, logged and frozen (see :func:`~lightning_ib.functional.noise_variance_of`).
        pool: see :class:`Estimator`.
    """

    name = "kde"
    given = ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower")

    def __init__(self, noise_variance: float | None = None, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(pool)
        if noise_variance is not None and not (
            isinstance(noise_variance, (int, float)) and 0 < noise_variance < math.inf
        ):
            raise ValueError(
                f"KDE: noise_variance must be a number above 0, or None (set from the layer), got {noise_variance!r}."
            )
        self.noise_variance = noise_variance

    def gives(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.given if rows.labels is not None or not name.startswith("I_TY")]

    def settle(self, rows: Rows) -> dict[str, float]:
        """σ², where it was not given."""
        return {} if self.noise_variance is not None else {"noise_variance": noise_variance_of(rows.t)}

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y), from either bound."""
        variance = settled["noise_variance"] if self.noise_variance is None else self.noise_variance
        found = {"I_XT": mutual_information_bounds_kde(rows.t, noise_variance=variance, unit=unit)}
        if rows.labels is not None:
            found["I_TY"] = mutual_information_bounds_kde(rows.t, rows.labels, noise_variance=variance, unit=unit)
        return {k: v.upper for k, v in found.items()} | {f"{k}_lower": v.lower for k, v in found.items()}


class KSG(_OfFewCoordinates):
    """Nearest neighbours of two continuous variables (Kraskov, Stögbauer & Grassberger 2004).

    Gives ``I_XT`` and, where the target is real-valued, ``I_TY``. For a network without noise the true I(X;T) has no
    bound, and the estimate grows with the number of rows. Wide layers and inputs are averaged onto at most 128
    coordinates.

    Args:
        k: the number of neighbours.
        algorithm: 1 or 2, as in the paper.
        pool: takes the place of that average, for the layer.
    """

    name = "ksg"
    needs_input = True
    given = ("I_XT", "I_TY")

    def __init__(
        self, k: int = 3, algorithm: Literal[1, 2] = 1, pool: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(pool)
        if algorithm not in (1, 2):
            raise ValueError(f"KSG: algorithm must be 1 or 2, got {algorithm!r}.")
        self.k, self.algorithm = _checked_k(k, "KSG"), algorithm

    def gives(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        return ["I_XT"] if rows.y is None or rows.labels is not None else ["I_XT", "I_TY"]

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        others = {"I_XT": averaged(_input(self, rows)), "I_TY": None if rows.labels is not None else rows.y}
        return {
            name: mutual_information_ksg(rows.t, other, k=self.k, algorithm=self.algorithm, unit=unit)
            for name, other in others.items()
            if other is not None
        }


class KNN(_OfFewCoordinates):
    """Nearest neighbours within and across classes (Ross 2014); gives ``I_TY`` for class labels.

    Wide layers are averaged onto at most 128 coordinates.

    Args:
        k: the number of neighbours.
        pool: takes the place of that average.
    """

    name = "knn"

    def __init__(self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(pool)
        self.k = _checked_k(k, "KNN")

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_knn(rows.t, _labels(self, rows), k=self.k, unit=unit)}


class MixedKNN(_OfFewCoordinates):
    """Nearest neighbours of variables that are neither discrete nor continuous (Gao et al. 2017); gives ``I_TY``.

    Repeated rows, such as those of a dead layer, are no fault here. Wide layers are averaged onto at most 128
    coordinates.

    Args:
        k: the number of neighbours.
        pool: takes the place of that average.
    """

    name = "mixed"

    def __init__(self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(pool)
        self.k = _checked_k(k, "MixedKNN")

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        y = _target(self, rows)
        if rows.labels is not None:  # numbers farther apart than any two rows: classes have no order
            y = y.double() * 2 * (1 + float(rows.t.max() - rows.t.min()))
        return {"I_TY": mutual_information_mixed(rows.t, y, k=self.k, unit=unit)}


class GaussianCopula(_OfFewCoordinates):
    """The Gaussian formula after a rank transform (Ince et al. 2017); gives ``I_TY``.

    A lower bound for one coordinate. With several, and for class labels the more they split the layer into clusters, it
    may exceed H(Y): the Gaussian entropy of T is then far too large.

    Wide layers are averaged onto at most 128 coordinates; there must be more rows than coordinates, in each class too.

    Args:
        pool: takes the place of that average.
    """

    name = "copula"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_gaussian_copula(rows.t, _target(self, rows), unit=unit)}


class Renyi(Estimator):
    """Matrix Rényi entropies (Sanchez Giraldo et al. 2015; for convolutions Wickstrøm et al. 2019).

    Gives ``I_XT`` and ``I_TY``. The time grows with the cube of the number of rows.

    Args:
        alpha: the order of the entropy.
        kernel_width: of the layer's kernel, in the unit of the activations; by default from the layer's scale at the
            first measurement, logged and frozen (see :func:`~lightning_ib.functional.kernel_width_of`).
        pool: see :class:`Estimator`.
    """

    name = "renyi"
    needs_input = True
    given = ("I_XT", "I_TY")

    def __init__(
        self,
        alpha: float = 1.01,
        kernel_width: float | None = None,
        pool: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(pool)
        if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
            raise ValueError(f"Renyi: alpha must be a number above 0, got {alpha!r}.")
        if kernel_width is not None and not (isinstance(kernel_width, (int, float)) and 0 < kernel_width < math.inf):
            raise ValueError(f"Renyi: kernel_width must be a number above 0 or None, got {kernel_width!r}.")
        self.alpha, self.kernel_width = alpha, kernel_width

    def settle(self, rows: Rows) -> dict[str, float]:
        """The kernel's width, where it was not given."""
        return {} if self.kernel_width is not None else {"kernel_width": kernel_width_of(rows.t)}

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where there is a target."""
        width = settled["kernel_width"] if self.kernel_width is None else self.kernel_width
        others = {"I_XT": _input(self, rows), "I_TY": rows.y}
        return {
            name: mutual_information_renyi(rows.t, other, alpha=self.alpha, kernel_width_x=width, unit=unit)
            for name, other in others.items()
            if other is not None
        }


class Probe(Estimator):
    """Usable information: H(Y) less the held-out cross-entropy of a probe on T (Xu et al. 2020).

    Gives ``I_TY``, which cannot saturate, and ``accuracy``, the share of held-out labels the probe reads off the layer.

    Args:
        probe: ``"linear"`` or ``"mlp"``; they log under ``probe`` and ``mlp_probe``.
        pool: see :class:`Estimator`.
    """

    given = ("I_TY", "accuracy")

    def __init__(
        self, probe: Literal["linear", "mlp"] = "linear", pool: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(pool)
        if probe not in ("linear", "mlp"):
            raise ValueError(f"Probe: probe must be 'linear' or 'mlp', got {probe!r}.")
        self.probe = probe
        self.name = "probe" if probe == "linear" else "mlp_probe"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and the accuracy."""
        decoded = decode(rows.t, _labels(self, rows), probe=self.probe, unit=unit)
        return {"I_TY": decoded.information, "accuracy": decoded.accuracy}


class InfoNCE(Estimator):
    """A variational lower bound with a critic network (van den Oord et al. 2018); gives ``I_TY``.

    Args:
        pool: see :class:`Estimator`.
    """

    name = "infonce"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_infonce(rows.t, _target(self, rows), unit=unit)}


class SMILE(Estimator):
    """A variational estimate with a critic network, of less variance (Song & Ermon 2020); gives ``I_TY``.

    Args:
        pool: see :class:`Estimator`.
    """

    name = "smile"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_smile(rows.t, _target(self, rows), unit=unit)}


class Quantised(Estimator):
    """The exact measure for a network whose activations are quantised to b bits (Lorenzen, Igel & Nielsen 2022).

    Gives ``I_XT``, which is H(T), and ``I_TY``, counted over the sampled rows: at most the logarithm of their number.

    Args:
        bits: b; ``None`` where the network is quantised already, and its activations are counted as they are.
        per: where the range comes from that is divided into 2^b levels: the whole ``"layer"``, at its first measurement
            and frozen, or each sample's own ``"tensor"``.
        pool: see :class:`Estimator`.
    """

    given = ("I_XT", "I_TY")

    def __init__(
        self,
        bits: int | None = 8,
        per: Literal["layer", "tensor"] = "layer",
        pool: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(pool)
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16):
            raise ValueError(f"Quantised: bits must be an integer from 1 to 16, or None, got {bits!r}.")
        if per not in ("layer", "tensor"):
            raise ValueError(f"Quantised: per must be 'layer' or 'tensor', got {per!r}.")
        self.bits, self.per = bits, per
        self.name = "quantised" if bits is None else f"quantised{bits}"

    def gives(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) with class labels."""
        return ["I_XT"] if rows.labels is None else ["I_XT", "I_TY"]

    def settle(self, rows: Rows) -> dict[str, float]:
        """The range of the layer, once it has one."""
        low, high = float(rows.t.min()), float(rows.t.max())
        ranged = self.bits is not None and self.per == "layer" and math.isfinite(high - low) and low < high
        return {"low": low, "high": high} if ranged else {}

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y)."""
        ranged = settled and self.bits is not None and self.per == "layer"
        bounds = (settled["low"], settled["high"]) if ranged else None
        others = {"I_XT": None} | ({} if rows.labels is None else {"I_TY": rows.labels})
        return {
            name: mutual_information_quantised(rows.t, y, bits=self.bits, per=self.per, bounds=bounds, unit=unit)
            for name, y in others.items()
        }


BY_NAME: dict[str, Callable[[], Estimator]] = {
    "kde": KDE,
    "ksg": KSG,
    "knn": KNN,
    "mixed": MixedKNN,
    "copula": GaussianCopula,
    "renyi": Renyi,
    "probe": Probe,
    "mlp_probe": lambda: Probe("mlp"),
    "infonce": InfoNCE,
    "smile": SMILE,
    "quantised8": Quantised,
}
"""The estimators that can be asked for by name, each with its defaults."""

Estimators = Sequence[str | Estimator]


def checked_estimators(asked: Iterable[str | Estimator]) -> list[Estimator]:
    """The estimators that are asked for, by name or as they are.

    Raises:
        TypeError: one is neither a name nor an :class:`Estimator`.
        ValueError: there is none of that name, or two would log under one name.
    """
    if isinstance(asked, (str, Estimator)):
        raise TypeError(f"estimators must be a list, got {asked!r}. Did you mean [{asked!r}]?")
    if asked is not None and not isinstance(asked, Iterable):
        raise TypeError(f"estimators must be a list, got {asked!r}.")
    found: list[Estimator] = []
    for one in asked or ():
        if isinstance(one, str) and one not in BY_NAME:
            near = difflib.get_close_matches(one, BY_NAME, n=1) or list(BY_NAME)
            raise ValueError(f"there is no estimator {one!r}: did you mean {' or '.join(map(repr, near))}?")
        if not isinstance(one, (str, Estimator)):
            raise TypeError(f"an estimator must be a name such as 'kde' or an Estimator such as KDE(), got {one!r}.")
        found.append(BY_NAME[one]() if isinstance(one, str) else one)
    for one in found:
        if not isinstance(getattr(one, "name", None), str):
            raise TypeError(f'{type(one).__name__} needs a name to log under: name = "mine".')
    names = [one.name for one in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two estimators would log as {twice.pop()!r}: give one of them another .name.")
    return found


def _checked_k(k: int, owner: str) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"{owner}: k must be an integer of at least 1, got {k!r}.")
    return k


def _labels(estimator: Estimator, rows: Rows) -> Tensor:
    if rows.labels is None:
        came = "there is no target" if rows.y is None else "the target is real-valued"
        raise ValueError(f"{came}, and {type(estimator).__name__} needs class labels.")
    return rows.labels


def _input(estimator: Estimator, rows: Rows) -> Tensor:
    """The input as real numbers."""
    if rows.x is None:
        raise ValueError(
            f"the input has no row for each sample, which {type(estimator).__name__} needs: give unpack=lambda batch: "
            "(x, y), x having the batch first, or input=Quantizer(select=…), which takes it out of x."
        )
    return rows.x if rows.x.is_floating_point() else rows.x.double()


def _target(estimator: Estimator, rows: Rows) -> Tensor:
    if rows.y is None:
        raise ValueError(f"there is no target, and {type(estimator).__name__} needs one.")
    return rows.y
