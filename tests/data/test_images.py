"""Folders of images: MNIST's idx files and CIFAR's binaries, made small."""

import gzip

import numpy as np
import pytest

from widthwise.data import DataError, load

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def mnist(folder, dot: str = "-", pack: bool = False) -> np.ndarray:
    images = RNG.integers(0, 256, size=(50, 4, 5)).astype(np.uint8)
    images[:, 0, 0] = 0
    labels = np.arange(50) % 5
    parts = {"train": slice(0, 40), "t10k": slice(40, 50)}
    for part, rows in parts.items():
        for what, array, n in (("images", images, 3), ("labels", labels, 1)):
            name = f"{part}-{what}{dot}idx{n}-ubyte" + (".gz" if pack else "")
            content = idx(array[rows])
            (folder / name).write_bytes(gzip.compress(content) if pack else content)
    return images


def cifar(folder, files: tuple[str, ...], labels: int, rows: int = 20) -> None:
    for name in files:
        y = np.stack([np.arange(rows) % (2 + i * 8) for i in range(labels)], axis=1)
        pixels = RNG.integers(0, 256, size=(rows, 3072))
        (folder / name).write_bytes(np.hstack([y, pixels]).astype(np.uint8).tobytes())


CIFAR10 = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


@pytest.mark.parametrize("dot, pack", [("-", False), (".", False), ("-", True)])
def test_idx(tmp_path, dot, pack):
    images = mnist(tmp_path, dot, pack)
    data = load(tmp_path)
    assert data.x_train.shape == (40, 20) and data.x_test.shape == (10, 20)
    assert data.classes == tuple("01234") and data.task == "classification"
    shift, scale = images[:40].mean(), images[:40].std()
    np.testing.assert_allclose(data.x_train, (images[:40].reshape(40, -1) - shift) / scale)
    name = f"t10k-images{dot}idx3-ubyte" + (".gz" if pack else "")
    np.testing.assert_allclose(data.encoder.transform(tmp_path / name), data.x_test)
    np.testing.assert_allclose(data.encoder.transform(images[40:]), data.x_test)


def test_subsets_keep_the_proportions(tmp_path):
    mnist(tmp_path)
    data = load(tmp_path, train=20, test=5)
    assert data.y_train.sum(axis=0).tolist() == [4] * 5
    assert data.y_test.sum(axis=0).tolist() == [1] * 5
    assert load(tmp_path, train=20, test=5).fingerprint() == data.fingerprint()
    assert load(tmp_path, train=20, test=5, seed=1).fingerprint() != data.fingerprint()
    with pytest.raises(DataError, match="at most these"):
        load(tmp_path, train=41)
    with pytest.raises(DataError, match="positive"):
        load(tmp_path, test=0)


def test_cifar10(tmp_path):
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    cifar(inner, CIFAR10, 1)
    (inner / "batches.meta.txt").write_text("cat\ndog\n\n")
    for folder in (tmp_path, inner):  # also where it was unpacked
        data = load(folder)
        assert data.x_train.shape == (100, 3072) and data.classes == ("cat", "dog")
    np.testing.assert_allclose((data.x_train**2).mean(), 1)
    np.testing.assert_allclose(data.encoder.transform(inner / "test_batch.bin"), data.x_test)


def test_cifar100(tmp_path):
    cifar(tmp_path, ("train.bin", "test.bin"), 2)
    assert load(tmp_path).n_outputs == 10
    assert load(tmp_path, target="coarse").n_outputs == 2
    assert load(tmp_path).encoder.transform(tmp_path / "test.bin").shape == (20, 3072)
    with pytest.raises(DataError, match="'fine' or 'coarse'"):
        load(tmp_path, target="medium")


def damage(folder, name: str, change) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(change(content))


@pytest.mark.parametrize(
    "name, change, fix",
    [
        ("train-images-idx3-ubyte", lambda c: c[:-1], "fetch it again"),
        ("train-images-idx3-ubyte", lambda c: c[:9], "fetch it again"),
        ("t10k-labels-idx1-ubyte", lambda c: c[:3], "unpack it"),
        ("t10k-labels-idx1-ubyte", gzip.compress, "unpack it"),
        ("t10k-labels-idx1-ubyte", lambda c: idx(np.arange(9)), "as many labels as images"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, name, change, fix):
    mnist(tmp_path)
    damage(tmp_path, name, change)
    with pytest.raises(DataError, match=fix) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_incomplete_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="or name a file"):
        load(tmp_path)
    mnist(tmp_path)
    with pytest.raises(DataError, match="leave target out"):
        load(tmp_path, target="label")
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte: put it there"):
        load(tmp_path)


def test_damaged_cifar_is_refused(tmp_path):
    cifar(tmp_path, CIFAR10[1:], 1)
    with pytest.raises(DataError, match="lacks data_batch_1.bin: put it there"):
        load(tmp_path)
    cifar(tmp_path, CIFAR10, 1)
    damage(tmp_path, "data_batch_3.bin", lambda content: content[:-100])
    with pytest.raises(DataError, match="fetch it again"):
        load(tmp_path)


def test_equal_pixels_are_refused(tmp_path):
    mnist(tmp_path)
    damage(tmp_path, "train-images-idx3-ubyte", lambda c: c[:16] + bytes(len(c) - 16))
    with pytest.raises(DataError, match="images that differ"):
        load(tmp_path)
