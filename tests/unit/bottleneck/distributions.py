"""Joint distributions that several tests use."""

import torch


def random_joint(x, y, seed=0, *, spread=1.0):
    """A random p(x, y) with all entries positive; the larger the spread, the closer to hard labels."""
    generator = torch.Generator().manual_seed(seed)
    rows = (spread * torch.randn(x, y, generator=generator, dtype=torch.float64)).softmax(1)
    p_x = torch.rand(x, generator=generator, dtype=torch.float64) + 0.2
    return (p_x / p_x.sum())[:, None] * rows


ASYMMETRIC = torch.tensor([[0.63, 0.07], [0.12, 0.18]], dtype=torch.float64)
ERASURE = torch.tensor([[0.3, 0.2, 0.0], [0.0, 0.2, 0.3]], dtype=torch.float64)
HARD = torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [0, 0.3, 0], [0, 0, 0.4]], dtype=torch.float64)
INDEPENDENT = torch.tensor([[0.06, 0.14], [0.24, 0.56]], dtype=torch.float64)
