"""Shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the corpora that cannot be committed; tests that need it skip without."""
    folder = os.environ.get("HYPERPRUNE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HYPERPRUNE_DATA names no folder with corpora")
    return Path(folder)
