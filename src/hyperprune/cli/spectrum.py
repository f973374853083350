"""`hyperprune spectrum`: the Lyapunov spectrum of a trained network, or of a task's untrained one."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError
from hyperprune.files import writing_output
from hyperprune.tasks.tables import SETTING_TABLES


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "spectrum",
        about="Measure the Lyapunov spectrum of a trained network, or of a task's untrained one.",
        examples=(
            "hyperprune spectrum runs/pydoc/candidates/c01/best.pt --picture spectrum.png",
            "hyperprune spectrum pydoc --jacobian full --json",
        ),
    )
    parser.add_argument("network", metavar="CHECKPOINT|TASK", help="a best.pt of a run, or a task")
    parser.add_argument("--jacobian", default="hidden", choices=("hidden", "full"), help="(hidden)")
    parser.add_argument("--seed", type=int, metavar="N", help="of an untrained network (0)")
    parser.add_argument("--device", metavar="D", help="measure on cpu or cuda (cpu)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with the task's tables")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for first")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="plot the exponents to this file")
    parser.add_argument("--save", type=Path, metavar="FILE", help="save the spectrum as .npz")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    shared.check_picture(options.picture)
    if options.save is not None:
        shared.check_file(options.save, "--save")
    shared.check_different(picture=options.picture, save=options.save)
    device = shared.device_of(options)
    if options.network.endswith(".pt"):
        if options.config is not None:
            raise InputError("--config is for a task; a checkpoint holds its own settings")
        if options.data_dir is not None or options.seed is not None:
            raise InputError("--data-dir and --seed are for a task; a checkpoint names its own")
        from hyperprune.training.load import describe_checkpoint, load_task_and_model

        task, model = load_task_and_model(options.network)
        seed = describe_checkpoint(options.network)["seed"]
    else:
        from hyperprune.rng import generator

        config = shared.read_config(options.config, values=(), tables=SETTING_TABLES)
        task = shared.load_task(options.network, config, options.data_dir)
        seed = options.seed or 0
        model = task.model(generator(seed, "weights")).eval()

    from hyperprune.training.measure import recurrent_spectra

    spectra = recurrent_spectra(task, model.to(device), jacobian=options.jacobian, seed=seed)
    if len(spectra) > 1 and (options.picture or options.save):
        raise InputError("--picture and --save need a task with one recurrent module, this one has several")
    for number, spectrum in enumerate(spectra, start=1):
        summary = spectrum.summary()
        if len(spectra) > 1:
            print(f"recurrent module {number} of {len(spectra)}")
        for name, value in summary.items():
            print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")
        print("exponents (nats per step):")
        print("  " + " ".join(f"{value:.3f}" for value in spectrum.exponents[:8]) + " …")
    if options.picture:
        shared.save_picture(spectra[0].plot(), options.picture)
    if options.save:
        with writing_output(options.save, "--save"):
            spectra[0].save(options.save)
        print(f"saved: {options.save}")
    if options.json:
        modules = [
            {
                **_finite(spectrum.summary()),
                "exponents": [_finite(value) for value in spectrum.exponents.tolist()],
            }
            for spectrum in spectra
        ]
        print(json.dumps({"network": options.network, "jacobian": options.jacobian, "modules": modules}))
    return 0


def _finite(value: Any) -> Any:
    """As JSON can hold it: null for an exponent of minus infinity or a figure that has no value."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
