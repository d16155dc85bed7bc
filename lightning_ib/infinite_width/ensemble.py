"""The infinite ensemble of infinitely wide networks: all that it does in training is a formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    Unit,
    check_same_samples,
    checked_choice,
    checked_flag,
    checked_integer,
    checked_labels,
    checked_number,
    checked_rows,
    checked_unit,
    in_unit,
    kind_of,
    plain_tensor,
)
from lightning_ib.infinite_width.activations import ACTIVATIONS
from lightning_ib.infinite_width.convolution import Convolutional
from lightning_ib.infinite_width.kernels import FullyConnected, Kernels
from lightning_ib.infinite_width.solution import Solution, TestSet

ActivationName = Literal["relu", "erf", "tanh"]

_INFORMATIONS = ("i_xz", "i_xz_upper", "i_xz_lower", "i_xz_left_out", "i_yz", "i_zd", "standard_error")
_TARGET = (
    "give real targets, such as 2 * y - 1 for two classes, or torch.nn.functional.one_hot(y).double() - 1 / C for C"
)


@dataclass(frozen=True)
class EnsembleValues:
    r"""An ensemble at one time, or at several. Informations are in ``unit``, all else is without one.

    The shape ``(…)`` is that of the times: ``()`` for a number, ``(T,)`` for T times. All float64.

    Attributes:
        t: the times.
        mean: the mean output at the test inputs, shape ``(…, n)``, or ``(…, n, k)`` for targets ``(N, k)``.
        variance: the variance of each output over the ensemble, ``(…, n)``.
        i_xz: I(X;Z), X uniform on the test inputs and Z the output of a network of the ensemble; at most log n. For X
            from a density it is a lower bound in expectation.
        i_xz_upper: an upper bound of ``i_xz`` by pairwise divergences (Kolchinsky & Tracey 2017).
        i_xz_lower: a lower bound of ``i_xz`` by pairwise Bhattacharyya distances.
        i_xz_left_out: an upper bound in expectation for X from a density, by the test inputs but the one at hand (Poole
            et al. 2019). Infinite where the output at an input is a point mass of its own.
        i_yz: I(Y;Z), Y the class of a test input; NaN without ``y_test``.
        i_zd: the mean over the test inputs of the divergence from the outputs at the start. Its mean over training sets
            D is an upper bound of I(Z;D|X).
        train_loss: half the mean squared error of one network of the ensemble on the training inputs, summed over
            outputs, on average.
        test_loss: the same on the test inputs; NaN unless there are real ``y_test``.
        test_loss_of_mean: the test loss of the ensemble's mean output.
        distance: the expected squared distance of the weights from their start, E ‖θₜ − θ₀‖².
        fisher: the trace of the Fisher information of the weights for a Gaussian likelihood of variance 1, averaged
            over the training inputs: the kernel Θ(x, x), the same at all times, summed over outputs.
        saturated: how many test inputs have an output without variance, int64: for them I(X;Z) counts values.
        standard_error: of ``i_xz`` and ``i_yz``: 0 for one output, where they are integrated; for several they are
            means over draws.
        unit: ``"bits"`` or ``"nats"``.
    """

    t: Tensor
    mean: Tensor
    variance: Tensor
    i_xz: Tensor
    i_xz_upper: Tensor
    i_xz_lower: Tensor
    i_xz_left_out: Tensor
    i_yz: Tensor
    i_zd: Tensor
    train_loss: Tensor
    test_loss: Tensor
    test_loss_of_mean: Tensor
    distance: Tensor
    fisher: Tensor
    saturated: Tensor
    standard_error: Tensor
    unit: str


class InfiniteWidthEnsemble:
    r"""All networks of infinite width that training by gradient flow makes of random starts.

    In the limit of infinite width a network is linear in its weights throughout training (Jacot, Gabriel & Hongler
    2018; Lee et al. 2019), and its output Z at an input is Gaussian over the starts. So every value of the information
    plane is a formula (Shwartz-Ziv & Alemi 2020). With the loss :math:`\frac12 \sum_i (f(x_i) - y_i)^2`, a *sum* over
    the N training inputs, the kernels Θ (NTK) and K (NNGP), and :math:`A_t = \Theta_* \Theta^{-1} (1 - e^{-t
    \Theta})`,

    .. math:: \mu_t = A_t\, y, \qquad \Sigma_t = K_{**} + A_t K A_t^\top - A_t K_*^\top - K_* A_t^\top

    A full-batch gradient descent of rate η is at :math:`t = \eta \cdot \text{steps}`; where it averages the loss over
    inputs, at that over N. The network has the NTK parameterization: layer l is :math:`\frac{\sigma_w}{\sqrt n} W h +
    \sigma_b b`, with all W and b standard normal and trained.

    Training takes :math:`O(N^3)` once, each time :math:`O(n N^2)` for n test inputs; six matrices of N² float64 numbers
    are held, 200 MB for N = 2 000.

    Args:
        hidden_layers: the number of layers with the nonlinearity; 0 for a linear model.
        activation: ``"relu"`` and ``"erf"`` in closed form, ``"tanh"`` by quadrature to 1e-9.
        weight_variance: σ_w².
        bias_variance: σ_b². At 0 the output at an input of zero norm is 0 throughout.
        kernel_size: the side of the filters of a convolutional network, odd. Inputs are then images ``(N, C, H, W)``,
            and hidden layers convolutions of stride 1 with zeros around. By default layers are fully connected.
        pooling: whether a convolutional network averages over all places before its readout; it then takes the time of
            all pairs of places.
        memory_limit_gb: matrices of more gigabytes than this are refused, before they are made. 4 GB are enough for
            8 900 training inputs.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of range.

    Example:
        >>> x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
        >>> ensemble = InfiniteWidthEnsemble(1, activation="erf").fit(x[::2], x[::2].sign())
        >>> found = ensemble.at([0, 0.1, 1, float("inf")], x, x[:, 0].sign())
        >>> found.i_yz.round(decimals=2)
        tensor([0.0000, 0.2100, 0.9600, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        hidden_layers: int,
        *,
        activation: ActivationName = "relu",
        weight_variance: float = 2.0,
        bias_variance: float = 0.1,
        kernel_size: int | None = None,
        pooling: bool = False,
        memory_limit_gb: float = 4.0,
    ) -> None:
        self.hidden_layers = checked_integer(hidden_layers, "hidden_layers", at_least=0 if kernel_size is None else 1)
        self.activation = checked_choice(activation, "activation", get_args(ActivationName))
        self.weight_variance = checked_number(weight_variance, "weight_variance", above=0)
        self.bias_variance = checked_number(bias_variance, "bias_variance", at_least=0)
        self.memory_limit_gb = checked_number(memory_limit_gb, "memory_limit_gb", above=0, infinite=True)
        self.kernel_size = _filter_size(kernel_size)
        self.pooling = checked_flag(pooling, "pooling")
        if self.pooling and self.kernel_size is None:
            raise ValueError("pooling is of convolutional networks: give kernel_size=3, say.")
        settings = self.hidden_layers, ACTIVATIONS[self.activation], self.weight_variance, self.bias_variance
        self._architecture: Kernels = (
            FullyConnected(*settings)
            if self.kernel_size is None
            else Convolutional(*settings, self.kernel_size, self.pooling)
        )
        self._solution: Solution | None = None
        self._target_shape: tuple[int, ...] = ()

    def __repr__(self) -> str:
        of_images = f", kernel_size={self.kernel_size}, pooling={self.pooling}" if self.kernel_size else ""
        return (
            f"InfiniteWidthEnsemble({self.hidden_layers}, activation={self.activation!r}, "
            f"weight_variance={self.weight_variance:g}, bias_variance={self.bias_variance:g}{of_images})"
        )

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """The covariance K of the outputs at the start.

        Args:
            x1: inputs, floating point, shape ``(n, …)``, flattened to ``(n, D)`` but for a convolutional network.
            x2: inputs, ``(m, …)``; by default those of ``x1``.

        Returns:
            float64, shape ``(n, m)``.

        Raises:
            TypeError: inputs are of another kind.
            ValueError: inputs differ in D, or hold NaN or infinity.
        """
        return self._kernels(x1, x2)[0]

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """The neural tangent kernel Θ, the product of the outputs' gradients; arguments as of :meth:`nngp`."""
        return self._kernels(x1, x2)[1]

    def _kernels(self, x1: Tensor, x2: Tensor | None) -> tuple[Tensor, Tensor]:
        ours = self._inputs(x1, "x1")
        theirs = ours if x2 is None else self._inputs(x2, "x2", like=("x1", ours))
        numbers = 2 * len(ours) * len(theirs) + self._architecture.at_once(len(theirs), ours)
        self._check_memory(numbers, f"the kernel of {len(ours)} and {len(theirs)} inputs")
        return self._architecture.kernels(ours, theirs)

    def fit(self, x: Tensor, y: Tensor) -> InfiniteWidthEnsemble:
        """Train on data: the eigenvalues of their kernel, from which every time follows.

        Repeated inputs are welcome: where their targets differ, the network learns their mean.

        Args:
            x: training inputs, floating point, shape ``(N, …)``, flattened to ``(N, D)`` but for a convolutional
                network.
            y: real targets, shape ``(N,)``, or ``(N, k)`` for k outputs.

        Returns:
            The ensemble itself.

        Raises:
            TypeError: an argument is of another kind, class labels among them.
            ValueError: shapes differ, a value is NaN or infinite, or the matrices exceed the limit of memory.
        """
        x = self._inputs(x, "x")
        y = _targets(y, "y", len(x), _TARGET)
        numbers = 6 * len(x) ** 2 + self._architecture.at_once(len(x), x)
        self._check_memory(numbers, f"training on {len(x)} inputs")
        self._solution = Solution.of(self._architecture, x, y.reshape(len(y), -1))
        self._target_shape = tuple(y.shape[1:])
        return self

    def at(
        self, t: float | Tensor | list[float], x_test: Tensor, y_test: Tensor | None = None, *, unit: Unit = "bits"
    ) -> EnsembleValues:
        """The ensemble after a time of training.

        Args:
            t: a time, or several of shape ``(T,)``, of at least 0; infinity is the end of training.
            x_test: test inputs, shape ``(n, …)`` as the training inputs; X is uniform on them.
            y_test: real targets of the shape ``(n,)`` or ``(n, k)`` of the training targets, or class labels, integers
                of shape ``(n,)``. Y is the label; of one real target its sign, of several the place of the largest.
            unit: ``"bits"`` or ``"nats"``, of the informations.

        Warns:
            UserWarning: float64 cannot resolve some directions of a smooth kernel that would be learned by then.

        Raises:
            RuntimeError: it is not trained.
            TypeError: an argument is of another kind.
            ValueError: a time is negative or NaN, or inputs or targets differ in shape from those of training.
        """
        checked_unit(unit)
        if self._solution is None:
            raise RuntimeError("the ensemble is not trained: call fit(x, y) first.")
        solution, shape = self._solution, self._target_shape
        times = _times(t, solution.x.device)
        x = self._inputs(x_test, "x_test", like=("x", solution.x))
        numbers = 6 * len(x) * len(solution.x) + self._architecture.at_once(len(solution.x), x)
        self._check_memory(numbers, f"testing on {len(x)} inputs after {len(solution.x)}")
        solution.warn_of_late(times)
        values = solution.at(times.flatten(), TestSet(x, *_test_targets(y_test, len(x), shape)))
        values = {name: value.reshape(times.shape + value.shape[1:]) for name, value in values.items()}
        if not shape:
            values["mean"] = values["mean"][..., 0]
        informations = {name: in_unit(1.0, unit) * values[name] for name in _INFORMATIONS}
        return EnsembleValues(**{**values, **informations}, t=times, unit=unit)

    def _inputs(self, x: Any, name: str, like: tuple[str, Tensor] | None = None) -> Tensor:
        """Inputs as float64: rows, or images for a convolutional network; of the shape of others."""
        rows = checked_rows(x, name, at_least=1).double()
        if not rows.square().sum().isfinite():
            raise ValueError(f"{name} has values with squares beyond float64: standardize it.")
        if self.kernel_size is not None:
            if x.ndim != 4:
                raise ValueError(f"{name} must be images of shape (N, C, H, W) for kernel_size, got {tuple(x.shape)}.")
            rows = rows.reshape(x.shape)
        if like is not None and rows.shape[1:] != like[1].shape[1:]:
            of = "x".join(map(str, like[1].shape[1:]))
            raise ValueError(f"{name} must have {of} values an input as {like[0]}, got {tuple(rows.shape)}.")
        if like is not None and rows.device != like[1].device:
            raise ValueError(f"{name} must be on {like[1].device} as {like[0]}, got {rows.device}.")
        return rows

    def _check_memory(self, numbers: int, purpose: str) -> None:
        """Refuse what holds too many float64 numbers at once."""
        gigabytes = 8 * numbers / 1e9
        if gigabytes > self.memory_limit_gb:
            raise ValueError(
                f"{purpose} takes {gigabytes:.1f} GB of memory, and memory_limit_gb is {self.memory_limit_gb:g}: take "
                f"fewer inputs, or give memory_limit_gb={math.ceil(gigabytes)}."
            )


def _filter_size(size: Any) -> int | None:
    if size is None:
        return None
    checked = checked_integer(size, "kernel_size", at_least=1)
    if checked % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that a filter has a middle, got {checked}: give {checked + 1}.")
    return checked


def _targets(y: Any, name: str, n: int, remedy: str) -> Tensor:
    """Real targets as float64, of the shape they have."""
    if not isinstance(y, Tensor) or not y.is_floating_point():
        kind = str(y.dtype) if isinstance(y, Tensor) else kind_of(y)
        raise TypeError(f"{name} must be real targets, of shape (N,) or (N, k), got {kind}: {remedy}.")
    if y.ndim not in (1, 2) or 0 in y.shape:
        raise ValueError(f"{name} must have shape (N,) or (N, k), got {tuple(y.shape)}.")
    check_same_samples(n, len(y), (name.replace("y", "x", 1), name))
    if not y.isfinite().all():
        raise ValueError(f"{name} has NaN or infinite values: leave those samples out.")
    return plain_tensor(y.detach()).double()


def _test_targets(y: Any, n: int, shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Real targets ``(n, k)`` and labels ``(n,)``, as far as there are any."""
    if y is None:
        return None, None
    if isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex()):
        return None, checked_labels(y, n, ("x_test", "y_test"))[0]
    real = _targets(y, "y_test", n, "give those, or class labels as integers")
    rows = real.reshape(n, -1)
    if rows.shape[1] != (shape or (1,))[0]:
        expected = f"(n, {shape[0]})" if shape else "(n,)"
        raise ValueError(f"y_test must have shape {expected} as y has, got {tuple(real.shape)}.")
    kind = rows[:, 0].sign() if rows.shape[1] == 1 else rows.argmax(1)
    return rows, kind.unique(return_inverse=True)[1]


def _times(t: Any, device: torch.device) -> Tensor:
    """Times as float64, shape ``()`` or ``(T,)``."""
    try:
        times = torch.as_tensor(t, dtype=torch.float64, device=device)
    except (TypeError, ValueError) as error:
        raise TypeError(f"t must be a number or a sequence of numbers, got {t!r}.") from error
    if times.ndim > 1 or times.numel() == 0:
        raise ValueError(f"t must be a number or have shape (T,) with T at least 1, got shape {tuple(times.shape)}.")
    if not (times >= 0).all():
        wrong = float(times.flatten()[~(times.flatten() >= 0)][0])
        raise ValueError(f"t must be a time of training of at least 0, infinity included, got {wrong}.")
    return times
