"""The run folder: one model's life, readable while it is trained, complete without anything else.

``config.json``              schema version, task, model, initialisation, training, seed, start, command, versions,
                             machine
``split.safetensors``        masks and seeds that make the data again, and the SHA-256 of the training set
``metrics.jsonl``            one line per evaluation; the last has ``"final": true``
``snapshots/step-….safetensors``    weights under transformer-lens's names

Writes are atomic, no pickle is written or read, older schemas are migrated in memory and newer ones refused.
"""

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.base import Task, UserError, digest, refuse_unknown
from tasks.models.initialization import Initialization
from tasks.registry import (
    model_config_from_dict,
    model_config_to_dict,
    model_family,
    task_class,
    task_from_dict,
    task_to_dict,
)
from tasks.training.config import TrainingConfig
from tasks.training.snapshots import read_tensors, write_atomically, write_tensors

SCHEMA_VERSION = 1


def _from_schema_0(config: dict[str, Any]) -> dict[str, Any]:
    """A config without a version is of the first shape, which had neither ``start`` nor ``command``."""
    return {"start": None, "command": None, "versions": {}, **config, "schema_version": 1}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_schema_0}
"""Schema version → the step to the next one."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's weights, and how it was started."""

    task: Task
    model: Any
    init: Initialization
    training: TrainingConfig
    seed: int
    start: Mapping[str, Any] | None = None
    command: str | None = None
    versions: Mapping[str, str]
    machine: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The contents of ``config.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "task": task_to_dict(self.task),
            "model": model_config_to_dict(self.model),
            "init": self.init.to_dict(),
            "training": self.training.to_dict(),
            "seed": self.seed,
            "start": None if self.start is None else dict(self.start),
            "command": self.command,
            "versions": dict(self.versions),
            "machine": dict(self.machine),
        }

    def decides(self) -> dict[str, Any]:
        """The part that decides the weights: two runs that agree in it are the same run."""
        decisive = {
            key: value for key, value in self.to_dict().items() if key not in ("command", "versions", "machine")
        }
        if self.start is not None:  # the weights decide, not where they lay
            decisive["start"] = {key: value for key, value in self.start.items() if key != "run"}
        return decisive


