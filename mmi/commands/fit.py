"""``mmi fit``, ``validate``, ``test`` and ``predict``: a run from config files, kept in its run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmi.commands.arguments import Arguments, CommandLine
from mmi.errors import DONE, STOPPED

if TYPE_CHECKING:
    from mmi.commands.settings import Settings

_CONFIGS = """\

Settings come from YAML files with the roots seed_everything, trainer, model, data and run:
  --config FILE        repeat it: later files win, mappings merge key by key; a file may include others with base:
                       packaged ones need no path: --config model/tiny.yaml --config data/microworld.yaml
  --a.b.c=VALUE        set one thing on top; a mapping replaces what was there, null removes a data source
  ${a.b.c} in a value  takes another setting, after everything is merged
A misspelt key is refused with the nearest valid name. --print_config shows everything, defaults included."""
_DESCRIPTIONS = {
    "fit": "Train a model and keep checkpoints, metrics and samples in the run folder <run.folder>/<run.name>.\n"
    "Ctrl-C saves and stops; --ckpt_path last goes on from there. So does SIGUSR1, after which\n"
    "a SLURM job is queued again (#SBATCH --signal=SIGUSR1@120, and --ckpt_path auto in the command).",
    "validate": "Measure the losses of a checkpoint on the validation sources (data.val) and print them.",
    "test": "Measure the losses of a checkpoint on the evaluation sources (data.val) and print them.",
    "predict": "Write how well the text of each evaluation document (data.val) is predicted to\n"
    "<run folder>/predictions.jsonl: one line with id, source, labels, loss and accuracy.",
}
_EXAMPLES = {
    "fit": """\
mmi fit --config configs/demo.yaml
mmi fit --config configs/demo.yaml --run.name=long --trainer.max_steps=5000 --data.num_workers=2
mmi fit --config configs/demo.yaml --data.train='{photos: {format: coco_captions, path: captions.json, images: pics}}'
mmi fit --config configs/demo.yaml --run.evaluate='{every: 200, tasks: [coco_caption, vqav2], limit: 64}'
mmi fit --config stages/micro/rec.yaml --run.start_from=runs/stage-pretrain
mmi fit --run runs/demo --ckpt_path last""",
    "validate": "mmi validate --run runs/demo --ckpt_path best",
    "test": "mmi test --run runs/demo --ckpt_path step-2000",
    "predict": "mmi predict --run runs/demo --data.val.photos='{format: pair_tars, path: shards}'",
}


def run(command: str, argv: Sequence[str]) -> int:
    """Train or measure; 130 if stopped by a signal."""
    line = _parser(command).read(argv)
    from mmi.commands.settings import check_settings, settings_from_command_line

    tree = settings_from_command_line(line, run=line.options.run)
    from mmi.commands.trainer_cli import TrainingInterrupted, calm_libraries

    calm_libraries()
    settings = check_settings(tree, command)
    if line.options.print_config:
        import yaml

        print(yaml.safe_dump(settings.tree(), sort_keys=False, allow_unicode=True), end="")
        return DONE
    try:
        _session(command, settings, line, argv)
    except SystemExit as stop:
        # Outside of fit Lightning answers Ctrl-C itself, with exit code 1.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except TrainingInterrupted as stop:
        print(f"mmi {command}: {stop}", file=sys.stderr)
        return STOPPED
    return DONE


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTIONS[command] + _CONFIGS, _EXAMPLES[command], takes_configs=True)
    parser.add_argument("--run", metavar="DIR", help="take the config of this run folder (and go on in it)")
    parser.add_argument(
        "--ckpt_path",
        metavar="NAME",
        help="last, best, step-N or a checkpoint folder"
        + (
            " to go on from; auto: last if there is one, else a fresh start; one of another run needs a new run.name"
            if command == "fit"
            else "; default: best if there is one, else last"
        ),
    )
    parser.add_argument("--print_config", action="store_true", help="print the merged settings and stop")
    return parser


def _session(command: str, settings: Settings, line: CommandLine, argv: Sequence[str]) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.checkpoints.storage import tidy_up
    from mmi.commands.settings import wrong_input
    from mmi.commands.trainer_cli import Session, TrainerCLI
    from mmi.models.freezing import backbone_states
    from mmi.training.start import load_start

    folder = RunFolder(settings.run.path)
    wanted = line.options.ckpt_path or (None if command == "fit" else BEST_OR_LAST)
    if wanted == "auto" and command == "fit":
        wanted = "last" if folder.has_checkpoints else None
    if command == "fit" and wanted and rank_zero_only.rank == 0:
        # Before a path is taken: what a save cut short has left is about to change its name.
        tidy_up(folder.checkpoints)
    checkpoint, passed_over = folder.find_intact(wanted) if wanted else (None, [])
    for remark in passed_over:
        print(f"mmi {command}: {remark}", file=sys.stderr)
    if passed_over:
        print(f"mmi {command}: going on from {checkpoint} in its place.", file=sys.stderr)
    # A checkpoint from elsewhere starts a run of its own.
    resume = checkpoint is not None and checkpoint.resolve().is_relative_to(folder.checkpoints.resolve())
    with wrong_input():
        session = Session(command, folder, resume, ("mmi", command, *argv), checkpoint)
        session.refuse_used_folder(settings)
        cli = TrainerCLI(settings, session)
        if command == "fit" and settings.run.start_from is not None and checkpoint is None:
            told = load_start(cli.model.network, settings.run.start_from, settings.run.start_fresh)
            if cli.trainer.is_global_zero:
                print(told, file=sys.stderr)
    if command == "fit" and cli.trainer.is_global_zero:
        for state in backbone_states(cli.model.network):
            print(state, file=sys.stderr)
    call = {"datamodule": cli.datamodule, "ckpt_path": checkpoint}
    if command == "fit":
        cli.trainer.fit(cli.model, **call)
    elif command == "predict":
        cli.trainer.predict(cli.model, **call, return_predictions=False)
    else:
        measure = cli.trainer.validate if command == "validate" else cli.trainer.test
        measure(cli.model, **call, verbose=False)
    if not cli.trainer.is_global_zero:
        return
    if command == "fit":
        print(f"done: {folder.path} holds checkpoints, metrics.csv and config.yaml.")
        print(f'next: mmi generate --run {folder.path} --text "..."')
    elif command == "predict":
        print(cli.predictions.summary())
    else:
        values = {name: float(value) for name, value in cli.trainer.callback_metrics.items() if name != "step"}
        print("\n".join(f"{name:<32} {value:.6g}" for name, value in values.items()))
