"""What every task family keeps to, as checks that anybody can run on a task of their own: ``check_task(task)``.

Each check has a name, and its failure says what was expected, what was found and where. What ``check_estimator`` is to
scikit-learn.
"""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from tasks.base import EndlessTask, Examples, Task, UserError, answer_positions, digest


class ContractError(UserError):
    """A contract is not kept; ``check`` names the check that saw it."""

    def __init__(self, check: str, why: str) -> None:
        super().__init__(f"{check}: {why}")
        self.check = check


def expect(holds: bool, check: str, why: str) -> None:
    """Nothing where it holds.

    Raises:
        ContractError: it does not.
    """
    if not holds:
        raise ContractError(check, why)


def random_states() -> tuple[Any, ...]:
    """Where the global random generators of torch and numpy stand; type checkers of arguments draw from Python's."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 (it is looked at, not drawn from)
    assert isinstance(numpy_state, dict)
    return torch.get_rng_state().tolist(), numpy_state["state"]["key"].tolist(), numpy_state["state"]["pos"]


def check_task(task: Any) -> None:
    """Run every check on a task.

    Raises:
        ContractError: the first that fails, by name.
    """
    expect(
        isinstance(task, Task), "protocol", f"expected the attributes of tasks.base.Task, {_missing(task)} is missing"
    )
    for check in CHECKS.values():
        check(task)


def _missing(task: Any) -> str:
    wanted = {*Task.__annotations__, *(name for name in vars(Task) if not name.startswith("_"))}
    names = [name for name in wanted if not hasattr(task, name)]
    return ", ".join(sorted(names)) or "nothing"


def _frozen(task: Any) -> None:
    """A frozen dataclass, whose fields rebuild it."""
    expect(is_dataclass(task) and bool(fields(task)), "frozen", f"expected a dataclass, got {type(task).__name__}")
    name = fields(task)[0].name
    try:
        setattr(task, name, getattr(task, name))
    except FrozenInstanceError:
        return
    raise ContractError("frozen", f"expected a frozen dataclass, {name} of {type(task).__name__} can be set")


def _rebuilt(task: Any) -> None:
    """Its fields as JSON, and back."""
    values = task.to_dict()
    try:
        written = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ContractError("json", f"expected fields as JSON values from to_dict, {error}") from error
    if values.get("split") == "mask":
        return  # the mask stands in the run's split file
    again = type(task).from_dict(written)
    expect(again == task, "rebuilt", f"expected the same task from its fields, got {again} for {task}")
    same = digest(again.train_set()) == digest(task.train_set())
    expect(same, "deterministic", "expected the same training set from the same fields, got another")


def _unknown_field(task: Any) -> None:
    """An unknown field is refused in one line."""
    try:
        type(task).from_dict({**task.to_dict(), "no_such_field": 1})
    except UserError as error:
        expect("\n" not in str(error), "unknown field", "expected one line, got several")
        return
    except Exception as error:
        raise ContractError("unknown field", f"expected a UserError, got {type(error).__name__}") from error
    raise ContractError("unknown field", "expected from_dict to refuse a field that it does not know")


def _untouched(task: Any) -> None:
    """Data are made without global random state."""
    before = random_states()
    fresh = replace(task)
    fresh.train_set()
    fresh.evaluation_sets()
    expect(random_states() == before, "global random state", "expected no draw from it: use tasks.base.generator")


def _sets(task: Any) -> None:
    """``train`` and ``test`` are measured, and examples have the sizes that the task says."""
    sets = task.evaluation_sets()
    expect({"train", "test"} <= set(sets), "evaluation sets", f"expected train and test, got {', '.join(sets)}")
    for name, examples in {"train_set()": task.train_set(), **sets}.items():
        expect(
            isinstance(examples, Examples), "examples", f"expected Examples in {name}, got {type(examples).__name__}"
        )
        _examples(task, name, examples)
    expect(len(task.train_set()) > 0, "training set", "expected at least one example, got none")


def _examples(task: Any, name: str, examples: Examples) -> None:
    inputs, targets = examples.inputs, examples.targets
    expect(len(inputs) == len(targets), "examples", f"expected a target per input in {name}")
    if not len(inputs):
        return
    expect(inputs.ndim >= 2, "input shape", f"expected inputs [example, pos …] in {name}, got {tuple(inputs.shape)}")
    width = getattr(task, "d_input", None)
    if task.d_vocab or width:
        shape = (task.n_ctx, width) if width else (task.n_ctx,)
        got = tuple(inputs.shape[1:])
        expect(got == shape, "input shape", f"expected inputs [example, {shape}] in {name}, got {got}")
    if task.d_vocab:
        inside = bool((inputs >= 0).all() and (inputs < task.d_vocab).all())
        expect(inside, "vocabulary", f"expected tokens below d_vocab = {task.d_vocab} in {name}")
    else:
        expect(bool(inputs.isfinite().all()), "finite", f"expected finite numbers in the inputs of {name}")
    if targets.is_floating_point():
        expect(bool(targets.isfinite().all()), "finite", f"expected finite targets in {name}")
    else:
        inside = bool((targets >= 0).all() and (targets < task.d_vocab_out).all())
        expect(inside, "answers", f"expected targets below d_vocab_out = {task.d_vocab_out} in {name}")
    several = len(answer_positions(task))
    shape = (several,) * (several > 1) + (task.d_vocab_out,) * targets.is_floating_point()
    got = tuple(targets.shape[1:])
    expect(got == shape, "answers", f"expected targets [example, {shape}] in {name}, got {got}")
    for rule, answers in examples.rules.items():
        expect(len(answers) == len(targets), "rules", f"expected an answer of {rule} per example in {name}")


def _answer_position(task: Any) -> None:
    """Answers are read at positions that there are, the last at ``answer_position``."""
    positions = answer_positions(task)
    inside = all(0 <= position < task.n_ctx for position in positions)
    expect(inside, "answer position", f"expected some of {task.n_ctx} positions, got {positions}")
    ordered = list(positions) == sorted(set(positions)) and positions[-1] == task.answer_position
    expect(ordered, "answer position", f"expected them to rise to {task.answer_position}, got {positions}")


def _batch(task: Any) -> None:
    """A batch of data without end is a function of seed, step and size."""
    if not isinstance(task, EndlessTask):
        return
    before = random_states()
    first = task.batch(0, 3, 4)
    expect(random_states() == before, "global random state", "expected no draw from it: use tasks.base.generator")
    _examples(task, "batch", first)
    expect(len(first) == 4, "batch", f"expected 4 examples of batch(0, 3, 4), got {len(first)}")
    same = digest(task.batch(0, 3, 4)) == digest(first)
    expect(same, "batch", "expected the same batch for the same seed, step and size, got another")
    for other in (task.batch(1, 3, 4), task.batch(0, 4, 4)):
        expect(digest(other) != digest(first), "batch", "expected another batch for another seed or step, got the same")


def _split(task: Any) -> None:
    """Masks and seeds are tensors."""
    for name, value in task.split_tensors().items():
        expect(isinstance(value, torch.Tensor), "split", f"expected a tensor as {name}, got {type(value).__name__}")


CHECKS: dict[str, Callable[[Any], None]] = {
    "frozen": _frozen,
    "rebuilt": _rebuilt,
    "unknown field": _unknown_field,
    "global random state": _untouched,
    "sets": _sets,
    "answer position": _answer_position,
    "batch": _batch,
    "split": _split,
}
"""In this order."""
