"""The training that probes and critics share: many networks side by side."""

import torch

from lightning_ib.functional.variational import training
from tests.helpers.samples import generator, normal


def test_the_network_is_that_of_modules():
    sizes = (3, 5, 4, 2)
    weights = training.mlp_weights(sizes, 2, generator(), torch.device("cpu"))
    x = normal(2, 7, 3).float()
    for k in range(2):
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
        )
        at = 0
        for layer in model[::2]:
            n_in, n_out = layer.in_features, layer.out_features
            layer.weight.data = weights[k, at : at + n_in * n_out].view(n_in, n_out).t()
            layer.bias.data = weights[k, at + n_in * n_out : at + (n_in + 1) * n_out]
            at += (n_in + 1) * n_out
        assert at == weights.shape[1]
        torch.testing.assert_close(training.mlp(weights, sizes, x)[k], model(x[k]))


def test_the_steps_are_those_of_adam():
    target = normal(2, 6).float()
    scores = iter(range(100, 0, -1))
    found = training.train(
        torch.zeros(2, 6),
        lambda w: (w - target).pow(4).sum(),
        lambda w: torch.full((2,), float(next(scores))),
        steps=60,
        learning_rate=0.03,
    )
    expected = torch.zeros(2, 6, requires_grad=True)
    adam = torch.optim.Adam([expected], lr=0.03)
    for _ in range(60):
        adam.zero_grad()
        (expected - target).pow(4).sum().backward()
        adam.step()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)


def test_each_copy_keeps_its_best_weights_and_ends_by_itself():
    seen = []

    def score(w):  # the first copy is best at 0.5, on its way to 1; the second only gets worse
        seen.append(w.clone())
        return torch.stack([(w[0] - 0.5).abs().sum(), w[1].abs().sum()])

    best = training.train(torch.zeros(2, 1), lambda w: (w - 1).square().sum(), score, steps=5000, learning_rate=0.01)
    assert best[0].item() == min((w[0].item() for w in seen), key=lambda v: abs(v - 0.5))
    assert best[1].item() == 0
    assert len(seen) < 30


def test_rows_are_drawn_from_each_copys_own_and_none_twice():
    rows = torch.tensor([[3, 5, 7, 9], [0, 2, 4, 6]])
    for seed in range(20):
        drawn = training.sample_rows(rows, 3, generator(seed))
        assert all(len(set(d.tolist())) == 3 and set(d.tolist()) <= set(r.tolist()) for d, r in zip(drawn, rows))
