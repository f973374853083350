"""Where data lie on disk, and how they get there.

A named corpus or set of images is looked for in the folder the caller gives, then in `$HYPERPRUNE_DATA`,
then in the user's cache; the first folder that holds all of its files serves. Files found are used as they
are, edited or not; `describe` says whether they are the published ones. Otherwise they are downloaded,
checked by SHA-256 and moved into place only when all of them are whole.
"""

import hashlib
import http.client
import importlib.util
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyperprune.data.sources import DATASETS, Dataset, Download
from hyperprune.errors import InputError, unknown_name

ENVIRONMENT = "HYPERPRUNE_DATA"
EMBEDDED = "pydoc"
DIGITS_FILE = Path(__file__).parent / "digits.npz"
_EMBEDDED = {EMBEDDED: "pydoc_data.topics of this Python", "digits": "this package"}
_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What `list_datasets` and `describe` tell about a data set.

    Args:
        path: the folder (for embedded data: the file) that serves it, or None if it must be fetched.
        num_bytes: of the files found, else of the download.
        source: where it comes from.
        checksums: by part "published", "differs" or "unknown" (no sum is established, or only of the packed
            file and this one is not); empty unless asked for by `describe`.
    """

    name: str
    path: Path | None
    num_bytes: int
    source: str
    checksums: Mapping[str, str] = field(default_factory=dict)


def data_folders(data_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders in which data are looked for, in order; they need not exist."""
    given = [data_dir, os.environ.get(ENVIRONMENT)]
    return [*(Path(folder).expanduser() for folder in given if folder), cache_folder()]


def find(name: str, data_dir: str | os.PathLike[str] | None = None) -> dict[str, Path] | None:
    """The files of a data set by part (a corpus's by split), from the first folder that holds all, or None.

    Raises:
        InputError: an unknown name.
    """
    dataset = _dataset(name)
    for root in data_folders(data_dir):
        files = {
            part: path
            for part, names in dataset.files.items()
            for path in reversed([root / dataset.folder / file for file in names])
            if path.exists()
        }
        if len(files) == len(dataset.files):
            return files
    return None


def locate(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True
) -> dict[str, Path]:
    """The files of a data set by part, fetched if they are nowhere and `download` allows it.

    Raises:
        InputError: an unknown name, or the files are not there and cannot be had; the message names each
            missing file and the folder to put it in.
    """
    files = find(name, data_dir)
    if files is None and download:
        fetch(name, data_dir)
        files = find(name, data_dir)
    if files is None:
        raise InputError(
            f"the data set {name!r} must be on disk, found it in no data folder; {_by_hand(name, data_dir)}"
        )
    return files


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Download a data set into `data_dir`, or the user's cache, unless a data folder already has it.

    Progress goes to standard error. All files are checked and moved into place together at the end: a
    failure or an interruption leaves nothing behind, and files that lie there already are never replaced.

    Returns:
        Its folder.

    Raises:
        InputError: an unknown name or embedded data, no connection, a wrong checksum, or a folder that
            cannot be written; the message names the files and where to put them by hand.
    """
    present = find(name, data_dir)
    if present is not None:
        return next(iter(present.values())).parent
    dataset = _dataset(name)
    root = Path(data_dir).expanduser() if data_dir else cache_folder()
    folder = root / dataset.folder
    is_new = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{dataset.folder}-") as staging_name:
            staging = Path(staging_name)
            for part in dataset.downloads:
                _fetch_one(part, staging, name)
            folder.mkdir(exist_ok=True)
            for file in sorted(staging.iterdir()):
                if not (folder / file.name).exists():
                    file.replace(folder / file.name)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"the data set {name!r} must be downloaded or on disk, but {_reason(error)}; "
            f"{_by_hand(name, data_dir)}"
        ) from error
    finally:
        if is_new and root.is_dir() and not any(root.iterdir()):
            root.rmdir()
    return folder


def list_datasets(data_dir: str | os.PathLike[str] | None = None) -> list[DatasetInfo]:
    """Every data set, the embedded ones first; reads no file's content."""
    embedded = (_embedded_info(name) for name in _EMBEDDED)
    return [*embedded, *(_info(name, data_dir) for name in DATASETS)]


