"""Two trainings in one folder: the second is refused in one line, and the folder holds one clean history."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.base import UserError
from tasks.training.lock import LOCK, sole_writer
from tasks.training.run import Run
from tasks.training.snapshots import read_tensors
from tasks.training.trainer import train

TRAIN = """
import sys
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.families.modular import ModularArithmetic
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train
import torch

torch.set_num_threads(1)
model = TransformerConfig(
    n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=20, n_ctx=3, d_vocab=8, d_vocab_out=7, mlp_bias=True
)
training = TrainingConfig(steps=400, learning_rate=1e-2, evaluate_every=4, snapshots=20)
try:
    task = ModularArithmetic(p=7, train_fraction=0.6)
    train(task, model, Initialization(), training, out=sys.argv[1], resume_every=0.05)
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(2)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """A training of 400 steps in another process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(folder: Path) -> None:
    """Train in another process to the end."""
    process = start(folder)
    said = process.communicate()[1]
    assert process.returncode == 0, said


def until_it_trains(folder: Path) -> None:
    while not ((folder / "config.json").is_file() and len(Run.load(folder).metrics) > 2):
        time.sleep(0.01)


def life(folder: Path) -> dict[str, Any]:
    """Contents of every file of a run folder but the lock; of tensors and metadata, whose order in a file is open."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != LOCK]
    return {str(file.relative_to(folder)): contents(file) for file in files}


def contents(file: Path) -> Any:
    if file.suffix != ".safetensors":
        return file.read_bytes()
    tensors, metadata = read_tensors(file)
    return {name: (value.dtype, value.tolist()) for name, value in tensors.items()}, metadata


def test_a_folder_in_which_another_trains_is_refused(modular, tmp_path) -> None:
    with sole_writer([tmp_path / "run"]), pytest.raises(UserError, match=r"another process is training in .*run: wait"):
        train(modular.task, modular.model, modular.init, modular.training, out=tmp_path / "run")
    assert train(modular.task, modular.model, modular.init, modular.training, out=tmp_path / "run")[0].finished


def test_one_of_several_seeds_is_refused_alone(modular, tmp_path) -> None:
    with sole_writer([tmp_path / "seed-1"]), pytest.raises(UserError, match="seed-1: wait"):
        train(modular.task, modular.model, modular.init, modular.training, seeds=(0, 1), out=tmp_path)
    with sole_writer([tmp_path / "seed-1"]):
        only = train(modular.task, modular.model, modular.init, modular.training, seeds=(0,), out=tmp_path / "seed-0")
        assert only[0].finished


def test_other_seeds_in_the_same_folder_would_share_a_resume_file_and_are_refused(modular, tmp_path) -> None:
    with sole_writer([tmp_path]), pytest.raises(UserError, match="wait"):
        train(modular.task, modular.model, modular.init, modular.training, seeds=(2, 3), out=tmp_path)


def test_a_finished_run_is_returned_while_somebody_holds_its_lock_and_where_nothing_can_be_written(
    modular, tmp_path
) -> None:
    first = train(modular.task, modular.model, modular.init, modular.training, out=tmp_path / "run")[0]
    with sole_writer([tmp_path / "run"]):
        assert train(modular.task, modular.model, modular.init, modular.training, out=first.path)[0].finished


def test_another_run_begun_since_the_first_look_is_not_taken_over(modular, tmp_path, monkeypatch) -> None:
    from tasks.training import trainer

    def late(folders):
        other = replace(modular.training, learning_rate=0.5)
        monkeypatch.undo()
        train(modular.task, modular.model, modular.init, other, out=tmp_path / "run")
        return sole_writer(folders)

    monkeypatch.setattr(trainer, "sole_writer", late)
    with pytest.raises(UserError, match="holds another run"):
        train(modular.task, modular.model, modular.init, modular.training, out=tmp_path / "run")


def test_temporary_files_of_a_living_process_stay(modular, tmp_path) -> None:
    written = tmp_path / "run" / "snapshots" / ".step-0000000.safetensors.1.tmp"
    with sole_writer([tmp_path / "run"]):
        written.parent.mkdir()
        written.write_bytes(b"half a snap")
        with pytest.raises(UserError, match="wait"):
            train(modular.task, modular.model, modular.init, modular.training, out=tmp_path / "run")
        assert written.exists()
    train(modular.task, modular.model, modular.init, modular.training, out=tmp_path / "run")
    assert not written.exists()  # whoever wrote it is gone


@pytest.mark.slow
def test_two_trainings_of_which_either_is_killed_leave_one_clean_history(tmp_path) -> None:
    """``RULELENS_KILLS=50`` kills fifty times."""
    finish(tmp_path / "alone")
    chance = random.Random(0)
    for kill in range(int(os.environ.get("RULELENS_KILLS", "4"))):
        folder = tmp_path / f"shared-{kill}"
        first = start(folder)
        until_it_trains(folder)
        second = start(folder)
        time.sleep(chance.uniform(0, 4))
        chance.choice((first, second)).send_signal(signal.SIGKILL)
        said = [process.communicate()[1] for process in (first, second)]
        assert not any("Traceback" in text for text in said), said
        finish(folder)  # whichever survived has ended or was refused: now the history is completed
        assert life(folder) == life(tmp_path / "alone")
