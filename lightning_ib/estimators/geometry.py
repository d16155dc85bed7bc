"""Companions of a plane: the geometry of each layer beside its information."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import ClassGeometry, Unit, class_geometry, linear_cka, spectrum
from lightning_ib.functional.checks import checked_choice, checked_integer, checked_rows
from lightning_ib.functional.geometry.rows import centered_rows
from lightning_ib.functional.geometry.spectrum import FEWEST_FOR_ALPHA
from lightning_ib.records.record import COMPANIONS, OF_CLASSES

MOST_CHANNELS = 8192
"""The most coordinates of a row that companions take: 2 000 of such rows are 64 MB in float32."""


def capped(rows: Tensor) -> str:
    """The verdict ``"capped"`` on rows that are no more than their coordinates, else ``"ok"``."""
    return "capped" if len(rows) <= rows.shape[1:].numel() else "ok"


class LabelsOutOfRange(ValueError):
    """Labels are no class numbers, for whatever layer."""


class Companion(Estimator):
    """A part of the geometry of a layer, recorded beside its information.

    It sees the channels of the output of a module: ``(B, C, …)`` and ``(B, …, C)`` averaged over places, ``(B, C)`` as
    they are, and with ``tokens=True`` a row a token. Of a head these are its outputs, before the softmax.

    Args:
        max_samples: the largest number of sampled rows it sees.
    """

    channels = True
    flagged: Sequence[str] = ()
    """The quantities that the flag of :meth:`flag` is about."""

    def __init__(self, max_samples: int | None = None) -> None:
        super().__init__(max_samples=max_samples)

    def unit_of(self, quantity: str, unit: str) -> str:
        """The unit of one of its values: of an entropy ``unit``; variances are in squares of the layer's own."""
        return unit if quantity == "spectral_entropy" else ""

    def outputs_for(self, rows: Rows) -> list[str]:
        """All of them, whatever the target."""
        return list(self.outputs)

    def flag(self, values: Mapping[str, float], rows: Rows) -> str:
        """The verdict on the quantities in ``flagged``."""
        return "ok"

    def verdicts(self, values: Mapping[str, float], rows: Rows) -> dict[str, str]:
        """The reliability of its values, by their names: empty for NaN."""
        flag = self.flag(values, rows)
        return {
            name: "" if math.isnan(value) else flag if name in self.flagged else "ok" for name, value in values.items()
        }

    def remarks(self, values: Mapping[str, float], rows: Rows) -> dict[str, str]:
        """What a user must know about the values, as the rest of a sentence, by the key of the warning."""
        return {}


def more_samples(companion: str, d: int) -> str:
    """The advice to show more rows than coordinates, of which there are ``d``."""
    n = 10 * d
    return f"Or show more samples: companions=[{companion}(max_samples={n})], with max_samples={n} beside it."