def library_versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("rulelens", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """One mapping per evaluation, in order; an unfinished last line is left out."""
    file = folder / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def is_final(metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last evaluation is the one that ended training."""
    return bool(metrics) and metrics[-1].get("final", False)


class Run:
    """A run folder. ``Run.load(path)`` checks that it is one; attributes read it when asked."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """The run in this folder.

        Raises:
            UserError: no folder, no or broken ``config.json``, a newer schema, an unknown field.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            what = "a file" if path.is_file() else "a folder without one" if path.is_dir() else "nothing"
            raise UserError(
                f"expected a run folder with a config.json at {path}, found {what}: give a folder that train wrote"
            )
        try:
            values = json.loads((path / "config.json").read_text())
            found = int(values.get("schema_version", 0))
        except (ValueError, AttributeError, TypeError, OverflowError) as error:
            raise UserError(f"expected JSON in {path / 'config.json'}, it is cut short or damaged: {error}") from error
        if found > SCHEMA_VERSION:
            raise UserError(
                f"expected a run of schema {SCHEMA_VERSION} or older, {path} has schema {found}: "
                "update rulelens to read it"
            )
        try:
            while found < SCHEMA_VERSION:
                values = MIGRATIONS[found](values)
                found = values["schema_version"]
            return cls(path, _config_from_dict(values, path))
        except UserError:
            raise
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            why = str(error).partition("\n")[0]
            raise UserError(
                f"expected the settings of a run in {path / 'config.json'}, they are damaged: {why}"
            ) from error

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "Run":
        """A new run folder. Where there is one, which ``train`` has found to be the same run, it stays as it is."""
        if (path / "config.json").is_file():
            return cls.load(path)
        try:
            (path / "snapshots").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"expected a place for a run folder at {path}: {error.strerror}, choose another") from error
        write_tensors(
            path / "split.safetensors",
            config.task.split_tensors(),
            {"train_set_sha256": digest(config.task.train_set())},
        )
        write_atomically(path / "config.json", (json.dumps(config.to_dict(), indent=1) + "\n").encode())
        return cls(path, config)

    @property
    def name(self) -> str:
        """The folder's name; for a seed's folder, the parent's as well."""
        path = self.path.absolute()
        return f"{path.parent.name}/{path.name}" if path.name.startswith("seed-") else path.name

    @property
    def task(self) -> Task:
        """The task it was trained on."""
        return self.config.task

    @property
    def steps(self) -> list[int]:
        """Steps with a whole snapshot, ascending."""
        numbers = (file.stem.removeprefix("step-") for file in (self.path / "snapshots").glob("step-*.safetensors"))
        return sorted(int(number) for number in numbers if number.isdecimal() and len(number) >= 7)

    def resolve(self, step: int | Literal["last"]) -> int:
        """The step asked for, if it has a snapshot.

        Raises:
            UserError: there is none; says which there are.
        """
        steps = self.steps
        if not steps:
            raise UserError(f"expected snapshots in {self.path}, found none yet: wait for the first, or train again")
        if step == "last":
            return steps[-1]
        if step not in steps:
            raise UserError(f"expected a step with a snapshot, {self.path} has none at {step}: it has {_listed(steps)}")
        return step

    def params(self, step: int | Literal["last"] = "last") -> dict[str, Float[Tensor, "..."]]:
        """The weights at a step, in the type that they were trained in.

        Raises:
            UserError: no such step, a damaged file, or names and shapes that are not the model's.
        """
        file = self._file(self.resolve(step))
        tensors, _ = read_tensors(file)
        expected = model_family(self.config.model).shapes(self.config.model)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name in expected | found:
            if expected.get(name) != found.get(name):
                raise UserError(
                    f"expected {name} of shape {expected.get(name)} in {file}, got {found.get(name)}: "
                    "its config.json belongs to another model"
                )
        if self.config.training.snapshot_dtype != "same":
            dtype = getattr(torch, self.config.training.dtype)
            tensors = {name: value.to(dtype) for name, value in tensors.items()}
        return {name: tensors[name] for name in expected}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One mapping per evaluation, in order; an unfinished last line is left out."""
        return read_metrics(self.path)

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return is_final(self.metrics)

    @cached_property
    def split(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Masks and seeds of the data, and the digest of the training set."""
        return read_tensors(self.path / "split.safetensors")

    def check_data(self) -> None:
        """Make the training set again and compare it with the one that was trained on.

        Raises:
            UserError: they differ.
        """
        if digest(self.task.train_set()) != self.split[1].get("train_set_sha256"):
            raise UserError(
                f"the training set made from {self.path} is not the one it was trained on: its config was edited"
            )

    def _file(self, step: int) -> Path:
        return self.path / "snapshots" / f"step-{step:07d}.safetensors"

    def write_snapshot(self, step: int, params: Mapping[str, Float[Tensor, "..."]]) -> None:
        """Keep the weights at a step, in ``snapshot_dtype``.

        Raises:
            UserError: a weight that float16 cannot hold.
        """
        if self.config.training.snapshot_dtype == "float16":
            largest = max(float(value.abs().max()) for value in params.values())
            if largest > torch.finfo(torch.float16).max:
                raise UserError(
                    f"expected weights of at most 65,504 for snapshots in float16, got {largest:.3g} at step {step}: "
                    "set snapshot_dtype to same"
                )
            params = {name: value.half() for name, value in params.items()}
        write_tensors(self._file(step), params, {"step": step, "config": self.config.to_dict()})

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one evaluation; NaN becomes null."""
        clean = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(clean) + "\n")

    def cut_back(self, step: int | None) -> None:
        """Drop evaluations and snapshots after ``step``; all of them where it is ``None``."""
        kept = [row for row in self.metrics if step is not None and row["step"] <= step]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        for later in self.steps:
            if step is None or later > step:
                self._file(later).unlink()


def _listed(steps: list[int], most: int = 12) -> str:
    shown = steps if len(steps) <= most else [*steps[: most - 1], steps[-1]]
    return ", ".join(map(str, shown)) + (f" ({len(steps)} in all)" if len(steps) > most else "")


def _config_from_dict(values: dict[str, Any], path: Path) -> RunConfig:
    missing = {"task", "model", "init", "training", "seed"} - set(values)
    if missing:
        raise UserError(f"expected {', '.join(sorted(missing))} in {path / 'config.json'}: it describes no run")
    refuse_unknown(values, ["schema_version", *(f.name for f in fields(RunConfig))], str(path / "config.json"))
    task = dict(values["task"])
    if task.get("split") == "mask":
        task["split"] = read_tensors(path / "split.safetensors")[0]["train_mask"]
        task_of = task_class(task.pop("family"))
        return _run_config(values, task_of(**task))
    return _run_config(values, task_from_dict(task))


def _run_config(values: dict[str, Any], task: Task) -> RunConfig:
    return RunConfig(
        task=task,
        model=model_config_from_dict(values["model"]),
        init=Initialization.from_dict(values["init"]),
        training=TrainingConfig.from_dict(values["training"]),
        seed=values["seed"],
        start=values.get("start"),
        command=values.get("command"),
        versions=values.get("versions", {}),
        machine=values.get("machine", {}),
    )
