"""Every analysis and task of ours keeps its contract, and each seeded fault is caught by the check that is named."""

import math
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

import interp
from interp.contract import check_analysis
from interp.registry import ANALYSES
from interp.result import Result
from interp.subject import Subject
from tasks.base import Examples, Fields, UserError, as_tensor, generator
from tasks.contract import ContractError, check_task
from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig
from tasks.models.constructed import clock, mirror
from tasks.models.initialization import Initialization, initialize
from tasks.models.mlp import shapes
from tasks.presets import preset, sizes
from tasks.registry import FAMILIES, model_family

ADDITION = ModularArithmetic(p=13, train_fraction=0.5)
CLOCK = Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION)


def subject_for(name: str) -> Subject:
    """A small model that the analysis applies to."""
    if name == "neuron_waves":
        return Subject.load("checkpoints/tiny/circle")
    family = ANALYSES[name].tasks[0]
    if family == "anchor":
        task = preset("anchor", "tiny").task
        return Subject.of(*mirror(task), task)
    if family == "parity":
        return Subject.load("checkpoints/tiny/parity")
    if family == "group":
        task = preset("group", "tiny").task
        model = preset("group", "tiny").model
        return Subject.of(model, initialize(shapes(model), model, Initialization(), 0), task)
    return CLOCK


# relabelling is left out: it trains the model anew each time it is asked, and would take minutes
OF_A_SUBJECT = [name for name, line in ANALYSES.items() if line.takes == "subject" and name != "relabelling"]
SLOW = ("clock_pizza", "relabelling", "progress", "circuits", "geometry", "counterfactual", "interchange", "attention")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in OF_A_SUBJECT]
)
def test_an_analysis_of_ours_keeps_the_contract(name) -> None:
    check_analysis(getattr(interp, name), subject_for(name))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_of_ours_keeps_the_contract(family) -> None:
    check_task(preset(family, sizes(family)[0]).task)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_a_sentence(family) -> None:
    from interp.registry import conclude

    p = preset(family, sizes(family)[0])
    params = initialize(model_family(p.model).shapes(p.model), p.model, p.init, 0)
    verdict = conclude(Subject.of(p.model, params, p.task), {})
    assert verdict.sentence.startswith(f"{verdict.solution}: ")
    assert verdict.sentence.endswith(".")


# twenty faults, each with the name of the check that must see it


@dataclass(frozen=True, kw_only=True, eq=False)
class Width(Result):
    """A sound result: the norm of the embedding, of the model and of random weights."""

    norm: float
    control_norm: float


def norm(subject: Subject) -> float:
    return float(subject.params["embed.W_E"].double().norm())


def sound(subject: Subject) -> Width:
    return Width(norm=norm(subject), control_norm=norm(subject.randomized(0)))


def module_of(analyze: Any, figures: Any = None) -> types.ModuleType:
    made = types.ModuleType("somebodys.width")
    made.analyze = analyze  # type: ignore[attr-defined]
    if figures is not None:
        made.figures = figures  # type: ignore[attr-defined]
    return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Bare(Result):
    norm: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Lone(Result):
    norm: float
    control_width: float


@dataclass(kw_only=True, eq=False)
class Loose:
    norm: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Odd(Result):
    norm: object
    control_norm: float


CALLS = iter(range(10**6))


def touching_weights(subject: Subject) -> Width:
    subject.params["embed.W_E"].mul_(1.5)
    return sound(subject)


def drawing(subject: Subject) -> Width:
    torch.rand(1)
    return sound(subject)


def drawing_numpy(subject: Subject) -> Width:
    np.random.rand()  # noqa: NPY002
    return sound(subject)


def needing_gradients(subject: Subject) -> Width:
    weights = subject.params["embed.W_E"].clone().requires_grad_()
    weights.square().sum().backward()
    return sound(subject)


def of_default_type(subject: Subject) -> Width:
    return replace(sound(subject), norm=norm(subject) + float(torch.tensor(1e-9) + 1 - 1))


def setting_threads_of_type(subject: Subject) -> Width:
    torch.set_default_dtype(torch.float32)
    return sound(subject)


def first_neuron(subject: Subject) -> Width:
    first = float(subject.params["blocks.0.mlp.W_in"][:, :5].sum())
    return Width(norm=first, control_norm=1.0)


def failing_on_nan(subject: Subject) -> Width:
    if math.isnan(norm(subject)):
        raise ZeroDivisionError
    return sound(subject)


def two_lines_on_nan(subject: Subject) -> Width:
    if math.isnan(norm(subject)):
        raise UserError("one line\nand another")
    return sound(subject)


ANALYSIS_FAULTS: dict[str, tuple[types.ModuleType, str]] = {
    "no analyze": (types.ModuleType("somebodys.width"), "analyze"),
    "returns a dict": (module_of(lambda subject: {"norm": 1.0}), "record"),
    "returns a record that can change": (module_of(lambda subject: Loose(norm=1.0)), "record"),
    "no control": (module_of(lambda subject: Bare(norm=1.0)), "control"),
    "a control of nothing": (module_of(lambda subject: Lone(norm=1.0, control_width=1.0)), "control"),
    "a value that is no JSON": (module_of(lambda subject: Odd(norm=object(), control_norm=1.0)), "json"),
    "another number each time": (
        module_of(lambda subject: Width(norm=float(next(CALLS)), control_norm=1.0)),
        "deterministic",
    ),
    "changes the weights": (module_of(touching_weights), "weights"),
    "draws from torch": (module_of(drawing), "global random state"),
    "draws from numpy": (module_of(drawing_numpy), "global random state"),
    "needs gradients on": (module_of(needing_gradients), "settings"),
    "depends on the default type": (module_of(of_default_type), "settings"),
    "sets the default type": (module_of(setting_threads_of_type), "settings"),
    "reads the first neuron": (module_of(first_neuron), "permuted neurons"),
    "fails on NaN": (module_of(failing_on_nan), "NaN"),
    "two lines on NaN": (module_of(two_lines_on_nan), "NaN"),
    "a figure without a title": (module_of(sound, lambda result: {"plain": go.Figure()}), "figures"),
}


