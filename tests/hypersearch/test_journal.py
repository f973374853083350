"""The journal survives a cut at any byte."""

import pytest

from hyperprune.hypersearch.journal import Journal, read_journal

RECORDS = [{"event": "a", "value": 0.1}, {"event": "b", "text": "ü\n"}, {"event": "c"}]


def _written(path):
    journal = Journal(path)
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def test_every_cut_leaves_the_whole_records_before_it_and_appending_goes_on(tmp_path):
    data = _written(tmp_path / "whole.jsonl")
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        path = tmp_path / f"cut-{cut}.jsonl"
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        journal = Journal(path)
        assert journal.records == RECORDS[:whole]
        assert journal.num_cut_bytes == cut - ([0, *ends][whole])
        journal.append({"event": "next"})
        journal.close()
        assert read_journal(path)[0] == [*RECORDS[:whole], {"event": "next"}]


@pytest.mark.parametrize("position", range(0, 60, 7))
def test_a_changed_byte_cuts_from_its_line_on_and_keeps_what_was_cut(tmp_path, position):
    data = bytearray(_written(tmp_path / "journal.jsonl"))
    data[position] ^= 0x01
    path = tmp_path / "journal.jsonl"
    path.write_bytes(data)
    line = bytes(data[:position]).count(b"\n")
    journal = Journal(path)
    journal.close()
    # A flipped bit may make or unmake a line's end, but never lets a wrong record through.
    assert journal.records == RECORDS[: len(journal.records)]
    assert len(journal.records) <= line
    assert (tmp_path / "journal.jsonl.damaged").read_bytes() == bytes(data)[len(path.read_bytes()) :]


def test_reading_changes_nothing(tmp_path):
    data = _written(tmp_path / "journal.jsonl")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(data[:-3])
    read_journal(path)
    assert path.read_bytes() == data[:-3]