def describe(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """One data set, its files compared with the published ones (they are read in full).

    Raises:
        InputError: an unknown name.
    """
    if name in _EMBEDDED:
        return _embedded_info(name)
    dataset, info, files = _dataset(name), _info(name, data_dir), find(name, data_dir)
    checksums = {}
    for split, file in (files or {}).items():
        expected = dataset.sha256.get(split)
        is_unpacked = dataset.files[split][0].endswith(".gz") and file.suffix != ".gz"
        if expected is None or is_unpacked:
            checksums[split] = "unknown"
        else:
            checksums[split] = "published" if expected == sha256_of(file) else "differs"
    return DatasetInfo(
        name=name, path=info.path, num_bytes=info.num_bytes, source=info.source, checksums=checksums
    )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embedded_info(name: str) -> DatasetInfo:
    if name == EMBEDDED:
        spec = importlib.util.find_spec("pydoc_data.topics")
        path = Path(spec.origin) if spec is not None and spec.origin else None
    else:
        path = DIGITS_FILE
    num_bytes = path.stat().st_size if path is not None and path.is_file() else 0
    return DatasetInfo(name=name, path=path, num_bytes=num_bytes, source=_EMBEDDED[name])


def _info(name: str, data_dir: str | os.PathLike[str] | None) -> DatasetInfo:
    files, downloads = find(name, data_dir), DATASETS[name].downloads
    if files is None:
        path, num_bytes = None, sum(part.num_bytes for part in downloads)
    else:
        path = next(iter(files.values())).parent
        num_bytes = sum(_size(file) for file in files.values())
    return DatasetInfo(name=name, path=path, num_bytes=num_bytes, source=downloads[0].urls[0])


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size


def _dataset(name: str) -> Dataset:
    if name in _EMBEDDED:
        raise InputError(
            f"only data that lie in files of their own can be fetched, got {name!r}; it is embedded, "
            "use it as it is"
        )
    if name not in DATASETS:
        raise unknown_name("data set", name, (*_EMBEDDED, *DATASETS))
    return DATASETS[name]


def cache_folder() -> Path:
    """The user's cache of this program; it need not exist."""
    import platformdirs

    return platformdirs.user_cache_path("hyperprune")


def _fetch_one(part: Download, staging: Path, name: str) -> None:
    problems = []
    for url in part.urls:
        file = staging / "download"
        try:
            found = _stream(url, file, f"{name}: {url.rsplit('/', 1)[-1]}")
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"{url}: {_reason(error)}")
            continue
        if found != part.sha256:
            problems.append(f"{url}: its SHA-256 must be {part.sha256}, got {found}")
            continue
        if isinstance(part.targets, str):
            file.rename(staging / part.targets)
            return
        if url.endswith(".tar.gz"):
            _unpack_folders(file, part.targets, staging)
        else:
            _unpack_files(file, part.targets, staging)
        file.unlink()
        return
    raise OSError("; ".join(problems))


def _unpack_files(file: Path, targets: Mapping[str, str], staging: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member, target in targets.items():
            with archive.open(member) as packed, (staging / target).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _CHUNK)


def _unpack_folders(file: Path, targets: Mapping[str, str], staging: Path) -> None:
    """The plain files of some folders of an archive; read once from its beginning, because it is large."""
    for target in targets.values():
        (staging / target).mkdir()
    with tarfile.open(file, "r|gz") as archive:
        for member in archive:
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            packed = archive.extractfile(member) if member.isfile() and folder in targets else None
            if packed is not None and not name.startswith("."):
                with (staging / targets[folder] / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, _CHUNK)


def _stream(url: str, file: Path, label: str) -> str:
    """Save what `url` serves to `file` and return its SHA-256."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
        file.open("wb") as sink,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        length = response.headers.get("Content-Length")
        bar = progress.add_task(label, total=int(length) if length else None)
        while chunk := response.read(_CHUNK):
            sink.write(chunk)
            digest.update(chunk)
            progress.update(bar, advance=len(chunk))
    return digest.hexdigest()


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return f"no connection ({error.reason})"
    return str(error) or type(error).__name__


def _by_hand(name: str, data_dir: str | os.PathLike[str] | None) -> str:
    dataset = DATASETS[name]
    folder = data_folders(data_dir)[0] / dataset.folder
    there = {file for names in dataset.files.values() for file in names if (folder / file).is_file()}
    missing = [names[0] for names in dataset.files.values() if there.isdisjoint(names)]
    sources = ", ".join(part.urls[0] for part in dataset.downloads)
    return f"put {', '.join(missing)} into {folder} (published at {sources})"
