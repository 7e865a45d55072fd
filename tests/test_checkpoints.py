"""The shipped checkpoints: golden numbers, and what the project promises of them."""

from pathlib import Path

import pytest

from interp import Subject, counterfactual, fourier
from interp.probe import examine
from tasks.training import Run

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
TINY = CHECKPOINTS / "tiny"


def folders(where: Path) -> list[Path]:
    return sorted(config.parent for config in where.glob("*/config.json"))


@pytest.mark.parametrize("folder", [*folders(CHECKPOINTS), *folders(TINY)], ids=lambda folder: folder.name)
def test_every_shipped_run_is_finished_and_records_its_command(folder) -> None:
    run = Run.load(folder)
    assert run.finished
    assert run.config.command.startswith("python -m tasks train ")
    assert not (folder / "resume.safetensors").exists()


def test_the_shipped_folders_stay_small() -> None:
    def size(folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    assert size(CHECKPOINTS) < 40e6
    assert size(TINY) < 200e3 * len(folders(TINY))


@pytest.mark.slow
@pytest.mark.parametrize("folder", [*folders(CHECKPOINTS), *folders(TINY)], ids=lambda folder: folder.name)
def test_a_shipped_run_performs_as_its_metrics_say(folder) -> None:
    run = Run.load(folder)
    found = Subject.load(run).performance
    for key, value in run.metrics[-1].items():
        if key in found:
            assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-8), key


@pytest.mark.slow
def test_the_tiny_addition_model_multiplies_in_fourier_space_and_did_not_before() -> None:
    assert examine(Subject.load(TINY / "modular")).verdict.solution == "generalising by Fourier multiplication"
    assert examine(Subject.load(TINY / "modular", 0)).verdict.solution == "undetermined"


@pytest.mark.slow
def test_the_tiny_anchor_model_is_symmetric() -> None:
    assert examine(Subject.load(TINY / "anchor")).verdict.solution == "symmetric"


@pytest.mark.slow
def test_the_published_setting_grokked_as_promised() -> None:
    subject = Subject.load(CHECKPOINTS / "modular-addition")
    found = fourier.analyze(subject)
    assert 3 <= len(found.key_frequencies) <= 6
    assert subject.performance["test_loss"] < 1e-5
    assert found.neurons_explained_share >= 0.8
    assert found.cos_variance >= 0.9
    assert found.control_neurons_explained_share < 0.05
    assert found.control_cos_variance < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "follows", "other"), [("large", "symmetric", "inferential"), ("small", "inferential", "symmetric")]
)
def test_the_scale_of_the_initial_weights_decides_what_the_held_out_pair_follows(name, follows, other) -> None:
    found = counterfactual.analyze(Subject.load(CHECKPOINTS / f"anchor-{name}-init"))
    assert getattr(found, follows) >= (0.95 if follows == "symmetric" else 0.90)
    assert getattr(found, other) <= 0.02
    assert found.seen >= 0.99
    assert found.placebo <= 0.05


def test_the_anchor_pair_differs_in_the_scale_of_its_initial_weights_alone() -> None:
    large, small = (Run.load(CHECKPOINTS / f"anchor-{name}-init").config for name in ("large", "small"))
    assert large.init.gamma < small.init.gamma
    ours, theirs = large.decides(), small.decides()
    assert {key for key in ours if ours[key] != theirs[key]} <= {"init", "seed"}
    assert {key for key in ours["init"] if ours["init"][key] != theirs["init"][key]} == {"gamma"}
