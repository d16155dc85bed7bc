"""MNIST from a folder."""

import pytest
import torch

from lightning_ib.reproduce.errors import ExperimentError
from lightning_ib.reproduce.mnist import load_mnist
from tests.helpers.idx import write_idx


@pytest.mark.parametrize("packed", [True, False])
def test_pictures_and_labels_are_read(tmp_path, packed):
    pictures, labels = write_idx(tmp_path, 20, packed=packed)
    x, y = load_mnist(tmp_path, "t10k")
    assert torch.equal(x, pictures.float() / 255)
    assert torch.equal(y, labels)
    assert (x.dtype, y.dtype, y.shape) == (torch.float32, torch.int64, (20,))


def test_without_a_folder_the_sentence_says_what_to_get():
    with pytest.raises(ExperimentError, match=r"MNIST is needed: give --data-dir DIR with MNIST/raw/train-images-idx3"):
        load_mnist(None, "train")


def test_a_missing_file_is_named(tmp_path):
    write_idx(tmp_path, 20)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ExperimentError, match=r"lacks train-labels-idx1-ubyte: --data-dir must hold .* from https"):
        load_mnist(tmp_path, "train")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\x00\x08\x03", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", b"\x00\x00\x08\x01\x00\x00\x00\x05\x00"],
    ids=["empty", "no sizes", "other numbers", "cut off"],
)
def test_a_damaged_file_is_named(tmp_path, content):
    write_idx(tmp_path, 20, packed=False)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ExperimentError, match=r"train-images-idx3-ubyte is damaged \(.*put a sound copy in its place"):
        load_mnist(tmp_path, "train")


def test_pictures_and_labels_of_different_number_are_refused(tmp_path):
    write_idx(tmp_path, 20)
    write_idx(tmp_path / "other", 30)
    name = "MNIST/raw/train-labels-idx1-ubyte.gz"
    (tmp_path / "other" / name).replace(tmp_path / name)
    with pytest.raises(ExperimentError, match=r"\(20, 28, 28\) and labels of shape \(30,\)"):
        load_mnist(tmp_path, "train")
