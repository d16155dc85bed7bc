"""The information that the accuracy of a network proves of its layers: Fano's inequality."""

from __future__ import annotations

import math

from lightning_ib.functional.checks import Unit, checked_integer, checked_number, in_unit, logarithm


def fano_error(accuracy: float, *, n_samples: int, n_classes: int) -> float:
    r"""The standard error of Fano's bound, in nats, from that of the accuracy of N samples (delta method).

    .. math:: \sqrt{\frac{e (1 - e)}{N}} \; \Big| \log \frac{1 - e}{e} + \log(C - 1) \Big|

    It is 0 where all predictions are right, and where all are wrong.
    """
    error = 1 - accuracy
    if not 0 < error < 1 or n_samples < 1:
        return 0.0
    slope = math.log(accuracy / error) + (math.log(n_classes - 1) if n_classes > 2 else 0.0)
    return math.sqrt(error * accuracy / n_samples) * abs(slope)


def fano_information(accuracy: float, *, h_y: float, n_classes: int, unit: Unit = "bits") -> float:
    r"""The least information about the target in a layer from which a prediction of this accuracy is computed.

    .. math:: I(T;Y) \ge H(Y) - h(e) - e \log(C - 1), \qquad e = 1 - \text{accuracy}

    with the binary entropy :math:`h(e) = -e \log e - (1 - e) \log(1 - e)`. It holds for the samples at
    hand, where accuracy and H(Y) are counted on the same ones. Equality holds where the errors fall evenly on all wrong
    classes.

    Source:
        Fano (1961); Cover & Thomas (2006), theorem 2.10.1.

    Cost:
        None: one formula. The accuracy is counted in the pass.

    Samples:
        As many as the accuracy: at 0.9 and N = 10 000 that has a standard error of 0.003.

    Trap:
        It holds for layers that the prediction is computed from alone; one that a skip connection bypasses may hold
        less. Symbols are coarser than layers: a hidden layer below the bound (``fano_shortfall``) holds more than its
        symbols show. Where one class is frequent, guessing it has a high accuracy and a bound of 0.

    Args:
        accuracy: the share of correct predictions, 0 … 1.
        h_y: H(Y), in ``unit``.
        n_classes: C, the number of classes.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The bound in ``unit``, at least 0.

    Raises:
        TypeError: a number is of another kind.
        ValueError: the accuracy is outside 0 … 1, ``n_classes`` is below 1, or the unit is unknown.

    Example:
        Ten classes, 99 % right: at least 3.21 of 3.32 bits.

        >>> round(fano_information(0.99, h_y=math.log2(10), n_classes=10), 2)
        3.21
    """
    logarithm(unit)  # checks it
    accuracy = checked_number(accuracy, "accuracy", at_least=0, at_most=1)
    n_classes = checked_integer(n_classes, "n_classes", at_least=1)
    error = 1 - accuracy
    nats = sum(-p * math.log(p) for p in (error, accuracy) if p > 0)
    nats += error * math.log(n_classes - 1) if n_classes > 2 else 0.0
    return max(0.0, h_y - in_unit(nats, unit))
