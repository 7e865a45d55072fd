"""Every position of a sequence has exactly one role."""

import pytest

from interp.anchor.roles import ROLES, anchor_task, key_positions, layer_output, positions
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig


def test_every_position_has_one_role_and_the_last_is_always_the_answers() -> None:
    task = AnchorComposition()
    assert key_positions(task) == [0, 1, 2, 3, 4, 5]
    for at in key_positions(task):
        roles = positions(task, at)
        assert tuple(roles) == ROLES
        assert sorted(place for places in roles.values() for place in places) == list(range(9))
        assert roles["last"] == [8]
        assert [roles[role] for role in ROLES[1:4]] == [[at], [at + 1], [at + 2]]


def test_in_the_shortest_sequence_there_is_no_noise_but_at_the_end() -> None:
    task = AnchorComposition(sequence_length=4)
    assert key_positions(task) == [0]
    assert positions(task, 0)["noise"] == []


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (ModularArithmetic(p=23), "expected a model of AnchorComposition, got one of ModularArithmetic"),
        (AnchorComposition(sequence_length=3, split_modulus=2), "expected sequences of at least 4 tokens"),
    ],
)
def test_a_task_without_these_roles_is_refused(task, message) -> None:
    with pytest.raises(UserError, match=message):
        anchor_task(task)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"normalization": "post"}, "blocks.1.hook_normalized_post"),
        ({"normalization": "post", "d_mlp": None}, "blocks.1.hook_normalized_mid"),
        ({"normalization": "pre"}, "blocks.1.hook_resid_post"),
        ({}, "blocks.1.hook_resid_post"),
    ],
)
def test_a_layers_output_is_what_the_next_layer_reads(changes, name) -> None:
    fields = {"n_layers": 2, "d_model": 8, "n_heads": 1, "d_head": 4, "d_mlp": 6, "n_ctx": 5, "d_vocab": 11}
    assert layer_output(TransformerConfig(**fields | changes), 1) == name
