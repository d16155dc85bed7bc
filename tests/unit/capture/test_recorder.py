"""Which modules are watched, what is kept of their outputs, and that the hooks leave no trace."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from lightning_ib.capture.layers import default_layers, named_modules, resolve_layers
from lightning_ib.capture.outputs import first_tensor
from lightning_ib.capture.recorder import Recorder


def clone(layer, activation):
    return activation.clone()


def hooks_on(model):
    """Every entry of every hook dictionary of every module."""
    return [
        (name, kind)
        for name, module in model.named_modules()
        for kind, value in vars(module).items()
        if "hook" in kind and isinstance(value, dict)
        for _ in value
    ]


def net():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(first=nn.Linear(4, 8), act=nn.Tanh(), last=nn.Linear(8, 2)))


# --- Layers by default -----------------------------------------------------------------------------------------------


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


# --- Names and patterns ----------------------------------------------------------------------------------------------


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


# --- What is kept ----------------------------------------------------------------------------------------------------


class Puts(nn.Module):
    """A module that puts out what it was told to."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@dataclass
class PlainOutput:
    logits: torch.Tensor


class ModelOutput(OrderedDict):
    """As in transformers: an ordered mapping."""


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: (x, x + 1),
        lambda x: [x, x + 1],
        lambda x: {"logits": x, "hidden": x + 1},
        lambda x: ModelOutput(logits=x, hidden=x + 1),
        lambda x: (None, "text", 3, (x, x + 1)),
        lambda x: {"loss": None, "states": [[], (x,)]},
        lambda x: torch.return_types.max((x, x.long())),
    ],
)
def test_the_first_tensor_of_an_output_is_kept(make):
    x = torch.rand(5, 3)
    model = nn.Sequential(Puts(make))
    with Recorder(model, ["0"], clone) as recorder:
        model(x)
        assert torch.equal(recorder.take()["0"], x)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda x: None, "NoneType"),
        (lambda x: {}, "dict"),
        (lambda x: ("a", [1]), "tuple"),
        (PlainOutput, "PlainOutput"),
    ],
)
def test_an_output_without_a_tensor_is_an_error_in_take_not_in_the_forward(make, kind):
    model = nn.Sequential(Puts(make))
    with Recorder(model, ["0"], clone) as recorder:
        model(torch.rand(5, 3))
        sentence = f"layer '0' could not be recorded: its output holds no tensor, it is a {kind}: name a module inside"
        with pytest.raises(ValueError, match=sentence):
            recorder.take()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("pack", [pack_sequence, torch.nested.nested_tensor])
def test_sequences_of_different_lengths_are_padded_and_that_is_told_once(pack):
    rows = [torch.ones(3, 2), torch.ones(1, 2)]
    model = nn.Sequential(Puts(lambda x: (pack(x), None)), Puts(lambda x: x[0]))
    expected = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[..., None].expand(2, 3, 2)
    assert torch.equal(first_tensor((pack(rows), None)), expected)
    with Recorder(model, ["0", "1"], clone) as recorder:
        with pytest.warns(UserWarning, match="layer '0' puts out sequences of different lengths") as told:
            model(rows)
        assert len(told) == 1
        assert all(torch.equal(kept, expected) for kept in recorder.take().values())


def test_an_lstm_on_packed_sequences_has_the_batch_first_already():
    lstm = nn.LSTM(2, 4, batch_first=False)
    packed = pack_sequence([torch.rand(n, 2) for n in (2, 5, 3)], enforce_sorted=False)
    with Recorder(nn.Sequential(lstm), ["0"], clone) as recorder:
        with pytest.warns(UserWarning, match="a PackedSequence"):
            lstm(packed)
        kept = recorder.take()["0"]
    assert kept.shape == (3, 5, 4)
    assert (kept != 0).any(2).sum(1).tolist() == [2, 5, 3]


