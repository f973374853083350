"""`hyperprune prune-at-init`: which weights a criterion keeps of a task's untrained network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError
from hyperprune.files import writing_output

_DEFAULTS = {"criterion": "jacobian", "sparsity": 0.95, "seed": 0, "ranking": "global"}
_SETTINGS = ("horizon", "state", "probe", "gamma", "gamma_std", "rounds", "num_exponents", "warmup")


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "prune-at-init",
        about="Choose which weights a network keeps, before it is trained.",
        examples=(
            "hyperprune prune-at-init digits --criterion jacobian --sparsity 0.95",
            "hyperprune prune-at-init digits --criterion snip --save masks.npz --picture kept.png",
            "hyperprune prune-at-init --list",
        ),
    )
    parser.add_argument("task", nargs="?", metavar="TASK", help=shared.TASK_HELP)
    parser.add_argument("--list", action="store_true", help="print the criteria and their papers")
    parser.add_argument("--criterion", metavar="NAME", help="see --list (jacobian)")
    parser.add_argument("--sparsity", type=float, metavar="S", help="in [0, 1) (0.95)")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights and draws (0)")
    parser.add_argument("--batches", type=int, metavar="N", help="training batches that it looks at (1)")
    parser.add_argument("--ranking", metavar="R", help="global or tensor (global)")
    parser.add_argument("--allow-empty", action="store_true", help="a tensor may lose all its weights")
    parser.add_argument("--horizon", type=int, metavar="U", help="last steps that count (the criterion's)")
    parser.add_argument("--state", metavar="S", help="hidden or full (hidden)")
    parser.add_argument("--probe", metavar="P", help="ones or rademacher (ones)")
    parser.add_argument("--gamma", metavar="G", help="normal, data or none, no γ (the criterion's)")
    parser.add_argument("--gamma-std", type=float, metavar="S", help="of normal inputs (0.1)")
    parser.add_argument("--rounds", type=int, metavar="N", help="of synflow (100)")
    parser.add_argument("--num-exponents", type=int, metavar="K", help="of experimental_lyapunov (5)")
    parser.add_argument("--warmup", type=int, metavar="N", help="of experimental_lyapunov (10)")
    parser.add_argument("--device", metavar="D", help="score on cpu or cuda (cpu)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with [model], [text], …")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for first")
    parser.add_argument("--save", type=Path, metavar="FILE", help="save the masks as .npz")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the kept weights to this file")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    shared.check_picture(options.picture)
    from hyperprune import at_init

    if options.list:
        return _list(options)
    options = argparse.Namespace(**vars(options) | _DEFAULTS | shared.given(options, _DEFAULTS))
    if options.task is None:
        raise InputError("prune-at-init needs a task, as in: hyperprune prune-at-init digits")
    if options.save is not None and options.save.suffix != ".npz":
        raise InputError(f"--save must name an .npz file, got {options.save}")
    if options.save is not None:
        shared.check_file(options.save, "--save")
    device = shared.device_of(options)
    settings = shared.given(options, _SETTINGS)
    if settings.get("gamma") == "none":
        settings["gamma"] = None
    criterion = at_init.get(options.criterion, **settings)
    if options.batches is not None and not criterion.uses_data:
        raise InputError(f"--batches is for criteria that look at data, {criterion.name} does not; remove it")

    from hyperprune.at_init.kept import kept_by_gate
    from hyperprune.rng import generator
    from hyperprune.tasks.tables import SETTING_TABLES
    from hyperprune.training.starting import task_masks

    config = shared.read_config(options.config, values=(), tables=SETTING_TABLES)
    task = shared.load_task(options.task, config, options.data_dir)
    model = task.model(generator(options.seed, "weights")).to(device)
    masks = task_masks(
        task,
        model,
        criterion,
        sparsity=options.sparsity,
        seed=options.seed,
        num_batches=1 if options.batches is None else options.batches,
        ranking=options.ranking,
        allow_empty=options.allow_empty,
    )
    rows = kept_by_gate(model, masks)
    live, total = sum(row.live for row in rows), sum(row.total for row in rows)
    print(f"{'tensor':28} {'gate':4} {'kept':>9} {'of':>10} {'density':>8}")
    for row in rows:
        print(f"{row.tensor:28} {row.gate:4} {row.live:9,} {row.total:10,} {row.density:8.4f}")
    print(f"{'all':28} {'':4} {live:9,} {total:10,} {live / total:8.4f}")
    if options.save is not None:
        with writing_output(options.save, "--save"):
            at_init.save_masks(options.save, masks)
        print(f"saved: {options.save}")
    if options.picture is not None:
        from hyperprune.at_init.picture import figure_of

        figure = figure_of(model, masks, title=f"{task.name}, {criterion.name}")
        shared.save_picture(figure, options.picture)
    if options.json:
        kept = [
            {"tensor": row.tensor, "gate": row.gate, "live": row.live, "total": row.total} for row in rows
        ]
        result = {
            "task": task.name,
            "criterion": criterion.name,
            "settings": criterion.settings(),
            "sparsity": options.sparsity,
            "seed": options.seed,
            "live": live,
            "total": total,
            "kept": kept,
        }
        print(json.dumps(result))
    return 0


def _list(options: argparse.Namespace) -> int:
    """The criteria and their papers."""
    from hyperprune import at_init

    if others := shared.set_options(options, besides=("list", "json")):
        raise InputError(f"--list prints the criteria and prunes nothing, got {others[0]} too; leave one out")
    kinds = {name: at_init.kind(name) for name in at_init.names()}
    for name, kind in kinds.items():
        print(f"{name:22} {kind.summary}" + (f" [{kind.paper}]" if kind.paper else ""))
    if options.json:
        rows = [{"name": name, "about": kind.summary, "paper": kind.paper} for name, kind in kinds.items()]
        print(json.dumps({"criteria": rows}))
    return 0
