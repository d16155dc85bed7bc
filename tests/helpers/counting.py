"""What tests of counted symbols share."""

import torch
from hypothesis import settings

from tests.helpers.samples import generator

LAST_BIT = 1e-12  # what float64 can leave of sums of a few entropies

# The same examples at every run, on every machine: a failure is never a matter of luck.
law = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def ints(high, n, seed=0):
    return torch.randint(high, (n,), generator=generator(seed))
