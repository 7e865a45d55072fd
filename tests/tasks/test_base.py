"""What all tasks and configurations share: fields, random streams, digests."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import Examples, Fields, Task, UserError, as_task, digest, generator, is_prime, joined
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.registry import model_config_from_dict, model_config_to_dict, task_from_dict, task_to_dict
from tasks.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Settings(Fields):
    learning_rate: float = 0.1
    steps: tuple[int, ...] = ()


def examples(inputs: list[list[int]], targets: list[int], **rules: list[int]) -> Examples:
    return Examples(
        inputs=torch.tensor(inputs),
        targets=torch.tensor(targets),
        rules={name: torch.tensor(answers) for name, answers in rules.items()},
    )


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"^Settings has no field 'learning_rat': did you mean 'learning_rate'\?$"):
        Settings.from_dict({"learning_rat": 0.2})


def test_an_unknown_key_far_from_all_known_ones_is_refused_with_the_list_of_them():
    with pytest.raises(UserError, match=r"^Settings has no field 'zzz': known: learning_rate, steps$"):
        Settings.from_dict({"zzz": 1})


@pytest.mark.parametrize(
    "record", [TransformerConfig, TrainingConfig, Initialization, ModularArithmetic, AnchorComposition]
)
def test_every_configuration_refuses_an_unknown_key(record):
    with pytest.raises(UserError, match=f"{record.__name__} has no field 'colour'"):
        record.from_dict({"colour": "red"})


def test_lists_from_json_become_tuples_at_every_depth_and_return_as_lists():
    read = Settings.from_dict(json.loads('{"steps": [1, 2]}'))
    assert read == Settings(steps=(1, 2))
    assert read.to_dict() == {"learning_rate": 0.1, "steps": [1, 2]}


def test_a_stream_depends_on_the_seed_and_on_every_name():
    draws = [
        generator(seed, *names).integers(2**62)
        for seed, names in [(0, ("a",)), (1, ("a",)), (0, ("b",)), (0, ("a", 0)), (0, ("a", 1)), (0, ())]
    ]
    assert len(set(draws)) == len(draws)
    assert generator(0, "a", 1).integers(2**62) == draws[4]


def test_a_stream_neither_reads_nor_moves_global_random_state():
    np.random.seed(3)  # noqa: NPY002
    before = generator(0, "a").integers(2**62)
    expected = np.random.RandomState(3).randint(2**30)
    assert np.random.randint(2**30) == expected  # noqa: NPY002
    assert generator(0, "a").integers(2**62) == before


def test_a_negative_seed_is_a_users_mistake():
    with pytest.raises(UserError, match="seed of at least 0, got -1"):
        generator(-1, "a")


def test_the_digest_is_sha256_of_inputs_then_targets_as_32_bit_integers():
    raw = b"".join(n.to_bytes(4, "little") for n in (1, 2, 3, 4, 258, 7))
    assert digest(examples([[1, 2], [3, 4]], [258, 7])) == hashlib.sha256(raw).hexdigest()


def test_joined_examples_keep_the_rules_that_all_parts_have():
    both = joined([examples([[1]], [2], own=[5], common=[6]), examples([[3]], [4], common=[7])])
    assert both.inputs.tolist() == [[1], [3]]
    assert both.targets.tolist() == [2, 4]
    assert {name: answers.tolist() for name, answers in both.rules.items()} == {"common": [6, 7]}
    assert len(both) == 2


@settings(max_examples=60, deadline=None)
@given(st.integers(-3, 2000))
def test_a_prime_is_a_number_with_exactly_two_divisors(n):
    assert is_prime(n) == (sum(n % d == 0 for d in range(1, n + 1)) == 2)


@pytest.mark.parametrize("task", [ModularArithmetic(p=7), AnchorComposition(sequences_per_pair=1)])
def test_tasks_keep_the_protocol_and_return_from_json_unchanged(task):
    assert isinstance(task, Task)
    assert as_task(task) is task
    assert task_from_dict(json.loads(json.dumps(task_to_dict(task)))) == task


def test_something_else_than_a_task_is_refused_by_type():
    with pytest.raises(UserError, match=r"expected a task such as .*, got dict"):
        as_task({"p": 7})


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"expected a task family among anchor, .*, got 'modula'"):
        task_from_dict({"family": "modula"})
    with pytest.raises(UserError, match="expected a model family among mlp, transformer, got 'mamba'"):
        model_config_from_dict({"family": "mamba"})


def test_a_model_configuration_returns_from_json_unchanged():
    config = TransformerConfig(n_layers=1, d_model=8, n_heads=2, d_head=3, n_ctx=3, d_vocab=8, act_fn="gelu")
    assert model_config_from_dict(json.loads(json.dumps(model_config_to_dict(config)))) == config
