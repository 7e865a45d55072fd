"""Every task family and every model family, a line each, by the names that stand in a run's ``config.json``.

What reads it: ``tasks``' public names, ``python -m tasks list`` and ``train``, sweeps, ``python -m interp.probe`` and
the tests. A new family is one line here and its file.

Packages of others join by entry points in the group ``rulelens.tasks``: name of the family → a ``Family``. They are
read only when a name is unknown or all names are listed, so that start-up stays quick.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from tasks.base import Task, UserError, as_task

if TYPE_CHECKING:
    from tasks.models.family import ModelFamily


@dataclass(frozen=True)
class Family:
    """A task family.

    Attributes:
        task: its class, or where that stands: ``module:Class``.
        presets: name of a size, such as ``tiny`` → ``tasks.presets.Preset``, smallest first; or where that table
            stands; ``None``: a small network for the default task.
    """

    task: str | type
    presets: str | Mapping[str, Any] | None = None

    def task_class(self) -> Any:
        """The class itself."""
        return _load(self.task) if isinstance(self.task, str) else self.task

    def preset_table(self) -> Mapping[str, Any]:
        """The presets themselves."""
        if self.presets is None:
            return _load("tasks.presets.any_task:presets")(self.task_class())
        return _load(self.presets) if isinstance(self.presets, str) else self.presets


@dataclass(frozen=True, kw_only=True)
class ModelLine:
    """A model family: where its configuration, its five functions and its hooked model stand."""

    config: str
    family: str
    hooked: str


_ALIKE = "tasks.presets.anchor_functions"

FAMILIES = {
    "anchor": Family("tasks.families.anchor:AnchorComposition", "tasks.presets.anchor:PRESETS"),
    "classification": Family("tasks.families.recall:Classification", f"{_ALIKE}:CLASSIFICATION"),
    "identity": Family("tasks.families.recall:Identity", f"{_ALIKE}:IDENTITY"),
    "intervals": Family("tasks.families.intervals:AnchorIntervals", f"{_ALIKE}:INTERVALS"),
    "reading": Family("tasks.families.questions:ReadingComprehension", f"{_ALIKE}:READING"),
    "recitation": Family("tasks.families.recall:Recitation", f"{_ALIKE}:RECITATION"),
    "working_memory": Family("tasks.families.questions:WorkingMemory", f"{_ALIKE}:WORKING_MEMORY"),
    "group": Family("tasks.families.group:GroupComposition", "tasks.presets.group:PRESETS"),
    "memory_reasoning": Family(
        "tasks.families.memory_reasoning:MemoryReasoning", "tasks.presets.memory_reasoning:PRESETS"
    ),
    "modular": Family("tasks.families.modular:ModularArithmetic", "tasks.presets.modular:PRESETS"),
    "parity": Family("tasks.families.parity:SparseParity", "tasks.presets.parity:PRESETS"),
    "regression": Family("tasks.families.regression:SineRegression", "tasks.presets.regression:PRESETS"),
}
"""Name → family, in the order in which they are listed."""
MODELS = {
    "mlp": ModelLine(
        config="tasks.models.config:MLPConfig",
        family="tasks.models.mlp:MLP",
        hooked="tasks.models.hooked_mlp:HookedMLP",
    ),
    "transformer": ModelLine(
        config="tasks.models.config:TransformerConfig",
        family="tasks.models.transformer:Transformer",
        hooked="tasks.models.hooked:HookedTransformer",
    ),
}


def families() -> tuple[str, ...]:
    """Names of all task families, those of other packages last."""
    return *FAMILIES, *joined_families()


def known(name: str) -> bool:
    """Whether there is such a task family. Other packages are asked only where it is none of ours."""
    return name in FAMILIES or name in joined_families()


def family(name: object) -> Family:
    """The task family of this name.

    Raises:
        UserError: there is none.
    """
    if name in FAMILIES:
        return FAMILIES[str(name)]
    return _find({**FAMILIES, **joined_families()}, "task", name)


@cache
def joined_families() -> dict[str, Family]:
    """The task families of other packages, by name.

    Raises:
        UserError: one cannot be loaded, or is no ``Family``.
    """
    joined: dict[str, Family] = {}
    for point in entry_points(group="rulelens.tasks"):
        try:
            line = point.load()
        except Exception as error:
            raise UserError(f"expected {point.value} of the entry point {point.name}: {error}") from error
        if not isinstance(line, Family):
            raise UserError(f"expected a tasks.registry.Family at {point.value}, got {type(line).__name__}")
        joined[point.name] = line
    return joined


def _load(where: str) -> Any:
    module, name = where.split(":")
    return getattr(import_module(module), name)


def _find(table: Mapping[str, Any], kind: str, name: object) -> Any:
    if name not in table:
        raise UserError(f"expected a {kind} family among {', '.join(table)}, got {name!r}")
    return table[str(name)]


def task_class(name: object) -> Any:
    """The task class of a family."""
    return family(name).task_class()


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task described by ``{"family": …, field: value, …}``.

    Raises:
        UserError: an unknown family or field.
    """
    own = {key: value for key, value in values.items() if key != "family"}
    return as_task(task_class(values.get("family", "")).from_dict(own))


def task_from_words(words: Sequence[str]) -> Task:
    """The task that is spelled as its family and fields with JSON values: ``modular p=113 split=python_shuffle``.

    Raises:
        UserError: an unknown family or field, or a value of another kind than the field's default.
    """
    family, *assignments = words
    defaults = {field.name: field.default for field in fields(task_class(family))}
    values: dict[str, Any] = {"family": family}
    for name, _, text in (word.partition("=") for word in assignments):
        default = defaults.get(name)
        try:
            values[name] = text if isinstance(default, str) else json.loads(text)
        except ValueError:
            values[name] = text
        if isinstance(default, float) and isinstance(values[name], int):
            values[name] = float(values[name])
        kinds = {bool: bool, int: int, float: float, tuple: list}.get(type(default), object)
        if not text or not isinstance(values[name], kinds):
            example = f"{name}={json.dumps(default, default=str)}" if name in defaults else "p=113"
            raise UserError(f"expected a field and its value, such as {example}, got {name}={text}")
    return task_from_dict(values)


def task_to_dict(task: Task) -> dict[str, Any]:
    """The description that ``task_from_dict`` reads."""
    return {"family": task.family, **task.to_dict()}


def model_config_from_dict(values: Mapping[str, Any]) -> Any:
    """The model configuration described by ``{"family": …, field: value, …}``."""
    line = _find(MODELS, "model", values.get("family", ""))
    return _load(line.config).from_dict({key: value for key, value in values.items() if key != "family"})


def model_config_to_dict(config: Any) -> dict[str, Any]:
    """The description that ``model_config_from_dict`` reads."""
    return {"family": _family_name(config), **config.to_dict()}


def model_family(config: Any) -> "ModelFamily":
    """The functions that initialise and run models of this configuration."""
    return _load(MODELS[_family_name(config)].family)


def hooked_model(config: Any, params: Mapping[str, Any]) -> Any:
    """The model of this configuration with these weights and its hooks."""
    return _load(MODELS[_family_name(config)].hooked)(config, params)


def _family_name(config: Any) -> str:
    own = f"{type(config).__module__}:{type(config).__name__}"
    for name, line in MODELS.items():
        if line.config == own:
            return name
    raise UserError(f"expected a model configuration such as TransformerConfig, got {type(config).__name__}")
