"""Pages with a part made from records."""

import pytest

from hyperprune.errors import InputError
from hyperprune.experiments.documents import fill_marked_part, marked_part

PAGE = "# Title\n<!-- a: begin -->\nold\n<!-- a: end -->\nmiddle\n<!-- b: begin -->\nkept\n<!-- b: end -->\n"


def test_only_the_part_of_the_name_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    fill_marked_part(page, "a", "new\n\nlines")
    assert marked_part(page, "a") == "new\n\nlines"
    assert page.read_text() == PAGE.replace("\nold\n", "\n\nnew\n\nlines\n\n")
    fill_marked_part(page, "a", "new\n\nlines")
    assert page.read_text() == PAGE.replace("\nold\n", "\n\nnew\n\nlines\n\n")


@pytest.mark.parametrize("text", ["none", "<!-- a: end -->\n<!-- a: begin -->\n", "<!-- a: begin -->\n"])
def test_a_page_without_the_comments_is_refused_and_left(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(InputError, match=r"page.md must hold the lines '<!-- a: begin -->'"):
        fill_marked_part(page, "a", "new")
    assert page.read_text() == text


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.md: No such file"):
        marked_part(tmp_path / "none.md", "a")