def test_select_takes_a_tensor_out_of_the_output_as_it_came():
    model = nn.Sequential(nn.LSTM(3, 4), Puts(lambda x: {"state": x[1][0]}))
    x = torch.rand(7, 5, 3)
    select = {"0": lambda output: output[1][0][-1], "1": lambda output: output["state"].transpose(0, 1)}
    with Recorder(model, ["0", "1"], clone, select) as recorder, torch.no_grad():
        state = model(x)["state"]
        kept = recorder.take()
    assert torch.equal(kept["0"], state[-1])
    assert torch.equal(kept["1"], state.transpose(0, 1))


@pytest.mark.parametrize(
    ("select", "sentence"),
    [
        (lambda output: output, "layer '0' could not be recorded: select must return a tensor .*, got tuple"),
        (lambda output: output[7], "layer '0' could not be recorded: tuple index out of range"),
    ],
)
def test_a_select_that_fails_is_an_error_in_take_not_in_the_forward(select, sentence):
    model = nn.Sequential(Puts(lambda x: (x, x)))
    with Recorder(model, ["0"], clone, {"0": select}) as recorder:
        model(torch.rand(5, 3))
        with pytest.raises(ValueError, match=sentence):
            recorder.take()


def test_the_last_call_of_a_forward_counts():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    x = torch.rand(4, 3)
    with Recorder(model, ["0"], clone) as recorder:
        out = model(x)
        assert torch.equal(recorder.take()["0"], out)
        model(x)
        second = model(x + 1)
        assert torch.equal(recorder.take()["0"], second)


def test_layers_come_in_the_order_in_which_they_last_ran():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(self.b(self.a(self.c(x))))

    model = Net()
    with Recorder(model, ["a", "b", "c"], clone) as recorder:
        model(torch.rand(2, 3))
        assert list(recorder.take()) == ["c", "b", "a"]


def test_what_was_taken_is_handed_over():
    model = net()
    with Recorder(model, ["first", "last"], clone) as recorder:
        assert recorder.take() == {}
        model(torch.rand(2, 4))
        assert list(recorder.take()) == ["first", "last"]
        assert recorder.take() == {}


def test_nothing_is_kept_while_switched_off():
    model, calls = net(), []
    with Recorder(model, ["first"], lambda layer, a: calls.append(layer) or a) as recorder:
        recorder.enabled = False
        model(torch.rand(2, 4))
        recorder.enabled = True
        assert recorder.take() == {}
        assert calls == []


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_come_with_the_batch_first(make, batch_first):
    layer = make(3, 6, batch_first=batch_first)
    x = torch.rand(5, 7, 3)  # five sequences of seven
    with Recorder(nn.Sequential(layer), ["0"], clone) as recorder, torch.no_grad():
        expected = layer(x if batch_first else x.transpose(0, 1))[0]
        kept = recorder.take()["0"]
    assert kept.shape == (5, 7, 6)
    assert torch.equal(kept, expected if batch_first else expected.transpose(0, 1))


def test_attention_comes_with_the_batch_first():
    layer = nn.MultiheadAttention(8, 2)
    x = torch.rand(7, 5, 8)
    with Recorder(nn.ModuleDict({"attention": layer}), ["attention"], clone) as recorder:
        layer(x, x, x)
        assert recorder.take()["attention"].shape == (5, 7, 8)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True, but self.use_nested_tensor is False")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "whole"])
def test_transformers_come_with_the_batch_first_inside_and_out(kind, batch_first):
    options = {"d_model": 8, "nhead": 1, "dim_feedforward": 16, "batch_first": batch_first}
    if kind == "encoder":
        transformer = nn.TransformerEncoder(nn.TransformerEncoderLayer(**options), 2, enable_nested_tensor=False)
    elif kind == "decoder":
        transformer = nn.TransformerDecoder(nn.TransformerDecoderLayer(**options), 2)
    else:
        transformer = nn.Transformer(**options, num_encoder_layers=1, num_decoder_layers=1)
    model = nn.ModuleDict({"body": transformer, "head": nn.Linear(8, 3)}).eval()
    x = torch.rand(5, 7, 8) if batch_first else torch.rand(7, 5, 8)
    layers = [n for n in named_modules(model) if n and n.split(".")[-1] not in ("layers", "out_proj")]
    with Recorder(model, layers, clone) as recorder, torch.no_grad():
        h = transformer(x) if kind == "encoder" else transformer(x, x)
        model["head"](h.mean(1 if batch_first else 0))
        kept = recorder.take()
    assert kept.pop("head").shape == (5, 3)
    assert {"body"} < kept.keys()
    assert {z.shape[:2] for z in kept.values()} == {(5, 7)}


