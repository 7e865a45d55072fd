"""Killed at any moment, training comes back to the same bits."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.base import UserError
from tasks.training.run import Run
from tasks.training.snapshots import checksum, read_tensors
from tasks.training.trainer import train


class Killed(BaseException):
    """Stands for the signal within one process: nothing in the code may catch it."""


def fit(p, out, **options) -> list[Run]:
    return train(p.task, p.model, p.init, p.training, out=out, resume_every=0.0, **options)


def life(folder: Path) -> dict[str, str]:
    """Every file of a run but its config: metrics as they stand, tensors by their checksum (safetensors writes the two
    keys of its metadata in any order)."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "config.json"]
    return {
        str(file.relative_to(folder)): checksum(read_tensors(file)[0])
        if file.suffix == ".safetensors"
        else file.read_text()
        for file in files
    }


def kill_at(moment: int):
    """A stand-in for os.replace, by which every file is put in place, that dies the n-th time it is called."""
    calls = 0
    replace_file = os.replace

    def dies(source, target):
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Killed
        replace_file(source, target)

    return dies


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5, 9, 17, 26, 31])
def test_killed_before_any_file_is_in_place_training_comes_back_to_the_same_folder(
    moment, modular, tmp_path, monkeypatch
):
    p = modular
    fit(p, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill_at(moment))
        with pytest.raises(Killed):
            fit(p, tmp_path / "killed")
    fit(p, tmp_path / "killed")
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def kill_at_step(at: int):
    def callback(step, rows):
        if step == at:
            raise Killed

    return callback


@pytest.mark.parametrize("moments", [(0,), (6,), (12,), (24,), (6, 12, 18)])
def test_killed_after_an_evaluation_was_recorded_training_records_it_once(moments, modular, tmp_path):
    p = modular
    fit(p, tmp_path / "undisturbed")
    for step in moments:
        with pytest.raises(Killed):
            fit(p, tmp_path / "killed", on_evaluation=kill_at_step(step))
    fit(p, tmp_path / "killed")
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def test_batches_and_schedule_go_on_where_they_were(anchor, tmp_path):
    fit(anchor, tmp_path / "undisturbed")
    with pytest.raises(Killed):
        fit(anchor, tmp_path / "killed", on_evaluation=kill_at_step(10))
    fit(anchor, tmp_path / "killed")
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def stopping(p):
    """The setting in which seed 1 stops before the end and some other seed does not; that other seed."""
    lowest = {seed: min(row["test_loss"] for row in train(**vars(p), seeds=[seed])[0].metrics) for seed in (0, 1, 2, 3)}
    early, late = sorted(lowest, key=lambda seed: lowest[seed])[:: len(lowest) - 1]
    bound = (lowest[early] + lowest[late]) / 2
    p.training = replace(p.training, stop_below=bound)
    return early, late


def test_a_stack_of_which_one_member_had_stopped_comes_back_to_the_same_bits(modular, tmp_path):
    p = modular
    seeds = stopping(p)
    fit(p, tmp_path / "undisturbed", seeds=seeds)
    ended = Run.load(tmp_path / "undisturbed" / f"seed-{seeds[0]}").metrics[-1]["step"]
    assert ended < 24
    with pytest.raises(Killed):
        fit(p, tmp_path / "killed", seeds=seeds, on_evaluation=kill_at_step(24))
    assert Run.load(tmp_path / "killed" / f"seed-{seeds[0]}").finished
    fit(p, tmp_path / "killed", seeds=seeds)
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def test_a_member_that_had_not_begun_is_trained_after_those_that_had(modular, tmp_path):
    p = modular
    fit(p, tmp_path / "undisturbed", seeds=[0, 1, 2])
    with pytest.raises(Killed):
        fit(p, tmp_path / "killed", seeds=[0, 1], on_evaluation=kill_at_step(12))
    fit(p, tmp_path / "killed", seeds=[0, 1, 2])
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def test_seeds_added_to_a_finished_folder_leave_its_runs_untouched(modular, tmp_path, contents):
    p = modular
    fit(p, tmp_path / "runs", seeds=[0, 1], command="first")
    before = contents(tmp_path / "runs")
    times = {file: (tmp_path / "runs" / file).stat().st_mtime_ns for file in before}
    fit(p, tmp_path / "runs", seeds=[0, 1, 2], command="second")
    after = contents(tmp_path / "runs")
    assert {name: after[name] for name in before} == before
    assert {file: (tmp_path / "runs" / file).stat().st_mtime_ns for file in before} == times
    assert Run.load(tmp_path / "runs" / "seed-2").finished


