"""What is kept of the outputs of watched modules, and that the hooks leave no trace."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from lightning_ib.capture.layers import named_modules
from lightning_ib.capture.outputs import first_tensor
from lightning_ib.capture.recorder import Recorder
from tests.helpers.planes import hooks_on
from tests.helpers.recording import clone, net

# -- What is kept ------------------------------------------------------------------------------------------------------


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


# -- Errors ------------------------------------------------------------------------------------------------------------


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


# -- Hooks come off ----------------------------------------------------------------------------------------------------


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


# -- Hooks and compilers -----------------------------------------------------------------------------------------------


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


# -- Tensor subclasses -------------------------------------------------------------------------------------------------


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
