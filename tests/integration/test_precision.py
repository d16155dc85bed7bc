"""Precisions, compiled models, checkpointed activations, shared and recurrent modules: the same figures, or why not."""

import math

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.utils.checkpoint import checkpoint

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer, UniformBins, measure
from tests.helpers.records import exact
from tests.helpers.tiny import TinyModule, fit, has_hooks, pl, val_loader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("few_pictures", "few_probes"),
    # torch.compile's own, while it traces
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor is being accessed"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
]

LAYERS = {"net.0": Quantizer(bins=FixedBins([-0.5, 0.5])), "net.3": Quantizer(bins=FixedBins([-0.5, 0.5]))}


class Net(TinyModule):
    """Its body is one module, to be wrapped, with an activation in place after the first layer."""

    def __init__(self, wrap=lambda body: body):
        super().__init__()
        self.net = wrap(nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 4)))
        del self.hidden, self.act, self.drop, self.out

    def forward(self, x):
        return self.net(x)


@pytest.fixture(autouse=True)
def _compile_anew():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trained(tmp_path, make, *callbacks, **options):
    """The model, and all that a callback may not change; ``make`` may return a compiled LightningModule."""
    pl.seed_everything(7, verbose=False)
    model = make()
    _, run = fit(tmp_path, *callbacks, model=model, max_epochs=1, **options)
    inner = getattr(model, "_orig_mod", model)
    state = {name.replace("_orig_mod.", ""): value for name, value in inner.state_dict().items()}
    state |= {name: value for name, value in run.callback_metrics.items() if not name.startswith("ib")}
    return inner, {**state, "rng": torch.get_rng_state(), "losses": torch.tensor(inner.losses)}


def watched(tmp_path, make, layers=LAYERS, **options):
    """Train with the callback and without: nothing may differ. The trained model, its history, and all the rest."""
    callback = InformationPlaneCallback(layers, estimators=())
    model, with_it = trained(tmp_path, make, callback, **options)
    torch.compiler.reset()
    _, without = trained(tmp_path, make, **options)
    assert with_it.keys() == without.keys()
    assert [name for name in without if not torch.equal(with_it[name], without[name])] == []
    assert not has_hooks(model)
    assert [(p.epoch, p.layer) for p in callback.history] == [(e, layer) for e in range(2) for layer in layers]
    assert all(math.isfinite(p.i_ty) and p.h_t > 0 for p in callback.history)
    return model, callback.history, without


def at(epoch, history):
    return [point for point in history if point.epoch == epoch]


def measured(model, layers=LAYERS, data=None):
    return measure(model, val_loader() if data is None else data, layers)


