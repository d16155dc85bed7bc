"""The instrument of gradients: its sums against the gradients themselves, known answers, and what it leaves alone."""

import copy
import math

import pytest
import torch
from torch import nn

from lightning_ib.capture.layers import NoLayersError
from lightning_ib.measurement import GradientSNR
from lightning_ib.measurement.sketch import Sketch
from tests.helpers.messages import exactly
from tests.helpers.no_sync import nothing_waits


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def trained(model, instrument, n_steps=5, lr=0.1, batch=4, **seen):
    """Plain SGD; the gradients of each step, by parameter."""
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(n_steps):
        x = torch.randn(batch, 6, generator=generator)
        model.zero_grad()
        model(x).square().sum(1).mean().backward()
        found.append({name: p.grad.clone().double() for name, p in model.named_parameters() if p.grad is not None})
        instrument.see(n_samples=batch, **seen)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= lr * parameter.grad
    return found


def values(history, layer):
    return {one.quantity: one.value for one in history.records() if one.layer == layer}


@pytest.mark.parametrize("biases", [False, True])
def test_the_sums_are_those_of_the_gradients(biases):
    model, instrument = net(), GradientSNR(biases=biases)
    instrument.attach(model)
    start = copy.deepcopy(model.state_dict())
    gradients = trained(model, instrument)
    measured = instrument.compute(epoch=1, step=5)
    names = {"0": ["0.weight"], "3": ["3.weight"]}
    if biases:
        names = {layer: [*of, f"{layer}.bias"] for layer, of in names.items()}
    names["all_layers"] = names["0"] + names["3"]
    assert instrument.layers == ["0", "3"]
    for layer, of in names.items():
        g = torch.stack([torch.cat([step[name].flatten() for name in of]) for step in gradients])
        mean, trace = g.mean(0), g.var(0).sum()
        w, w_0 = (torch.cat([state[name].flatten() for name in of]).double() for state in (model.state_dict(), start))
        signal = max(0.0, float(mean.square().sum() - trace / 5))
        assert values(measured, layer) == pytest.approx(
            {
                "grad_mean": float(mean.norm()),
                "grad_std": math.sqrt(trace),
                "grad_snr": float(mean.norm() / trace.sqrt()),
                "grad_snr_unbiased": math.sqrt(signal / trace),
                "grad_snr_floor": 1 / math.sqrt(5),
                "noise_scale": 4 * float(trace) / signal if signal else math.inf,
                "weight_norm": float(w.norm()),
                "weight_distance": float((w - w_0).norm()),
            },
            rel=1e-5,
        )
    assert {(one.epoch, one.step, one.source, one.n_samples, one.unit) for one in measured.records()} == {
        (1, 5, "gradient", 20, "")
    }


def test_a_reset_begins_anew_and_keeps_the_start():
    model, instrument = net(), GradientSNR()
    instrument.attach(model)
    trained(model, instrument)
    instrument.reset()
    before = values(instrument.compute(), "0")
    assert math.isnan(before["grad_mean"])
    assert before["weight_distance"] > 0
    alone = GradientSNR()
    alone.attach(model)
    twin = copy.deepcopy(model)
    trained(model, instrument, n_steps=3)
    alone.attach(twin)
    trained(twin, alone, n_steps=3)
    both = [values(one.compute(), "3") for one in (instrument, alone)]
    assert both[0].pop("weight_distance") > both[1].pop("weight_distance") > 0
    assert both[0] == both[1]


@pytest.mark.slow
def test_gradients_with_a_known_answer():
    """x ~ N(0, Σ), y = x·w* + e: G = Σ d and tr C = (d'Σd + s²) tr Σ + ‖Σd‖², at fixed weights."""
    generator, batch, n = torch.Generator().manual_seed(0), 16, 4000
    sigma = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]], dtype=torch.float64)
    d, root = torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64), torch.linalg.cholesky(sigma)
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(d)
    instrument, whole = GradientSNR(), nn.Sequential(model)
    instrument.attach(whole)
    for _ in range(n):
        x = torch.randn(batch, 3, generator=generator, dtype=torch.float64) @ root.T
        e = torch.randn(batch, generator=generator, dtype=torch.float64)
        model.zero_grad()
        (0.5 * (model(x)[:, 0] - e).square()).mean().backward()
        instrument.see(n_samples=batch)
    found = values(instrument.compute(), "0")
    # Four standard errors: the relative one of a ratio of these sums is about (1/SNR + 1)/√M.
    near = {"rel": 4 * 2.2 / math.sqrt(n)}
    assert found["grad_snr_unbiased"] == pytest.approx(0.8772296535776507, **near)
    assert found["noise_scale"] == pytest.approx(20.79186155285314, rel=2 * near["rel"])
    assert found["grad_std"] == pytest.approx(0.5270970024578019, **near)


