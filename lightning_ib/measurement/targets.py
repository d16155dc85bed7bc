"""The targets of a measurement: a single one, or several that are measured in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.binning.target import UNPACK, UnknownTarget
from lightning_ib.capture.batches import Source, TargetFailed
from lightning_ib.functional.checks import sentence
from lightning_ib.measurement.reading import TargetReader
from lightning_ib.measurement.variables import Variable
from lightning_ib.records.names import checked_target_name, file_stem, suggestion
from lightning_ib.warn_once import WarnOnce

TargetOptions = Mapping[str, Source | Quantizer]
"""Several targets by name: a key of the batch, a function of the batch, ``None`` for the y of the batch's form or of
``unpack``, or a :class:`~lightning_ib.Quantizer` of that."""


def checked_targets(targets: Any, target: Any) -> dict[str, Source | Quantizer] | None:
    """Several targets as a dictionary, where they are of kinds that are allowed.

    Args:
        targets: see :data:`TargetOptions`.
        target: how a single target is discretized, which excludes several ones.

    Raises:
        TypeError: they are of another kind.
        ValueError: they are empty, one has a name that is no part of a tag, or a single target is given as well.
    """
    if targets is None:
        return None
    if not isinstance(targets, Mapping):
        raise TypeError(
            "targets must be a mapping from names to keys of the batch, such as {'class': 'fine', 'coarse': 'coarse'}, "
            f"got {targets!r}."
        )
    if target is not None:
        raise ValueError(
            "target=… says how a single target is discretized, and targets={…} names several: give one of the two, "
            "with the quantizer of a target in targets."
        )
    if not targets:
        raise ValueError("targets is empty: name at least one target, or give None for the y of the batch.")
    for name, source in targets.items():
        checked_target_name(name)
        sound = source is None or isinstance(source, (str, int, Quantizer)) or callable(source)
        if isinstance(source, bool) or not sound:
            raise TypeError(
                f"the target {name!r} must be a key of the batch, a function of it, a Quantizer, or None for the y of "
                f"the batch, got {source!r}."
            )
    stems: dict[str, str] = {}
    for name in targets:
        if (other := stems.setdefault(file_stem(name).lower(), name)) != name:
            raise ValueError(f"the targets {other!r} and {name!r} would write the same files: rename one.")
    return dict(targets)


class Targets:
    """The targets of a measurement, the primary first: the head is recognized by it.

    Args:
        quantizers: name → how the target is put into bins; ``None`` where its form says how to read it. A single target
            has an empty name.
        ignore_index: the label of rows that are ignored.
        follows_layers: whether a single target whose rows mismatch those of all layers is left out, as where layers are
            picked by default; otherwise it stands, and the layers are at fault. Several are always left out.
        warned: takes the warnings.
    """

    def __init__(
        self,
        quantizers: Mapping[str, Quantizer | None],
        ignore_index: int | None,
        *,
        follows_layers: bool,
        warned: WarnOnce,
    ) -> None:
        self.readers = {
            name: TargetReader(None if one is None else FittedQuantizer(one), ignore_index, warned=warned, name=name)
            for name, one in quantizers.items()
        }
        self.primary = next(iter(self.readers.values()))
        self.several = list(quantizers) != [""]
        """Whether they have names: a target that fails is then left out, and the others go on."""
        self._follows_layers = follows_layers
        self.reset()

    def reset(self) -> None:
        """Begin a measurement."""
        self._forms: dict[str, Any] = {}  # of the rows of each, in the batches so far
        for reader in self.readers.values():
            reader.reset()

    @property
    def names(self) -> list[str]:
        """Their names; of a single one an empty name."""
        return list(self.readers)

    @property
    def lost(self) -> list[str]:
        """The names of those that were left out of this measurement."""
        return [name for name, reader in self.readers.items() if reader.lost]

    def variables(self) -> dict[str, Variable]:
        """A variable for each."""
        return {name: Variable(reader.called, reader.fitted) for name, reader in self.readers.items()}

    def named(self, y: Any) -> dict[str, Any]:
        """The targets that came with a batch, by name.

        Args:
            y: the single target; or several as a mapping.

        Raises:
            ValueError: several were asked for, and ``y`` is of another kind or lacks one.
        """
        if not self.several:
            found = {"": y}
        elif not isinstance(y, Mapping):
            raise ValueError(
                f"there are the targets {self.names}, and y is a {type(y).__name__}: give a mapping of them."
            )
        else:
            for name in y:
                if name not in self.readers:
                    raise ValueError(f"y has {name!r}, which is no target{suggestion(name, self.names)}")
            if missing := [name for name in self.readers if name not in y]:
                raise ValueError(f"y lacks the target {missing[0]!r}: give {self.names}, None for one that is absent.")
            found = dict(y)
        return {name: y for name in self.readers if (y := self._selected(name, found[name])) is not None}

    def _selected(self, name: str, y: Any) -> Any:
        try:
            if isinstance(y, TargetFailed):
                raise y
            return self.readers[name].selected(y)
        except Exception as error:  # it is the user's
            if not self.several:
                raise
            self.readers[name].lose(f"{sentence(error)} {_WITHOUT}")
        return None

    def values(self, ys: Mapping[str, Any], n_rows: Sequence[int], several_views: str = "") -> dict[str, Tensor]:
        """The values of the targets of a batch, without those that the measurement leaves out.

        Args:
            ys: those that came, from :meth:`named`.
            n_rows: how many rows each layer put out.
            several_views: advice for a step that runs several views of a batch.

        Raises:
            TypeError: a single target has a quantizer and is something else than a tensor.
        """
        found: dict[str, Tensor] = {}
        for name, y in ys.items():
            reader = self.readers[name]
            if reader.lost:
                continue
            try:
                found[name] = reader.values(y)
            except UnknownTarget as unknown:
                reader.lose(str(unknown))
            except (TypeError, ValueError, RuntimeError) as error:
                if not self.several:
                    raise
                reader.lose(f"{sentence(error)} {_WITHOUT}")
        self._leave_out_misfits(found, n_rows, several_views)
        if self.several:
            self._leave_out_changed(found)
        return {name: values for name, values in found.items() if not self.readers[name].lost}

    def _leave_out_misfits(self, found: Mapping[str, Tensor], n_rows: Sequence[int], several_views: str) -> None:
        """Leave out targets with other numbers of rows than the layers, or than the first one that is left."""
        fitting = [name for name, values in found.items() if len(values) in n_rows]
        for name, values in found.items():
            at_fault = fitting or self.several or (self._follows_layers and self.readers[name].fitted is None)
            if n_rows and at_fault and len(values) not in n_rows:
                self.readers[name].lose(
                    f"the target has {len(values)} rows where the layers put out {n_rows[0]}, so I(X;T) and H(T) are "
                    f"measured without it. Give {UNPACK} with a target a row. {several_views}"
                )
        left = [name for name in found if not self.readers[name].lost]
        for name in left:
            if len(found[name]) != len(found[left[0]]):
                self.readers[name].lose(
                    f"the target has {len(found[name])} rows where the target {left[0]!r} has {len(found[left[0]])}. "
                    f"{_WITHOUT}"
                )

    def _leave_out_changed(self, found: Mapping[str, Tensor]) -> None:
        """Leave out targets that came with some batches alone, or with rows of another form than before."""
        for name, reader in self.readers.items():
            if reader.lost:
                continue
            if reader.came not in (None, name in found):
                reader.lose(f"the target came with some batches and not with others. {_WITHOUT}")
            elif name in found:
                form = found[name].dtype, tuple(found[name].shape[1:])
                if self._forms.setdefault(name, form) != form:
                    reader.lose(f"the target has rows {form}, and had {self._forms[name]} before. {_WITHOUT}")

    def expect(self, came: Sequence[str]) -> None:
        """Note which targets a batch came with.

        Raises:
            ValueError: only some batches of this measurement came with a single target.
        """
        for name, reader in self.readers.items():
            reader.expect(came=name in came)

    def leading(self, ys: Mapping[str, Any], n_rows: Sequence[int]) -> Any:
        """Of tokens, the target that shows their places: the first with a label for each row, or else the first."""
        tensors = [y for y in ys.values() if isinstance(y, Tensor)]
        return next((y for y in tensors if y.numel() in n_rows), next(iter(tensors), next(iter(ys.values()), None)))


_WITHOUT = "The others are measured without it."
