"""The examples run."""

from pathlib import Path

import pytest

from hyperprune.cli.main import build_parser, main
from hyperprune.cli.search import job_of, read_config
from hyperprune.hypersearch.spaces import paper
from hyperprune.hypersearch.strategies import LSH

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.long
def test_the_forecasters_winner_predicts_far_better_than_the_mean(tmp_path, capsys):
    import json

    out = tmp_path / "run"
    assert (
        main(["search", f"{EXAMPLES / 'own_task.py'}:task", "--out", str(out), "--workers", "1", "--json"])
        == 0
    )
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    # The variance of the series is about 0.63, the noise alone 0.01.
    assert summary["best"]["metric"] < 0.2


def test_the_penn_treebank_configuration_is_a_plan(data_dir, capsys):
    config = EXAMPLES / "ptb-small.toml"
    assert main(["search", "ptb", "--config", str(config), "--data-dir", str(data_dir), "--plan"]) == 0
    assert "8 candidates" in capsys.readouterr().out


def test_the_grid_for_the_rhn_is_the_papers():
    options = build_parser().parse_args(["search", "--config", str(EXAMPLES / "ptb-rhn-grid.toml")])
    job = job_of(options, read_config(options.config))
    assert (job.task.name, job.task.sparsity, job.values["sparsity"]) == ("ptb-rhn", 0.53, None)
    grid = job.space.grid()
    assert len(set(grid)) == 24
    assert set(grid) == set(paper(0.5).grid())
    assert job.strategy == LSH(
        candidates=24, first_epochs=6, round_epochs=3, final_epochs=500, proposer="grid", signal="spectrum"
    )
