"""The store, with a server on this machine in place of the sources."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hyperprune.data import store
from hyperprune.data.sources import SPLITS, Dataset, Download
from hyperprune.data.text import load_corpus
from hyperprune.errors import InputError

TEXT = {split: f"{split} one two\n".encode() * 3 for split in SPLITS}


@dataclass
class Server:
    """What is served: content by path; `announced` overrides the length that the header promises."""

    url: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            body = state.content.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(state.announced.get(self.path, len(body))))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data folder of this machine, and a cache of the test's own."""
    for name in ("HYPERPRUNE_DATA", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plain(server: Server) -> Dataset:
    server.content.update({f"/{split}": TEXT[split] for split in SPLITS})
    return Dataset(
        folder="small",
        files={split: (f"{split}.txt", f"{split}.tokens") for split in SPLITS},
        downloads=tuple(
            Download(
                urls=(f"{server.url}/{split}",),
                sha256=sum_of(TEXT[split]),
                num_bytes=len(TEXT[split]),
                targets=f"{split}.txt",
            )
            for split in SPLITS
        ),
        sha256={"train": sum_of(TEXT["train"]), "valid": sum_of(TEXT["valid"])},
    )


def archived(server: Server) -> Dataset:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split in SPLITS:
            archive.writestr(f"inner/wiki.{split}.tokens", TEXT[split])
        archive.writestr("../outside.txt", "not asked for")
    server.content["/all.zip"] = packed.getvalue()
    part = Download(
        urls=(f"{server.url}/all.zip",),
        sha256=sum_of(packed.getvalue()),
        num_bytes=len(packed.getvalue()),
        targets={f"inner/wiki.{split}.tokens": f"{split}.txt" for split in SPLITS},
    )
    return replace(plain(server), downloads=(part,))


@pytest.fixture(params=[plain, archived])
def dataset(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    made = request.param(server)
    monkeypatch.setattr(store, "DATASETS", {"small": made})
    return made


def put(folder: Path, splits: tuple[str, ...] = SPLITS, ending: str = "txt") -> None:
    folder.mkdir(parents=True)
    for split in splits:
        (folder / f"{split}.{ending}").write_bytes(b"local " + TEXT[split])


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_fetched_corpus_is_whole_in_its_folder_and_nothing_else_is_left(
    dataset: Dataset, tmp_path: Path, elsewhere: Path
) -> None:
    folder = store.fetch("small", tmp_path / "given")
    assert folder == tmp_path / "given" / "small"
    assert {split: (folder / f"{split}.txt").read_bytes() for split in SPLITS} == TEXT
    assert left_in(tmp_path) == ["given", "given/small", *(f"given/small/{s}.txt" for s in sorted(SPLITS))]
    assert not elsewhere.exists()


def test_without_a_folder_the_users_cache_receives_it_and_is_found_again(
    dataset: Dataset, server: Server, elsewhere: Path
) -> None:
    assert store.find("small") is None
    files = store.locate("small")
    assert files == {split: elsewhere / "small" / f"{split}.txt" for split in SPLITS}
    asked = len(server.asked)
    assert store.locate("small") == files
    assert store.fetch("small") == elsewhere / "small"
    assert len(server.asked) == asked


def test_progress_goes_to_standard_error(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    store.fetch("small")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "small:" in printed.err


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(
    dataset: Dataset, server: Server, tmp_path: Path
) -> None:
    last = dataset.downloads[-1].urls[0].removeprefix(server.url)
    server.content[last] += b"!"
    with pytest.raises(
        InputError, match=r"its SHA-256 must be \w{64}, got \w{64}; put train\.txt, valid\.txt, "
    ):
        store.fetch("small", tmp_path / "given")
    assert left_in(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(dataset: Dataset, server: Server, tmp_path: Path) -> None:
    last = dataset.downloads[-1].urls[0].removeprefix(server.url)
    server.announced[last] = len(server.content[last])
    server.content[last] = server.content[last][:-10]
    with pytest.raises(InputError, match="must be downloaded or on disk, but"):
        store.fetch("small", tmp_path / "given")
    assert left_in(tmp_path) == []


def test_a_keyboard_interrupt_leaves_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(url: str, file: Path, label: str) -> str:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.fetch("small", tmp_path / "given")
    assert left_in(tmp_path) == []


def test_mirrors_are_tried_in_order_until_one_serves_the_right_file(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archived(server)
    server.content["/wrong.zip"] = b"an error page"
    urls = (f"{server.url}/missing.zip", f"{server.url}/wrong.zip", f"{server.url}/all.zip")
    monkeypatch.setattr(
        store, "DATASETS", {"small": replace(made, downloads=(replace(made.downloads[0], urls=urls),))}
    )
    store.fetch("small")
    assert server.asked == ["/missing.zip", "/wrong.zip", "/all.zip"]


def test_without_a_connection_the_error_says_which_file_to_put_where(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plain(server)
    unreachable = tuple(replace(part, urls=("http://127.0.0.1:1/x",)) for part in made.downloads)
    monkeypatch.setattr(store, "DATASETS", {"small": replace(made, downloads=unreachable)})
    put(tmp_path / "given" / "small", ("valid",))
    with pytest.raises(InputError) as caught:
        store.locate("small", tmp_path / "given")
    message = str(caught.value)
    assert "no connection (" in message
    assert f"put train.txt, test.txt into {tmp_path / 'given' / 'small'} (published at http" in message


def test_a_download_can_be_forbidden(dataset: Dataset, server: Server, elsewhere: Path) -> None:
    with pytest.raises(
        InputError, match=r"found it in no data folder; put train\.txt, valid\.txt, test\.txt"
    ):
        store.locate("small", download=False)
    assert server.asked == []


def test_folders_are_searched_in_the_documented_order(
    dataset: Dataset, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERPRUNE_DATA", str(tmp_path / "environment"))
    roots = [tmp_path / "given", tmp_path / "environment", elsewhere]
    assert store.data_folders(tmp_path / "given") == roots
    for root in reversed(roots):
        put(root / "small")
        assert store.locate("small", tmp_path / "given")["train"] == root / "small" / "train.txt"


def test_a_folder_that_lacks_a_split_does_not_serve_and_is_completed_without_replacing_files(
    dataset: Dataset, tmp_path: Path
) -> None:
    put(tmp_path / "given" / "small", ("valid",))
    files = store.locate("small", tmp_path / "given")
    assert files["valid"].read_bytes() == b"local " + TEXT["valid"]
    assert files["train"].read_bytes() == TEXT["train"]


def test_other_accepted_names_are_found_and_the_first_one_wins(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "given" / "small", ending="tokens")
    assert store.locate("small", tmp_path / "given")["test"].name == "test.tokens"
    (tmp_path / "given" / "small" / "test.txt").write_bytes(TEXT["test"])
    assert store.locate("small", tmp_path / "given")["test"].name == "test.txt"


def test_local_files_are_used_as_they_are_and_described_as_what_they_are(
    dataset: Dataset, tmp_path: Path
) -> None:
    put(tmp_path / "given" / "small")
    (tmp_path / "given" / "small" / "train.txt").write_bytes(TEXT["train"])
    info = store.describe("small", tmp_path / "given")
    assert info.path == tmp_path / "given" / "small"
    assert info.checksums == {"train": "published", "valid": "differs", "test": "unknown"}


def test_an_unpacked_file_is_not_held_against_the_sum_of_the_packed_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"train": ("train.gz", "train")}
    packed = sum_of(b"packed")
    part = Download(urls=("https://nowhere.invalid",), sha256=packed, num_bytes=6, targets="train.gz")
    sums = {"train": packed}
    made = Dataset(kind="images", folder="small", files=files, downloads=(part,), sha256=sums)
    monkeypatch.setattr(store, "DATASETS", {"small": made})
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "train").write_bytes(b"unpacked")
    assert store.describe("small", tmp_path).checksums == {"train": "unknown"}
    (tmp_path / "small" / "train.gz").write_bytes(b"something else")
    assert store.describe("small", tmp_path).checksums == {"train": "differs"}


def test_the_list_holds_every_corpus_with_what_is_known_of_it(tmp_path: Path) -> None:
    put(tmp_path / "given" / "wikitext2")
    rows = {row.name: row for row in store.list_datasets(tmp_path / "given")}
    assert list(rows) == ["pydoc", "digits", *store.DATASETS]
    assert rows["pydoc"].path is not None
    assert rows["ptb"].path is None
    assert rows["ptb"].num_bytes == 5_101_618 + 399_782 + 449_945
    assert rows["wikitext2"].path == tmp_path / "given" / "wikitext2"
    assert rows["wikitext2"].num_bytes == sum(len(b"local " + text) for text in TEXT.values())
    assert store.describe("pydoc") == rows["pydoc"]


def test_unknown_names_and_the_embedded_corpus_cannot_be_fetched() -> None:
    with pytest.raises(InputError, match="unknown data set 'wikitext3'; did you mean 'wikitext"):
        store.fetch("wikitext3")
    with pytest.raises(InputError, match="got 'pydoc'; it is embedded"):
        store.fetch("pydoc")


def test_a_folder_that_cannot_be_written_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(InputError, match=r"must be downloaded or on disk, but .*put train"):
        store.fetch("small", tmp_path / "file")


def test_a_named_corpus_is_read_from_the_given_folder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyperprune.data import text

    monkeypatch.setattr(text, "DATASETS", store.DATASETS)
    corpus = load_corpus("small", data_dir=tmp_path / "given")
    assert corpus.vocabulary.decode(corpus.valid[:4].tolist()) == ["<unk>", "one", "two", "<eos>"]


def test_folders_of_an_archive_are_unpacked_whole_and_nothing_beside_them(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    members = {
        "inner/training/a-1": b"one two\n",
        "inner/training/a-2": b"three\n",
        "inner/training/.a-2": b"not text",
        "inner/heldout/b-1": b"four\n",
        "inner/README": b"not asked for",
        "inner/training/deeper/a-3": b"not asked for",
        "../outside": b"not asked for",
    }
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("inner/heldout/b-2")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    server.content["/all.tar.gz"] = packed.getvalue()
    part = Download(
        urls=(f"{server.url}/all.tar.gz",),
        sha256=sum_of(packed.getvalue()),
        num_bytes=len(packed.getvalue()),
        targets={f"inner/{folder}": folder for folder in ("training", "heldout")},
    )
    files = {folder: (folder,) for folder in ("training", "heldout")}
    made = Dataset(kind="shards", folder="large", files=files, downloads=(part,))
    monkeypatch.setattr(store, "DATASETS", {"large": made})
    folder = store.fetch("large", tmp_path / "given")
    assert left_in(tmp_path / "given") == [
        "large",
        "large/heldout",
        "large/heldout/b-1",
        "large/training",
        "large/training/a-1",
        "large/training/a-2",
    ]
    assert (folder / "training" / "a-1").read_bytes() == b"one two\n"
    info = store.describe("large", tmp_path / "given")
    assert info.num_bytes == len(b"one two\nthree\nfour\n")
    assert info.checksums == {"training": "unknown", "heldout": "unknown"}
    assert store.locate("large", tmp_path / "given", download=False)["training"] == folder / "training"