def test_a_step_waits_for_no_device():
    model, instrument = net(), GradientSNR()
    instrument.attach(model)
    model(torch.randn(4, 6)).sum().backward()
    with nothing_waits() as mode:
        instrument.see(n_samples=4)
        instrument.see(list(model.parameters()), n_samples=4)
    assert mode.seen > 0
    assert instrument.n_steps == 2


def test_gradients_and_random_numbers_are_left_alone():
    model, instrument = net(), GradientSNR(sketch=64)
    instrument.attach(model)
    model(torch.randn(4, 6)).sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    instrument.see(n_samples=4)
    instrument.compute()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())


def test_a_scale_is_divided_out():
    found = []
    for scale in (1.0, 1024.0):
        model, instrument = net().double(), GradientSNR()
        instrument.attach(model)
        for _ in range(3):
            model.zero_grad()
            (scale * model(torch.ones(2, 6, dtype=torch.float64)).sum()).backward()
            instrument.see(scale=scale)
        found.append(values(instrument.compute(), "0"))
    assert found[0] == pytest.approx(found[1], rel=1e-9, nan_ok=True, abs=1e-7)


def test_half_precision_does_not_lose_small_gradients():
    parameter = nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    model = nn.Module()
    model.layer = nn.ParameterList([parameter])
    instrument = GradientSNR("layer")
    instrument.attach(model)
    for sign in (1, -1, 1):
        parameter.grad = torch.full_like(parameter, sign * 1e-5)  # its square is 0 in float16
        instrument.see()
    found = values(instrument.compute(), "layer")
    assert found["grad_mean"] == pytest.approx(math.sqrt(1000) * 1e-5 / 3, rel=2e-2)


def test_norms_of_many_values_are_right_to_the_last_digits():
    """A norm in float32 over twenty million values is off by a tenth of a percent."""
    parameter = nn.Parameter(torch.randn(3_000_001, generator=torch.Generator().manual_seed(0)))
    model = nn.Module()
    model.layer = nn.ParameterList([parameter])
    instrument = GradientSNR("layer")
    instrument.attach(model)
    parameter.grad = parameter.detach().clone()
    instrument.see()
    found = values(instrument.compute(), "layer")
    exact = float(parameter.detach().double().norm())
    assert found["weight_norm"] == pytest.approx(exact, rel=1e-6)
    assert found["grad_mean"] == pytest.approx(exact, rel=1e-6)


def test_sparse_gradients_are_those_of_dense_ones():
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model, instrument = nn.Sequential(nn.Embedding(50, 4, sparse=sparse)), GradientSNR()
        instrument.attach(model)
        for words in ([1, 1, 7], [7, 2, 2]):
            model.zero_grad()
            model(torch.tensor(words)).square().sum().backward()
            instrument.see(n_samples=3)
        found.append(values(instrument.compute(), "0"))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_shared_weights_count_once_as_a_whole():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    instrument = GradientSNR()
    instrument.attach(model)
    for _ in range(3):
        model.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        instrument.see(n_samples=5)
    measured = instrument.compute()
    assert values(measured, "0") == values(measured, "2") == values(measured, "all_layers")


