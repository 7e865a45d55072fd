"""Condensation and rank over the steps of a run whose weights were made for it."""

from pathlib import Path

import pytest
import torch

from interp.subject import Subject, Trajectory, linear_maps
from interp.weights import condensation, dynamics, rank
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization, initialize
from tasks.models.transformer import shapes

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)
CONFIG = TransformerConfig(n_layers=2, d_model=24, n_heads=1, d_head=20, d_mlp=32, n_ctx=5, d_vocab=64)
TINY = Path(__file__).parents[3] / "checkpoints" / "tiny" / "modular"


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    """Step 0: Gaussian weights. Step 10: the neurons of W_Q point one way, and the embedding varies in one
    direction."""
    start = initialize(shapes(CONFIG), CONFIG, Initialization(), 0)
    end = dict(start)
    end["blocks.0.attn.W_Q"] = start["blocks.0.attn.W_Q"][:, :, :1] * torch.rand(20) + 0
    end["embed.W_E"] = torch.outer(torch.arange(64.0), start["embed.W_E"][0])
    return Trajectory([Subject.of(CONFIG, params, TASK, step=step) for step, params in ((0, start), (10, end))])


def test_neurons_that_gather_are_seen_at_the_step_where_they_do(trajectory) -> None:
    found = dynamics.analyze(trajectory)
    head = found.matrices[found.headline]
    assert found.steps == (0, 10)
    assert found.headline == "blocks.0.attn.W_Q"
    assert head.directions[1] == 1
    assert head.condensed_share[1] == 1.0
    assert head.mean_absolute_cosine[1] == pytest.approx(1.0)
    assert head.condensed_share[0] < 0.3
    assert head.relative_stable_rank[0] == pytest.approx(1.0, abs=0.3)
    gaussian = head.relative_stable_rank[1]
    assert gaussian == pytest.approx(1 / rank.stable_rank(rank.singular_values(torch.randn(24, 20))), rel=0.3)
    assert found.embedding_eigenvalues.shape == (2, 10)
    assert found.embedding_eigenvalues[1, 1] < 1e-9 * found.embedding_eigenvalues[1, 0]
    assert found.embedding_eigenvalues[0, 1] > 0.3 * found.embedding_eigenvalues[0, 0]


def test_every_step_has_the_numbers_that_the_single_analyses_give_there() -> None:
    trajectory = Trajectory.load(TINY)
    found = dynamics.analyze(trajectory)
    assert found.steps == tuple(subject.step for subject in trajectory)
    assert list(found.matrices) == list(linear_maps(trajectory.subjects[0].params))
    for index, subject in enumerate(trajectory):
        for name, matrix in condensation.analyze(subject).matrices.items():
            ours = found.matrices[name]
            assert ours.directions[index] == matrix.directions
            assert ours.loose_condensed_share[index] == matrix.loose_condensed_share
        eigenvalues = rank.analyze(subject).embedding_eigenvalues[:10]
        torch.testing.assert_close(found.embedding_eigenvalues[index], eigenvalues)


def test_an_unknown_headline_and_an_empty_trajectory_are_refused(trajectory) -> None:
    with pytest.raises(UserError, match="the model has no linear map 'W_Z'"):
        dynamics.analyze(trajectory, headline="W_Z")
    with pytest.raises(UserError, match="expected at least one snapshot"):
        dynamics.analyze(Trajectory([]))


def test_the_figures_show_the_headline_every_map_and_the_embedding(trajectory) -> None:
    found = dynamics.analyze(trajectory)
    made = dynamics.figures(found)
    assert list(made) == ["condensation", "ranks", "embedding"]
    assert [trace.name for trace in made["ranks"].data] == list(found.matrices)
    assert list(made["condensation"].data[0].x) == [1, 10]
    assert list(made["condensation"].data[0].y) == list(found.matrices[found.headline].condensed_share)