def test_only_sequences_are_turned_where_a_module_says_batch_first_is_false():
    class Head(nn.Module):
        batch_first = False

        def forward(self, x):
            return x

    x, model = torch.rand(5, 3), nn.Sequential(Head())
    with Recorder(model, ["0"], clone) as recorder:
        model(x)
        assert torch.equal(recorder.take()["0"], x)


def test_what_is_kept_has_no_gradient_and_the_output_keeps_its_own():
    model = net()
    x = torch.rand(2, 4)
    plain = model(x)
    with Recorder(model, ["first", "last"], lambda layer, a: a * 2) as recorder:
        out = model(x)
        assert not any(value.requires_grad for value in recorder.take().values())
    assert torch.equal(out, plain)
    grads = torch.autograd.grad(out.sum(), model.parameters()), torch.autograd.grad(plain.sum(), model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_inference_mode_can_be_recorded():
    model = net()
    with Recorder(model, ["last"], clone) as recorder, torch.inference_mode():
        out = model(torch.rand(2, 4))
        assert torch.equal(recorder.take()["last"], out)


# --- Errors ----------------------------------------------------------------------------------------------------------


class PoolError(RuntimeError):
    pass


def failing(layer, activation):
    if layer == "first":
        raise PoolError("no pool today")
    return activation.clone()


def test_an_error_in_a_pool_reaches_take_and_not_the_forward():
    model = net()
    x = torch.rand(2, 4)
    expected = model(x)
    with Recorder(model, ["first", "last"], failing) as recorder:
        assert torch.equal(model(x), expected)
        with pytest.raises(ValueError, match="layer 'first' could not be recorded: no pool today") as caught:
            recorder.take()
        assert isinstance(caught.value.__cause__, PoolError)
        assert recorder.take() == {}
    assert hooks_on(model) == []


def test_ctrl_c_inside_a_pool_is_not_swallowed():
    def interrupted(layer, activation):
        raise KeyboardInterrupt

    model = net()
    with pytest.raises(KeyboardInterrupt), Recorder(model, ["first"], interrupted):
        model(torch.rand(2, 4))
    assert hooks_on(model) == []


# --- Hooks come off --------------------------------------------------------------------------------------------------


def test_hooks_are_on_inside_and_off_outside():
    model = net()
    with Recorder(model, ["first", "last"], clone):
        assert len(hooks_on(model)) == 2
        model(torch.rand(2, 4))
    assert hooks_on(model) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_hooks_come_off_after_any_ending(error):
    model = net()

    def interrupted():
        with Recorder(model, ["first", "last"], clone):
            model(torch.rand(2, 4))
            raise error

    with pytest.raises(error):
        interrupted()
    assert hooks_on(model) == []


def test_hooks_come_off_after_the_models_own_error():
    model = net()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), Recorder(model, ["first"], clone):
        model(torch.rand(2, 5))
    assert hooks_on(model) == []


def test_hooks_of_others_stay():
    model, seen = net(), []
    handle = model.first.register_forward_hook(lambda *_: seen.append(1))
    with Recorder(model, ["first"], clone):
        model(torch.rand(2, 4))
    model(torch.rand(2, 4))
    assert seen == [1, 1]
    assert hooks_on(model) == [("first", "_forward_hooks")]
    handle.remove()


