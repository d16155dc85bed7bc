"""Which modules are watched: by default, by name and by pattern."""

import pytest
import torch
from torch import nn

from lightning_ib.capture.layers import default_layers, named_modules, resolve_layers
from lightning_ib.capture.recorder import Recorder
from lightning_ib.objectives import ConditionalPrior, GaussianBottleneck
from tests.helpers.planes import hooks_on
from tests.helpers.recording import clone, net

# -- Layers by default -------------------------------------------------------------------------------------------------


def test_leaf_modules_with_weights_are_watched():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), nn.PReLU())
    assert default_layers(model) == ["0", "2.1", "3"]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.RMSNorm(4),
        type("LlamaRMSNorm", (nn.LayerNorm,), {})(4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_normalization_layers_are_left_out(norm):
    assert default_layers(nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4))) == ["0", "2"]


def test_a_stochastic_bottleneck_is_a_layer_and_its_prior_is_none():
    net = nn.Sequential(
        nn.Linear(4, 4), GaussianBottleneck(4, 2, prior="learned"), nn.Linear(2, 3), ConditionalPrior(3, 2)
    )
    assert default_layers(net) == ["0", "1", "2"]


def test_frozen_weights_and_embeddings_count():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2, bias=False))
    assert default_layers(model) == ["0", "1", "2"]


def test_a_layer_used_twice_is_watched_once():
    shared = nn.Linear(4, 4)
    assert default_layers(nn.Sequential(shared, nn.ReLU(), shared)) == ["0"]


def test_the_projection_inside_attention_is_left_out():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
    assert default_layers(layer) == ["linear1", "linear2"]
    assert default_layers(nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2))) == ["0"]


@pytest.mark.parametrize("n", [1, 2, 11, 12])
def test_up_to_twelve_layers_are_all_watched(n):
    assert default_layers(nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))) == [str(k) for k in range(n)]


@pytest.mark.parametrize("n", [13, 14, 20, 23, 24, 53, 161, 1000])
def test_of_more_layers_twelve_are_spread_over_the_depth(n):
    picked = [int(name) for name in default_layers(nn.Sequential(*(nn.PReLU() for _ in range(n))))]
    assert len(picked) == 12
    assert (picked[0], picked[-1]) == (0, n - 1)
    gaps = [b - a for a, b in zip(picked, picked[1:])]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_a_model_without_weights_has_no_layers_to_watch():
    with pytest.raises(ValueError, match=r"Sequential has no leaf module with weights .* name the layers .*'0', '1'"):
        default_layers(nn.Sequential(nn.Flatten(), nn.ReLU()))
    with pytest.raises(ValueError, match="It has no named modules"):
        default_layers(nn.ReLU())


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm", "orthogonal"])
def test_a_parametrized_layer_is_a_layer_with_weights(norm):
    parametrize = getattr(nn.utils.parametrizations, norm)
    assert default_layers(nn.Sequential(parametrize(nn.Linear(4, 4)), nn.Linear(4, 2))) == ["0", "1"]


# -- Names and patterns ------------------------------------------------------------------------------------------------


@pytest.fixture
def deep():
    def block():
        return nn.ModuleDict({"attention": nn.Linear(2, 2), "mlp": nn.Sequential(nn.Linear(2, 2), nn.ReLU())})

    return nn.ModuleDict(
        {"conv1": nn.Linear(2, 2), "conv2": nn.Linear(2, 2), "blocks": nn.ModuleList([block(), block()])}
    )


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("conv1", ["conv1"]),
        ("conv*", ["conv1", "conv2"]),
        ("conv?", ["conv1", "conv2"]),
        ("*", ["conv1", "conv2", "blocks"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("blocks.?.mlp", ["blocks.0.mlp", "blocks.1.mlp"]),
        ("**.attention", ["blocks.0.attention", "blocks.1.attention"]),
        ("blocks.1.**", ["blocks.1.attention", "blocks.1.mlp", "blocks.1.mlp.0", "blocks.1.mlp.1"]),
        ("**.mlp.*", ["blocks.0.mlp.0", "blocks.0.mlp.1", "blocks.1.mlp.0", "blocks.1.mlp.1"]),
        ("**.0", ["blocks.0", "blocks.0.mlp.0", "blocks.1.mlp.0"]),
    ],
)
def test_patterns_do_not_cross_dots_but_double_stars_do(deep, pattern, names):
    assert resolve_layers(deep, [pattern]) == dict.fromkeys(names, pattern)


def test_the_first_pattern_that_names_a_layer_counts(deep):
    assert resolve_layers(deep, ["conv2", "conv*"]) == {"conv2": "conv2", "conv1": "conv*"}


@pytest.mark.parametrize(
    "pattern", ["conv", "CONV1", "conv.", "blocks*attention", "conv[12]", "(conv1|conv2)", "conv1 "]
)
def test_what_matches_nothing_is_refused(deep, pattern):
    with pytest.raises(ValueError, match="ModuleDict has no layer"):
        resolve_layers(deep, [pattern])


def test_an_unknown_name_is_answered_with_the_nearest(deep):
    with pytest.raises(
        ValueError, match="ModuleDict has no layer 'blocks.0.atention': did you mean 'blocks.0.attention' or"
    ):
        resolve_layers(deep, ["conv1", "blocks.0.atention"])


def test_a_name_like_none_is_answered_with_the_names_there_are():
    with pytest.raises(ValueError, match="Sequential has no layer 'encoder': the model has 'first', 'act', 'last'"):
        resolve_layers(net(), ["encoder"])
    many = nn.Sequential(*(nn.ReLU() for _ in range(30)))
    with pytest.raises(ValueError, match=r"'18', '19', … \(10 more\)"):
        resolve_layers(many, ["encoder"])


