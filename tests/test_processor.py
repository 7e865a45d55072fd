"""One order of sums: set before torch's first product, recorded, checked, and warned about where it came too late."""

import os
import subprocess
import sys

import pytest
import torch

from tasks import ModularArithmetic, processor
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train


def run(code: str, **environment: str) -> str:
    """What Python prints, MKL_CBWR unset unless it is given."""
    inherited = {name: value for name, value in os.environ.items() if name != processor.SETTING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


SHOW = "import os; print(os.environ['MKL_CBWR'])"


@pytest.mark.parametrize("package", ["tasks", "interp", "tasks.training.config", "interp.probe"])
def test_importing_either_package_sets_it(package) -> None:
    assert run(f"import {package}; {SHOW}") == "AUTO"


def test_what_the_caller_set_stays() -> None:
    assert run(f"import tasks; {SHOW}", MKL_CBWR="COMPATIBLE") == "COMPATIBLE"


def test_it_reaches_the_workers_of_a_sweep() -> None:
    code = (
        "import tasks, os\n"
        "from tasks.sweep.engines import Loky\n"
        "workers = Loky(1)\n"
        "future = workers.submit(lambda slot, parent: os.environ['MKL_CBWR'])\n"
        "print(workers.outcome(future)); workers.close()"
    )
    assert run(code) == "AUTO"


@pytest.mark.parametrize("setting", [{}, {"MKL_CBWR": "AUTO"}, {"MKL_CBWR": "COMPATIBLE"}])
@pytest.mark.parametrize("before", ["", "import torch\n"])
def test_stacks_equal_members_once_it_is_set(setting, before) -> None:
    assert run(f"{before}from tasks import processor; print(processor.stack_equals_alone())", **setting) == "True"


def test_a_stack_that_rounds_differently_warns_in_one_line(monkeypatch, modular_task) -> None:
    monkeypatch.setattr(processor, "stack_equals_alone", lambda: False)
    with pytest.warns(processor.BitsNotKept, match="set MKL_CBWR=AUTO") as warned:
        train(**modular_task, seeds=(0, 1))
    assert "\n" not in str(warned[0].message)


def test_a_model_alone_does_not_warn(monkeypatch, modular_task) -> None:
    monkeypatch.setattr(processor, "stack_equals_alone", lambda: False)
    assert train(**modular_task)[0].finished


def test_a_run_records_its_machine(modular_task) -> None:
    machine = train(**modular_task)[0].config.machine
    assert machine["processor"]
    assert machine["mkl_cbwr"] == os.environ[processor.SETTING]
    assert machine["stack_equals_alone"] is True
    assert machine["instructions"] == torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def modular_task():
    model = MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(9,), input="one_hot")
    return {
        "task": ModularArithmetic(p=7, form="pair", train_fraction=0.6),
        "model": model,
        "init": Initialization(),
        "training": TrainingConfig(steps=3, evaluate_every=3, snapshots=2),
    }


PAIRS = ModularArithmetic(p=11, form="pair", train_fraction=0.8)
UNORDERED = ModularArithmetic(p=11, form="pair", unordered=True, train_fraction=0.8)
EQUATION = ModularArithmetic(p=11, train_fraction=0.8)
WIDTHS = (7, 13, 21, 31, 33, 35)


def perceptron(width, **more):
    return MLPConfig(n_ctx=2, d_vocab=11, d_vocab_out=11, d_hidden=(width,), **more)


def transformer(width, **more):
    heads = 3 if width % 2 else 2
    return TransformerConfig(
        n_layers=1,
        d_model=width,
        n_heads=heads,
        d_head=width // heads,
        d_mlp=2 * width - 1,
        d_vocab=12,
        d_vocab_out=11,
        n_ctx=3,
        **more,
    )


SHAPES = {
    **{f"one-hot {width}": (PAIRS, perceptron(width, input="one_hot", bias=True)) for width in WIDTHS},
    **{f"counts {width}": (PAIRS, perceptron(width, input="counts", act_fn="square")) for width in WIDTHS},
    **{
        f"tied table of {width}": (
            UNORDERED,
            perceptron(14, input="embedding", d_embed=width, tied_unembedding=True),
        )
        for width in WIDTHS
    },
    **{f"transformer of {width}": (EQUATION, transformer(width)) for width in WIDTHS},
    **{f"pre-LN of {width}": (EQUATION, transformer(width, normalization="pre")) for width in (21, 31)},
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_member_of_a_stack_of_any_shape_has_the_bits_of_the_model_alone(shape, dtype) -> None:
    task, model = SHAPES[shape]
    training = TrainingConfig(steps=40, learning_rate=1e-2, evaluate_every=40, snapshots=0, dtype=dtype)
    init = Initialization(scheme="gain")
    together = train(task, model, init, training, seeds=range(3))
    for seed, member in enumerate(together):
        alone = train(task, model, init, training, seeds=[seed])[0].params()
        assert all(torch.equal(alone[name], value) for name, value in member.params().items())
