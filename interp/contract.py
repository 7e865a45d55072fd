"""What every analysis keeps to, as checks that anybody can run on their own: ``check_analysis(module, subject)``.

Each check has a name, and its failure says what was expected and what was found. The checks change weights, settings
and the order of neurons in ways that must change no number, and look at what the analysis leaves behind.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import torch

from interp.result import Result
from interp.subject import Subject
from tasks.base import UserError
from tasks.contract import ContractError, expect, random_states
from tasks.training.snapshots import checksum

SAME = 1e-4
"""Relative difference up to which a number counts as the same after neurons were put in another order: sums of float32
round differently, and logits go through several of them."""


def check_analysis(module: ModuleType, subject: Subject) -> None:
    """Run every check on an analysis of a subject that it applies to.

    Raises:
        ContractError: the first that fails, by name.
    """
    expect(callable(getattr(module, "analyze", None)), "analyze", f"expected analyze(subject) in {module.__name__}")
    weights, states = checksum(subject.params), random_states()
    found = module.analyze(subject)
    expect(checksum(subject.params) == weights, "weights", "expected the subject's weights as they were")
    expect(random_states() == states, "global random state", "expected no draw from it: use tasks.base.generator")
    _record(found)
    for check in CHECKS.values():
        check(module, subject, found)


def _record(found: Any) -> None:
    """A frozen record of results."""
    expect(isinstance(found, Result), "record", f"expected an interp.result.Result, got {type(found).__name__}")
    frozen = is_dataclass(found) and type(found).__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
    expect(frozen, "record", f"expected a frozen dataclass, {type(found).__name__} is none")


def _json(module: ModuleType, subject: Subject, found: Any) -> None:
    """It travels as JSON."""
    try:
        text = json.dumps(found.to_dict(arrays=True), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError("json", f"expected JSON values from to_dict, {error}") from error
    expect(json.loads(text) == found.to_dict(arrays=True), "json", "expected the same values after a round trip")


def _control(module: ModuleType, subject: Subject, found: Any) -> None:
    """It has a control, and each number that is called one stands beside what it controls."""
    names = {f.name for f in fields(found)}
    controls = {name for name in names if name.startswith("control")}
    others = {name for name in names if "control" in name or "permuted" in name or "placebo" in name}
    inside = any(isinstance(getattr(found, name), Result) and _has_control(getattr(found, name)) for name in names)
    expect(
        bool(controls or others or inside), "control", "expected a field control_… with the number of random weights"
    )
    lone = {name for name in controls if name.startswith("control_") and not _controlled(name, names)}
    expect(not lone, "control", f"expected what they control beside {', '.join(sorted(lone))}")


def _has_control(record: Result) -> bool:
    return any("control" in f.name for f in fields(record))  # pyright: ignore[reportArgumentType]


def _controlled(name: str, names: set[str]) -> bool:
    return name.removeprefix("control_") in names


def _deterministic(module: ModuleType, subject: Subject, found: Any) -> None:
    """Asked again, it says the same."""
    again = module.analyze(subject).to_dict(arrays=True)
    expect(again == found.to_dict(arrays=True), "deterministic", "expected the same numbers when asked again")


def _settings(module: ModuleType, subject: Subject, found: Any) -> None:
    """What the caller set in torch changes nothing, and stays set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            again = module.analyze(subject)
            kept = torch.get_default_dtype() == torch.float64 and not torch.is_grad_enabled()
    except UserError:
        raise
    except Exception as error:
        raise ContractError("settings", f"{type(error).__name__} without gradients and under float64") from error
    finally:
        torch.set_default_dtype(before)
    expect(kept, "settings", "expected gradients off and float64 after it, as they were")
    expect(again.to_dict() == found.to_dict(), "settings", "expected the same numbers whatever the caller set in torch")


def _permuted(module: ModuleType, subject: Subject, found: Any) -> None:
    """Neurons have no order. Controls and numbers named ``random`` are drawn by a neuron's place, and may differ."""
    again = module.analyze(subject.with_params(permuted_neurons(subject)))
    for name, (ours, theirs) in _numbers(found.to_dict(), again.to_dict()).items():
        if "random" in name or "control" in name:
            continue
        close = abs(ours - theirs) <= SAME * max(abs(ours), abs(theirs), 1.0)
        expect(
            close, "permuted neurons", f"expected {name} as it was in another order of neurons: {ours}, now {theirs}"
        )


def _not_a_number(module: ModuleType, subject: Subject, found: Any) -> None:
    """Weights that are not numbers give a result or a line, not a traceback."""
    broken = subject.with_params({name: torch.full_like(value, torch.nan) for name, value in subject.params.items()})
    try:
        module.analyze(broken)
    except UserError as error:
        expect("\n" not in str(error), "NaN", "expected one line, got several")
    except Exception as error:
        raise ContractError("NaN", f"expected a result or a UserError for NaN weights, got {error!r}") from error


def _figures(module: ModuleType, subject: Subject, found: Any) -> None:
    """Its figures say what they show."""
    draw = getattr(module, "figures", None)
    if draw is None:
        return
    for name, figure in draw(found).items():
        titled = bool(figure.layout.title.text)
        expect(titled, "figures", f"expected a title on the figure {name}")


CHECKS: dict[str, Callable[[ModuleType, Subject, Any], None]] = {
    "json": _json,
    "control": _control,
    "deterministic": _deterministic,
    "settings": _settings,
    "permuted neurons": _permuted,
    "NaN": _not_a_number,
    "figures": _figures,
}
"""In this order."""


def permuted_neurons(subject: Subject) -> dict[str, Any]:
    """The parameters with the neurons of every hidden layer in reversed order, which computes the same."""
    params = dict(subject.params)
    for layer in subject.config.neurons:
        params[layer.W_in] = params[layer.W_in].flip(1)
        params[layer.W_out] = params[layer.W_out].flip(0)
        if layer.b_in in params:
            params[layer.b_in] = params[layer.b_in].flip(0)
    return params


def _numbers(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str = "") -> dict[str, tuple[float, float]]:
    """Every float that both have, by the way to it."""
    found: dict[str, tuple[float, float]] = {}
    for name, value in ours.items():
        other = theirs.get(name)
        where = f"{at}.{name}" if at else name
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found |= _numbers(value, other, where)
        elif isinstance(value, float) and isinstance(other, float):
            found[where] = value, other
    return found
