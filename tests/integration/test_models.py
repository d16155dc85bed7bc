"""Networks of other people's making, with random weights, a few steps each in a real Trainer."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader

from lightning_ib import (
    CellQuantizer,
    FixedBins,
    InformationPlaneCallback,
    QuantileBins,
    Quantizer,
    UniformBins,
    measure,
)
from lightning_ib.records import History
from lightning_ib.records.tags import parse_tag
from tests.helpers import vision
from tests.helpers.records import exact
from tests.helpers.tiny import fit, has_hooks, pl

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures", "few_pictures")]

N_TRAIN, N_VAL, BATCH = 48, 48, 16
FOUR, HALVES = UniformBins(4), QuantileBins(2)


def mean_over(*dims):
    return lambda z: z.mean(dims)


class Classifier(pl.LightningModule):
    """Any network under cross-entropy, on batches (x, y), x being a tensor or a mapping of keywords."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.losses = []

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self(**x) if isinstance(x, dict) else self(x), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), batch_size=BATCH)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def loaders(sample, collate_fn=None):
    """Of a function that makes the k-th sample: data for training, shuffled, and data for validation."""
    generator = torch.Generator().manual_seed(5)
    data = [sample(k, generator) for k in range(N_TRAIN + N_VAL)]
    train = DataLoader(data[:N_TRAIN], BATCH, shuffle=True, collate_fn=collate_fn)
    return train, DataLoader(data[N_TRAIN:], BATCH, collate_fn=collate_fn)


def trained(tmp_path, make, data, *callbacks):
    pl.seed_everything(7, verbose=False)
    model, run = fit(tmp_path, *callbacks, model=make(), train=data[0], val=data[1], max_epochs=1)
    logged = {name: value for name, value in run.callback_metrics.items() if not name.startswith("ib")}
    return model, {**model.state_dict(), **logged, "rng": torch.get_rng_state(), "losses": torch.tensor(model.losses)}


def watched(tmp_path, make, data, callback, x=None):
    """Train with the callback and without: nothing may differ. The layers of the points.

    What a measurement of the trained network finds is what the callback recorded last.
    """
    model, with_it = trained(tmp_path, make, data, callback)
    _, without = trained(tmp_path, make, data)
    assert with_it.keys() == without.keys()
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    assert not has_hooks(model)
    assert {p.n_samples for p in callback.history} == {N_VAL}
    layers = callback.plane.layers
    assert [(p.epoch, p.layer) for p in callback.history] == [(epoch, layer) for epoch in range(2) for layer in layers]
    for point in callback.history:
        assert all(map(math.isfinite, (point.i_xt, point.i_ty, point.h_t, point.saturation)))
        assert 0 < point.h_t < 1.0001 * math.log2(N_VAL)
        assert -1e-9 < point.i_ty < point.h_t + 1e-9
        assert point.h_y == pytest.approx(2.0)
    found = measure(model, data[1], frozen(callback), input=x, unpack=callback.unpack)
    last = [p._replace(epoch=0, step=0) for p in callback.history[-len(layers) :]]
    # What lies outside by design, FixedBins do not know.
    unknown = {"clipped_fraction": 0, "verdict": ""}
    if not callback.plane.discretized:  # nothing of what `measure` does is on a sample then, and nothing of the head
        unknown |= dict.fromkeys(("accuracy", "i_ty_fano", "fano_shortfall"), 0)
    found, last = ([p._replace(**unknown) for p in points] for points in (found, last))
    assert exact(found) == exact(last)
    return layers


def assert_default(callback, head):
    """All layers are in cells, the last one is the head, and a probe has read all of them."""
    plane = callback.plane
    assert list(plane.discretized) == plane.layers
    assert (plane.head.layer, plane.head.n_classes, plane.head.activation) == (head, 4, "softmax")
    assert {p.source for p in callback.history} == {"cells"}
    assert {p.layer for p in callback.history if not math.isnan(p.accuracy)} == {head}
    assert all(0 <= p.i_ty_fano <= p.h_y for p in callback.history)
    probed = [one for one in callback.history.estimates() if one.quantity == "accuracy"]
    assert [one.layer for one in probed] == 2 * plane.layers
    assert all(0 <= one.value <= 1 for one in probed)


def frozen(callback):
    """The quantizers of a callback, with the edges that it came to; cells need none."""
    return callback.plane.quantizers | {
        layer: Quantizer(discretizer.quantizer.pool, FixedBins(discretizer.edges), select=discretizer.quantizer.select)
        for layer, discretizer in callback.plane.fitted_quantizers.items()
    }


