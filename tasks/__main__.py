"""``python -m tasks``: list the tasks, train one, sweep over many runs, show a run folder."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Generic, TypeVar, get_args

import tyro

from tasks.base import Task, UserError
from tasks.families.anchor import Anchor
from tasks.models.config import ModelConfig
from tasks.models.initialization import Initialization
from tasks.presets import preset, sizes, usual_size
from tasks.registry import FAMILIES, families, known
from tasks.table import PairTable, Split
from tasks.terminal import mistakes_in_one_line, progress_bar
from tasks.training.config import TrainingConfig

AnyTask = TypeVar("AnyTask", bound=Task)
AnyModel = TypeVar("AnyModel", bound=ModelConfig)
_SIZES = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_hidden", "d_embed")


@dataclass(frozen=True, kw_only=True)
class List:
    """Print the tasks with the size of each preset."""

    def __call__(self) -> None:
        from rich.console import Console
        from rich.table import Column, Table

        names = (Column("task", no_wrap=True), Column("preset", no_wrap=True))
        table = Table(*names, "inputs", "model", "training", title="python -m tasks train TASK --preset PRESET")
        for family in families():
            for size in sizes(family):
                p = preset(family, size)
                t = p.training
                table.add_row(
                    family,
                    size,
                    _inputs(p.task),
                    _model_sizes(p.model),
                    f"{t.steps:,} steps, batch {t.batch_size or 'all'}, learning rate {t.learning_rate:g}",
                )
        Console().print(table)


def _inputs(task: Task) -> str:
    """What an input of a task is."""
    if task.d_vocab:
        return f"{task.n_ctx} tokens, vocabulary {task.d_vocab}"
    width = getattr(task, "d_input", None)
    return f"{task.n_ctx} vectors of {width}" if width else f"{task.n_ctx} numbers"


def _model_sizes(model: Any) -> str:
    """The family of a model and its sizes, of those that models of this family have."""
    from tasks.registry import model_config_to_dict

    values = model_config_to_dict(model)
    sizes = [f"{name} {values[name]}" for name in _SIZES if values.get(name) is not None]
    return ", ".join([values["family"], *sizes])


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print what a run folder holds."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""

    def __call__(self) -> None:
        from rich.console import Console
        from rich.table import Table

        from tasks.training.run import Run

        run = Run.load(self.run)
        state = "finished" if run.finished else "in training"
        table = Table(show_header=False, title=f"{run.name}: {state}")
        for key, value in run.config.to_dict().items():
            table.add_row(
                key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            )
        table.add_row("snapshots", ", ".join(map(str, run.steps)))
        if rows := run.metrics:
            table.add_row(
                "last metrics", ", ".join(f"{k} {v:.4g}" for k, v in rows[-1].items() if isinstance(v, float))
            )
        Console().print(table)


@dataclass(frozen=True, kw_only=True)
class Train(Generic[AnyTask, AnyModel]):
    """Train one model per seed; the same command continues what was interrupted."""

    task: AnyTask
    model: AnyModel
    """Architecture; the vocabulary follows the task."""
    init: Initialization
    training: TrainingConfig
    out: Path
    """Run folder; with several seeds, the folder of their run folders."""
    preset: str = "default"
    """Where every option not given comes from: tiny (seconds to a minute), default (minutes), fast (the published
    problem, solved soonest), paper (the published setting), explorable (perceptrons of modular addition and of sparse
    parity), circle (five neurons). python -m tasks list shows which a task has."""
    seeds: tuple[int, ...] = (0,)
    """One model each, trained together."""
    gammas: tuple[float, ...] = ()
    """Init γ of each model, in place of --init.gamma: as many as seeds."""
    memory: str | None = None
    """What training may take besides program and data, such as 8GB: as few stacks as fit, one after another. Changes no
    result."""
    compile: bool = False
    """Fuse a training step with torch.compile: faster from the second minute on, where a C++ compiler is found. Changes
    the last bits of the result."""
    device: str = "cpu"
    threads: int = 1
    """CPU threads. Weights are reproduced bit by bit with one."""
    start: Path | None = None
    """A run folder whose last snapshot, or --start-step, training starts from."""
    start_step: int | None = None
    quiet: bool = False
    """No progress bar."""

    def __call__(self) -> None:
        import torch

        from tasks.training.memory import parse_bytes
        from tasks.training.run import Run
        from tasks.training.trainer import train

        if self.threads < 1:
            raise UserError(f"expected at least one thread, got {self.threads}")
        if self.start is None and self.start_step is not None:
            raise UserError("--start-step is a step of the run that --start names: give both")
        torch.set_num_threads(self.threads)
        start = None
        if self.start is not None:
            origin = Run.load(self.start)
            start = (origin, origin.resolve("last" if self.start_step is None else self.start_step))
        with _losses_shown(self.training.steps, self.quiet) as show:
            runs = train(
                self.task,
                self.model.for_task(self.task),
                self.init,
                self.training,
                seeds=self.seeds,
                per_model={"gamma": self.gammas} if self.gammas else None,
                out=self.out,
                device=self.device,
                start=start,
                memory=None if self.memory is None else parse_bytes(self.memory),
                compiled=self.compile,
                command=shlex.join(["python", "-m", "tasks", *sys.argv[1:]]),
                on_evaluation=show,
            )
        for run in runs:
            last = run.metrics[-1]
            numbers = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in last.items() if isinstance(v, float))
            print(f"{run.path}: step {last['step']}, {numbers}")


@contextmanager
def _losses_shown(steps: int, quiet: bool) -> Iterator[Callable[[int, list[dict[str, Any]]], None]]:
    """One bar with the mean losses of the models in training."""
    with progress_bar(quiet=quiet) as bar:
        training = bar.add_task("", total=steps)

        def show(step: int, rows: list[dict[str, Any]]) -> None:
            train_loss = mean(row["train_loss"] for row in rows)
            test_loss = mean(row["test_loss"] for row in rows)
            bar.update(training, completed=step, description=f"train loss {train_loss:.3g}  test loss {test_loss:.3g}")

        yield show


def _option_types() -> tyro.constructors.ConstructorRegistry:
    """How the command line reads what it cannot guess from a type: a split by its name, an anchor by its map."""
    registry = tyro.constructors.ConstructorRegistry()
    splits = tuple(name for name in get_args(Split) if name != "mask")  # a mask of one's own comes from Python

    @registry.primitive_rule
    def option(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if info.type == PairTable.__dataclass_fields__["split"].type:
            return tyro.constructors.PrimitiveConstructorSpec(
                nargs=1,
                metavar="{" + ",".join(splits) + "}",
                instance_from_str=lambda words: words[0],
                is_instance=lambda value: value in splits,
                str_from_instance=lambda value: [value],
                choices=splits,
            )
        if info.type is Anchor:
            return tyro.constructors.PrimitiveConstructorSpec(
                nargs=1,
                metavar="OFFSET|MULTIPLIERx+OFFSET|KEY,KEY,…",
                instance_from_str=lambda words: _anchor(words[0]),
                is_instance=lambda value: isinstance(value, Anchor),
                str_from_instance=lambda value: [_anchor_text(value)],
            )
        return None

    return registry


def _anchor(text: str) -> Anchor:
    """The anchor x + 5 from "5", 2x − 8 from "2x-8", the permutation (22, 20, 21) from "22,20,21"."""
    multiplier, x, offset = text.rpartition("x")
    try:
        if "," in text:
            return Anchor(permutation=tuple(int(key) for key in text.split(",")))
        return Anchor(offset=int(offset), multiplier=int(multiplier) if x else 1)
    except UserError:
        raise
    except ValueError:
        raise UserError(f"expected an anchor such as -2 (x − 2), 2x+5 or 22,20,21, got {text!r}") from None


def _anchor_text(anchor: Anchor) -> str:
    """What ``_anchor`` reads."""
    if anchor.permutation is not None:
        return ",".join(map(str, anchor.permutation))
    return str(anchor.offset) if anchor.multiplier == 1 else f"{anchor.multiplier}x{anchor.offset:+d}"


def _train_parser(family: str, arguments: list[str]) -> Train[Any, Any]:
    """The command with its options, those not given from the preset that the arguments name."""
    size: Any = usual_size(family)
    for index, argument in enumerate(arguments):
        if argument == "--preset" and index + 1 < len(arguments):
            size = arguments[index + 1]
        elif argument.startswith("--preset="):
            size = argument.partition("=")[2]
    base = preset(family, size)
    command: Any = Train[type(base.task), type(base.model)]
    default = command(task=base.task, model=base.model, init=base.init, training=base.training, out=Path(), preset=size)
    object.__setattr__(default, "out", tyro.MISSING)  # the one option that must be given
    parsed = tyro.cli(
        command,
        prog=f"python -m tasks train {family}",
        args=arguments,
        default=default,
        registry=_option_types(),
        config=(tyro.conf.HelptextFromCommentsOff,),  # reading comments takes a tenth of a second
    )
    model = parsed.model.for_task(parsed.task)
    for name in ("d_vocab", "d_vocab_out", "n_ctx", "d_input"):
        given = getattr(parsed.model, name, None)  # a perceptron has no d_input
        if given not in (getattr(base.model, name, None), getattr(model, name, None)):
            raise UserError(f"--model.{name.replace('_', '-')} follows the task: leave it out")
    return replace(parsed, model=model)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2."""
    with mistakes_in_one_line():
        try:
            _command(sys.argv[1:])()
        except KeyboardInterrupt:
            print("interrupted: the same command continues", file=sys.stderr)
            sys.exit(130)


def _command(arguments: list[str]) -> Callable[[], None]:
    """What the arguments ask for, ready to run."""
    match arguments:
        case ["train", family, *options] if not family.startswith("-") and known(family):
            return _train_parser(family, options)
        case ["train", family, *_] if not family.startswith("-"):
            return partial(_families, family)  # whatever options follow
    from tasks.sweep.command import Sweep

    command = tyro.extras.subcommand_cli_from_dict(
        {"list": List, "train": _families, "sweep": Sweep, "show": Show},
        prog="python -m tasks",
        description="Train small hooked transformers on problems whose rule is known.",
        args=arguments,
    )
    return command or (lambda: None)


def _families(
    family: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK", help=", ".join(FAMILIES))],
) -> None:
    """Train a model on a task; ``python -m tasks train TASK --help`` shows the options of one."""
    raise UserError(f"expected a task among {', '.join(families())}, got {family!r}")


if __name__ == "__main__":
    main()
