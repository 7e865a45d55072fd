"""What a stack is said to take against what it takes, and stacks that are split to fit."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tasks.base import UserError
from tasks.presets import preset
from tasks.registry import model_family
from tasks.training import train
from tasks.training.memory import largest_stack, model_bytes, parse_bytes
from tasks.training.run import Run
from tasks.training.snapshots import checksum

MEASURE = """
import sys
import torch
from tasks.presets import preset
from tasks.training.memory import model_bytes
from tasks.training.trainer import Stack, train
from dataclasses import replace

def resident(line):  # current ("VmRSS") or highest ("VmHWM") so far
    with open("/proc/self/status") as file:
        return next(int(text.split()[1]) * 1024 for text in file if text.startswith(line))

torch.set_num_threads(1)
family, size, models, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) or None
p = preset(family, size)
width = int(sys.argv[5])
if width:
    p = replace(p, model=replace(p.model, d_model=width, d_head=width // 4, n_heads=4, d_mlp=width))
training = replace(p.training, steps=1, evaluate_every=1, snapshots=0, batch_size=batch)
train(p.task, p.model, p.init, training)  # libraries and data are there before anything is measured
before = resident("VmRSS")
train(p.task, p.model, p.init, replace(training, steps=2), seeds=range(models), resume_every=0.0)
print(models * model_bytes(p.task, p.model, training), resident("VmHWM") - before)
"""


def life(run: Run) -> tuple[list[str], list[dict]]:
    """Weights at every step, as checksums, and metrics."""
    return [checksum(run.params(step)) for step in run.steps], run.metrics


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * 10**9), ("8 gib", 8 * 2**30), ("500M", 5 * 10**8), ("2e9", 2 * 10**9), ("1.5kB", 1500), ("64", 64)],
)
def test_an_amount_of_memory_is_read_with_its_unit(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "8 bananas", "-1GB", "0", "1,5GB", "8XB", "1.2.3", "1e400GB", "9" * 400])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(UserError, match="expected an amount of memory such as 8GB"):
        parse_bytes(text)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "shape",
    [
        ("modular", "default", 16, 0, 0),  # activations of a full batch
        ("modular", "paper", 24, 4, 0),  # evaluation
        ("anchor", "default", 4, 256, 0),  # evaluation, in chunks
        ("modular", "tiny", 4, 4, 1024),  # parameters, and the resume file
        ("parity", "paper", 500, 0, 0),  # activations of one model after the other
        ("parity", "paper", 400, 900, 0),  # a batch for each
    ],
)
def test_a_stack_takes_about_the_memory_it_is_said_to_take(shape):
    # training leaves an allocator alone that the environment has set up, as Dask does in the tests of the sweeps
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", MEASURE, *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    said, took = map(int, done.stdout.split())
    assert 0.6 * took < said < 1.6 * took  # allocators keep and round; half or twice would be of no use


def test_the_largest_stack_that_fits_is_the_budget_over_one_models_share(modular):
    each = model_bytes(modular.task, modular.model, modular.training)
    for budget, models in ((each, 1), (4 * each - 1, 3), (4 * each, 4)):
        assert largest_stack(modular.task, modular.model, modular.training, budget) == models
    with pytest.raises(UserError, match="expected memory for one model"):
        largest_stack(modular.task, modular.model, modular.training, each - 1)


def test_an_average_of_the_gradients_takes_a_copy_of_the_parameters_more(modular):
    settings = (modular.task, modular.model)
    plain, averaging = (replace(modular.training, grokfast=strength) for strength in (0.0, 2.0))
    shapes = model_family(modular.model).shapes(modular.model)
    a_copy = 4 * sum(math.prod(shape) for shape in shapes.values())
    assert model_bytes(*settings, averaging) - model_bytes(*settings, plain) == a_copy


def test_activations_that_are_computed_anew_are_not_counted():
    parity = preset("parity", "paper")
    wide, narrow = (
        model_bytes(parity.task, replace(parity.model, d_hidden=(width,)), parity.training) for width in (258, 16)
    )
    assert wide - narrow < 0.5 * 4 * (258 - 16) * len(parity.task.train_set())


@pytest.mark.parametrize(("objective", "loss_dtype"), [("stablemax", "float64"), ("stablemax", "float32")])
def test_an_objective_of_several_operations_saves_more_than_cross_entropy(objective, loss_dtype):
    paper = preset("modular", "paper")
    other = replace(paper.training, objective=objective, loss_dtype=loss_dtype)
    assert model_bytes(paper.task, paper.model, other) > 1.05 * model_bytes(paper.task, paper.model, paper.training)


def test_models_that_do_not_fit_together_train_one_stack_after_the_other_to_the_same_bits(modular):
    settings = (modular.task, modular.model, modular.init, modular.training)
    each = model_bytes(modular.task, modular.model, modular.training)
    seen = []
    together = train(*settings, seeds=range(5))
    split = train(
        *settings,
        seeds=range(5),
        memory=2 * each,
        on_evaluation=lambda step, rows: seen.append((step, len(rows))),
    )
    assert list(map(life, split)) == list(map(life, together))
    assert [models for step, models in seen if step == 0] == [2, 2, 1]


def test_an_interrupted_stack_goes_on_before_the_next_one_begins(modular, tmp_path):
    settings = (modular.task, modular.model, modular.init, modular.training)
    each = model_bytes(modular.task, modular.model, modular.training)
    undisturbed = train(*settings, seeds=range(4))
    begun = []

    def stop_in_the_second_stack(step, rows):
        begun.append(step)
        if begun.count(0) == 2 and step == 12:
            raise KeyboardInterrupt

    options = {"seeds": range(4), "out": tmp_path / "stopped", "memory": 2 * each, "resume_every": 0.0}
    with pytest.raises(KeyboardInterrupt):
        train(*settings, **options, on_evaluation=stop_in_the_second_stack)
    went_on = []
    finished = train(*settings, **options, on_evaluation=lambda step, rows: went_on.append((step, len(rows))))
    assert went_on[0][0] > 0  # not from the beginning
    assert {models for _, models in went_on} == {2}
    assert list(map(life, finished)) == list(map(life, undisturbed))
