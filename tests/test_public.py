"""What the package exports, and what importing it costs."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hyperprune as hp
from hyperprune.errors import install

ROOT = Path(__file__).parents[1]
NAMES = {
    *(
        "BatchLoss",
        "Branch",
        "Configuration",
        "DynamicSparse",
        "Full",
        "LSH",
        "LyapunovSpectrum",
        "NonMonotonic",
    ),
    *("Recipe", "RecurrentRun", "SNTASGD", "SearchResult", "Space", "SparseTraining", "Task"),
    *("load_model", "load_task", "lyapunov_spectrum", "methods", "models", "search", "spectrum_distance"),
    *("train", "extend", "__version__", "Hyperband", "Range", "SuccessiveHalving", "load_table", "replay"),
    *("at_init", "citation", "prune_at_init"),
}


def test_the_public_names_are_these_and_each_exists():
    assert set(hp.__all__) == NAMES
    assert all(getattr(hp, name) is not None for name in NAMES)


def test_the_function_search_is_not_hidden_by_a_package_of_that_name():
    importlib.import_module("hyperprune.hypersearch.search")
    assert callable(hp.search)


def test_importing_the_package_loads_no_torch():
    code = "import sys, hyperprune; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_an_error_says_to_install_is_an_extra_of_the_project():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"\binstall\('(\w+)'\)", source))
    assert {"atpe", "ray", "report", "studies"} <= named <= set(extras)
    assert install("ray") == "pip install -e '.[ray]' in the project's folder"


@pytest.mark.parametrize("page", ["README.md", "docs/sparse_training.md"])
def test_the_documentations_python_runs_and_says_what_it_says(tmp_path, monkeypatch, page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "readme"})


def test_the_readmes_commands_exist():
    from hyperprune.cli.main import build_parser

    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^hyperprune ([^#\n]*)", text, flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        build_parser().parse_args(command.split())