def test_frozen_and_unused_weights_have_no_gradients():
    class Spare(nn.Sequential):
        def forward(self, x):
            return self[0](x)

    model = Spare(nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    instrument = GradientSNR()
    instrument.attach(model)
    for _ in range(2):
        model(torch.randn(5, 4)).sum().backward()
        instrument.see()
    measured = instrument.compute()
    for layer in ("1", "2"):
        found = values(measured, layer)
        assert all(math.isnan(found[name]) for name in ("grad_mean", "grad_std", "grad_snr", "noise_scale"))
        assert (found["weight_norm"] > 0, found["weight_distance"]) == (True, 0)
    assert instrument.idle_layers == ["2"]
    assert values(measured, "0")["grad_mean"] == values(measured, "all_layers")["grad_mean"] > 0
    assert math.isnan(values(measured, "0")["noise_scale"])  # the batch size is unknown


def test_infinite_gradients_are_nan_and_named():
    model, instrument = net(), GradientSNR()
    instrument.attach(model)
    model(torch.randn(4, 6)).sum().backward()
    instrument.see()
    model[0].weight.grad[0, 0] = math.inf
    instrument.see()
    assert math.isnan(values(instrument.compute(), "0")["grad_mean"])
    assert values(instrument.compute(), "3")["grad_mean"] > 0
    assert instrument.broken_layers == ["0"]


def test_lazy_weights_start_where_the_first_forward_puts_them():
    model, instrument = nn.Sequential(nn.LazyLinear(3)), GradientSNR()
    instrument.attach(model)
    assert math.isnan(values(instrument.compute(), "0")["weight_norm"])
    gradients = trained(model, instrument, n_steps=3)
    moved = 0.1 * sum(step["0.weight"] for step in gradients)
    assert values(instrument.compute(), "0")["weight_distance"] == pytest.approx(float(moved.norm()), rel=1e-5)


def test_a_module_with_submodules_counts_all_its_weights():
    model, instrument = nn.Sequential(net(), nn.Linear(3, 2)), GradientSNR(["0", "0.0", "1"])
    instrument.attach(model)
    model(torch.randn(4, 6)).sum().backward()
    instrument.see()
    weights = [model[0][0].weight, model[0][2].weight, model[0][3].weight]
    expected = math.sqrt(sum(float(one.grad.double().square().sum()) for one in weights))
    assert values(instrument.compute(), "0")["grad_mean"] == pytest.approx(expected, rel=1e-6)


def test_the_start_goes_with_a_copy_and_a_state():
    model, instrument = net(), GradientSNR()
    instrument.attach(model)
    trained(model, instrument)
    distance = values(instrument.compute(), "0")["weight_distance"]
    for frozen in (copy.deepcopy(instrument).frozen_state(), instrument.frozen_state()):
        other = GradientSNR()
        other.attach(model, frozen)
        assert values(other.compute(), "0")["weight_distance"] == distance
    instrument.detach()
    instrument.attach(model, instrument.frozen_state())
    assert values(instrument.compute(), "0")["weight_distance"] == distance


@pytest.mark.parametrize("kind", ["random", "rank one", "few inputs", "constant"])
def test_a_sketch_keeps_norms_on_average(kind):
    """The relative standard deviation of a squared norm is √(2/k), for the forms that gradients have, too."""
    generator, k, ratios = torch.Generator().manual_seed(0), 128, []
    for _ in range(100):
        row, column = torch.randn(96, 1, generator=generator), torch.randn(1, 64, generator=generator)
        vector = {
            "random": torch.randn(96, 64, generator=generator),
            "rank one": row * column,
            "few inputs": row * torch.where(torch.arange(64) < 8, column, 0.0),
            "constant": row * torch.ones(1, 64),
        }[kind]
        ratios.append(float(Sketch(k)(vector).square().sum() / vector.square().sum()))
    ratios = torch.tensor(ratios)
    assert ratios.mean() == pytest.approx(1, abs=4 * math.sqrt(2 / k / 100))
    assert ratios.std() < 2 * math.sqrt(2 / k)


def test_a_sketch_is_linear_and_small():
    sketch, generator = Sketch(64), torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500_000, generator=generator, dtype=torch.float64)
    assert sketch(a).shape == (63,)
    assert torch.allclose(sketch(2 * a - b), 2 * sketch(a) - sketch(b), rtol=1e-9, atol=1e-9)


def test_with_a_sketch_the_values_are_estimates():
    model = nn.Sequential(nn.Linear(6, 400), nn.Tanh(), nn.Linear(400, 3))
    exact, estimate = GradientSNR(), GradientSNR(sketch=400)
    exact.attach(model)
    estimate.attach(model)

    class Both:
        def see(self, **seen):
            exact.see(**seen)
            estimate.see(**seen)

    trained(model, Both())
    assert max(one.numel() for one in estimate.frozen_state()["start"].values()) < 400
    for layer in ("0", "2"):
        one, other = (values(instrument.compute(), layer) for instrument in (exact, estimate))
        for quantity in ("grad_mean", "weight_distance"):
            assert other[quantity] == pytest.approx(one[quantity], rel=4 * math.sqrt(2 / 399) / 2)
        assert other["weight_norm"] == one["weight_norm"]


