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
    SoftEntropy,
    SoftInformation,
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
from lightning_ib.functional.checks import checked_rows
from lightning_ib.tags import RESERVED

# By which factor a layer's scale may differ from the one that a kernel was set to.
_OUTGROWN = 3.0


class Rows(NamedTuple):
    """The sampled rows of one layer.

    Attributes:
        t: the representation: its sketch ``(M, D)`` with D at most 128, or for estimators with ``raw`` as the module
            put it out, ``(M, …)``.
        y: the target: class labels ``(M,)``, or real values ``(M, …)``; ``None`` where there is none.
        x: the input, sketched as well; ``None`` where no estimator asked for it.
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

    It sees each layer as a sketch of at most 128 coordinates, which keeps distances
    (:func:`~lightning_ib.functional.sketch`). To add your own, give it a ``name``, the first part of what it logs, and
    override :meth:`figures`.

    Args:
        pool: any callable on the rows as the module put them out, ``(M, …)``, that returns ``(M, …)``; it takes the
            place of the sketch.
        max_samples: how many of the sampled rows it sees.
    """

    name: str
    needs_input: bool = False
    given: Sequence[str] = ("I_TY",)
    max_samples: int = 2000
    optional: bool = False
    """Whether it is there by default: what hinders it is no fault of the user's then. See :meth:`applies`."""

    def __init__(self, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None) -> None:
        if pool is not None and not callable(pool):
            raise TypeError(f"{type(self).__name__}: pool must be a callable on rows (M, …) or None, got {pool!r}.")
        self.pool = pool
        if max_samples is not None:
            self.max_samples = checked_max_samples(max_samples, f"{type(self).__name__}: ")

    @property
    def raw(self) -> bool:
        """Whether it is shown the rows as the module put them out, instead of their sketch."""
        return self.pool is not None

    def pooled(self, t: Tensor) -> Tensor:
        """The rows ``(M, …)`` that it works on."""
        return t if self.pool is None else self.pool(t)

    def settle(self, rows: Rows) -> dict[str, float]:
        """What is set from a layer's scale at its first measurement, by name, and frozen from then on."""
        return {}

    def outgrown(self, rows: Rows, settled: Mapping[str, float]) -> bool:
        """Whether the layer has left behind what was set at its first measurement."""
        return False

    def applies(self, rows: Rows) -> bool:
        """Whether to work on such rows: where it is there by default, on those with class labels only."""
        return rows.labels is not None or not self.optional

    def gives(self, rows: Rows) -> list[str]:
        """The names of the values that can be had of such rows; those that fail are NaN."""
        return [name for name in self.given if rows.y is not None or not name.startswith(("I_TY", "accuracy"))]

    @abstractmethod
    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """The values of a layer by name, such as ``{"I_TY": 1.5}``; names that end in ``accuracy`` are shares.

        Args:
            rows: its rows, pooled.
            settled: what :meth:`settle` gave at the first measurement.
            unit: ``"bits"`` or ``"nats"``.

        Raises:
            ValueError: the rows are of no use to it.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not (v is None or v is False or k == "name"))
        return f"{type(self).__name__}({options})"


class KDE(Estimator):
    """Information of the representation with Gaussian noise added (Kolchinsky & Tracey 2017; Saxe et al. 2018).

    Gives ``I_XT`` and ``I_TY`` from the upper bounds of the entropies, ``I_XT_lower`` and ``I_TY_lower`` from the lower
    ones. See :func:`~lightning_ib.functional.mutual_information_bounds_kde`.

    Args:
        noise_variance: σ², in the squared unit of the activations; by default a share of the layer's mean variance, at
            every measurement anew (see :func:`~lightning_ib.functional.noise_variance_of`). It is given as
            ``noise_variance``.
        frozen: keep the σ² of the first measurement, which compares epochs at one absolute resolution. A layer may
            outgrow it: the verdict says so.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "kde"
    given = ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance")

    def __init__(
        self,
        noise_variance: float | None = None,
        frozen: bool = False,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if noise_variance is not None and not (
            isinstance(noise_variance, (int, float)) and 0 < noise_variance < math.inf
        ):
            raise ValueError(
                f"KDE: noise_variance must be a number above 0, or None (set from the layer), got {noise_variance!r}."
            )
        self.noise_variance, self.frozen = noise_variance, frozen

    def _set(self, settled: Mapping[str, float]) -> float | None:
        """σ², where it was given or frozen."""
        frozen = settled.get("noise_variance") if self.frozen else None
        return frozen if self.noise_variance is None else self.noise_variance

    def gives(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.given if rows.labels is not None or not name.startswith("I_TY")]

    def settle(self, rows: Rows) -> dict[str, float]:
        """σ², where it is to be frozen and was not given."""
        frozen = self.frozen and self.noise_variance is None
        return {"noise_variance": noise_variance_of(rows.t)} if frozen else {}

    def outgrown(self, rows: Rows, settled: Mapping[str, float]) -> bool:
        """Whether the layer's own scale is three times as large or as small as σ says."""
        variance = self._set(settled)
        return variance is not None and _far_apart(variance**0.5, noise_variance_of(rows.t) ** 0.5)

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y), from either bound."""
        variance = self._set(settled)
        variance = noise_variance_of(rows.t) if variance is None else variance
        found = {"I_XT": mutual_information_bounds_kde(rows.t, noise_variance=variance, unit=unit)}
        if rows.labels is not None:
            found["I_TY"] = mutual_information_bounds_kde(rows.t, rows.labels, noise_variance=variance, unit=unit)
        bounds = {k: v.upper for k, v in found.items()} | {f"{k}_lower": v.lower for k, v in found.items()}
        return bounds | {"noise_variance": variance}


class KSG(Estimator):
    """Nearest neighbours of two continuous variables (Kraskov, Stögbauer & Grassberger 2004).

    Gives ``I_XT`` and, where the target is real-valued, ``I_TY``. For a network without noise the true I(X;T) has no
    bound, and the estimate grows with the number of rows.

    Args:
        k: the number of neighbours.
        algorithm: 1 or 2, as in the paper.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "ksg"
    needs_input = True
    given = ("I_XT", "I_TY")

    def __init__(
        self,
        k: int = 3,
        algorithm: Literal[1, 2] = 1,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if algorithm not in (1, 2):
            raise ValueError(f"KSG: algorithm must be 1 or 2, got {algorithm!r}.")
        self.k, self.algorithm = _checked_k(k, "KSG"), algorithm

    def gives(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        return ["I_XT"] if rows.y is None or rows.labels is not None else ["I_XT", "I_TY"]

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        others = {"I_XT": _input(self, rows), "I_TY": None if rows.labels is not None else rows.y}
        return {
            name: mutual_information_ksg(rows.t, other, k=self.k, algorithm=self.algorithm, unit=unit)
            for name, other in others.items()
            if other is not None
        }


class KNN(Estimator):
    """Nearest neighbours within and across classes (Ross 2014); gives ``I_TY`` for class labels.

    Args:
        k: the number of neighbours.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "knn"

    def __init__(
        self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = _checked_k(k, "KNN")

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_knn(rows.t, _labels(self, rows), k=self.k, unit=unit)}


class MixedKNN(Estimator):
    """Nearest neighbours of variables that are neither discrete nor continuous (Gao et al. 2017); gives ``I_TY``.

    Repeated rows, such as those of a dead layer, are no fault here.

    Args:
        k: the number of neighbours.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "mixed"

    def __init__(
        self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = _checked_k(k, "MixedKNN")

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        y = _target(self, rows)
        if rows.labels is not None:  # numbers farther apart than any two rows: classes have no order
            y = y.double() * 2 * (1 + float(rows.t.max() - rows.t.min()))
        return {"I_TY": mutual_information_mixed(rows.t, y, k=self.k, unit=unit)}


class GaussianCopula(Estimator):
    """The Gaussian formula after a rank transform (Ince et al. 2017); gives ``I_TY``.

    A lower bound for one coordinate. With several, and for class labels the more they split the layer into clusters, it
    may exceed H(Y): the Gaussian entropy of T is then far too large.

    There must be more rows than coordinates, in each class too.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
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
        kernel_width: of the layer's kernel, in the unit of the activations; by default from the layer's scale, at every
            measurement anew (see :func:`~lightning_ib.functional.kernel_width_of`). It is given as ``kernel_width``.
        frozen: keep the width of the first measurement. A layer may outgrow it: the verdict says so.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "renyi"
    needs_input = True
    given = ("I_XT", "I_TY", "kernel_width")

    def __init__(
        self,
        alpha: float = 1.01,
        kernel_width: float | None = None,
        frozen: bool = False,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
            raise ValueError(f"Renyi: alpha must be a number above 0, got {alpha!r}.")
        if kernel_width is not None and not (isinstance(kernel_width, (int, float)) and 0 < kernel_width < math.inf):
            raise ValueError(f"Renyi: kernel_width must be a number above 0 or None, got {kernel_width!r}.")
        self.alpha, self.kernel_width, self.frozen = alpha, kernel_width, frozen

    def _set(self, settled: Mapping[str, float]) -> float | None:
        """The kernel's width, where it was given or frozen."""
        frozen = settled.get("kernel_width") if self.frozen else None
        return frozen if self.kernel_width is None else self.kernel_width

    def settle(self, rows: Rows) -> dict[str, float]:
        """The kernel's width, where it is to be frozen and was not given."""
        frozen = self.frozen and self.kernel_width is None
        return {"kernel_width": kernel_width_of(rows.t)} if frozen else {}

    def outgrown(self, rows: Rows, settled: Mapping[str, float]) -> bool:
        """Whether the layer's own scale is three times as large or as small as the kernel's width says."""
        width = self._set(settled)
        return width is not None and _far_apart(width, kernel_width_of(rows.t))

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where there is a target."""
        width = self._set(settled)
        width = kernel_width_of(rows.t) if width is None else width
        others = {"I_XT": _input(self, rows), "I_TY": rows.y}
        return {
            name: mutual_information_renyi(rows.t, other, alpha=self.alpha, kernel_width_x=width, unit=unit)
            for name, other in others.items()
            if other is not None
        } | {"kernel_width": width}


class Probe(Estimator):
    """Usable information: H(Y) less the held-out cross-entropy of a probe on T (Xu et al. 2020).

    Gives ``I_TY``, which cannot saturate, and ``accuracy``, the share of held-out labels the probe reads off the layer.

    Args:
        probe: ``"linear"`` or ``"mlp"``; they log under ``probe`` and ``mlp_probe``.
        folds: how many parts the rows are dealt to; each is predicted by a probe fitted to the others.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    given = ("I_TY", "accuracy")

    def __init__(
        self,
        probe: Literal["linear", "mlp"] = "linear",
        folds: int = 4,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if probe not in ("linear", "mlp"):
            raise ValueError(f"Probe: probe must be 'linear' or 'mlp', got {probe!r}.")
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 3:
            raise ValueError(f"Probe: folds must be an integer of at least 3, got {folds!r}.")
        self.probe, self.folds = probe, folds
        self.name = "probe" if probe == "linear" else "mlp_probe"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and the accuracy."""
        decoded = decode(rows.t, _labels(self, rows), probe=self.probe, folds=self.folds, unit=unit)
        return {"I_TY": decoded.information, "accuracy": decoded.accuracy}


class InfoNCE(Estimator):
    """A variational lower bound with a critic network (van den Oord et al. 2018); gives ``I_TY``.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "infonce"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_infonce(rows.t, _target(self, rows), unit=unit)}


class SMILE(Estimator):
    """A variational estimate with a critic network, of less variance (Song & Ermon 2020); gives ``I_TY``.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "smile"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_smile(rows.t, _target(self, rows), unit=unit)}


class Soft(Estimator):
    """Soft entropy: rows softly assigned to fixed random directions.

    See :class:`~lightning_ib.functional.SoftEntropy`. Gives ``H_T``, ``I_XT``, ``I_TY``, the mean ``I_TY_floor`` of the
    latter under permuted labels, and ``I_TY_above_floor``, their difference. From the second measurement on it sums
    over every sample of the pass, in memory that grows with neither their number nor the width of the layer; the first
    one sees the sampled rows, whose mean becomes the center of the next pass. Blunter than cells, finite by
    construction, and the way to very wide layers and very long passes.

    Args:
        n_anchors: the number of directions; fewer for fewer than some thousand samples.
        beta: the sharpness of the assignment, by default ten times the root of the width.
        max_classes: labels are 0 … ``max_classes`` − 1.
    """

    name = "soft"
    given = ("H_T", "I_XT", "I_TY", "I_TY_floor", "I_TY_above_floor")
    max_samples = 1_000_000_000  # all there are in the sample

    def __init__(self, n_anchors: int = 512, beta: float | None = None, max_classes: int = 1024) -> None:
        super().__init__()
        for name, value in (("n_anchors", n_anchors), ("max_classes", max_classes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Soft: {name} must be an integer of at least 1, got {value!r}.")
        if beta is not None and not 0 < beta < math.inf:
            raise ValueError(f"Soft: beta must be a number above 0 or None, got {beta!r}.")
        self.n_anchors, self.beta, self.max_classes = n_anchors, beta, max_classes

    def sums(self, center: Tensor) -> SoftEntropy:
        """Running sums that begin at zero."""
        return SoftEntropy(center, self.n_anchors, beta=self.beta, max_classes=self.max_classes)

    def gives(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.given if rows.labels is not None or not name.startswith("I_TY")]

    def named(self, found: SoftInformation, *, labeled: bool) -> dict[str, float]:
        """The values by name.

        Args:
            found: the values.
            labeled: whether there are class labels; without them, only what is not about the target.

        Raises:
            ValueError: a value is undefined; the sentence says why.
        """
        if math.isnan(found.i_ty if labeled else found.h_t):
            raise ValueError(found.reason)
        values = {"H_T": found.h_t, "I_XT": found.i_xt}
        if not labeled:
            return values
        floor = {"I_TY_floor": found.i_ty_floor, "I_TY_above_floor": found.i_ty - found.i_ty_floor}
        return values | {"I_TY": found.i_ty} | floor

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """From the rows alone, centered on their mean, by the same sums and with the same labels as those of a pass."""
        t = checked_rows(rows.t, "t")
        sums = self.sums(t.double().mean(0))
        sums.update(t, rows.labels)
        return self.named(sums.result(unit), labeled=rows.labels is not None)


class Quantised(Estimator):
    """The exact measure for a network whose activations are quantised to b bits (Lorenzen, Igel & Nielsen 2022).

    Gives ``I_XT``, which is H(T), and ``I_TY``, counted over the sampled rows: at most the logarithm of their number.

    Args:
        bits: b; ``None`` where the network is quantised already, and its activations are counted as they are.
        per: where the range comes from that is divided into 2^b levels: the whole ``"layer"``, at its first measurement
            and frozen, or each sample's own ``"tensor"``.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    given = ("I_XT", "I_TY")

    def __init__(
        self,
        bits: int | None = 8,
        per: Literal["layer", "tensor"] = "layer",
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16):
            raise ValueError(f"Quantised: bits must be an integer from 1 to 16, or None, got {bits!r}.")
        if per not in ("layer", "tensor"):
            raise ValueError(f"Quantised: per must be 'layer' or 'tensor', got {per!r}.")
        self.bits, self.per = bits, per
        self.name = "quantised" if bits is None else f"quantised{bits}"

    @property
    def raw(self) -> bool:
        """It counts the activations as they are."""
        return True

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
    "soft": Soft,
}
"""The estimators that can be asked for by name, each with its defaults."""

Estimators = Sequence[str | Estimator]


def checked_max_samples(max_samples: int, owner: str = "") -> int:
    """How many rows to sample.

    Raises:
        ValueError: fewer than two.
    """
    if isinstance(max_samples, bool) or not isinstance(max_samples, int) or max_samples < 2:
        raise ValueError(f"{owner}max_samples must be an integer of at least 2, got {max_samples!r}.")
    return max_samples


def checked_estimators(asked: Iterable[str | Estimator]) -> list[Estimator]:
    """The estimators that are asked for, by name or as they are.

    Raises:
        TypeError: one is neither a name nor an :class:`Estimator`.
        ValueError: there is none of that name, or two values would be logged under one name.
    """
    if isinstance(asked, (str, Estimator)):
        meant = difflib.get_close_matches(asked, BY_NAME, n=1, cutoff=0.0)[0] if isinstance(asked, str) else asked
        raise TypeError(f"estimators must be a list, got {asked!r}. Did you mean [{meant!r}]?")
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
    if (bad := next((name for name in names if not name or "/" in name or name in RESERVED), None)) is not None:
        raise ValueError(
            f"an estimator cannot log as {bad!r}, which is another value's name or has a slash: rename it."
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two estimators would log as {twice.pop()!r}: give one of them another .name.")
    return found


def _far_apart(a: float, b: float) -> bool:
    """Whether two scales differ by more than a factor of three."""
    return not _OUTGROWN > a / b > 1 / _OUTGROWN


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