def met(history, points):
    """Whether points are those of the last epoch of a history."""
    last = at(1, history)
    return exact(p._replace(epoch=0, step=0) for p in last) == exact(points)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The model in single precision, as it is: its history, and what its training came to."""
    return watched(tmp_path_factory.mktemp("plain"), Net)[1:]


# -- precision -----------------------------------------------------------------------------------------------------


def test_double_precision_gives_the_figures_of_single_before_training(tmp_path, plain):
    """After it weights that differ in the eighth digit may put a sample into another bin."""
    model, history, _ = watched(tmp_path, Net, precision="64-true")
    assert exact(at(0, history)) == exact(at(0, plain[0]))
    assert met(history, measured(model, data=[(x.double(), y) for x, y in val_loader()]))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_gives_the_figures_of_its_own_activations(tmp_path, plain, precision):
    """Three digits are left of an activation, so some samples change bins: the figures are near, and not the same."""
    model, history, _ = watched(tmp_path, Net, precision=precision)
    if precision == "bf16-mixed":
        assert next(model.parameters()).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            again = measured(model)
    else:
        assert next(model.parameters()).dtype == torch.bfloat16
        again = measured(model, data=[(x.bfloat16(), y) for x, y in val_loader()])
    assert met(history, again)
    before = list(zip(at(0, history), at(0, plain[0])))
    assert any(half.h_t != single.h_t for half, single in before)
    assert all(half.h_t == pytest.approx(single.h_t, abs=0.3) for half, single in before)
    assert all(half.i_ty == pytest.approx(single.i_ty, abs=0.3) for half, single in before)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_cells_cope_with_every_precision(tmp_path, precision):
    _, history, _ = watched(tmp_path, Net, dict.fromkeys(LAYERS), precision=precision)
    assert {p.source for p in history} == {"cells"}
    assert math.isfinite(history[-1].accuracy)


# -- compiled ------------------------------------------------------------------------------------------------------


class Quiet(Net):
    """Logs nothing: tracing through ``self.log`` breaks torch.compile of a whole LightningModule, callback or not."""

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


COMPILED = {
    "a submodule": lambda **options: Net(lambda body: torch.compile(body, **options)),
    "the whole": lambda **options: torch.compile(Quiet(), **options),  # Lightning unwraps it, and compiles its steps
    "in place": lambda **options: Net(lambda body: [body.compile(**options), body][1]),
}


@pytest.mark.parametrize(
    ("what", "backend", "fullgraph"),
    [
        ("a submodule", "eager", False),
        ("a submodule", "eager", True),
        ("a submodule", "aot_eager", False),
        ("the whole", "eager", False),
        ("in place", "eager", False),
    ],
)
def test_a_compiled_model_gives_the_figures_of_the_plain_one(tmp_path, plain, what, backend, fullgraph):
    history, trained_to = watched(tmp_path, lambda: COMPILED[what](backend=backend, fullgraph=fullgraph))[1:]
    assert [name for name in trained_to if name.startswith("net.")]
    assert all(torch.equal(trained_to[name], plain[1][name]) for name in trained_to if name.startswith("net."))
    assert exact(history) == exact(plain[0])


@pytest.mark.slow
def test_a_model_compiled_to_machine_code_gives_the_figures_of_the_plain_one(tmp_path, plain):
    """Before training to the last bit; the sums in its gradients, and so its weights, may differ in the last digits."""
    model, history, _ = watched(tmp_path, COMPILED["a submodule"])
    assert exact(at(0, history)) == exact(at(0, plain[0]))
    torch.compiler.reset()
    assert met(history, measured(model))


def test_the_layers_of_a_compiled_model_have_their_own_names_by_default(tmp_path):
    callback = InformationPlaneCallback()
    trained(tmp_path, lambda: COMPILED["a submodule"](backend="eager"), callback)
    assert {p.layer for p in callback.history} == {"net.0", "net.3"}
    torch.compiler.reset()
    callback = InformationPlaneCallback(["net", "net.*"], head=False)  # which is measured otherwise
    trained(tmp_path, lambda: COMPILED["a submodule"](backend="eager"), callback)
    assert [p.layer for p in at(1, callback.history)] == ["net", "net.0", "net.1", "net.2", "net.3"]
    assert at(1, callback.history)[0].i_ty == at(1, callback.history)[4].i_ty


def test_a_compiled_model_that_ran_before_is_an_error_that_tells_what_to_do():
    """Its graph is there already, without the hooks. A forward with gradients would have had a graph of its own."""
    model = nn.Sequential(torch.compile(nn.Sequential(nn.Linear(6, 4)), backend="eager"), nn.Linear(4, 4))
    (data, *_) = val_loader()
    with torch.no_grad():
        model(data[0])
    with pytest.raises(RuntimeError, match=r"layer '0.0' never ran in this forward.*needs torch.compiler.reset\(\)"):
        measure(model.eval(), [data], ["0.0", "1"])
    torch.compiler.reset()
    assert [p.layer for p in measure(model, [data], ["0.0", "1"])] == ["0.0", "1"]


def test_a_compiled_model_runs_on_after_a_measurement_and_so_does_another_like_it():
    """Graphs are shared between models of one kind, and call the hooks of each."""
    x, nets = torch.randn(8, 6), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        net, compiled = Net().eval(), COMPILED["a submodule"](backend="eager").eval()
        compiled.load_state_dict({name.replace("net.", "net._orig_mod."): v for name, v in net.state_dict().items()})
        nets.append((net, compiled))
        assert exact(measured(compiled)) == exact(measured(compiled)) == exact(measured(net))
    for net, compiled in nets:
        assert not has_hooks(compiled)
        with torch.no_grad():
            assert torch.equal(compiled(x), net(x))


def test_an_error_of_a_quantizer_does_not_reach_a_compiled_forward(tmp_path):
    """It stops before the first step, with its sentence."""
    wrong = {"net.0": Quantizer(select=lambda output: output[:, 99])}
    with pytest.raises(ValueError, match="layer 'net.0' could not be recorded: index 99 is out of bounds"):
        trained(
            tmp_path, lambda: COMPILED["a submodule"](backend="eager", fullgraph=True), InformationPlaneCallback(wrong)
        )


# -- in place, and checkpointed ------------------------------------------------------------------------------------


def test_an_activation_in_place_changes_nothing_that_was_kept():
    body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True))
    apart = nn.Sequential(body[0], nn.ReLU())
    signs = Quantizer(bins=FixedBins([-0.5, 0.0, 0.5]))  # one edge below zero, where nothing is left after the ReLU
    for quantizer in (signs, None, Quantizer(bins=UniformBins(3))):  # of the last two values are held
        assert exact(measured(body, {"0": quantizer})) == exact(measured(apart, {"0": quantizer}))
    assert measured(body, {"0": signs})[0].h_t > measured(body, {"1": signs})[0].h_t


class Checkpointed(Net):
    def __init__(self, use_reentrant):
        super().__init__()
        self.use_reentrant = use_reentrant

    def forward(self, x):
        if self.use_reentrant and self.training:
            x = x.detach().requires_grad_()
        if not self.training:
            return self.net(x)
        return checkpoint(self.net, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_activations_give_the_same_figures(tmp_path, plain, use_reentrant):
    history, weights = watched(tmp_path, lambda: Checkpointed(use_reentrant))[1:]
    assert all(torch.equal(value, plain[1][name]) for name, value in weights.items())
    assert exact(history) == exact(plain[0])


def wrapped():
    model = Net()
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, (nn.Linear, nn.Sequential)))
    return model


def test_wrappers_of_activation_checkpointing_give_the_same_figures_by_the_same_names(tmp_path, plain):
    assert any("_checkpoint_wrapped_module" in name for name, _ in wrapped().named_modules())
    history, weights = watched(tmp_path, wrapped)[1:]
    assert all(torch.equal(weights[name], plain[1][name]) for name in ("rng", "losses", "val_loss"))
    assert exact(history) == exact(plain[0])
    callback = InformationPlaneCallback()
    trained(tmp_path, wrapped, callback)
    assert {p.layer for p in callback.history} == {"net.0", "net.3"}


# -- shared modules ------------------------------------------------------------------------------------------------


class Shared(Net):
    """One module called twice, and one that has two names."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.again = nn.ModuleList([self.twice])

    def forward(self, x):
        self.first = self.twice(x)
        self.second = self.again[0](self.first.tanh())
        return super().forward(self.second)


