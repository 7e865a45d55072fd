"""A grid of runs: what varies, the cells it has, and which of them train together.

* A cell's key is a hash of the schema version and of those fields that differ from their defaults: a field that is
  added to a configuration later changes no key.
* Which cells make a stack depends on the specification alone, never on what is finished or on the machine, so that an
  interrupted stack is found again.
"""

import hashlib
import itertools
import json
import math
import runpy
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from tasks.base import Fields, Task, UserError, as_lists, as_tuples, refuse_unknown
from tasks.models.initialization import Initialization
from tasks.presets import Preset, preset
from tasks.training.config import TrainingConfig

_PARTS = ("task", "model", "init", "training")
_FOLLOW_THE_TASK = ("model.d_vocab", "model.d_vocab_out")
_KINDS = {bool: "bool", int: "int", float: "float", str: "str", tuple: "a list", NoneType: "none"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    task: Task
    model: Any
    init: Initialization
    training: TrainingConfig
    seed: int
    coordinates: Mapping[str, Any] = field(default_factory=dict)
    """Name of each axis, such as ``training.learning_rate`` → this cell's value on it."""

    @cached_property
    def key(self) -> str:
        """The first 16 hex digits of the SHA-256 of what decides the run, fields at their defaults left out.

        A default that changes would give runs of the old one the same key: ``run_sweep`` refuses such a folder.
        """
        from tasks.registry import model_config_to_dict
        from tasks.training.run import SCHEMA_VERSION

        described = {
            "schema_version": SCHEMA_VERSION,
            "task": {"family": self.task.family, **_changed(self.task)},
            "model": {"family": model_config_to_dict(self.model)["family"], **_changed(self.model)},
            "init": _changed(self.init),
            "training": _changed(self.training),
            "seed": self.seed,
        }
        return _hashed(described)


@dataclass(frozen=True, kw_only=True)
class SweepSpec(Fields):
    """A preset, what is changed in all cells, and what varies between them.

    Names are dotted: ``task.p``, ``model.d_mlp``, ``init.gamma``, ``training.learning_rate``.

    Args:
        task: the task's family, as ``python -m tasks list`` names it.
        preset: the size that every field not named comes from.
        base: name → value in every cell.
        axes: name → values; the grid is their product.
        zipped: groups of such axes that walk together: name → values, as many for each.
        seeds: one run per seed and point of the grid.
        stack_size: models trained in one program at most. On CPU it changes no result.

    Raises:
        UserError: an unknown field (names the nearest), one given twice, zipped axes of unequal length, an axis without
            values, no seed, a field of another kind than these.
    """

    task: str
    preset: str = "tiny"
    base: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, Any] = field(default_factory=dict)
    zipped: Sequence[Mapping[str, Any]] = ()
    seeds: Sequence[int] = (0,)
    stack_size: int = 8

    def __post_init__(self) -> None:
        self._check_kinds()
        given = {"base": _flat(self.base), "axes": _flat(self.axes), "zipped": tuple(map(_flat, self.zipped))}
        for name, value in (given | {"seeds": tuple(self.seeds)}).items():
            object.__setattr__(self, name, value)
        start = preset(self.task, self.preset)
        known = [f"{part}.{f.name}" for part in _PARTS for f in fields(getattr(start, part))]
        names = [*self.base, *self.names]
        refuse_unknown(names, known, "the sweep")
        for name in names:
            if name in _FOLLOW_THE_TASK:
                raise UserError(f"{name} follows the task: leave it out")
            if names.count(name) > 1:
                raise UserError(f"expected one place for {name}, the sweep gives it twice")
        for axis in (self.axes, *self.zipped):
            for name, values in axis.items():
                if not isinstance(values, tuple) or not values:
                    raise UserError(f"expected a list of values for {name}, got {values!r}")
        for group in self.zipped:
            lengths = {name: len(values) for name, values in group.items()}
            if len(set(lengths.values())) != 1:
                listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
                raise UserError(f"expected zipped axes of one length, {listed or 'got none'}")
        if not self.seeds or self.stack_size < 1:
            raise UserError(f"expected a seed and a stack_size of at least 1, got {self.seeds} and {self.stack_size}")

    def _check_kinds(self) -> None:
        for name in ("task", "preset"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"expected the name of a {name}, got {getattr(self, name)!r}")
        for name in ("base", "axes"):
            if not isinstance(getattr(self, name), Mapping):
                raise UserError(f"expected {name} as name = value, got {getattr(self, name)!r}")
        if not isinstance(self.zipped, list | tuple) or not all(isinstance(group, Mapping) for group in self.zipped):
            raise UserError(f"expected a list of groups for zipped, got {self.zipped!r}: in TOML write [[zipped]]")
        if not isinstance(self.seeds, list | tuple | range) or any(type(s) is not int or s < 0 for s in self.seeds):
            raise UserError(f"expected a list of seeds of at least 0, got {self.seeds!r}")
        if type(self.stack_size) is not int:
            raise UserError(f"expected a whole number as stack_size, got {self.stack_size!r}")

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """The specification in a TOML file, whose keys are the fields; names may stand in quotes or not.

        Raises:
            UserError: no such file, no TOML, or what ``SweepSpec`` refuses.
        """
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text()))
        except OSError as error:
            raise UserError(f"expected a TOML file at {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"expected TOML in {path}: {error}") from error
        except TypeError as error:
            raise UserError(f"expected the fields of a sweep in {path}: {error}") from error

    @classmethod
    def from_python(cls, path: str | Path) -> Self:
        """The ``SPEC`` that a Python file defines.

        Raises:
            UserError: no such file, or it defines none.
        """
        if not Path(path).is_file():
            raise UserError(f"expected a Python file at {path}, found none")
        spec = runpy.run_path(str(path)).get("SPEC")
        if not isinstance(spec, cls):
            raise UserError(f"expected SPEC = SweepSpec(…) in {path}, got {type(spec).__name__}")
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values, which ``from_dict`` reads back."""
        mappings = {name: {k: as_lists(v) for k, v in getattr(self, name).items()} for name in ("base", "axes")}
        zipped = [{k: as_lists(v) for k, v in group.items()} for group in self.zipped]
        return super().to_dict() | mappings | {"zipped": zipped}

    @property
    def names(self) -> list[str]:
        """Names of the axes, those of zipped groups last."""
        return [name for axes in (self.axes, *self.zipped) for name in axes]

    def cells(self) -> list[Cell]:
        """Every cell of the grid: seeds vary fastest, then the last axis.

        Raises:
            UserError: a value that its configuration refuses, or two cells that are the same run.
        """
        steps: list[list[dict[str, Any]]] = [[{name: value} for value in values] for name, values in self.axes.items()]
        steps += [
            [dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)] for group in self.zipped
        ]
        configs_at = _Configs(preset(self.task, self.preset), self.base)
        cells: dict[str, Cell] = {}
        for point in itertools.product(*steps):
            coordinates = {name: value for part in point for name, value in part.items()}
            configs = configs_at(coordinates)
            for seed in self.seeds:
                cell = Cell(**configs, seed=seed, coordinates=coordinates)
                if cell.key in cells:
                    twin = cells[cell.key]
                    raise UserError(
                        f"expected cells that differ, {coordinates} with seed {seed} is the same run as "
                        f"{dict(twin.coordinates)} with seed {twin.seed}"
                    )
                cells[cell.key] = cell
        return list(cells.values())


def stacks(cells: Sequence[Cell], stack_size: int) -> list[tuple[Cell, ...]]:
    """The cells, grouped by what models of one stack share, at most ``stack_size`` together, in their order."""
    from tasks.registry import model_config_to_dict, task_to_dict
    from tasks.training.members import PER_MODEL

    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        shared = {
            part: {name: value for name, value in config.to_dict().items() if name not in PER_MODEL}
            for part, config in (("init", cell.init), ("training", cell.training))
        }
        shared |= {"task": task_to_dict(cell.task), "model": model_config_to_dict(cell.model)}
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(cell)
    return [
        tuple(group[start : start + stack_size])
        for group in groups.values()
        for start in range(0, len(group), stack_size)
    ]


def expense(cells: Sequence[Cell]) -> int:
    """Parameters × steps of all cells: how long a stack trains, up to a factor that is not the same for all tasks."""
    from tasks.registry import model_family

    shapes = (model_family(cell.model).shapes(cell.model).values() for cell in cells)
    parameters = [sum(math.prod(shape) for shape in of_cell) for of_cell in shapes]
    return sum(n * cell.training.steps for n, cell in zip(parameters, cells, strict=True))


def stack_name(cells: Sequence[Cell]) -> str:
    """A name of these cells together: a hash of their keys."""
    return _hashed([cell.key for cell in cells])


def _hashed(value: Any) -> str:
    canonical = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """The value with 1.0 as 1, so that equal numbers are written alike."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _changed(config: Any) -> dict[str, Any]:
    """Fields that differ from their defaults, or have none, as JSON values."""
    values, changed = config.to_dict(), {}
    for f in fields(config):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if default is MISSING or getattr(config, f.name) != default:
            changed[f.name] = values[f.name]
    return changed


def rank(value: Any) -> tuple[Any, ...]:
    """What values of an axis are ordered by: numbers by size, lists entry by entry, then text, and ``None`` (no limit)
    at the end. Text that is JSON, as a sweep's table has it, counts as what it says."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return 2, value
    if isinstance(value, int | float):
        return 0, value
    if isinstance(value, list | tuple):
        return 1, tuple(map(rank, value))
    return (3,) if value is None else (2, json.dumps(value))


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """``{"training": {"steps": 5}}``, which TOML makes of ``training.steps = 5``, as ``{"training.steps": 5}``."""
    flat: dict[str, Any] = {}
    for name, value in given.items():
        part = isinstance(value, Mapping) and "." not in name
        inner = {f"{name}.{key}": each for key, each in value.items()} if part else {name: value}
        flat |= {key: as_tuples(list(each) if isinstance(each, range) else each) for key, each in inner.items()}
    return flat


class _Configs:
    """Task, model, initialisation and training at points of a grid; what points share is made once."""

    def __init__(self, start: Preset, base: Mapping[str, Any]) -> None:
        from tasks.registry import model_config_to_dict, task_to_dict

        self.base = base
        self.hints = {part: get_type_hints(type(getattr(start, part))) for part in _PARTS}
        self.start = {
            "task": task_to_dict(start.task),
            "model": model_config_to_dict(start.model),
            "init": start.init.to_dict(),
            "training": start.training.to_dict(),
        }
        self.made: dict[tuple[str, str], Any] = {}

    def __call__(self, coordinates: Mapping[str, Any]) -> dict[str, Any]:
        from tasks.registry import model_config_from_dict, task_from_dict

        given = {**self.base, **coordinates}
        parts = {part: dict(values) for part, values in self.start.items()}
        for dotted, value in given.items():
            part, _, name = dotted.partition(".")
            parts[part][name] = _typed(dotted, self.hints[part][name], value)
        try:
            task = self._once("task", task_from_dict, parts["task"])
            model = self._once("model", model_config_from_dict, parts["model"])
            return {
                "task": task,
                "model": self._once("fitted", lambda *_: model.for_task(task), parts["model"], parts["task"]),
                "init": self._once("init", Initialization.from_dict, parts["init"]),
                "training": self._once("training", TrainingConfig.from_dict, parts["training"]),
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # a refusal names its field; what Python says of a value does not
            named = coordinates if isinstance(error, UserError) else given
            where = ", ".join(f"{name} = {value!r}" for name, value in named.items())
            why = str(error).partition("\n")[0]
            raise UserError(f"at {where}: {why}" if where else why) from error

    def _once(self, part: str, make: Callable[..., Any], *values: Any) -> Any:
        if (key := (part, repr(values))) not in self.made:
            self.made[key] = make(*values)
        return self.made[key]


def _typed(dotted: str, hint: Any, value: Any) -> Any:
    """The value, a whole number as a float where one is meant; types other than numbers, names and lists are left as
    they are, for the configuration to judge."""
    kinds = [
        get_origin(kind) or kind for kind in (get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
    ]
    if type(value) is int and float in kinds and int not in kinds:
        return float(value)
    if all(kind in _KINDS for kind in kinds) and type(value) not in kinds:
        raise UserError(f"expected {' or '.join(_KINDS[kind] for kind in kinds)} for {dotted}, got {value!r}")
    return value
