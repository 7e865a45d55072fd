"""Who trains together and where: the configuration of each member of a stack, and the folder it writes.

Everything that can be refused is refused here, before anything is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tasks.base import EndlessTask, Task, UserError, digest
from tasks.models.config import refuse_unfit
from tasks.models.initialization import Initialization, initialize
from tasks.processor import describe
from tasks.registry import model_family
from tasks.training.config import TrainingConfig
from tasks.training.lock import LOCK
from tasks.training.run import Run, RunConfig, library_versions
from tasks.training.snapshots import checksum

PER_MODEL = (
    *("learning_rate", "weight_decay", "l1_penalty"),
    *(f.name for f in fields(Initialization) if f.name not in ("scheme", "circle", "stream")),
)
"""What may differ between the members of a stack, besides the seed."""
RESUME = "resume.safetensors"


def members(
    task: Task,
    model: Any,
    init: Initialization,
    training: TrainingConfig,
    seeds: Sequence[int],
    per_model: Mapping[str, Sequence[float | None]],
    start: tuple[Run, int] | None,
    command: str | None,
) -> list[RunConfig]:
    """The configuration of each run: the common one with the run's own seed and values.

    Raises:
        UserError: no seed or a negative one, ``per_model`` with an unknown field or the wrong length, a model too small
            for the task, no such parameter to freeze, initial weights it has no place for, a start of another
            architecture.
    """
    if not seeds:
        raise UserError("expected at least one seed, got none")
    if min(seeds) < 0:
        raise UserError(f"expected seeds of at least 0, got {min(seeds)}")
    for name, values in per_model.items():
        if name not in PER_MODEL:
            raise UserError(f"expected per_model fields among {', '.join(PER_MODEL)}, got {name!r}")
        if len(values) != len(seeds):
            raise UserError(f"expected one {name} per model, {len(seeds)} in all, got {len(values)}")
    refuse_unfit(model, task)
    if isinstance(task, EndlessTask) and training.batch_size is None:
        raise UserError("expected a batch_size: the data of this task have no end")
    shapes = model_family(model).shapes(model)
    for name in training.frozen:
        if name not in shapes:
            raise UserError(f"expected frozen parameters among {', '.join(shapes)}, got {name!r}")
    if init.circle or init.stream != "per_tensor":
        initialize(shapes, model, init, seeds[0])  # refuses what this model has no place for
    origin = None
    if start is not None:
        step = start[0].resolve(start[1])
        origin = {"run": str(start[0].path), "step": step, "sha256": checksum(start[0].params(step))}
    if start is not None and start[0].config.model != model:
        raise UserError(f"expected a start of the same architecture, {start[0].path} has another")
    training_fields = {f.name for f in fields(TrainingConfig)}
    configs = []
    for index, seed in enumerate(seeds):
        own = {name: values[index] for name, values in per_model.items()}
        configs.append(
            RunConfig(
                task=task,
                model=model,
                init=replace(init, **{k: v for k, v in own.items() if k not in training_fields}),
                training=replace(training, **{k: v for k, v in own.items() if k in training_fields}),
                seed=seed,
                start=origin,
                command=command,
                versions=library_versions(),
                machine=describe(),
            )
        )
    return configs


def folders(
    configs: Sequence[RunConfig],
    per_model: Mapping[str, Sequence[float | None]],
    out: str | Path | Sequence[str | Path],
    resume_file: str | Path | None,
) -> tuple[list[Path], Path]:
    """Where each run is written, and where an interrupted training goes on from.

    In ``out`` itself for one run, ``out/seed-0`` … for several, or in the folders given.

    Raises:
        UserError: a folder holds another run or other files, two runs would share one, there are not as many as runs,
            or several without a resume file.
    """
    if isinstance(out, str | Path):
        out = Path(out)
        paths, resume = [out / name for name in _names(configs, per_model)], out / RESUME
        if len(paths) > 1 and (out / "config.json").is_file():
            raise UserError(f"expected a folder for several runs, {out} holds one run itself: choose another folder")
    else:
        paths = [Path(path) for path in out]
        if not len(set(paths)) == len(paths) == len(configs):
            raise UserError(f"expected a folder per run, {len(configs)} in all, got {', '.join(map(str, paths))}")
        if len(paths) > 1 and resume_file is None:
            raise UserError("expected a resume_file with a folder per run: give the path of one")
        resume = paths[0] / RESUME
    refuse_other_runs(paths, configs)
    return paths, resume if resume_file is None else Path(resume_file)


def _names(configs: Sequence[RunConfig], per_model: Mapping[str, Sequence[float | None]]) -> list[str]:
    """``.`` for one run; else ``seed-0`` …, with the fields that differ where a seed occurs twice."""
    if len(configs) == 1:
        return ["."]
    names = [f"seed-{config.seed}" for config in configs]
    if len(set(names)) < len(names):
        names = [
            "-".join([name, *(f"{key}-{values[index]:g}" for key, values in per_model.items())])
            for index, name in enumerate(names)
        ]
    if len(set(names)) < len(names):
        raise UserError(f"expected runs that differ, got the same one twice: {', '.join(names)}")
    return names


def refuse_other_runs(paths: Sequence[Path], configs: Sequence[RunConfig]) -> None:
    """Check that each folder is free for its run, or holds it already.

    Raises:
        UserError: one holds another run or other files.
    """
    sha256 = digest(configs[0].task.train_set())
    for path, config in zip(paths, configs, strict=True):
        _refuse_other_run(path, config, sha256)


def _refuse_other_run(path: Path, config: RunConfig, sha256: str) -> None:
    if not (path / "config.json").is_file():
        if path.exists() and not path.is_dir():
            raise UserError(f"expected a folder at {path}, found a file: choose another --out")
        # all that a run killed at its very start may have left
        begun = (RESUME, LOCK, "snapshots", "split.safetensors")
        others = path.iterdir() if path.is_dir() else ()
        if any(child.name not in begun and child.suffix != ".tmp" for child in others):
            raise UserError(
                f"expected an empty folder or a run to continue at {path}, found other files: choose another --out"
            )
        return
    found = Run.load(path)
    ours, theirs = config.decides(), found.config.decides()
    differ = [key for key in ours if ours[key] != theirs[key]]
    if not differ and found.split[1]["train_set_sha256"] != sha256:
        differ = ["split"]
    if differ:
        raise UserError(
            f"{path} holds another run (it differs in {', '.join(differ)}): choose another folder, or remove it"
        )
