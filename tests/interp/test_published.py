"""Weights that others published, against the losses that stand in their files and those recomputed from them."""

from pathlib import Path

import pytest

from interp.subject import Subject
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.layouts import contents, read

PUBLISHED = Path(__file__).parents[3] / "shared" / "published_weights"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published weights are not here"),
]
NANDA, C113 = "nanda-progress-measures", "chughtai-C113-transformer-seed1"
FILES = {
    f"{NANDA}/wd_10-1_mod_addition_loss_curve.pth": {
        "layout": "progress_measures",
        "task": ModularArithmetic(p=113, split="python_shuffle", data_seed=1),
        "losses": (9.2024e-9, 4.9884e-7, 3.5197e-7),
        "accuracy": 1.0,
        "stored": (9.2025e-9, 4.9915e-7),
    },
    f"{NANDA}/low_precision_mod_addition.pth": {
        "layout": "progress_measures",
        "task": ModularArithmetic(p=113, split="python_shuffle", data_seed=1),
        "losses": (3.0452e-4, 3.9950e-3, 2.8881e-3),
        "accuracy": 0.999452,
        "stored": (2.971e-4, 4.254e-3),
    },
    f"{NANDA}/mod_addition_no_wd.pth": {
        "layout": "progress_measures",
        "task": ModularArithmetic(p=113, split="python_shuffle", data_seed=0, train_fraction=0.9),
        "losses": (1.6809e-10, 1.1096e-6, 1.1112e-7),
        "accuracy": 1.0,
        "stored": (1.6814e-10, 1.1099e-6),
    },
    f"{C113}/model.pt": {
        "layout": "group_transformer",
        "task": ModularArithmetic(p=113, split="torch_randperm", data_seed=1),
        "losses": (8.8592e-8, 1.8848e-7, 1.5852e-7),
        "accuracy": 1.0,
    },
}


def measured(subject: Subject) -> tuple[tuple[float, float, float], float]:
    """Losses on train, test and all pairs, and the accuracy on all."""
    found, trained = subject.performance, float(subject.task.train_mask.double().mean())
    everywhere = {
        kind: trained * found[f"train_{kind}"] + (1 - trained) * found[f"test_{kind}"] for kind in ("loss", "accuracy")
    }
    return (found["train_loss"], found["test_loss"], everywhere["loss"]), everywhere["accuracy"]


@pytest.mark.parametrize("file", FILES)
def test_published_weights_have_the_published_losses_to_every_digit(file):
    expected = FILES[file]
    single = Subject.load(PUBLISHED / file, layout=expected["layout"], task=expected["task"])
    double = single.with_params({name: value.double() for name, value in single.params.items()})
    losses, accuracy = measured(double)
    assert [float(f"{loss:.4e}") for loss in losses] == list(expected["losses"])
    assert accuracy == pytest.approx(expected["accuracy"], abs=5e-7)
    losses, accuracy = measured(single)
    assert losses == pytest.approx(expected["losses"], rel=1e-4)  # float32 logits leave four digits
    assert accuracy == pytest.approx(expected["accuracy"], abs=5e-7)


@pytest.mark.parametrize("file", [file for file, expected in FILES.items() if "stored" in expected])
def test_the_last_losses_that_the_files_hold_are_those_that_were_published(file):
    _, beside = contents(PUBLISHED / file)
    last = (float(beside["train_losses"][-1]), float(beside["test_losses"][-1]))
    assert last == pytest.approx(FILES[file]["stored"], rel=2e-4)


def test_a_transpose_that_no_shape_shows_costs_the_accuracy():
    """W_O is square here: read the wrong way round it is not refused."""
    file = f"{NANDA}/wd_10-1_mod_addition_loss_curve.pth"
    weights, _ = contents(PUBLISHED / file)
    weights["blocks.0.attn.W_O"] = weights["blocks.0.attn.W_O"].T
    subject = Subject.of(*read(weights, FILES[file]["layout"], FILES[file]["task"]), FILES[file]["task"])
    assert subject.performance["train_accuracy"] < 0.5


@pytest.mark.parametrize("file", FILES)
def test_published_weights_are_refused_for_another_modulus_and_in_another_layout(file):
    layout = FILES[file]["layout"]
    other = {"progress_measures": "transformer_lens", "group_transformer": "progress_measures"}[layout]
    with pytest.raises(UserError, match=r"expected embed\.W_E \[.*d_vocab 110.*\] in layout .*, got \("):
        Subject.load(PUBLISHED / file, layout=layout, task=ModularArithmetic(p=109))
    with pytest.raises(UserError, match=rf"expected embed\.W_E \[.*\] in layout {other}, got \("):
        Subject.load(PUBLISHED / file, layout=other, task=FILES[file]["task"])