def fresh_clock() -> Subject:
    return CLOCK.with_params({name: value.clone() for name, value in CLOCK.params.items()})


@pytest.mark.parametrize("fault", ANALYSIS_FAULTS)
def test_a_faulty_analysis_is_caught_by_name(fault) -> None:
    module, check = ANALYSIS_FAULTS[fault]
    with pytest.raises(ContractError) as caught:
        check_analysis(module, fresh_clock())
    assert caught.value.check == check


def test_a_sound_analysis_passes() -> None:
    check_analysis(module_of(sound), fresh_clock())


@dataclass(frozen=True, kw_only=True)
class Sign(Fields):
    """A sound task: is a number below half of them? Faults replace one method each."""

    family = "sign"
    n: int = 10
    data_seed: int = 0

    d_vocab = property(lambda self: self.n)
    d_vocab_out = property(lambda self: 2)
    n_ctx = property(lambda self: 1)
    answer_position = property(lambda self: 0)

    def _examples(self, name: str) -> Examples:
        inputs = as_tensor(generator(self.data_seed, name).integers(0, self.n, (8, 1)))
        return Examples(inputs=inputs, targets=(inputs[:, 0] < self.n // 2).long())

    def train_set(self) -> Examples:
        return self._examples("train")

    def evaluation_sets(self) -> dict[str, Examples]:
        return {"train": self.train_set(), "test": self._examples("test")}

    def split_tensors(self) -> dict[str, Any]:
        return {"data_seed": as_tensor(np.array([self.data_seed]))}


def faulty(**changes: Any) -> Any:
    """The task with some of its methods replaced."""
    return dataclass(frozen=True, kw_only=True)(type("Faulty", (Sign,), changes))()


def with_short_rules(self: Any) -> Examples:
    examples = Sign._examples(self, "train")
    object.__setattr__(examples, "rules", {"r": torch.zeros(3, dtype=torch.long)})  # past the checks of its constructor
    return examples


def fields_of(**changes: Any) -> Callable[[Any], Examples]:
    return lambda self: replace(Sign._examples(self, "train"), **changes)


def thawed() -> Any:
    """The task as a dataclass that is not frozen."""
    own = {name: value for name, value in vars(Sign).items() if not name.startswith("__")}
    annotations = {"n": int, "data_seed": int}
    return dataclass(kw_only=True)(
        type("Thawed", (), own | {"to_dict": Sign.to_dict, "__annotations__": annotations})
    )()


def drawn_globally(self: Any) -> Examples:
    return Examples(inputs=torch.randint(0, 10, (8, 1)), targets=torch.zeros(8, dtype=torch.long))


TASK_FAULTS: dict[str, tuple[Any, str]] = {
    "no class at all": (object(), "protocol"),
    "fields that can be set": (thawed(), "frozen"),
    "fields that are no JSON": (faulty(to_dict=lambda self: {"n": object()}), "json"),
    "fields that make another task": (faulty(to_dict=lambda self: {"n": 11, "data_seed": 0}), "rebuilt"),
    "other data each time": (
        faulty(train_set=lambda self: fields_of(targets=torch.tensor([next(CALLS) % 2] * 8))(self)),
        "deterministic",
    ),
    "takes any field": (
        faulty(from_dict=classmethod(lambda cls, values: cls(n=values["n"], data_seed=values["data_seed"]))),
        "unknown field",
    ),
    "draws globally": (faulty(evaluation_sets=lambda self: {"train": drawn_globally(self)}), "global random state"),
    "no test set": (faulty(evaluation_sets=lambda self: {"train": self.train_set()}), "evaluation sets"),
    "tokens past the vocabulary": (faulty(d_vocab=property(lambda self: 2)), "vocabulary"),
    "answers past their number": (faulty(d_vocab_out=property(lambda self: 1)), "answers"),
    "inputs of another length": (faulty(n_ctx=property(lambda self: 2)), "input shape"),
    "an answer read past the end": (faulty(answer_position=property(lambda self: 1)), "answer position"),
    "rules with other lengths": (faulty(train_set=with_short_rules), "rules"),
    "a split of lists": (faulty(split_tensors=lambda self: {"data_seed": [0]}), "split"),
}


@pytest.mark.parametrize("fault", TASK_FAULTS)
def test_a_faulty_task_is_caught_by_name(fault) -> None:
    task, check = TASK_FAULTS[fault]
    with pytest.raises(ContractError) as caught:
        check_task(task)
    assert caught.value.check == check


def test_a_sound_task_passes() -> None:
    check_task(Sign())


def test_there_are_more_than_twenty_faults() -> None:
    assert len(ANALYSIS_FAULTS) + len(TASK_FAULTS) >= 20
    assert MLPConfig  # the perceptron's neurons are put in another order, too