def test_a_model_without_modules_says_so():
    with pytest.raises(ValueError, match="Linear has no layer '0': the model has no named modules"):
        resolve_layers(nn.Linear(2, 2), ["0"])


def test_compiled_models_keep_their_names(deep):
    compiled = nn.ModuleDict({"net": torch.compile(deep, backend="eager"), "head": nn.Linear(2, 2)})
    assert resolve_layers(compiled, ["net.conv1", "head"]) == {"net.conv1": "net.conv1", "head": "head"}
    assert named_modules(compiled)["net.conv1"] is deep["conv1"]


@pytest.mark.parametrize("infix", ["_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"])
def test_wrappers_are_dropped_from_names(infix, deep):
    wrapped = nn.ModuleDict({infix: nn.ModuleDict({"inner": nn.ModuleDict({infix: deep})})})
    assert resolve_layers(wrapped, ["inner.conv?"]) == dict.fromkeys(["inner.conv1", "inner.conv2"], "inner.conv?")
    assert named_modules(wrapped)["inner"] is deep
    assert default_layers(wrapped)[0] == "inner.conv1"


def test_a_second_name_of_a_module_is_answered_with_its_first():
    model = net()
    model.alias = nn.Sequential(model.first)
    with pytest.raises(
        ValueError, match="calls one module both 'first' and 'alias.0': name it 'first'. It is watched once"
    ):
        resolve_layers(model, ["alias.0"])


def test_the_layers_of_a_compiled_model_are_picked_by_default():
    compiled = torch.compile(net(), backend="eager")
    assert default_layers(compiled) == ["first", "last"]
    with Recorder(compiled, default_layers(compiled), clone):
        assert len(hooks_on(compiled)) == 2


# -- Hooks come off ----------------------------------------------------------------------------------------------------


def test_a_name_goes_before_a_pattern_that_fits_it_too():
    assert resolve_layers(net(), ["*", "last"]) == {"first": "*", "act": "*", "last": "last"} | {}


# -- Layers with an adapter, TorchScript, quantized layers -------------------------------------------------------------


class Adapted(nn.Module):
    """As PEFT wraps a layer for LoRA."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.lora_dropout = nn.ModuleDict({"default": nn.Identity()})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 8, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


class Saved(nn.Module):
    """As PEFT wraps a module that is trained in full."""

    def __init__(self, module):
        super().__init__()
        self.original_module, self.modules_to_save = module, nn.ModuleDict({"default": nn.Linear(8, 2)})


class WithItsOwnWeight(nn.Module):
    """As in torchtune."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 8))
        self.lora_a, self.lora_b = nn.Linear(8, 2), nn.Linear(2, 8)


def test_a_layer_with_its_adapter_counts_as_one():
    model = nn.ModuleDict({"0": Adapted(nn.Linear(4, 8)), "1": WithItsOwnWeight(), "lora_model": nn.Linear(8, 8)})
    assert default_layers(model) == ["0", "1", "lora_model"]
    around_more = nn.ModuleDict({"base_layer": nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "head": nn.Linear(4, 2)})
    assert default_layers(around_more) == ["base_layer.0", "head"]
    assert default_layers(nn.Sequential(Saved(nn.Linear(8, 2)), nn.Linear(2, 2))) == ["0", "1"]
    x = torch.rand(5, 4)
    with Recorder(model, ["0"], clone) as recorder, torch.no_grad():
        out = model["0"](x)
        assert torch.equal(recorder.take()["0"], out)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_torchscript_is_not_picked_and_a_sentence_where_it_is_named():
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 2))
    assert default_layers(model) == ["0", "2"]
    with pytest.raises(ValueError, match="layer '1.0' is TorchScript, which takes no hooks: name a module of Python's"):
        resolve_layers(model, ["0", "1.0"])
    with pytest.raises(RuntimeError, match="ScriptModules"):
        Recorder(model, ["0", "1"], clone)
    assert hooks_on(model) == []


@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*quant")
def test_a_quantized_layer_is_read_as_its_dequantized_values():
    import torch.ao.quantization as quantization

    torch.manual_seed(0)
    model = nn.Sequential(quantization.QuantStub(), nn.Linear(8, 16), nn.ReLU(), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    quantization.prepare(model, inplace=True)(torch.randn(32, 8))
    quantization.convert(model, inplace=True)
    assert default_layers(model) == ["1"]
    x = torch.randn(5, 8)
    with Recorder(model, ["1"], clone) as recorder:
        model(x)
        kept = recorder.take()["1"]
    assert not kept.is_quantized
    assert torch.equal(kept, model[1](model[0](x)).dequantize())


# -- Wrappers ----------------------------------------------------------------------------------------------------------


def test_what_wraps_a_model_leaves_its_names_as_they_are(deep):
    wrapped = nn.ModuleDict({"net": torch.optim.swa_utils.AveragedModel(nn.DataParallel(deep))})
    assert default_layers(wrapped) == [f"net.{name}" for name in default_layers(deep)]
    assert named_modules(wrapped)["net.conv1"] is wrapped["net"].module.module["conv1"]
    forwarding = nn.ModuleDict({"_forward_module": deep})
    assert default_layers(forwarding) == default_layers(deep)


def test_a_layer_of_the_users_that_is_called_module_keeps_its_name():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    assert default_layers(Mine()) == ["module.0", "module.1"]
    assert resolve_layers(Mine(), ["module"]) == {"module": "module"}
    assert default_layers(nn.ModuleDict({"module": nn.Linear(2, 2)})) == ["module"]
