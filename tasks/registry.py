"""Which task and model families there are, by the names that stand in a run's ``config.json``. A new one is one line.

Packages of others bring task families by entry points in the group ``rulelens.tasks``: name of the family → a
``Family``. They are read only when a name is unknown or all names are listed, so that start-up stays quick.
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

TASKS = {
    "anchor": "tasks.anchor:AnchorComposition",
    "classification": "tasks.recall:Classification",
    "group": "tasks.groups:GroupComposition",
    "identity": "tasks.recall:Identity",
    "intervals": "tasks.intervals:AnchorIntervals",
    "memory_reasoning": "tasks.memory_reasoning:MemoryReasoning",
    "modular": "tasks.modular:ModularArithmetic",
    "parity": "tasks.parity:SparseParity",
    "reading": "tasks.questions:ReadingComprehension",
    "recitation": "tasks.recall:Recitation",
    "regression": "tasks.regression:SineRegression",
    "working_memory": "tasks.questions:WorkingMemory",
}
MODELS = {
    "mlp": ("tasks.models.config:MLPConfig", "tasks.models.mlp:MLP"),
    "transformer": ("tasks.models.config:TransformerConfig", "tasks.models.transformer:Transformer"),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A task family of another package.

    Attributes:
        task: its class.
        presets: name of a size, such as ``tiny`` → ``tasks.presets.Preset``.
    """

    task: type
    presets: Mapping[str, Any]


@cache
def joined_families() -> dict[str, Family]:
    """The task families of other packages, by name.

    Raises:
        UserError: one cannot be loaded, or is no ``Family``.
    """
    joined: dict[str, Family] = {}
    for point in entry_points(group="rulelens.tasks"):
        try:
            family = point.load()
        except Exception as error:
            raise UserError(f"expected {point.value} of the entry point {point.name}: {error}") from error
        if not isinstance(family, Family):
            raise UserError(f"expected a tasks.registry.Family at {point.value}, got {type(family).__name__}")
        joined[point.name] = family
    return joined


def _load(where: str) -> Any:
    module, name = where.split(":")
    return getattr(import_module(module), name)


def _find(table: Mapping[str, Any], kind: str, name: object) -> Any:
    if name not in table:
        raise UserError(f"expected a {kind} family among {', '.join(table)}, got {name!r}")
    return table[str(name)]


def task_class(family: str) -> Any:
    """The task class of a family."""
    if family in TASKS:
        return _load(TASKS[str(family)])
    joined = joined_families()
    _find({**TASKS, **joined}, "task", family)
    return joined[str(family)].task


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
    config_class, _ = _find(MODELS, "model", values.get("family", ""))
    return _load(config_class).from_dict({key: value for key, value in values.items() if key != "family"})


def model_config_to_dict(config: Any) -> dict[str, Any]:
    """The description that ``model_config_from_dict`` reads."""
    return {"family": _family_name(config), **config.to_dict()}


def model_family(config: Any) -> "ModelFamily":
    """The functions that initialise and run models of this configuration."""
    return _load(MODELS[_family_name(config)][1])


def _family_name(config: Any) -> str:
    own = f"{type(config).__module__}:{type(config).__name__}"
    for name, (config_class, _) in MODELS.items():
        if config_class == own:
            return name
    raise UserError(f"expected a model configuration such as TransformerConfig, got {type(config).__name__}")