# -- images --------------------------------------------------------------------------------------------------------


def images():
    return loaders(lambda k, generator: (torch.randn(3, 32, 32, generator=generator) + k % 4, k % 4))


def resnet():
    timm = vision.timm()
    return Classifier(timm.create_model("resnet18", pretrained=False, num_classes=4))


def vit():
    timm = vision.timm()
    size = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 32, "num_heads": 2}
    return Classifier(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=4, **size))


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_a_resnet_by_default(tmp_path):
    callback = InformationPlaneCallback()
    layers = watched(tmp_path, resnet, images(), callback)
    assert callback.figure_path.is_file()
    assert len(layers) == 12
    assert (layers[0], layers[-1]) == ("net.conv1", "net.fc")
    assert_default(callback, "net.fc")
    assert callback.plane.discretized["net.conv1"].startswith("16384 coordinates, sketched to 128; 2 cells with ")


@pytest.mark.slow
def test_the_stages_of_a_resnet_by_name(tmp_path):
    named = {
        "net.layer?": Quantizer(lambda z: z.mean((2, 3))[:, :6], FOUR),
        "net.fc": Quantizer(bins=FOUR),
    }
    layers = watched(tmp_path, resnet, images(), InformationPlaneCallback(named))
    assert layers == ["net.layer1", "net.layer2", "net.layer3", "net.layer4", "net.fc"]


def test_a_vision_transformer_by_default(tmp_path):
    callback = InformationPlaneCallback()
    layers = watched(tmp_path, vit, images(), callback)
    assert len(layers) == 12
    assert (layers[0], layers[-1]) == ("net.patch_embed.proj", "net.head")
    assert_default(callback, "net.head")


def test_the_blocks_of_a_vision_transformer_by_the_token_of_the_class(tmp_path):
    token = Quantizer(bins=FOUR, select=lambda output: output[:, 0, :6])
    named = {"net.blocks.*": token, "net.blocks.2.attn": token}
    layers = watched(tmp_path, vit, images(), InformationPlaneCallback(named))
    assert layers == ["net.blocks.0", "net.blocks.1", "net.blocks.2", "net.blocks.2.attn"]


# -- text ----------------------------------------------------------------------------------------------------------

N_TOKENS, LENGTH = 20, 12


class BertClassifier(Classifier):
    """As in Hugging Face's examples: batches are mappings, labels among them, and the model gives its own loss."""

    def __init__(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=N_TOKENS,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=LENGTH,
            num_labels=4,
        )
        super().__init__(transformers.BertForSequenceClassification(config))

    def loss(self, batch):
        return self(**batch).loss


def sentences():
    def sample(k, generator):
        length = int(torch.randint(4, LENGTH + 1, (), generator=generator))
        mask = (torch.arange(LENGTH) < length).long()
        tokens = torch.randint(1, N_TOKENS, (LENGTH,), generator=generator) * mask
        return {"input_ids": tokens, "attention_mask": mask, "labels": k % 4}

    return loaders(sample)


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}, batch["labels"]


@pytest.mark.filterwarnings("ignore:layer 'net.bert.embeddings.position_embeddings' is left out. .* 1 rows for 16")
def test_bert_by_default(tmp_path):
    """The table of positions is the same for every sentence: its output has no batch, and it is left out."""
    callback = InformationPlaneCallback(unpack=without_labels)
    layers = watched(tmp_path, BertClassifier, sentences(), callback)
    assert len(layers) == 12
    assert (layers[0], layers[-1]) == ("net.bert.embeddings.word_embeddings", "net.classifier")
    assert "net.bert.embeddings.token_type_embeddings" not in layers, "it is the same for all"
    assert_default(callback, "net.classifier")


def test_bert_by_name_with_what_each_module_puts_out(tmp_path):
    named = {
        "net.bert": Quantizer(bins=FOUR, select=lambda output: output.last_hidden_state[:, 0, :4]),
        "net.bert.encoder": Quantizer(mean_over(1), HALVES),
        "net.bert.encoder.layer.*": CellQuantizer(),
        "net.bert.encoder.layer.1.attention.self": Quantizer(mean_over(1), HALVES),
        "net.bert.pooler": Quantizer(bins=HALVES),
        "net": Quantizer(bins=HALVES, select=lambda output: output.logits),
    }
    x = Quantizer(bins=FixedBins([2.0, N_TOKENS / 2]), select=lambda x: x["input_ids"][:, :3])
    callback = InformationPlaneCallback(named, input=x, unpack=without_labels)
    layers = watched(tmp_path, BertClassifier, sentences(), callback, x)
    assert set(layers) == (set(named) - {"net.bert.encoder.layer.*"}) | {
        "net.bert.encoder.layer.0",
        "net.bert.encoder.layer.1",
    }
    assert all(p.h_x < math.log2(N_VAL) for p in callback.history)


