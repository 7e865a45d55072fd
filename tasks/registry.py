"""Which task and model families there are, by the names that stand in a run's ``config.json``. A new one is one
line."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tasks.base import Task, UserError, as_task
from tasks.models.family import ModelFamily

TASKS = {
    "anchor": "tasks.anchor:AnchorComposition",
    "modular": "tasks.modular:ModularArithmetic",
    "parity": "tasks.parity:SparseParity",
}
MODELS = {
    "mlp": ("tasks.models.config:MLPConfig", "tasks.models.mlp:MLP"),
    "transformer": ("tasks.models.config:TransformerConfig", "tasks.models.transformer:Transformer"),
}


def _load(where: str) -> Any:
    module, name = where.split(":")
    return getattr(import_module(module), name)


def _find(table: Mapping[str, Any], kind: str, name: object) -> Any:
    if name not in table:
        raise UserError(f"expected a {kind} family among {', '.join(table)}, got {name!r}")
    return table[str(name)]


def task_class(family: str) -> Any:
    """The task class of a family."""
    return _load(_find(TASKS, "task", family))


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task described by ``{"family": …, field: value, …}``.

    Raises:
        UserError: an unknown family or field.
    """
    fields = {key: value for key, value in values.items() if key != "family"}
    return as_task(task_class(values.get("family", "")).from_dict(fields))


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


def model_family(config: Any) -> ModelFamily:
    """The functions that initialise and run models of this configuration."""
    return _load(MODELS[_family_name(config)][1])


def _family_name(config: Any) -> str:
    own = f"{type(config).__module__}:{type(config).__name__}"
    for name, (config_class, _) in MODELS.items():
        if config_class == own:
            return name
    raise UserError(f"expected a model configuration such as TransformerConfig, got {type(config).__name__}")