def test_of_a_module_called_twice_the_last_call_counts(tmp_path):
    three = Quantizer(bins=FixedBins([-0.5, 0.5]))
    model, history, _ = watched(tmp_path, Shared, {"twice": three})
    ends = nn.ModuleDict({"first": nn.Identity(), "second": nn.Identity()})

    def forward(x):
        model(x)
        return ends["first"](model.first), ends["second"](model.second)

    ends.forward = forward
    model.eval()
    first, second = measured(ends, dict.fromkeys(ends, three))
    assert met(history, [second._replace(layer="twice")])
    assert first.h_t != second.h_t


def test_a_module_of_two_names_is_watched_by_its_first(tmp_path):
    callback = InformationPlaneCallback()
    trained(tmp_path, Shared, callback)
    assert {p.layer for p in callback.history} == {"net.0", "net.3", "twice"}
    with pytest.raises(ValueError, match="Shared calls one module both 'twice' and 'again.0': name it 'twice'"):
        trained(tmp_path, Shared, InformationPlaneCallback(["twice", "again.0"]))


# -- what modules put out ------------------------------------------------------------------------------------------


class Body(nn.Module):
    """A network whose output is wrapped."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        z = self.layer(x)
        return self.wrap(z, z.tanh())


def model_output(first, second):
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return BaseModelOutputWithPooling(last_hidden_state=first, pooler_output=second)


OUTPUTS = {
    "tuple": (lambda a, b: (a, b), lambda output: output[1]),
    "nested": (lambda a, b: [None, {"a": a}, (b,)], lambda output: output[2][0]),
    "dict": (lambda a, b: {"a": a, "b": b}, lambda output: output["b"]),
    "ModelOutput": (model_output, lambda output: output.pooler_output),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_first_tensor_or_the_selected_one_is_discretized(kind, compiled):
    if kind == "ModelOutput":
        pytest.importorskip("transformers")
    wrap, select = OUTPUTS[kind]
    model = nn.Sequential(Body(wrap))
    torch.nn.init.normal_(model[0].layer.weight)
    bins = FixedBins([-0.8, 0.8])
    model.forward = lambda x: [model[0](x)][0] and None  # what it puts out is no tensor to go on with
    if compiled:
        model[0].compile(backend="eager", fullgraph=True)
    ((first,), (second,)) = (measured(model, {"0": Quantizer(bins=bins, select=s)}) for s in (None, select))
    torch.compiler.reset()
    (layer,) = measured(model, {"0.layer": Quantizer(bins=bins)})
    (tanh,) = measured(model, {"0.layer": Quantizer(torch.tanh, bins)})
    assert exact([first, second]) == exact([layer._replace(layer="0"), tanh._replace(layer="0")])
    assert first.h_t != second.h_t


# -- sequences -----------------------------------------------------------------------------------------------------

LENGTH = 5


class Sequence(nn.Module):
    """A transformer in either order, on batches (B, L, 6)."""

    def __init__(self, batch_first, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=options.pop("nested", False))
        self.head = nn.Linear(6, 4)
        self.batch_first = batch_first

    def forward(self, x, lengths=None):
        padding = None if lengths is None else torch.arange(LENGTH) >= lengths[:, None]
        h = self.encoder(x if self.batch_first else x.transpose(0, 1), src_key_padding_mask=padding)
        return self.head(h.mean(1 if self.batch_first else 0))


def sequences(lengths=False):
    generator = torch.Generator().manual_seed(2)
    for n in (16, 16, LENGTH, 16):  # once as many sequences as positions
        x, y = torch.randn(n, LENGTH, 6, generator=generator), torch.arange(n) % 4
        yield ({"x": x, "lengths": 1 + torch.arange(n) % LENGTH} if lengths else x), y


MEAN = Quantizer(lambda z: z.mean(1), FixedBins([0.0]))
INSIDE = [
    "encoder",
    "encoder.layers.0",
    "encoder.layers.1.self_attn",
    "encoder.layers.1.linear1",
    "encoder.layers.1.norm2",
]


def test_transformers_give_the_same_figures_in_either_order():
    """Inside and out, also in a batch with as many sequences as positions, where the shape tells nothing."""
    first, second = Sequence(True).eval(), Sequence(False).eval()
    second.load_state_dict(first.state_dict())
    layers = dict.fromkeys([*INSIDE, "head"], MEAN) | {"head": Quantizer(bins=FixedBins([0.0]))}
    assert exact(measured(second, layers, list(sequences()))) == exact(measured(first, layers, list(sequences())))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_nested_sequences_of_a_transformer_are_padded_with_a_warning():
    model = Sequence(True, nested=True).eval()
    data = list(sequences(lengths=True))
    with pytest.warns(UserWarning, match=r"layer 'encoder.layers.0.linear1' .* different lengths \(a nested tensor\)"):
        points = measured(model, None, data)
    assert [p.layer for p in points] == [f"encoder.layers.{k}.linear{i}" for k in (0, 1) for i in (1, 2)] + ["head"]
    assert {p.n_samples for p in points} == {sum(len(y) for _, y in data)}