def test_a_folder_renamed_between_kill_and_resume_goes_on(modular, tmp_path):
    fit(modular, tmp_path / "undisturbed")
    with pytest.raises(Killed):
        fit(modular, tmp_path / "killed", on_evaluation=kill_at_step(18))
    (tmp_path / "killed").rename(tmp_path / "moved")
    steps = []
    fit(modular, tmp_path / "moved", on_evaluation=lambda step, rows: steps.append(step))
    assert steps == [18, 24]
    assert life(tmp_path / "moved") == life(tmp_path / "undisturbed")


def test_a_last_line_of_metrics_cut_short_is_survived(modular, tmp_path):
    fit(modular, tmp_path / "undisturbed")
    with pytest.raises(Killed):
        fit(modular, tmp_path / "killed", on_evaluation=kill_at_step(18))
    metrics = tmp_path / "killed" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-25])
    assert [row["step"] for row in Run.load(tmp_path / "killed").metrics] == [0, 6, 12]
    fit(modular, tmp_path / "killed")
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def test_a_damaged_resume_file_is_refused_and_nothing_is_touched(modular, tmp_path, contents):
    with pytest.raises(Killed):
        fit(modular, tmp_path / "killed", on_evaluation=kill_at_step(18))
    file = tmp_path / "killed" / "resume.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"resume\.safetensors is cut short or damaged"):
        fit(modular, tmp_path / "killed")
    assert contents(tmp_path) == before


def test_a_finished_folder_is_returned_as_it_is_without_training(modular, tmp_path, contents):
    fit(modular, tmp_path / "run", command="python -m tasks train …")
    before = contents(tmp_path)
    calls = []
    (run,) = fit(modular, tmp_path / "run", on_evaluation=lambda *call: calls.append(call))
    assert not calls
    assert contents(tmp_path) == before
    assert run.config.command == "python -m tasks train …"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("training", {"learning_rate": 0.5}),
        ("task", {"data_seed": 1}),
        ("model", {"d_mlp": 8}),
        ("init", {"gamma": 0.9}),
        ("seed", None),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_as_it_is(field, change, modular, tmp_path, contents):
    p = modular
    fit(p, tmp_path / "run")
    before = contents(tmp_path)
    if change:
        setattr(p, field, replace(getattr(p, field), **change))
    with pytest.raises(UserError, match=rf"holds another run \(it differs in {field}\)"):
        fit(p, tmp_path / "run", seeds=[1 if change is None else 0])
    assert contents(tmp_path) == before


def test_several_runs_are_refused_in_the_folder_of_one_and_one_in_the_folder_of_several(modular, tmp_path, contents):
    fit(modular, tmp_path / "one")
    fit(modular, tmp_path / "several", seeds=[0, 1])
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"expected a folder for several runs, .* holds one run itself"):
        fit(modular, tmp_path / "one", seeds=[0, 1])
    with pytest.raises(UserError, match="expected an empty folder or a run to continue"):
        fit(modular, tmp_path / "several")
    assert contents(tmp_path) == before


def test_a_folder_of_other_files_and_a_file_are_refused(modular, tmp_path, contents):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="expected an empty folder or a run to continue"):
        fit(modular, tmp_path)
    with pytest.raises(UserError, match=r"expected a folder at .*, found a file"):
        fit(modular, tmp_path / "thesis.tex")
    assert contents(tmp_path) == before


CHILD = """
import sys, torch
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train
torch.set_num_threads(1)
train(
    ModularArithmetic(p=7, train_fraction=0.6),
    TransformerConfig(
        n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=20, n_ctx=3, d_vocab=8, d_vocab_out=7, mlp_bias=True
    ),
    Initialization(),
    TrainingConfig(steps=1000, learning_rate=1e-2, evaluate_every=20, snapshots=4),
    out=sys.argv[1],
    resume_every=0.02,
)
"""


@pytest.mark.slow
def test_a_process_killed_by_sigkill_in_mid_training_comes_back_to_the_same_bits(tmp_path):
    def child(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert child(tmp_path / "undisturbed").wait() == 0
    folder = tmp_path / "killed"
    for wait in (0.0, 0.1):  # seconds of training between the first new evaluations and the signal
        begun = len(Run.load(folder).metrics) if folder.exists() else 0
        process = child(folder)
        while process.poll() is None and not (
            (folder / "resume.safetensors").exists() and len(Run.load(folder).metrics) > begun + 2
        ):
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not Run.load(folder).finished
    assert child(folder).wait() == 0
    assert life(folder) == life(tmp_path / "undisturbed")