def test_removing_twice_is_harmless_and_drops_what_was_kept():
    model = net()
    recorder = Recorder(model, ["first"], clone)
    model(torch.rand(2, 4))
    recorder.remove()
    recorder.remove()
    assert hooks_on(model) == []
    assert recorder.take() == {}


def test_two_recorders_do_not_disturb_each_other():
    model = net()
    with Recorder(model, ["first"], clone) as outer:
        with Recorder(model, ["first"], lambda layer, a: a + 1) as inner:
            model(torch.rand(2, 4))
        assert inner.take() == {}
        assert list(outer.take()) == ["first"]
        assert len(hooks_on(model)) == 1
    assert hooks_on(model) == []


def test_no_hook_is_left_where_a_name_is_missing():
    model = net()
    with pytest.raises(KeyError):
        Recorder(model, ["first", "missing"], clone)
    assert hooks_on(model) == []


def test_a_watched_model_can_be_pickled():
    model = net()
    with Recorder(model, ["first"], clone):
        copy = pickle.loads(pickle.dumps(model))
    x = torch.rand(2, 4)
    assert torch.equal(copy(x), model(x))


def test_a_name_goes_before_a_pattern_that_fits_it_too():
    assert resolve_layers(net(), ["*", "last"]) == {"first": "*", "act": "*", "last": "last"} | {}


# --- Layers with an adapter, TorchScript, quantized layers ------------------------------------------------------------


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


# --- Hooks and compilers ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_a_watched_model_can_be_scripted_while_switched_off():
    model, x = net(), torch.rand(3, 4)
    with Recorder(model, ["first", "last"], clone) as recorder:
        recorder.enabled = False
        assert hooks_on(model) == []
        assert torch.equal(torch.jit.script(model)(x), model(x))
        recorder.enabled = recorder.enabled = True
        assert len(hooks_on(model)) == 2
        recorder.forget(["last"])
        recorder.enabled = False
        recorder.enabled = True
        assert hooks_on(model) == [("first", "_forward_hooks")]
    recorder.enabled = True
    assert hooks_on(model) == []


class Compiling(nn.Module):
    """Compiled through a method, through an attribute, or not."""

    def __init__(self, how):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        if how == "an attribute":
            self.run = torch.compile(self.run, backend="eager")

    def run(self, x):
        return self.inner(x)

    def forward(self, x):
        return self.run(x)


class CompilingByDecorator(Compiling):
    @torch.compile(backend="eager")
    def run(self, x):
        return self.inner(x)


@pytest.mark.parametrize("make", [lambda: Compiling("an attribute"), lambda: CompilingByDecorator("a method")])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_hooks_inside_a_compiled_function_stay_on_and_idle(make):
    torch.compiler.reset()
    model, x = nn.Sequential(make(), nn.Linear(4, 2)), torch.rand(3, 4)
    with Recorder(model, ["0.inner", "1"], clone) as recorder, torch.no_grad():
        recorder.enabled = False
        assert hooks_on(model) == [("0.inner", "_forward_hooks")]
        model(x)
        assert recorder.take() == {}
        recorder.enabled = True
        out = model(x)
        assert torch.equal(recorder.take()["1"], out)
    assert hooks_on(model) == []
    torch.compiler.reset()


# --- Tensor subclasses ------------------------------------------------------------------------------------------------


class Tagged(torch.Tensor):
    """As MONAI's MetaTensor: it goes through every operation, and refuses some that are in place."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__imul__:
            raise TypeError("not in place")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_tensor_of_a_subclass_is_kept_as_a_plain_one():
    x = torch.rand(5, 3).as_subclass(Tagged)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert type(model(x)) is Tagged
    with Recorder(model, ["0", "1"], clone, {"1": lambda output: output * 2}) as recorder:
        model(x)
        assert {type(kept) for kept in recorder.take().values()} == {torch.Tensor}
    assert type(first_tensor({"x": x})) is torch.Tensor


# --- Wrappers ---------------------------------------------------------------------------------------------------------


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
