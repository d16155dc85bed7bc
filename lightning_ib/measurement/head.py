"""The head of a network: which layer it is, its predicted probabilities, and its accuracy."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lightning_ib.functional.discretize.sketch import real, sketch
from lightning_ib.warn_once import WarnOnce

# A class may be absent by chance if its probability to be absent, under equally frequent classes, is at least this.
_UNLIKELY = 1e-3

_PROBABILITIES = (nn.Softmax, nn.Sigmoid)


class Head(NamedTuple):
    """A layer that was recognized as the head.

    Attributes:
        layer: its name.
        n_coordinates: how many it has: one for each class, or a single logit.
        n_classes: the number of classes, two for a single logit.
        activation: ``"softmax"`` or ``"sigmoid"`` if that is applied to its outputs before they are measured;
            ``"probabilities"`` where the module outputs those itself.
        accuracy: the fraction of the sampled rows where the most probable class is the label.
        n_samples: the number of those rows.
        named: whether the user said which layer it is.
    """

    layer: str
    n_coordinates: int
    n_classes: int
    activation: str
    accuracy: float
    n_samples: int = 0
    named: bool = False

    def __str__(self) -> str:
        logits = "1 logit" if self.n_coordinates == 1 else f"{self.n_coordinates} coordinates"
        on = self.activation if self.activation == "probabilities" else f"{self.activation} (head=False: as it is)"
        why = "as asked" if self.named else "the last layer to run"
        return f"the head ({why}, {logits} for {self.n_classes} classes), measured on its {on}"


class Predictions(NamedTuple):
    """Predictions from an output ``(m, C)`` that may be a head's.

    Attributes:
        rows: the sketched probabilities, ``(m, min(C, 128))``.
        classes: the most probable class, int64 ``(m,)``.
    """

    rows: Tensor
    classes: Tensor


def may_be_head(output: Tensor) -> bool:
    """Whether an output has one number a class and sample: real, ``(B, C)``."""
    return output.ndim == 2 and output.shape[1] > 0 and output.is_floating_point()


def activation_of(module: nn.Module) -> str:
    """The activation of a head: ``"probabilities"`` where the module outputs them, else ``"softmax"``."""
    return "probabilities" if isinstance(module, _PROBABILITIES) else "softmax"


def predictions(outputs: Tensor, activation: str) -> Predictions:
    """The probabilities of a head's outputs ``(m, C)``, and the classes it predicts."""
    outputs = real(outputs)
    given, wide = activation == "probabilities", outputs.double()  # in float64, so that the batch size does not show
    if outputs.shape[1] == 1:
        p = outputs if given else wide.sigmoid().to(outputs.dtype)
        return Predictions(p, (p > 0.5).squeeze(1).long())
    p = outputs if given else wide.softmax(1).to(outputs.dtype)
    return Predictions(sketch(p), outputs.argmax(1))


def n_classes_of(n_coordinates: int, labels: Tensor) -> int | None:
    """The number of classes, where an output of this width has one coordinate for each; else ``None``.

    The labels are 0 … C − 1. Classes at the end may be absent from a small sample: they are allowed for where chance
    would leave them out, were all classes equally frequent, more often than once in a thousand samples like this one.

    Args:
        n_coordinates: the width of the output; a single logit stands for two classes.
        labels: integers ``(N,)``.

    Example:
        >>> import torch
        >>> n_classes_of(10, torch.arange(300) % 10), n_classes_of(16, torch.arange(300) % 10)
        (10, None)
    """
    if not len(labels):
        return None
    classes = max(2, n_coordinates)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes or (n_coordinates == 1 and high == 0):
        return None
    absent = classes - 1 - high
    by_chance = (1 - absent / classes) ** len(labels) >= _UNLIKELY
    return classes if by_chance else None


def recognized(
    layer: str, activation: str, sampled: Mapping[str, Tensor], n_coordinates: int, *, named: bool = False
) -> Head | None:
    """The head, where the layer that may be one is finite and has one coordinate for each class of the labels.

    Args:
        layer: its name.
        activation: from :func:`activation_of`.
        sampled: the labels as ``"y"``, the ``"predicted"`` classes and the ``"probabilities"`` of the same rows.
        n_coordinates: the width of its output.
        named: whether the user said which layer is the head.
    """
    labels, predicted = sampled.get("y"), sampled.get("predicted")
    if labels is None or labels.is_floating_point() or predicted is None:
        return None
    if not bool(sampled["probabilities"].isfinite().all()):
        return None
    n_classes = n_classes_of(n_coordinates, labels)
    if n_classes is None:
        return None
    right = float((predicted.to(labels.device) == labels).sum()) / len(labels)
    activation = "sigmoid" if n_coordinates == 1 and activation == "softmax" else activation
    return Head(layer, n_coordinates, n_classes, activation, right, len(labels), named)


