"""How a replay measures: the options of the command line, and for the rest those of the run."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lightning_ib.capture.batches import Unpack
from lightning_ib.cli.errors import UsageError
from lightning_ib.records.history import History
from lightning_ib.records.record import COMPANIONS


class Settings(NamedTuple):
    """How a replay measures.

    Attributes:
        options: the arguments of :class:`~lightning_ib.measurement.InformationPlane`.
        prefix: the first part of every name.
        beta: if set, the information-bottleneck functional is logged too.
        by: the unit of moments, ``"epoch"`` or ``"step"``.
        unpack: batch → (x, y), or ``None``.
    """

    options: Mapping[str, Any]
    prefix: str
    beta: float | None
    by: str
    unpack: Unpack | None

    def described(self) -> dict[str, str]:
        """The settings in words that are the same in another process."""
        shown = dict(self.options) | {"prefix": self.prefix, "by": self.by, "beta": self.beta}
        shown["estimators"] = [one.name for one in self.options["estimators"]]
        # What is absent by default is absent from folders of before.
        if companions := shown.pop("companions", ()):
            shown["companions"] = [_described(one) for one in companions]
        if shown.get("targets", 0) is None:
            del shown["targets"]
        return {name: re.sub(r" at 0x[0-9a-f]+", "", repr(value)) for name, value in shown.items()}


def _described(companion: Any) -> str:
    """A companion by its name, or with its options where they differ from the defaults."""
    from lightning_ib.estimators.geometry import BY_NAME

    default = BY_NAME.get(companion.name)
    known = default is not None and repr(default()) == repr(companion)
    return str(companion.name) if known else repr(companion)


def settings_of(
    arguments: Namespace, callback: Any, recorded: History, prefix: str, say: Callable[[str], None]
) -> Settings:
    """The options of the command line, then those of the callback or, without one, of what the run recorded.

    Args:
        arguments: from the command line.
        callback: the InformationPlaneCallback that is named or in the config; ``None`` without one.
        recorded: the history in a checkpoint; empty without one.
        prefix: that of the callback that recorded it.
        say: takes a line.

    Raises:
        UsageError: an option is wrong.
    """
    if callback is not None:
        options: dict[str, Any] = dict(callback.session.options) | {"keep_rows": False}
        prefix, beta, by = callback.prefix, callback.reporter.beta, callback.schedule.by
        unpack = callback.unpack
    else:
        options = _recorded_options(recorded, say if arguments.layers is None else None)
        prefix, beta, by, unpack = prefix or "ib", None, "epoch", None
    asked = {name: getattr(arguments, name) for name in ("layers", "unit", "max_samples", "ignore_index")}
    asked |= {"tokens": True if arguments.tokens else None, "estimators": arguments.estimators}
    asked["companions"] = arguments.companions
    options = {"layers": None, "unit": "bits"} | options
    options |= {name: value for name, value in asked.items() if value is not None}
    options["estimators"] = _checked_estimators(options["estimators"])
    options["companions"] = _checked_companions(options.get("companions", ()), options["estimators"])
    prefix = (arguments.prefix or prefix).strip("/")
    if not prefix:
        raise UsageError(f"--prefix must be a name such as ib, got {arguments.prefix!r}.")
    return Settings(options, prefix, beta, arguments.by or by, unpack)


def _recorded_options(recorded: History, say: Callable[[str], None] | None) -> dict[str, Any]:
    """The options that a recorded history shows: layers, unit, estimators and correction."""
    from lightning_ib.callbacks.arguments import default_estimators
    from lightning_ib.estimators.registry import BY_NAME

    if not recorded:
        return {"estimators": default_estimators()}
    last = recorded.information().last()
    points = last.points()
    sources = list(dict.fromkeys(one.source for one in last.estimates()))
    unknown = [name for name in sources if name not in (*BY_NAME, *COMPANIONS)]
    companions, sources = (
        [name for name in sources if (name in COMPANIONS) == companion] for companion in (True, False)
    )
    if say is not None and unknown:
        say(f"the run has values of {', '.join(unknown)}, estimators of its own: name its callback (--callback).")
    if say is not None and last.targets:
        say(
            f"the run had the targets {', '.join(last.targets)}, and no checkpoint says where they are in a batch: "
            "here its y is measured alone. Name the run's callback (--callback) to have them."
        )
    if say is not None and (binned := [point.layer for point in points if point.source == "binned"]):
        say(
            f"the run counted {', '.join(binned)} in bins, and its quantizers are in no checkpoint: here they are cut "
            "into cells. Name the run's callback (--callback) to have the same bins."
        )
    return {
        "layers": [point.layer for point in points],
        "unit": points[0].unit,
        "correction": points[0].correction or None,
        "estimators": default_estimators() if sources == ["probe"] else [one for one in sources if one in BY_NAME],
        "companions": companions,
    }


def _checked_companions(asked: Any, estimators: Any) -> Any:
    from lightning_ib.estimators.geometry import checked_companions

    try:
        return checked_companions("all" if asked == ["all"] else asked, estimators)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--companions: {error}") from error


def _checked_estimators(asked: Any) -> Any:
    from lightning_ib.estimators.registry import checked_estimators

    try:
        return checked_estimators(asked)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--estimators: {error}") from error
