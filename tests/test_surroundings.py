"""Training, examining and every analysis give the same numbers whatever the caller set in torch, and leave it set."""

import contextlib
import json

import pytest
import torch

from interp.modular import grokking
from interp.probe import examine
from interp.registry import ANALYSES
from interp.sparse_parity import parity_dynamics
from interp.subject import Ensemble, Subject, Trajectory
from interp.sweeps import contrast
from interp.weights import dynamics, laziness
from interp.weights.directions import analyze as directions
from tasks import ModularArithmetic
from tasks.base import UserError
from tasks.families.group import GroupComposition
from tasks.models.config import MLPConfig
from tasks.models.hooked import HookedTransformer
from tasks.models.initialization import Initialization, initialize
from tasks.models.mlp import shapes
from tasks.presets import preset
from tasks.surroundings import ordinary, ordinary_torch
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train

TINY = "checkpoints/tiny"


@contextlib.contextmanager
def no_gradients():
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(before)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS = {
    "gradients switched off": no_gradients,
    "inference mode": torch.inference_mode,
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def state() -> tuple[object, ...]:
    """What a caller may have set."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


def numbers(result) -> str:
    return json.dumps(result.to_dict(arrays=True), sort_keys=True)


def group_subject() -> Subject:
    task = GroupComposition(group="S_3", form="pair", train_fraction=0.8)
    model = MLPConfig(n_ctx=2, d_vocab=6, d_vocab_out=6, d_hidden=(16,), input="concatenated", d_embed=8)
    return Subject.of(model, initialize(shapes(model), model, Initialization(), 0), task)


def subjects() -> dict[str, Subject]:
    loaded = {name: Subject.load(f"{TINY}/{name}") for name in ("anchor", "circle", "modular", "parity")}
    return loaded | {"group": group_subject()}


def cases() -> list[tuple[str, str]]:
    """Each analysis with one model that it applies to."""
    first = {"anchor": "anchor", "modular": "modular", "group": "group", "parity": "parity"}
    of_a_subject = {name: line for name, line in ANALYSES.items() if line.takes == "subject"}
    chosen = {name: first.get(line.tasks[0], "modular") for name, line in of_a_subject.items()}
    return sorted((chosen | {"neuron_waves": "circle"}).items())


SLOW = ("clock_pizza", "relabelling", "circuits", "progress")
TELLING = ("inference mode", "default float64")
"""The settings that slow analyses are asked under: one forbids gradients, the other changes numbers."""
ASKED = [
    pytest.param(name, model, setting, marks=pytest.mark.slow if name in SLOW else ())
    for name, model in cases()
    for setting in (TELLING if name in SLOW else SETTINGS)
]


@pytest.fixture(scope="module", name="subjects")
def _subjects():
    return subjects()


@pytest.fixture(scope="module")
def usual():
    """The numbers of an analysis in a fresh torch, found once."""
    found: dict[str, str] = {}

    def look_up(name, compute):
        if name not in found:
            found[name] = numbers(compute())
        return found[name]

    return look_up


def analysis(name):
    import importlib

    return importlib.import_module(ANALYSES[name].module).analyze


@pytest.mark.parametrize(("name", "model", "setting"), ASKED)
def test_an_analysis_gives_the_same_numbers_and_leaves_the_setting(name, model, setting, subjects, usual) -> None:
    expected = usual(name, lambda: analysis(name)(subjects[model]))
    with SETTINGS[setting]():
        before = state()
        found = analysis(name)(Subject.load(f"{TINY}/{model}") if model != "group" else group_subject())
        assert state() == before
    assert numbers(found) == expected


TRAJECTORIES = {
    "grokking": (grokking.analyze, "modular"),
    "dynamics": (dynamics.analyze, "modular"),
    "laziness": (laziness.analyze, "modular"),
    "directions": (directions, "modular"),
    "parity_dynamics": (parity_dynamics.analyze, "parity"),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", TELLING)
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_an_analysis_of_a_run_does_too(name, setting, usual) -> None:
    analyze, run = TRAJECTORIES[name]
    expected = usual(name, lambda: analyze(Trajectory.load(f"{TINY}/{run}")))
    with SETTINGS[setting]():
        before = state()
        found = analyze(Trajectory.load(f"{TINY}/{run}"))
        assert state() == before
    assert numbers(found) == expected


@pytest.mark.slow
@pytest.mark.parametrize("setting", TELLING)
def test_a_comparison_of_ensembles_does_too(setting, usual) -> None:
    def compare():
        large = Ensemble.load("checkpoints/anchor-large-init")
        return contrast.analyze(Ensemble.load("checkpoints/anchor-small-init"), large)

    expected = usual("contrast", compare)
    with SETTINGS[setting]():
        before = state()
        found = compare()
        assert state() == before
    assert numbers(found) == expected


TASK = ModularArithmetic(p=7, train_fraction=0.6)


def trained(task=TASK):
    tiny = preset("modular", "tiny")
    model = type(tiny.model)(
        n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=20, n_ctx=3, d_vocab=8, d_vocab_out=7, mlp_bias=True
    )
    training = TrainingConfig(steps=12, learning_rate=1e-2, evaluate_every=6, snapshots=3)
    runs = train(task, model, Initialization(), training, seeds=(0, 1))
    return [(run.metrics, {name: value.clone() for name, value in run.params().items()}) for run in runs]


@pytest.mark.parametrize("setting", [*SETTINGS])
def test_training_has_the_same_bits_and_leaves_the_setting(setting) -> None:
    expected = trained()
    with SETTINGS[setting]():
        before = state()
        found = trained(ModularArithmetic(p=7, train_fraction=0.6))
        assert state() == before
    for (rows, weights), (ours, our_weights) in zip(expected, found, strict=True):
        assert rows == ours
        assert all(torch.equal(weights[name], our_weights[name]) for name in weights)


def test_training_leaves_the_number_of_threads() -> None:
    with two_threads():
        trained()
        assert torch.get_num_threads() == 2


def test_a_task_first_used_in_inference_mode_can_be_trained_on_later() -> None:
    task = ModularArithmetic(p=7, train_fraction=0.6)
    with torch.inference_mode():
        assert len(task.train_set())
    assert trained(task)[0][0] == trained()[0][0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_made_under_a_setting_is_examined_under_it_and_after_it(setting, subjects) -> None:
    expected = examine(subjects["modular"], ["fourier", "rank"])
    with SETTINGS[setting]():
        loaded = Subject.load(f"{TINY}/modular")
        inside = examine(loaded, ["fourier", "rank"])
    after = examine(loaded, ["fourier", "rank"])
    assert inside.to_dict() == after.to_dict() == expected.to_dict()


def test_a_hooked_model_looked_up_in_inference_mode_gives_gradients_later(subjects) -> None:
    with torch.inference_mode():
        copied = {name: value * 1 for name, value in subjects["modular"].params.items()}
        made = Subject(HookedTransformer(subjects["modular"].config, copied), subjects["modular"].task)
    assert numbers(analysis("collapse")(made)) == numbers(analysis("collapse")(subjects["modular"]))


def test_an_error_leaves_the_setting(subjects) -> None:
    with SETTINGS["default float64"]():
        before = state()
        with pytest.raises(UserError):
            analysis("fourier")(subjects["anchor"])
        assert state() == before


def test_tensors_of_inference_mode_are_copied_and_others_are_not() -> None:
    plain = torch.ones(2)
    with torch.inference_mode():
        frozen = torch.ones(2)
        assert not ordinary(frozen).is_inference()
    assert ordinary(plain) is plain
    assert torch.equal(ordinary(frozen), frozen)


def test_within_it_torch_is_as_after_its_import() -> None:
    with SETTINGS["inference mode"](), SETTINGS["default bfloat16"](), SETTINGS["default device"](), ordinary_torch():
        made = torch.ones(2, requires_grad=True)
        assert made.dtype == torch.float32
        assert made.device.type == "cpu"
        made.sum().backward()
        assert torch.equal(made.grad, torch.ones(2))