def test_a_strong_signal_is_seen_in_a_sketch_too():
    """The spread is that of the sketched gradients: the difference of an exact and an estimated sum would be noise."""
    generator, ratios = torch.Generator().manual_seed(0), []
    for _ in range(8):
        parameter = nn.Parameter(torch.zeros(4000))
        model = nn.Module()
        model.layer = nn.ParameterList([parameter])
        instrument = GradientSNR("layer", sketch=1024)
        instrument.attach(model)
        mean = torch.randn(4000, generator=generator)
        for _ in range(50):
            parameter.grad = mean + 0.1 * torch.randn(4000, generator=generator)
            instrument.see()
        ratios.append(values(instrument.compute(), "layer")["grad_snr"])
    assert ratios == pytest.approx([10.0] * 8, rel=0.2)


def test_a_parameter_with_few_gradients_leaves_the_others_as_they_are():
    """As of an expert that is seldom asked: sums of each parameter are over its own steps."""
    torch.manual_seed(0)
    model, instrument = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), GradientSNR()
    instrument.attach(model)
    for step in range(50):
        model[1].weight.grad = None
        model[0].weight.grad = torch.randn(4, 4)
        if step in (7, 8):
            model[1].weight.grad = torch.randn(4, 4)
        instrument.see(n_samples=8)
        if step == 7:
            once = {layer: values(instrument.compute(), layer) for layer in ("0", "1", "all_layers")}
    assert math.isnan(once["1"]["grad_snr"])
    assert {name: once["all_layers"][name] for name in ("grad_mean", "grad_snr", "grad_snr_floor", "noise_scale")} == {
        name: once["0"][name] for name in ("grad_mean", "grad_snr", "grad_snr_floor", "noise_scale")
    }
    parts = {layer: values(instrument.compute(), layer) for layer in ("0", "1", "all_layers")}
    trace = parts["0"]["grad_std"] ** 2 + parts["1"]["grad_std"] ** 2
    assert parts["all_layers"]["grad_std"] == pytest.approx(math.sqrt(trace), rel=1e-9)
    floor = (parts["0"]["grad_std"] ** 2 / 50 + parts["1"]["grad_std"] ** 2 / 2) / trace
    assert parts["all_layers"]["grad_snr_floor"] == pytest.approx(math.sqrt(floor), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-21, 1e-23, 1e-26])
def test_gradients_below_the_range_of_their_squares_are_nan(scale):
    parameter = nn.Parameter(torch.zeros(100))
    model = nn.Module()
    model.layer = nn.ParameterList([parameter])
    instrument = GradientSNR("layer")
    instrument.attach(model)
    for _ in range(20):
        parameter.grad = scale * torch.randn(100)
        instrument.see()
    assert math.isnan(values(instrument.compute(), "layer")["grad_snr"])


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_layer_without_weights_is_refused():
    message = "layer '1' (Tanh) has no weights, and so no gradients: name one that has, such as '0'."
    with pytest.raises(ValueError, match=exactly(message)):
        GradientSNR(["1"]).attach(net())


def test_a_model_without_weights_is_refused():
    with pytest.raises(NoLayersError, match="has no leaf module with weights"):
        GradientSNR().attach(nn.Sequential(nn.Tanh()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": 3}, TypeError, "layers must be names as in named_modules(), a list of at least one, got 3."),
        ({"layers": []}, ValueError, "layers must be names as in named_modules(), a list of at least one, got []."),
        ({"layers": ""}, ValueError, "layers must be names as in named_modules(), a list of at least one, got ''."),
        ({"layers": [1]}, TypeError, "layers must be names as in named_modules(), a list of at least one, got [1]."),
        ({"biases": 1}, TypeError, "biases must be True or False, got 1."),
        ({"sketch": 2}, ValueError, "sketch must be an integer from 16 to 65536, got 2: give at least 16."),
        (
            {"sketch": 0.5},
            TypeError,
            "sketch must be an integer from 16 to 65536, got 0.5: give a whole number such as 16.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=exactly(message)):
        GradientSNR(**arguments)
