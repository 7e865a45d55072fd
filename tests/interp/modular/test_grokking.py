"""Progress measures over the steps of a run: made for the purpose, and shipped."""

import json
import math
from pathlib import Path

import pytest
import torch

from interp.modular import grokking, progress
from interp.subject import Subject, Trajectory
from interp.transitions import Transition
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import clock

TASK = ModularArithmetic(p=31)
CHECKPOINTS = Path(__file__).parents[3] / "checkpoints"


@pytest.fixture(scope="module")
def growing() -> Trajectory:
    """A clock on frequencies 3 and 7, silent at first, then on frequency 3 alone, then whole."""
    config, params = clock(TASK, (3, 7))
    answers = slice(-4, None)
    steps = []
    for step, scale in ((0, (0.0, 0.0)), (100, (0.3, 0.0)), (200, (1.0, 1.0))):
        W_U = params["unembed.W_U"].clone()
        W_U[answers] *= torch.tensor(scale).repeat_interleave(2).unsqueeze(1)
        steps.append(Subject.of(config, {**params, "unembed.W_U": W_U}, TASK, step=step))
    return Trajectory(steps)


def test_the_keys_of_the_last_step_are_used_at_all_and_each_step_s_own_stand_beside(growing) -> None:
    found = grokking.analyze(growing)
    assert found.key_frequencies == (3, 7)
    assert not {3, 7} & set(found.control_frequencies)
    assert [at.step for at in found.measures] == [0, 100, 200]
    assert [at.own_keys for at in found.measures] == [(), (3,), (3, 7)]
    first, second, third = found.measures
    assert first.restricted.test == pytest.approx(math.log(31))
    assert second.excluded_per_key[1] == pytest.approx(second.full.train, rel=1e-4)  # 7 is not there yet
    assert second.excluded_per_key[0] > 1.5 * second.full.train
    assert third.restricted.test == pytest.approx(third.full.test, rel=0.01)
    assert third.excluded.train > 3
    assert third.control_excluded.train == pytest.approx(third.full.train, rel=0.01)
    assert third.control_restricted.test > 3
    assert found.generalised == found.memorised == Transition(after=0, by=100)


@pytest.mark.slow
def test_every_step_has_the_numbers_that_the_analysis_of_one_model_gives_there(growing) -> None:
    found = grokking.analyze(growing)
    for at, subject in zip(found.measures, growing, strict=True):
        alone = progress.analyze(subject, keys=found.key_frequencies)
        for name in ("full", "restricted", "excluded"):
            assert getattr(at, name).to_dict() == pytest.approx(getattr(alone.losses, name).to_dict())
        assert at.excluded_per_key == pytest.approx(alone.losses.excluded_per_key)
        assert at.gini_embedding == pytest.approx(alone.gini_embedding)
        assert at.sum_of_squares == pytest.approx(alone.sum_of_squares)
        assert at.trig_share == pytest.approx(alone.losses.trig_share, nan_ok=True)
        assert at.post_trig_share == pytest.approx(alone.readout.post_trig_share)


def test_a_bar_counts_the_snapshots_where_one_is_asked_for(growing, capsys) -> None:
    silent = grokking.analyze(growing)
    assert capsys.readouterr() == ("", "")
    assert grokking.analyze(growing, show_progress=True).to_dict() == silent.to_dict()
    assert "3/3 snapshots" in capsys.readouterr().out


def test_an_empty_trajectory_is_refused() -> None:
    with pytest.raises(UserError, match="expected at least one snapshot"):
        grokking.analyze(Trajectory([]))


def test_times_come_from_the_log_of_a_run_which_is_finer_than_its_snapshots() -> None:
    trajectory = Trajectory.load(CHECKPOINTS / "tiny" / "modular")
    found = grokking.analyze(trajectory)
    steps = [row["step"] for row in trajectory.subjects[-1].run.metrics]
    assert found.memorised.by in steps
    assert found.memorised.by - found.memorised.after == 100
    without = Trajectory([Subject.of(s.config, s.params, s.task, step=s.step) for s in trajectory])
    coarse = grokking.analyze(without)
    assert (coarse.generalised.after, coarse.generalised.by) == (200, 2500)
    assert found.generalised.after > 200


@pytest.mark.slow
def test_the_shipped_run_memorises_forms_its_circuit_and_cleans_up() -> None:
    trajectory = Trajectory.load(CHECKPOINTS / "modular-addition")
    chosen = [s for s in trajectory.subjects if s.step in (1000, 2000, 25000)]
    found = grokking.analyze(Trajectory(chosen))
    memorised, forming, final = found.measures
    assert 3 <= len(found.key_frequencies) <= 6
    assert found.memorised.by <= 320
    assert memorised.full.train < 1e-4 < 10 < memorised.full.test
    assert forming.excluded.train > 5 * memorised.excluded.train  # the circuit forms while test loss is still high
    assert forming.restricted.test < 0.7 * memorised.restricted.test
    assert forming.full.test > 10
    assert final.restricted.test < final.full.test < 1e-5
    assert final.excluded.train > 4
    assert final.control_excluded.train < 2 * final.full.train
    assert final.control_restricted.test > 4
    assert final.gini_embedding > 0.6 > 0.2 > memorised.gini_embedding
    assert final.sum_of_squares < forming.sum_of_squares < memorised.sum_of_squares
    assert found.phases.memorisation == Transition(after=1000, by=2000)
    assert found.phases.circuit_formation == Transition(after=2000, by=25000)
    assert not found.phases.cleanup.reached  # restricted and test loss are still a decade apart


def test_the_figure_of_everything_draws_every_curve_and_shades_the_phases(growing) -> None:
    found = grokking.analyze(growing)
    made = grokking.figures(found)
    assert list(made) == ["phases", "keys", "own keys"]
    drawn = {trace.name: trace for trace in made["phases"].data}
    assert list(drawn["train"].x) == [1, 100, 200]
    assert list(drawn["restricted, test"].y) == [at.restricted.test for at in found.measures]
    assert drawn["test"].line.dash == "dash"
    assert drawn["control: excluded"].line.color == "#9A9A9A"
    assert len(made["phases"].layout.shapes) >= 1
    assert list(made["own keys"].data[0].y) == [0, 1, 2]
    json.dumps(found.to_dict(), allow_nan=False)
