"""Language models of transformers, from a folder, layer by layer and token by token."""

import copy

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_ib import InformationPlaneCallback, measure
from lightning_ib.records import earliest_layer

transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_pictures")]

N_TOKENS, LONGEST, N = 24, 10, 90
SIZES = {"vocab_size": N_TOKENS, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {"n_positions": LONGEST, "n_embd": 16, "n_layer": 3, "n_head": 2, **SIZES}
BERT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, **SIZES}
KINDS = {
    "gpt2": (lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)), "transformer.h.*", 3),
    "bert": (lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT)), "bert.encoder.layer.*", 3),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """A model from a folder, the pattern of its blocks, and how many there are."""
    make, pattern, blocks = KINDS[request.param]
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    make().save_pretrained(folder)
    model = type(make()).from_pretrained(folder, local_files_only=True)
    return model, pattern, blocks


def sequences():
    """Sequences of 4 to 10 tokens, as lists, each followed by what is about its double."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(N):
        length = int(torch.randint(4, LONGEST + 1, (), generator=generator))
        tokens = [int(torch.randint(1, N_TOKENS, (), generator=generator))]
        while len(tokens) < length:
            tokens.append(2 * tokens[-1] % N_TOKENS or 1)
        found.append(torch.tensor(tokens))
    return found


def padded(rows):
    """A batch as a tokenizer gives it, with the next tokens as labels and −100 where there is none."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    labels = torch.full_like(ids, -100)
    labels[:, :-1] = torch.where(mask[:, 1:] > 0, ids[:, 1:], -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def without_labels(batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return inputs, batch["labels"], batch["attention_mask"]


OPTIONS = {
    "tokens": True,
    "ignore_index": -100,
    "unpack": without_labels,
    "estimators": ["probe", "soft"],
    "head": False,
}


def test_padding_changes_nothing(kind):
    """Padded batches of sixteen, and batches of sequences of one length, which have no padding."""
    model, pattern, blocks = kind
    model = copy.deepcopy(model).double().eval()  # in float32 a row may change its cell by rounding
    rows = sorted(sequences(), key=len)
    by_length = [[row for row in rows if len(row) == n] for n in range(4, LONGEST + 1)]
    whole = measure(model, [padded(some) for some in by_length], [pattern], **OPTIONS)
    mixed = measure(model, [padded(rows[k : k + 16]) for k in range(0, N, 16)], [pattern], **OPTIONS)
    assert any((padded(rows[k : k + 16])["attention_mask"] == 0).any() for k in range(0, N, 16))
    assert len(whole) == blocks
    assert {point.n_samples for point in mixed} == {sum(len(row) - 1 for row in rows)}
    for one, other in zip(whole.records(), mixed.records()):
        assert one[:2] + one[2:5] == other[:2] + other[2:5]
        assert one.value == pytest.approx(other.value, abs=1e-9, nan_ok=True), one


class Tuned(LightningModule):
    """A model that is trained with its own loss."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, **batch):
        return self.net(**batch)

    def training_step(self, batch, _):
        return self(**batch).loss

    def validation_step(self, batch, _):
        self(**batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def test_the_callback_gives_the_values_of_measure(kind, tmp_path):
    """Padded batches in a Trainer that changes no weight, and ``measure`` without padding."""
    model, pattern, _ = kind
    model = copy.deepcopy(model).double().eval()
    rows = sorted(sequences(), key=len)
    by_length = [[row for row in rows if len(row) == n] for n in range(4, LONGEST + 1)]
    alone = measure(model, [padded(some) for some in by_length], [pattern], **OPTIONS)
    callback = InformationPlaneCallback([f"net.{pattern}"], **OPTIONS)
    options = {"max_epochs": 1, "callbacks": [callback], "default_root_dir": tmp_path, "enable_progress_bar": False}
    tuned = Tuned(model.train())
    tuned.configure_optimizers = lambda: torch.optim.SGD(tuned.parameters(), 0.0)
    loader = DataLoader(rows, 16, collate_fn=padded)
    Trainer(**options, logger=False, enable_model_summary=False, enable_checkpointing=False).fit(tuned, loader, loader)
    found = {(r.layer.removeprefix("net."), r.source, r.quantity): r for r in callback.history.last().records()}
    assert {source for _, source, _ in found} == {"cells", "probe", "soft"}
    assert len(found) == len(alone.records())
    for one in alone.records():
        other = found[one.layer, one.source, one.quantity]
        assert other.value == pytest.approx(one.value, abs=1e-9, nan_ok=True), one
        assert other.standard_error == pytest.approx(one.standard_error, abs=1e-9, nan_ok=True), one


def test_the_callback_watches_the_blocks_by_name(kind, tmp_path):
    model, pattern, blocks = kind
    loader = DataLoader(sequences(), 16, collate_fn=padded)
    callback = InformationPlaneCallback([f"net.{pattern}"], **OPTIONS)
    options = {"max_epochs": 2, "callbacks": [callback], "default_root_dir": tmp_path, "enable_progress_bar": False}
    model.train()
    Trainer(**options, logger=False, enable_model_summary=False, enable_checkpointing=False).fit(
        Tuned(model), loader, loader
    )
    layers = [point.layer for point in callback.history.last()]
    assert layers == [f"net.{pattern.removesuffix('*')}{k}" for k in range(blocks)]
    assert earliest_layer(callback.history) in layers
    probe = [record for record in callback.history.estimates() if (record.source, record.quantity) == ("probe", "I_TY")]
    assert all(record.standard_error > 0 for record in probe)
