"""Small images as sequences: MNIST, ten thousand of its images, and the embedded digits.

| name | images | train / valid / test |
|---|---|---|
| `mnist` | MNIST's two pairs of IDX files, 28×28 | training file: first 55,000 / last 5,000; test file |
| `mnist10k` | MNIST's test file alone, 28×28 | places that end in 0-6 / 7 / 8-9: 7,000 / 1,000 / 2,000 |
| `digits` | 1,797 of 8×8, in this package | places that end in 0-5 / 6-7 / 8-9: 1,080 / 359 / 358 |

`mnist10k` is no MNIST: it has an eighth of the training images, and its figures compare with none that is
published. The place that decides is the one in order of class, then of position in the file: each split has
its share of every class, and of both halves of that file, the second of which is by other writers and harder.

References:
    LeCun, Cortes, Burges (1998), The MNIST database of handwritten digits (the IDX format).
    Alpaydin, Kaynak (1998), Optical recognition of handwritten digits (UCI): `digits`, see
    digits.LICENSE.txt.
    Le, Jaitly, Hinton (2015), A simple way to initialize recurrent networks of rectified linear units
    (pixel by pixel).

Axes: N images, R rows, C columns, T time, B batch, F features.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from hyperprune.data.sources import SPLITS
from hyperprune.data.store import DIGITS_FILE, locate
from hyperprune.errors import InputError, unknown_name

SCANS = ("rows", "pixels")
NUM_CLASSES = 10
_MNIST_VALID = 5_000  # the last ones of the training file
_Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes in three splits.

    Args:
        name: as given to `load_images`.
        largest: the value of a white pixel (255, or 16 in `digits`).
        images: (N, R, C) uint8 by split.
        labels: (N,) int64 by split, in [0, NUM_CLASSES).
    """

    name: str
    largest: int
    images: Mapping[str, UInt8[Tensor, "N R C"]]
    labels: Mapping[str, Int64[Tensor, " N"]]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        _, rows, columns = self.images["train"].shape
        return rows, columns

    def num_images(self, split: str) -> int:
        """How many images a split holds; an unknown split is an `InputError`."""
        return len(self.labels[_known_split(split)])

    def sequences(
        self, split: str, indices: Int64[Tensor, " B"], scan: str
    ) -> tuple[Float[Tensor, "T B F"], Int64[Tensor, " B"]]:
        """Some images as sequences of values in [0, 1], with their classes.

        Args:
            split: "train", "valid" or "test".
            indices: (B,) positions in the split.
            scan: "rows" (a row is one time step: T = R, F = C) or "pixels" (T = R·C, F = 1).

        Raises:
            InputError: an unknown split or scan.
        """
        if scan not in SCANS:
            raise unknown_name("scan", scan, SCANS)
        images_BRC = self.images[_known_split(split)][indices].float() / self.largest
        steps_BTF = images_BRC if scan == "rows" else images_BRC.flatten(1).unsqueeze(-1)
        return steps_BTF.transpose(0, 1).contiguous(), self.labels[split][indices]

    def largest_class_share(self, num_train: int, num_valid: int) -> float:
        """The accuracy of always naming the most frequent class of the first so many training images.

        It is measured on the first `num_valid` validation images.
        """
        most_frequent = torch.bincount(self.labels["train"][:num_train], minlength=NUM_CLASSES).argmax()
        return float((self.labels["valid"][:num_valid] == most_frequent).double().mean())

    def checksum(self) -> str:
        """SHA-256 of all pixels and classes: two runs saw the same data exactly if theirs agree."""
        digest = hashlib.sha256()
        for split in SPLITS:
            images = self.images[split]
            digest.update(f"\x1f{tuple(images.shape)}\x1f".encode())
            digest.update(images.numpy().tobytes())
            digest.update(self.labels[split].numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def load_images(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, download: bool = True
) -> ImageSet:
    """Read a set of images.

    Args:
        name: "digits", "mnist" or "mnist10k".
        data_dir: first folder to look for files in; then `$HYPERPRUNE_DATA`, the user's cache.
        download: whether files that are nowhere may be fetched.

    Raises:
        InputError: an unknown name, or files that are missing, damaged or do not belong together.
    """
    if name not in _READERS:
        raise unknown_name("set of images", name, _READERS)
    return _READERS[name](data_dir, download)


def _mnist(data_dir: str | os.PathLike[str] | None, download: bool) -> ImageSet:
    files = locate("mnist", data_dir, download=download)
    images, labels = _read_pair(files["train-images"], files["train-labels"])
    if len(labels) <= _MNIST_VALID:
        raise InputError(
            f"MNIST's training file must hold more than {_MNIST_VALID} images, {files['train-images']} holds "
            f"{len(labels)}; put the published files there"
        )
    test = _read_pair(files["test-images"], files["test-labels"])
    if test[0].shape[1:] != images.shape[1:]:
        raise InputError(
            f"MNIST's images must be of one size, got {images.shape[1:]} in {files['train-images']} and "
            f"{test[0].shape[1:]} in {files['test-images']}; put the published files there"
        )
    parts = {
        "train": (images[:-_MNIST_VALID], labels[:-_MNIST_VALID]),
        "valid": (images[-_MNIST_VALID:], labels[-_MNIST_VALID:]),
        "test": test,
    }
    return _image_set("mnist", 255, parts)


def _mnist10k(data_dir: str | os.PathLike[str] | None, download: bool) -> ImageSet:
    files = locate("mnist10k", data_dir, download=download)
    pair = _read_pair(files["test-images"], files["test-labels"])
    return _image_set("mnist10k", 255, _dealt(*pair, num_train=7, num_valid=1))


def _digits(data_dir: str | os.PathLike[str] | None, download: bool) -> ImageSet:
    with np.load(DIGITS_FILE) as held:
        pair = held["images"], held["labels"]
    return _image_set("digits", 16, _dealt(*pair, num_train=6, num_valid=2))


_READERS: dict[str, Callable[[str | os.PathLike[str] | None, bool], ImageSet]] = {
    "digits": _digits,
    "mnist": _mnist,
    "mnist10k": _mnist10k,
}


def _image_set(name: str, largest: int, parts: Mapping[str, _Arrays]) -> ImageSet:
    return ImageSet(
        name,
        largest,
        {split: torch.from_numpy(np.array(images)) for split, (images, _) in parts.items()},
        {split: torch.from_numpy(labels.astype(np.int64)) for split, (_, labels) in parts.items()},
    )


def _dealt(images: np.ndarray, labels: np.ndarray, *, num_train: int, num_valid: int) -> dict[str, _Arrays]:
    """One file in three splits by the last digit of the place in order of class, then of position."""
    last_digit = np.empty(len(labels), dtype=int)
    last_digit[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % 10
    chosen = {
        "train": last_digit < num_train,
        "valid": (last_digit >= num_train) & (last_digit < num_train + num_valid),
        "test": last_digit >= num_train + num_valid,
    }
    for split, picks in chosen.items():
        if not picks.any():
            raise InputError(
                f"images to be split must be at least 10, got {len(labels)} and none for {split}; "
                "put the published files there"
            )
    return {split: (images[picks], labels[picks]) for split, picks in chosen.items()}


def _read_pair(images_file: Path, labels_file: Path) -> _Arrays:
    """Images (N, R, C) and their classes (N,) from two IDX files, checked against each other."""
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"images must have three axes and classes one, got {images.ndim} in {images_file} and "
            f"{labels.ndim} in {labels_file}; check that the names are not exchanged"
        )
    if len(images) != len(labels):
        raise InputError(
            f"there must be one class for each image, got {len(labels)} in {labels_file} for {len(images)} "
            f"in {images_file}; take both files from one source"
        )
    if len(labels) and int(labels.max()) >= NUM_CLASSES:
        raise InputError(
            f"classes must lie in [0, {NUM_CLASSES}), {labels_file} has {int(labels.max())}; "
            "put the published file there"
        )
    return images, labels


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, packed by gzip or not (the content tells).

    Raises:
        InputError: a file that cannot be read, is damaged, of another format, or of another type of number.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"an IDX file must be readable and whole, {path} is not ({error}); fetch it again"
        ) from error
    num_axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * num_axes
    if content[:3] != b"\x00\x00\x08" or num_axes == 0 or len(content) < start:
        raise InputError(
            f"an IDX file of bytes must begin with 00 00 08, {path} begins with {content[:4].hex(' ')}; "
            "put the published file there"
        )
    shape = struct.unpack(f">{num_axes}I", content[4:start])
    expected = int(np.prod(shape, dtype=object))
    if len(content) - start != expected:
        raise InputError(
            f"{path} must hold {expected} values after its header, as that says, and holds "
            f"{len(content) - start}; fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _known_split(split: str) -> str:
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    return split
