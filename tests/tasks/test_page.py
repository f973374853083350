"""The page of tasks is the one that the code makes."""

from pathlib import Path

from hyperprune.tasks.built_in import BUILT_IN
from hyperprune.tasks.page import page

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_the_page_is_made_from_the_code():
    assert PAGE.read_text(encoding="utf-8") == page()
    assert all(f"| `{name}` |" in page() for name in BUILT_IN)
