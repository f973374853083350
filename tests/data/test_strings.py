"""Labelled strings: CSV files and what can be wrong with them, and padded batches."""

import pytest
import torch

from hyperprune.data.strings import LabelledStrings, load_strings, padded_batches
from hyperprune.errors import InputError


def test_a_file_with_the_published_columns_is_read_in_order(tmp_path):
    path = tmp_path / "strings.csv"
    path.write_text(',string,valid\n0,BTXSE,1\n\n7,"Bq,~ 9",0\n')
    data = load_strings(path)
    assert data == LabelledStrings(("BTXSE", "Bq,~ 9"), (True, False))
    path.write_text("valid,extra,string\n1,x,A\n")
    assert load_strings(path).strings == ("A",)
    path.write_text("string,valid\nA,1\n", encoding="utf-8-sig")  # as spreadsheets write it
    assert load_strings(path).strings == ("A",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad.csv, line 1: the header must have a column 'string', got none"),
        (b"text,valid\nA,1\n", r"bad.csv, line 1: .* column 'string', got 'text', 'valid'"),
        (b"string,label\nA,1\n", r"bad.csv, line 1: .* column 'valid', got 'string', 'label'"),
        (b"string,valid\nA,1\nB,2\n", r"bad.csv, line 3, column 'valid': a label must be 0 or 1, got '2'"),
        (b"string,valid\nA,True\n", r"bad.csv, line 2, column 'valid': .* got 'True'"),
        (b"string,valid\nA,\n", r"bad.csv, line 2, column 'valid': .* got ''"),
        (b"string,valid\n,1\n", r"bad.csv, line 2, column 'string': .* got an empty one"),
        (
            "string,valid\nA,1\nBT\u00e9E,0\n".encode(),
            r"bad.csv, line 3, column 'string': .* codes 0 to 127, got 'é' \(code 233\) as character 3",
        ),
        (b"string,valid\nA\n", r"bad.csv, line 2: a row must have 2 columns .* got 1"),
        (b"string,valid\nA,1,2\n", r"bad.csv, line 2: a row must have 2 columns .* got 3"),
        (b'string,valid\n"A"x,1\n', r"bad.csv, line 2: a row must be CSV"),
        (b"string,valid\n", r"bad.csv must hold at least one string"),
        (b"string,valid\n\xff,1\n", r"bad.csv must be UTF-8, and byte 13 is not"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_its_place(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_strings(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.csv: No such file"):
        load_strings(tmp_path / "none.csv")


def test_strings_made_by_a_program_are_checked_too():
    with pytest.raises(InputError, match="2 strings and 1 labels"):
        LabelledStrings(("A", "B"), (True,))
    with pytest.raises(InputError, match=r"string 1: characters must have codes 0 to 127, got 'ß'"):
        LabelledStrings(("A", "ß"), (True, False))


DATA = LabelledStrings(("BTE", "A", "~", "BTXSE", "xy"), (True, False, False, True, False))


def test_a_batch_holds_codes_lengths_and_labels_and_pads_with_zero():
    first, last = padded_batches(DATA, 3)
    assert first.codes.t().tolist() == [[66, 84, 69], [65, 0, 0], [126, 0, 0]]
    assert first.lengths.tolist() == [3, 1, 1]
    assert first.labels.tolist() == [1, 0, 0]
    assert last.codes.shape == (5, 2)
    assert last.labels.tolist() == [1, 0]


def test_shuffled_batches_hold_every_string_once_in_an_order_of_the_generators():
    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return [
            ("".join(map(chr, codes[:length])), bool(label))
            for batch in padded_batches(DATA, 2, generator=generator)
            for codes, length, label in zip(
                batch.codes.t().tolist(), batch.lengths.tolist(), batch.labels.tolist(), strict=True
            )
        ]

    assert sorted(drawn(0)) == sorted(zip(DATA.strings, DATA.valid, strict=True))
    assert drawn(0) == drawn(0)
    assert any(drawn(seed) != drawn(0) for seed in (1, 2, 3))


def test_a_batch_holds_at_least_one_string():
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        next(padded_batches(DATA, 0))
