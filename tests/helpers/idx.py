"""A folder in the layout of MNIST, with few pictures of our own."""

import gzip

import torch


def write_idx(folder, n, seed=0, *, packed=True):
    """``n`` pictures of each part, those of a class alike: MNIST/raw in a folder."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(256, (10, 28, 28), generator=generator)
    for split in ("train", "t10k"):
        labels = torch.arange(n) % 10
        noise = torch.randint(-60, 61, (n, 28, 28), generator=generator)
        pictures = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
        for name, values in (("images-idx3", pictures), ("labels-idx1", labels.to(torch.uint8))):
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            content = bytes([0, 0, 8, values.ndim]) + sizes + values.numpy().tobytes()
            path = raw / f"{split}-{name}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return pictures, labels
