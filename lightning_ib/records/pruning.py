"""Which layer of a network already knows what the best one knows."""

from __future__ import annotations

import math

from lightning_ib.records.history import History


def earliest_layer(
    history: History, *, source: str = "probe", quantity: str = "I_TY", target: str | None = None
) -> str | None:
    r"""The first layer that knows as much of the target as the best one, within one standard error of the latter.

    For this target the layers after it could be pruned, as a readout of its own on that layer does as well. The rule
    of one standard error is that of Breiman, Friedman, Olshen & Stone (1984): among what is as good within the error,
    the simplest. Layers are measured on the same samples, so that the error of a *difference* is mostly smaller: the
    rule is generous to early layers. A guess by the class shares, which knows nothing, is simpler than any layer: where
    zero is within one standard error of the best layer, no layer is named.

    Args:
        history: its last measurement of this kind is read; ``history.at(epoch, step)`` for another one. Layers come in
            the order in which they run; values that are flagged as unreliable are passed over.
        source: the estimator, one that records standard errors, such as ``"probe"`` or ``"knn"``, or ``"cells"`` for
            counted values.
        quantity: the information about the target.
        target: the name of the target, where several were measured in one pass; ``None`` takes the primary one.

    Returns:
        Its name; None where no layer has a value and an error, or none knows more than zero by a standard error.

    Raises:
        ValueError: nothing of this source and quantity was recorded, or no errors of it; the sentence says what was. Or
            there is no such target.

    Example:
        >>> from lightning_ib import Record
        >>> found = {"embedding": 0.31, "block1": 0.58, "block2": 0.60, "block3": 0.59}
        >>> records = [Record(0, 0, layer, "probe", "I_TY", value, 0.03) for layer, value in found.items()]
        >>> earliest_layer(History(records))
        'block1'
    """
    target = next(iter(history.targets), None) if target is None else target
    records = (history if target is None else history.about(target)).records()
    of_kind = [one for one in records if (one.source, one.quantity) == (source, quantity)]
    if not of_kind:
        kinds = ", ".join(sorted({f"{one.source} {one.quantity}" for one in records})) or "no records"
        raise ValueError(f"there is no {quantity} of source {source!r} in this history, it has {kinds}.")
    last = History(of_kind).last().records()
    if all(math.isnan(one.standard_error) for one in last) and not all(math.isnan(one.value) for one in last):
        raise ValueError(f"source {source!r} records no standard errors of {quantity}: take 'probe', say.")
    known = [
        one
        for one in last
        if one.verdict in ("", "ok") and not (math.isnan(one.value) or math.isnan(one.standard_error))
    ]
    if not known:
        return None
    best = max(known, key=lambda one: one.value)
    least = best.value - best.standard_error
    return next(one.layer for one in known if one.value >= least) if least > 0 else None
