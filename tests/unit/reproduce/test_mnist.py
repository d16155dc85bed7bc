"""MNIST from a folder."""

import gzip

import pytest
import torch

from lightning_ib.reproduce.errors import ExperimentError
from lightning_ib.reproduce.mnist import checksum, load_mnist
from tests.helpers.idx import write_idx


@pytest.mark.parametrize("packed", [True, False])
def test_pictures_and_labels_are_read(tmp_path, packed):
    pictures, labels = write_idx(tmp_path, 20, packed=packed)
    x, y = load_mnist(tmp_path, "t10k", 20)
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


def test_a_damaged_packed_file_is_named(tmp_path):
    write_idx(tmp_path, 20)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(
        ExperimentError, match=r"train-images-idx3-ubyte\.gz is damaged \(.*put a sound copy in its place"
    ):
        load_mnist(tmp_path, "train")


def test_fewer_pictures_and_higher_labels_are_refused(tmp_path):
    write_idx(tmp_path, 20)
    assert len(load_mnist(tmp_path, "train", 15)[0]) == 15
    with pytest.raises(ExperimentError, match="holds 20 pictures of train with labels up to 9, expected 21 or more"):
        load_mnist(tmp_path, "train", 21)
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] = 10
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ExperimentError, match="with labels up to 10, expected 20 or more with labels from 0 to 9"):
        load_mnist(tmp_path, "train", 20)


def test_the_checksum_is_that_of_the_pictures(tmp_path):
    for name, seed, packed in (("one", 0, True), ("same", 0, False), ("other", 1, True)):
        write_idx(tmp_path / name, 20, seed, packed=packed)
    assert checksum(tmp_path / "one") == checksum(tmp_path / "same") != checksum(tmp_path / "other")


def test_pictures_and_labels_of_different_number_are_refused(tmp_path):
    write_idx(tmp_path, 20)
    write_idx(tmp_path / "other", 30)
    name = "MNIST/raw/train-labels-idx1-ubyte.gz"
    (tmp_path / "other" / name).replace(tmp_path / name)
    with pytest.raises(ExperimentError, match=r"\(20, 28, 28\) and labels of shape \(30,\)"):
        load_mnist(tmp_path, "train")