def runs_last(leaves: Sequence[str], watched: Container[str], layer: str) -> bool:
    """Whether every layer with weights that is defined after this one is watched.

    Args:
        leaves: all layers with weights, in the order in which they are defined.
        watched: the layers that are watched.
        layer: the last of those to run.
    """
    return layer not in leaves or all(name in watched for name in leaves[leaves.index(layer) + 1 :])


class HeadSearch:
    """Finds the head: the layer that may be one in the first batch of a pass, recognized by the labels at its end.

    Args:
        asked: ``None`` takes the last layer to run, ``False`` disables the search; a name selects that layer.
        named_layers: whether the layers were named, so that others may run after them.
        warned: takes the warnings.
    """

    def __init__(self, asked: str | bool | None, *, named_layers: bool, warned: WarnOnce) -> None:
        self.asked, self._named_layers, self._warned = asked, named_layers, warned
        self.candidate: str | None = None
        """The layer that may be the head; empty if a head is ruled out, ``None`` while undecided."""
        self.head: Head | None = None
        """The head that was recognized at the last measurement."""
        self._activations: dict[str, str] = {}  # of each layer, if it is the head

    @property
    def name(self) -> str | None:
        """The layer that is named as the head, where one is."""
        return self.asked if isinstance(self.asked, str) else None

    def reset(self) -> None:
        """Begin a pass: the head may be another layer."""
        self.candidate = None

    def drop(self) -> None:
        """Drop the head for the rest of the pass."""
        self.candidate = ""

    def note_activations(self, modules: Mapping[str, nn.Module]) -> None:
        """Note the output activations of the layers' modules."""
        self._activations = {layer: activation_of(module) for layer, module in modules.items()}

    def check(self, watched: Container[str]) -> None:
        """Raise if the layer that is named as the head was left out."""
        if self.name is not None and self.name not in watched:
            raise ValueError(
                f"head={self.name!r} cannot be measured, as the warning says: name another layer, or give head=False."
            )

    def choose_candidate(self, ran: Sequence[str], model_layers: Sequence[str]) -> None:
        """Choose the candidate, if it is still undecided.

        Args:
            ran: the layers that are watched, in the order they ran.
            model_layers: all layers of the model with weights, in the order in which they are defined.
        """
        if self.candidate is not None:
            return
        last = self.name or ran[-1]
        leaves_others = self.asked is None and self._named_layers and not runs_last(model_layers, ran, last)
        self.candidate = "" if self.asked is False or leaves_others else last

    def predictions(self, outputs: Tensor) -> Predictions:
        """The probabilities of the candidate's outputs ``(m, C)``, and the classes it predicts."""
        assert self.candidate
        return predictions(outputs, self._activations[self.candidate])

    def about(self, sampled: Mapping[str, Tensor], n_coordinates: Mapping[str, int]) -> Head | None:
        """The head as a predictor of another target, where its coordinates number the labels of that one, too.

        Args:
            sampled: see :func:`recognized`.
            n_coordinates: of the layers.
        """
        if (head := self.head) is None:
            return None
        width = n_coordinates[head.layer]
        return recognized(head.layer, self._activations[head.layer], sampled, width, named=head.named)

    def recognize(self, sampled: Mapping[str, Tensor] | None, n_coordinates: Mapping[str, int]) -> None:
        """Set :attr:`head`, where the candidate has the width of one.

        Args:
            sampled: see :func:`recognized`; ``None`` without a target.
            n_coordinates: of the layers.

        Raises:
            ValueError: the layer that is named as the head has another width.
        """
        if not self.candidate or sampled is None:
            self.head = None
            return
        layer, before = self.candidate, self.head
        named, width = self.name is not None, n_coordinates[layer]
        self.head = recognized(layer, self._activations[layer], sampled, width, named=named)
        if self.head is not None or ("probabilities" in sampled and not sampled["probabilities"].isfinite().all()):
            return
        if before is not None:
            self._warned.warn(
                "head",
                f"layer {layer!r} was the head before, measured on its {before.activation}, and the labels no "
                f"longer number {before.n_classes} classes: it is measured as it is, and its values do not compare.",
            )
        elif self.name is not None:
            raise ValueError(
                f"head={self.name!r} has {n_coordinates.get(self.name)} coordinates, and the "
                "labels do not number its classes 0 … C − 1: name the layer that has one for each class, or give "
                "head=False."
            )