class LayerSpectrum(Companion):
    """The spectrum of a layer, from one Gram matrix of sampled rows: see :func:`~lightning_ib.functional.spectrum`.

    The verdict is ``"capped"`` where the rows are no more than the coordinates. One layer takes a product of
    N·D·min(N, D) and the eigenvalues of a matrix of min(N, D), in float64.

    Args:
        max_samples: the largest number of rows, 2 000 by default.
    """

    name = "spectrum"
    outputs = (
        *("effective_rank", "effective_rank_of_variances", "spectral_entropy"),
        *("participation_ratio", "participation_ratio_plug_in", "anisotropy", "normalized_std", "mean_cosine"),
        *("alpha", "alpha_r2", "alpha_first", "alpha_last"),
    )
    flagged = (
        *("effective_rank", "effective_rank_of_variances", "spectral_entropy", "participation_ratio_plug_in"),
        *("anisotropy", "alpha", "alpha_r2", "alpha_first", "alpha_last"),
    )

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """Its values; those of a layer with one row everywhere, up to rounding, are NaN but for the guards."""
        found = spectrum(rows.numbers, unit=unit, rounding=rows.rounding)._asdict()
        found |= {name: found[name] or math.nan for name in ("alpha_first", "alpha_last")}
        return {name: float(found[name]) for name in self.outputs_for(rows)}

    def outputs_for(self, rows: Rows) -> list[str]:
        """Those that the shape allows: no power law is fitted to fewer than 19 coordinates."""
        few = min(len(rows.t) - 1, rows.t[0].numel()) < FEWEST_FOR_ALPHA
        return [name for name in self.outputs if not (few and name.startswith("alpha"))]

    def flag(self, values: Mapping[str, float], rows: Rows) -> str:
        """Whether the rows limit the spectrum rather than the layer."""
        return capped(rows.t)

    def remarks(self, values: Mapping[str, float], rows: Rows) -> dict[str, str]:
        """That it is capped, and that there is none."""
        n, d = len(rows.t), rows.t[0].numel()
        if math.isnan(values["effective_rank"]):
            return {"constant": f"all {n} rows are the same up to rounding: its spectrum is undefined, and NaN."}
        if self.flag(values, rows) == "capped":
            return {
                "capped": f"its spectrum is capped by {n} rows of {d} coordinates, as may be those of other layers: "
                f"compare it with itself. {more_samples('LayerSpectrum', d)}"
            }
        return {}


class LayerClasses(Companion):
    """The geometry of the classes in a layer, from running sums over all samples.

    See :func:`~lightning_ib.functional.class_geometry`. No row is kept: per layer and target it takes 8 bytes for each
    of K times C numbers, with the K classes that occurred, on a GPU ``max_classes``; the end takes a product of K²·C.
    The verdict is ``"undersampled"`` where a class has one sample. Labels that are real numbers are left aside; where
    they turn out to be classes (whole numbers, one-hot rows) the sampled rows are taken.

    Args:
        max_classes: labels are 0 … ``max_classes`` − 1.
    """

    name = "classes"
    outputs = OF_CLASSES
    flagged = outputs[:-2]

    def __init__(self, max_classes: int = 1024) -> None:
        super().__init__()
        self.max_classes = checked_integer(max_classes, "LayerClasses: max_classes", at_least=1)

    def applies(self, rows: Rows) -> bool:
        """Where there are class labels."""
        return rows.labels is not None

    def named(self, found: ClassGeometry) -> dict[str, float]:
        """The values by name.

        Raises:
            ValueError: not even the variance within classes is defined; the sentence gives the reason.
        """
        if found.n_outside:
            raise LabelsOutOfRange(
                found.reason.replace("a larger max_classes", "companions=[LayerClasses(max_classes=…)]")
            )
        if math.isnan(found.within_variance):
            raise ValueError(found.reason)
        return {name: float(getattr(found, name)) for name in self.outputs}

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """From the sampled rows alone."""
        assert rows.labels is not None
        return self.named(class_geometry(rows.numbers, rows.labels, rounding=rows.rounding))

    def flag(self, values: Mapping[str, float], rows: Rows) -> str:
        """Whether a class has a single sample, and so no variance."""
        return "undersampled" if values["smallest_class"] < 2 else "ok"

    def remarks(self, values: Mapping[str, float], rows: Rows) -> dict[str, str]:
        """That there is one class, or a class with one sample."""
        if values["n_classes"] < 2:
            return {"one class": "all samples are of one class: what lies between classes is undefined, and NaN."}
        if values["smallest_class"] < 2:
            return {"one sample": "a class has a single sample, which counts with a variance of 0 within its class."}
        if math.isnan(values["nc1"]):
            return {"constant": "its rows or class means are the same up to rounding: what compares classes is NaN."}
        if math.isnan(values["cdnv"]) or math.isnan(values["etf_distance"]):
            return {"same mean": "classes have the same mean: their distance or direction is undefined, and NaN."}
        return {}


