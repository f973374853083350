"""Images: IDX files, splits, and the order in which pixels become steps."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperprune.data import store
from hyperprune.data.images import load_images, read_idx
from hyperprune.errors import InputError


def _idx(array: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def _write(folder: Path, part: str, num_images: int, *, packed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """`num_images` images of 4×3, each one told by its first two pixels."""
    images = np.random.default_rng(num_images).integers(0, 256, (num_images, 4, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(num_images), 256)
    labels = np.random.default_rng(1).integers(0, 10, num_images, dtype=np.uint8)
    folder = folder / "mnist"
    folder.mkdir(exist_ok=True)
    for kind, array, axes in (("images", images, 3), ("labels", labels, 1)):
        content = _idx(array)
        name = f"{part}-{kind}-idx{axes}-ubyte"
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gzip.compress(content) if packed else content
        )
    return images, labels


def _numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0].int() * 256 + images[:, 0, 1]).tolist()


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "data_folders", lambda data_dir=None: [Path(data_dir or tmp_path)])


@pytest.mark.parametrize("packed", [True, False])
def test_files_are_read_packed_or_not(tmp_path, packed):
    images, labels = _write(tmp_path, "t10k", 40, packed=packed)
    held = load_images("mnist10k", data_dir=tmp_path, download=False)
    by_number = {
        number: (image, label)
        for split in ("train", "valid", "test")
        for number, image, label in zip(
            _numbers(held.images[split]), held.images[split], held.labels[split], strict=True
        )
    }
    assert sorted(by_number) == list(range(40))
    for number, (image, label) in by_number.items():
        assert image.numpy().tolist() == images[number].tolist()
        assert int(label) == labels[number]


def test_a_single_file_is_dealt_out_evenly_over_classes_and_positions(tmp_path):
    _, labels = _write(tmp_path, "t10k", 1000)
    held = load_images("mnist10k", data_dir=tmp_path, download=False)
    assert [held.num_images(split) for split in ("train", "valid", "test")] == [700, 100, 200]
    for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        counts = torch.bincount(held.labels[split], minlength=10).numpy()
        # A run of n places holds ⌊n/10⌋ or ⌈n/10⌉ of each last digit, so at most that many digits are off.
        assert np.abs(counts - share * np.bincount(labels, minlength=10)).max() < 3
        second_half = np.mean(np.array(_numbers(held.images[split])) >= 500)
        assert second_half == pytest.approx(0.5, abs=0.03)


def test_mnist_keeps_its_test_file_and_takes_validation_from_the_end_of_the_other(tmp_path):
    _write(tmp_path, "train", 5_200)
    _write(tmp_path, "t10k", 30)
    held = load_images("mnist", data_dir=tmp_path, download=False)
    assert _numbers(held.images["train"]) == list(range(200))
    assert _numbers(held.images["valid"]) == list(range(200, 5_200))
    assert _numbers(held.images["test"]) == list(range(30))


def test_mnists_files_must_hold_images_of_one_size(tmp_path):
    _write(tmp_path, "train", 5_200)
    _write(tmp_path, "t10k", 30)
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(_idx(np.zeros((30, 5, 3)))))
    with pytest.raises(InputError, match=r"of one size, got \(4, 3\) in .*train.* and \(5, 3\) in .*t10k"):
        load_images("mnist", data_dir=tmp_path, download=False)


def test_rows_and_pixels_are_read_as_a_page_is(tmp_path):
    images, labels = _write(tmp_path, "t10k", 40)
    held = load_images("mnist10k", data_dir=tmp_path, download=False)
    chosen = torch.tensor([3, 1])
    numbers = [_numbers(held.images["train"])[place] for place in chosen]
    rows, classes = held.sequences("train", chosen, "rows")
    pixels, _ = held.sequences("train", chosen, "pixels")
    assert rows.shape == (4, 2, 3)
    assert pixels.shape == (12, 2, 1)
    assert classes.tolist() == labels[numbers].tolist()
    for column, number in enumerate(numbers):
        assert torch.equal(rows[:, column], torch.from_numpy(images[number] / np.float32(255)))
        assert torch.equal(pixels[:, column, 0], rows[:, column].flatten())


def test_the_embedded_digits_have_a_tenth_of_each_class_and_need_no_file():
    held = load_images("digits", download=False)
    assert [held.num_images(split) for split in ("train", "valid", "test")] == [1080, 359, 358]
    assert held.shape == (8, 8)
    inputs, _ = held.sequences("valid", torch.arange(359), "rows")
    assert inputs.min() == 0
    assert inputs.max() == 1
    assert held.largest_class_share(1080, 359) == pytest.approx(0.1, abs=0.01)
    few = held.labels["train"][:50].mode().values
    assert held.largest_class_share(50, 12) == (held.labels["valid"][:12] == few).sum() / 12
    assert held.checksum() == load_images("digits").checksum()


def test_the_named_test_file_is_the_published_one(data_dir):
    if store.find("mnist10k", data_dir) is None:
        pytest.skip("the data folder holds no MNIST test file")
    assert store.describe("mnist10k", data_dir).checksums == {
        "test-images": "published",
        "test-labels": "published",
    }
    held = load_images("mnist10k", data_dir=data_dir, download=False)
    assert [held.num_images(split) for split in ("train", "valid", "test")] == [7000, 1000, 2000]
    assert held.shape == (28, 28)


def test_mnist_is_not_made_of_its_test_file(tmp_path):
    _write(tmp_path, "t10k", 40)
    with pytest.raises(InputError, match=r"put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz into"):
        load_images("mnist", data_dir=tmp_path, download=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG", "must begin with 00 00 08"),
        (b"", "must begin with 00 00 08"),
        (_idx(np.zeros((2, 3)))[:-1], "must hold 6 values after its header, as that says, and holds 5"),
        (gzip.compress(_idx(np.zeros((200, 3))))[:-9], "must be readable and whole"),
    ],
    ids=["another format", "empty", "a value short", "a cut archive"],
)
def test_a_damaged_file_is_an_error(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / "file")


def test_files_that_do_not_belong_together_are_an_error(tmp_path):
    _write(tmp_path, "t10k", 40)
    folder = tmp_path / "mnist"
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(_idx(np.zeros(39)))
    with pytest.raises(InputError, match=r"one class for each image, got 39 in .* for 40"):
        load_images("mnist10k", data_dir=tmp_path, download=False)
    labels.write_bytes(_idx(np.full(40, 10)))
    with pytest.raises(InputError, match=r"classes must lie in \[0, 10\), .* has 10"):
        load_images("mnist10k", data_dir=tmp_path, download=False)
    labels.write_bytes((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(InputError, match="check that the names are not exchanged"):
        load_images("mnist10k", data_dir=tmp_path, download=False)


def test_unknown_names_are_errors():
    with pytest.raises(InputError, match="unknown set of images 'mnits'; did you mean 'mnist"):
        load_images("mnits")
    held = load_images("digits")
    with pytest.raises(InputError, match="unknown scan 'row'; did you mean 'rows'"):
        held.sequences("train", torch.arange(2), "row")
    with pytest.raises(InputError, match="unknown split 'validation'"):
        held.num_images("validation")
