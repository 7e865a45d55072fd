"""The measures of sparse parity over snapshots whose weights were made for it."""

from dataclasses import replace

import pytest
import torch

from interp.sparse_parity import parity, parity_dynamics
from interp.sparse_parity.parity_dynamics import overtaken
from interp.subject import Subject, Trajectory
from interp.transitions import Transition
from tasks.base import UserError
from tasks.families.parity import SparseParity
from tasks.models.initialization import Initialization, initialize
from tasks.models.mlp import shapes
from tasks.models.parity_network import parity_network, parity_table
from tasks.presets import preset
from tasks.training import train

TASK = SparseParity(n_bits=9, k=2, n_train=40, n_test=100, data_seed=1)


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    """Random weights, then the table, then the rule beside what is left of the table, then the rule alone."""
    config, table = parity_table(TASK)
    start = initialize(shapes(config), config, Initialization(scheme="gain"), 0)
    rule = {name: 20 * value for name, value in parity_network(TASK, 40)[1].items()}
    both = {
        "layers.0.W_in": torch.cat([rule["layers.0.W_in"][:, :3], 0.1 * table["layers.0.W_in"][:, 3:]], dim=1),
        "unembed.W_U": torch.cat([rule["unembed.W_U"][:3], 0.1 * table["unembed.W_U"][3:]]),
    }
    stages = zip((0, 100, 1000, 2000), (start, table, both, rule), strict=True)
    return Trajectory([Subject.of(config, params, TASK, step=step) for step, params in stages])


@pytest.fixture(scope="module")
def found(trajectory) -> parity_dynamics.ParityDynamicsResult:
    return parity_dynamics.analyze(trajectory, n_samples=400)


def test_what_happens_happens_between_the_snapshots_where_it_was_made_to(found) -> None:
    assert found.steps == (0, 100, 1000, 2000)
    assert found.memorised == Transition(after=0, by=100)
    assert found.generalised == Transition(after=100, by=1000)
    assert found.overtaken == Transition(after=100, by=1000)
    assert not found.control_overtaken.reached
    assert [m.solution for m in found.measures] == ["undetermined", "memorising"] + 2 * ["generalising by k bits"]
    assert [m.walsh.value for m in found.measures][2:] == [1.0, 1.0]
    assert (
        found.measures[1].distractor_mass > found.measures[2].distractor_mass > found.measures[3].distractor_mass == 0
    )
    assert [m.subnetwork.size for m in found.measures][2:] == [3, 3]


def test_each_step_has_the_measures_of_the_analysis_of_its_model(trajectory, found) -> None:
    alone = parity.analyze(trajectory.subjects[1], n_samples=400)
    assert found.measures[1].to_dict() == alone.to_dict()


def test_the_relevant_bits_overtake_where_they_stay_ahead() -> None:
    steps = (0, 10, 20, 30)
    assert overtaken(steps, [0.6, 0.1, 0.7, 0.9]) == Transition(after=10, by=20)
    assert overtaken(steps, [0.6, 0.7, 0.7, 0.9]) == Transition(after=None, by=0)
    assert overtaken(steps, [0.6, 0.7, 0.7, 0.5]) == Transition(after=30, by=None)


def test_an_empty_trajectory_is_refused() -> None:
    with pytest.raises(UserError, match="expected at least one snapshot"):
        parity_dynamics.analyze(Trajectory([]))


def test_the_figures_show_mass_answers_and_neurons_over_steps(found) -> None:
    made = parity_dynamics.figures(found)
    assert list(made) == ["mass", "accuracy", "coefficients", "neurons"]
    assert list(made["mass"].data[0].x) == [1, 100, 1000, 2000]
    assert list(made["mass"].data[1].y) == [m.distractor_mass for m in found.measures]
    assert list(made["accuracy"].data[1].y) == [m.test_accuracy for m in found.measures]
    assert list(made["coefficients"].data[0].y) == [abs(m.walsh.value) for m in found.measures]
    assert list(made["neurons"].data[0].y) == [m.subnetwork.size for m in found.measures]


@pytest.mark.slow
def test_under_the_l1_penalty_a_network_memorises_and_the_right_bits_win_when_it_generalises() -> None:
    p = preset("parity", "explorable")
    run = train(p.task, p.model, p.init, replace(p.training, steps=1_500), seeds=[20])[0]
    found = parity_dynamics.analyze(Trajectory([Subject.load(run, step) for step in run.steps]), n_samples=50)
    memorised, generalised, won = (
        found.steps.index(happened.by) for happened in (found.memorised, found.generalised, found.overtaken)
    )
    assert 2 * found.steps[memorised] <= found.steps[generalised] <= 5 * found.steps[memorised]
    assert abs(won - generalised) <= 1
    assert found.measures[memorised].relevant_share < 0.5 < 0.9 < found.measures[-1].relevant_share
    assert not found.control_overtaken.reached