class LayerDrift(Companion):
    """How far a layer has moved: linear CKA to its first measurement, and at the end to its last, on the same rows.

    See :func:`~lightning_ib.functional.linear_cka`. The rows of the first measurement are kept, and saved in
    checkpoints: 4 bytes for each of at most ``max_samples`` times C numbers a layer; and 8 KiB a layer and
    measurement, from which the similarity to the last follows. The verdict is ``"capped"`` where the rows are no more
    than the coordinates: two unrelated layers then seem similar.

    Args:
        max_samples: the largest number of rows, 1 000 by default.
    """

    name = "drift"
    outputs = ("cka_to_first",)
    flagged = outputs
    max_samples = 1000

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """Of one measurement by itself, which is its own first."""
        t = centered_rows(checked_rows(rows.numbers, "t"), rows.rounding)
        return {"cka_to_first": linear_cka(t, t)}

    def flag(self, values: Mapping[str, float], rows: Rows) -> str:
        """Whether the rows are so few that unrelated layers seem similar."""
        return capped(rows.t)

    def remarks(self, values: Mapping[str, float], rows: Rows) -> dict[str, str]:
        """That a layer with one row has no similarity, and that few rows make layers similar."""
        n, d = len(rows.t), rows.t[0].numel()
        if math.isnan(values["cka_to_first"]) and not centered_rows(rows.numbers, rows.rounding).any():
            return {"constant": f"all {n} rows are the same up to rounding: its similarity to others is NaN."}
        if self.flag(values, rows) == "capped" and not math.isnan(values["cka_to_first"]):
            return {
                "capped": f"{n} rows of {d} coordinates are few, here and maybe in other layers: CKA of unrelated rows "
                f"is near {d / (n + d):.2f}. {more_samples('LayerDrift', d)}"
            }
        return {}


BY_NAME: dict[str, Callable[[], Companion]] = {
    "spectrum": LayerSpectrum,
    "classes": LayerClasses,
    "drift": LayerDrift,
}
"""The companions that can be asked for by name, each with its defaults."""

Companions = Sequence[str | Companion] | str


def checked_companions(
    asked: Iterable[str | Companion] | str, others: Sequence[Estimator] = (), *, several: bool = True
) -> list[Companion]:
    """The companions that are asked for, by name or as they are.

    Args:
        asked: names and companions, or ``"all"``.
        others: the estimators beside them, whose names must differ.
        several: whether measurements follow one another, as drift needs; ``"all"`` leaves it out otherwise.

    Raises:
        TypeError: one is neither a name nor a :class:`Companion`.
        ValueError: a name is unknown or doubled, or drift is asked for where there is one measurement.

    Example:
        >>> checked_companions("all")
        [LayerSpectrum(), LayerClasses(max_classes=1024), LayerDrift()]
    """
    if isinstance(asked, str) and asked == "all":
        asked = [name for name in COMPANIONS if several or name != "drift"]
    if isinstance(asked, (str, Companion)):
        meant = [checked_choice(asked, "companions", ("all", *COMPANIONS))] if isinstance(asked, str) else [asked]
        raise TypeError(f"companions must be a list or 'all', got {asked!r}. Did you mean {meant!r}?")
    if not isinstance(asked, Iterable):
        raise TypeError(f"companions must be a list or 'all', got {asked!r}.")
    found: list[Companion] = []
    for one in asked:
        if not isinstance(one, (str, Companion)):
            raise TypeError(f"a companion must be a name such as 'spectrum' or a LayerSpectrum(), got {one!r}.")
        found.append(BY_NAME[checked_choice(one, "a companion", COMPANIONS)]() if isinstance(one, str) else one)
    names = [one.name for one in (*found, *others)]
    if (twice := next((one.name for one in found if names.count(one.name) > 1), None)) is not None:
        raise ValueError(f"two estimators or companions would log as {twice!r}: leave one out, or rename it.")
    if not several and any(isinstance(one, LayerDrift) for one in found):
        raise ValueError("drift compares measurements, and this makes one: leave 'drift' out of companions.")
    return found