def test_padded_positions_count_unless_the_quantizer_leaves_them_out(tmp_path):
    """What stands in the padding reaches a mean over positions, and not the token that is selected."""
    model = BertClassifier().eval()
    (batch,) = DataLoader(sentences()[1].dataset, N_VAL)
    padding = batch["attention_mask"] == 0
    other = batch | {"input_ids": batch["input_ids"].masked_fill(padding, 7)}
    named = {
        "net.bert": Quantizer(bins=FixedBins([0.0]), select=lambda output: output.last_hidden_state[:, 0]),
        "net.bert.encoder": Quantizer(mean_over(1), FixedBins([0.0])),
    }
    (token, mean), (other_token, other_mean) = (
        measure(model, [b], named, unpack=without_labels) for b in (batch, other)
    )
    assert exact([token]) == exact([other_token])
    assert mean.h_t != other_mean.h_t


# -- graphs --------------------------------------------------------------------------------------------------------


class GraphLayer(nn.Module):
    """Mix the neighbors' features in: (…, nodes, features)."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.own, self.neighbors = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)

    def forward(self, nodes, adjacency):
        mixed = adjacency @ nodes / adjacency.sum(-1, keepdim=True).clamp_min(1)
        return torch.tanh(self.own(nodes) + self.neighbors(mixed))


class GraphNet(nn.Module):
    """Three ways to batch: "dense" (graphs, nodes, features), "joined" (all nodes, features), "nodes" as samples."""

    def __init__(self, batching):
        super().__init__()
        self.batching = batching
        self.first, self.second = GraphLayer(3, 8), GraphLayer(8, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, nodes, adjacency, graph=None):
        h = self.second(self.first(nodes, adjacency), adjacency)
        if self.batching == "dense":
            h = h.mean(1)
        elif self.batching == "joined":
            h = h.new_zeros(int(graph[-1]) + 1, h.shape[1]).index_add(0, graph, h)
        return self.out(h)


def graph(k, generator, n_nodes=5):
    edges = torch.rand(n_nodes, n_nodes, generator=generator) < 0.4
    nodes = torch.randn(n_nodes, 3, generator=generator) + k % 4 - 1.5
    return {"nodes": nodes, "adjacency": (edges | edges.T).float()}, k % 4


def joined(samples):
    """As PyTorch Geometric does: all nodes after one another, no edge from one graph to another."""
    sizes = torch.tensor([len(x["nodes"]) for x, _ in samples])
    x = {
        "nodes": torch.cat([x["nodes"] for x, _ in samples]),
        "adjacency": torch.block_diag(*(x["adjacency"] for x, _ in samples)),
        "graph": torch.arange(len(samples)).repeat_interleave(sizes),
    }
    return x, torch.tensor([y for _, y in samples])


def test_graphs_as_dense_adjacency_have_the_graphs_first(tmp_path):
    by_default, data = InformationPlaneCallback(), loaders(graph)
    layers = watched(tmp_path, lambda: Classifier(GraphNet("dense")), data, by_default)
    parts = [f"net.{layer}.{part}" for layer in ("first", "second") for part in ("own", "neighbors")]
    assert layers == [*parts, "net.out"]
    assert_default(by_default, "net.out")
    named = {"net.*": Quantizer(lambda z: z.reshape(len(z), -1)[:, :4], FOUR)}
    by_name = InformationPlaneCallback(named)
    layers = watched(tmp_path, lambda: Classifier(GraphNet("dense")), data, by_name)
    assert layers == ["net.first", "net.second", "net.out"]


def test_graphs_joined_into_one_are_known_from_where_they_are_pooled_on(tmp_path):
    """The rows of the graph layers are nodes, and those of the labels are graphs: only ``out`` can be measured."""
    callback = InformationPlaneCallback()
    data = loaders(lambda k, generator: graph(k, generator, n_nodes=4 + k % 3), collate_fn=joined)
    with pytest.warns(UserWarning, match=r"are left out: .* they put out \d+ rows for 16 labels") as told:
        layers = watched(tmp_path, lambda: Classifier(GraphNet("joined")), data, callback)
    assert sum("are left out" in str(warning.message) for warning in told) == 1
    assert layers == ["net.out"]
    assert_default(callback, "net.out")
    with pytest.raises(ValueError, match=r"layer 'net.second' put out \d+ rows for 16 labels.*give Quantizer.select="):
        fit(
            tmp_path,
            InformationPlaneCallback(["net.second"]),
            model=Classifier(GraphNet("joined")),
            train=data[0],
            val=data[1],
        )


def test_nodes_of_one_graph_are_samples_where_each_has_a_label(tmp_path):
    generator = torch.Generator().manual_seed(3)
    (nodes, adjacency), labels = graph(0, generator, n_nodes=N_VAL)[0].values(), torch.arange(N_VAL) % 4
    one = [({"nodes": nodes + labels[:, None], "adjacency": adjacency}, labels)]
    data = DataLoader(one, batch_size=None), DataLoader(one, batch_size=None)
    named = {"net.first": Quantizer(bins=FOUR), "net.second": None, "net.out": Quantizer(bins=FOUR)}
    layers = watched(tmp_path, lambda: Classifier(GraphNet("nodes")), data, InformationPlaneCallback(named))
    assert layers == list(named)


# -- sequences -----------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.embedding = nn.Embedding(N_TOKENS, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2, batch_first=batch_first)
        self.out = nn.Linear(8, 4)

    def forward(self, tokens, lengths=None):
        h = self.embedding(tokens)
        if lengths is not None:
            h = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        return self.out(self.lstm(h)[1][0][-1])


def words(k, generator):
    return torch.randint(0, N_TOKENS // 2, (9,), generator=generator) + 2 * (k % 4), k % 4


def sequence_first(samples):
    return torch.stack([x for x, _ in samples], dim=1), torch.tensor([y for _, y in samples])


def test_recurrent_networks_give_the_same_figures_in_either_order(tmp_path):
    named = {
        "net.lstm": Quantizer(mean_over(1), HALVES),
        "net.out": Quantizer(bins=HALVES),
    }
    histories = []
    for batch_first in (True, False):
        callback, data = InformationPlaneCallback(named), loaders(words, None if batch_first else sequence_first)
        layers = watched(tmp_path, lambda first=batch_first: Classifier(Recurrent(first)), data, callback)
        assert layers == list(named)
        histories.append(callback.history)
    assert exact(histories[0].points()) == exact(histories[1].points())


def test_a_recurrent_network_by_default(tmp_path):
    callback = InformationPlaneCallback()
    layers = watched(tmp_path, lambda: Classifier(Recurrent(True)), loaders(words), callback)
    assert layers == ["net.embedding", "net.lstm", "net.out"]
    assert_default(callback, "net.out")
    callback, data = InformationPlaneCallback(), loaders(words, sequence_first)
    with pytest.warns(UserWarning, match="layer 'net.embedding' is left out: .* put out 9 rows for 16 labels"):
        layers = watched(tmp_path, lambda: Classifier(Recurrent(False)), data, callback)
    assert layers == ["net.lstm", "net.out"]


def test_select_takes_what_is_wanted_of_a_recurrent_network(tmp_path):
    named = {
        "net.embedding": CellQuantizer(select=lambda output: output.transpose(0, 1)),
        "net.lstm": Quantizer(bins=HALVES, select=lambda output: output[1][0][-1]),
    }
    callback, data = InformationPlaneCallback(named), loaders(words, sequence_first)
    layers = watched(tmp_path, lambda: Classifier(Recurrent(False)), data, callback)
    assert layers == list(named)


def padded(samples):
    lengths = torch.tensor([4 + i % 6 for i in range(len(samples))])
    return {"tokens": torch.stack([x for x, _ in samples]), "lengths": lengths}, torch.tensor([y for _, y in samples])


def test_packed_sequences_are_padded_with_a_warning_and_may_be_selected_from(tmp_path):
    data = loaders(words, padded)
    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match=r"layer 'net.lstm' puts out sequences .*PackedSequence\).*Quantizer\(select"):
        layers = watched(tmp_path, lambda: Classifier(Recurrent(True)), data, callback)
    assert layers == ["net.embedding", "net.lstm", "net.out"]
    named = {"net.lstm": Quantizer(bins=HALVES, select=lambda output: output[1][0][-1])}
    callback = InformationPlaneCallback(named)
    watched(tmp_path, lambda: Classifier(Recurrent(True)), data, callback)


# -- no labels -----------------------------------------------------------------------------------------------------


class Autoencoder(Classifier):
    def __init__(self):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        super().__init__(nn.ModuleDict({"encoder": encoder, "decoder": nn.Linear(8, 64)}))

    def forward(self, x):
        return self.net["decoder"](self.net["encoder"](x)).reshape(x.shape)

    def loss(self, batch):
        return nn.functional.mse_loss(self(batch), batch)


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(("layers", "data"), [(None, None), (["net.encoder", "net.decoder"], "train")])
def test_an_autoencoder_without_labels_has_figures_about_the_input_alone(tmp_path, layers, data):
    callback = InformationPlaneCallback(layers, unpack=lambda x: (x, None), data=data, beta=1.0)
    train, val = loaders(lambda k, generator: torch.randn(1, 8, 8, generator=generator))
    model, with_it = trained(tmp_path, Autoencoder, (train, val), callback)
    _, without = trained(tmp_path, Autoencoder, (train, val))
    assert {name for name in with_it if name not in without} == set()
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    names = layers or ["net.encoder.1", "net.decoder"]
    assert [(p.epoch, p.layer) for p in callback.history] == [(epoch, name) for epoch in range(2) for name in names]
    for point in callback.history:
        assert 0 < point.i_xt == point.h_t < math.log2(point.n_samples)
        assert math.isnan(point.i_ty)
        assert math.isnan(point.h_y)
    assert exact(History.read_csv(callback.figure_path.with_suffix(".csv"))) == exact(callback.history)
    assert callback.history.estimates() == []
    assert callback.figure_path.is_file()
    logged = {tag.quantity for name in model.trainer.callback_metrics if (tag := parse_tag(name)) is not None}
    assert logged == {
        *(f"{name}{end}" for name in ("I_XT", "H_T") for end in ("", "_lower", "_upper")),
        *("saturation", "singleton_fraction"),
    }


def test_without_labels_the_samples_are_the_rows_of_the_input(tmp_path):
    class Patchwise(Autoencoder):
        def __init__(self):
            super().__init__()
            self.net["patches"] = nn.Linear(2, 2)
            self.net = nn.ModuleDict({name: self.net[name] for name in ("patches", "encoder", "decoder")})

        def forward(self, x):
            return super().forward(self.net["patches"](x.reshape(-1, 2)).reshape(x.shape))

    callback = InformationPlaneCallback(unpack=lambda x: (x, None))
    train, val = loaders(lambda k, generator: torch.randn(1, 8, 8, generator=generator))
    with pytest.warns(UserWarning, match="layer 'net.patches' is left out: .* put out 512 rows for 16 inputs"):
        trained(tmp_path, Patchwise, (train, val), callback)
    assert {p.layer for p in callback.history} == {"net.encoder.1", "net.decoder"}
    assert {p.n_samples for p in callback.history} == {N_VAL}


# -- sequences whose length changes from batch to batch ----------------------------------------------------------------


def cut_to_the_longest(samples):
    """As a collator that pads dynamically does: each batch is as wide as its longest sentence."""
    batch = {name: torch.stack([torch.as_tensor(sample[name]) for sample in samples]) for name in samples[0]}
    width = int(batch["attention_mask"].sum(1).max())
    return {name: value if name == "labels" else value[:, :width] for name, value in batch.items()}


@pytest.mark.filterwarnings("ignore:layer 'net.bert.embeddings.position_embeddings' is left out")
@pytest.mark.filterwarnings("ignore:.* such as the mean over positions or one token")  # of measure, too
def test_bert_with_sentences_of_other_lengths_in_every_batch(tmp_path):
    train, val = (DataLoader(loader.dataset, 4, collate_fn=cut_to_the_longest) for loader in sentences())
    widths = {batch["input_ids"].shape[1] for batch in val}
    assert len(widths) > 1
    callback = InformationPlaneCallback(unpack=without_labels)
    with pytest.warns(UserWarning, match="coordinates in one batch and has") as caught:
        watched(tmp_path, BertClassifier, (train, val), callback)
    of = "layer 'net.bert.embeddings.word_embeddings' and 9 more: a sample had"
    told = [str(warning.message) for warning in caught if "in one batch" in str(warning.message)]
    assert len(told) == 2, "one of the callback, one of measure"
    assert all(of in sentence and "depend on how the data is batched" in sentence for sentence in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The number of training batches|.*does not have many workers|.*LeafSpec")
        first_token = CellQuantizer(select=lambda output: output.last_hidden_state[:, 0])
        mean = CellQuantizer(pool=mean_over(1))
        named = {"net.bert.encoder": first_token, "net.bert.encoder.layer.*": mean}
        watched(tmp_path, BertClassifier, (train, val), InformationPlaneCallback(named, unpack=without_labels))
