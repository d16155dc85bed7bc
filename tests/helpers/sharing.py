"""Two processes that share the batches of a step; a program of tests/unit/objectives/test_gather.py."""

import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_ib.objectives import HSICLoss, NonlinearIBLoss, SurrogateIBLoss, gather_batch

N, D, K = 16, 5, 3
SHARES = {"even": (8, 8), "uneven": (5, 11)}
LOSSES = {
    "nonlinear": NonlinearIBLoss(0.5, power=2, noise_variance=0.3),
    "given_y": SurrogateIBLoss(0.5),
    "log_variance": SurrogateIBLoss(0.5, "log_variance"),
    "hsic": HSICLoss(2.0),
    "apart": NonlinearIBLoss(0.5, gather=False),
}


class Step(nn.Module):
    """A network and what it is trained with; its output is the terms of a batch."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(3)
        self.encoder = nn.Sequential(nn.Linear(D, 4), nn.Tanh())
        self.decoder = nn.Linear(4, K)
        self.loss = loss

    def forward(self, x, y):
        mean = self.encoder(x)
        if isinstance(self.loss, HSICLoss):
            return self.loss([mean, self.decoder(mean)], x, y)
        return self.loss(self.decoder(mean), y, mean)


def batch():
    generator = torch.Generator().manual_seed(7)
    return torch.randn(N, D, generator=generator, dtype=torch.float64), torch.arange(N) % K


def value_of(terms, part):
    # DistributedDataParallel waits for the gradients of all parameters.
    return getattr(terms, part) + 0 * terms.loss


def gradients(module):
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def of_rank(folder, rank):
    """What this process has for each loss and share, as a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for share, sizes in SHARES.items():
        x, y = (t.split(sizes)[rank] for t in batch())
        for name, loss in LOSSES.items():
            # The cross-entropy of unequal shares is another mean, in DistributedDataParallel as ever.
            for part in ("loss", "rate" if name != "hsic" else "hsic_x"):
                step = DistributedDataParallel(Step(loss).double())
                value = value_of(step(x, y), part)
                value.backward()
                found[share, name, part] = value.item(), gradients(step)
        found[share, "gathered"] = gather_batch(x), gather_batch(y)
    refused = {}
    for name, values in {
        "none": torch.zeros(rank, 2),
        "wide": torch.zeros(2, 2 + rank),
        "kind": torch.zeros(2, 2, dtype=(torch.float32, torch.float64)[rank]),
    }.items():
        try:
            gather_batch(values)
        except ValueError as error:
            refused[name] = str(error)
    torch.save((found, refused), folder / f"{rank}.pt")
    dist.barrier()
    # Gloo, which ends its threads where the last module is freed, at times waits for one that waits for Python.
    os._exit(0)


if __name__ == "__main__":
    forked = multiprocessing.get_context("fork")
    ranks = [forked.Process(target=of_rank, args=(Path(sys.argv[1]), rank)) for rank in range(2)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join()
    sys.exit(max(abs(one.exitcode) for one in ranks))
