"""Networks built by hand give exactly the answers of their algorithm."""

import pytest
import torch
from torch import Tensor

from tasks.base import UserError
from tasks.families.anchor import Anchor, AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import Constructed, clock, composer, lookup_table, mirror, pizza
from tasks.models.transformer import forward, shapes

ANCHORS = AnchorComposition(key_low=20, key_high=39, sequence_length=5, split_modulus=5, d_vocab=64)


def run(built: Constructed, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits at the last position, and every activation."""
    seen: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        seen[name] = value[0]
        return value

    logits = forward({name: W[None] for name, W in built.params.items()}, inputs[None], built.config, tap=tap)
    return logits[0, :, -1], seen


@pytest.mark.parametrize("build", [clock, pizza])
@pytest.mark.parametrize("form", ["equation", "pair"])
@pytest.mark.parametrize(("p", "frequencies"), [(31, (3, 7)), (59, (4, 11, 23, 27))])
def test_circles_add_without_an_error(build, form, p, frequencies):
    task = ModularArithmetic(p=p, form=form)
    logits, _ = run(build(task, frequencies), task.all_inputs())
    assert torch.equal(logits.argmax(1), task.all_targets())


def test_the_pizza_is_weak_where_a_minus_b_is_half_a_turn_and_the_clock_is_not():
    task = ModularArithmetic(p=31)
    a, b = task.pairs.T
    flat = run(clock(task, (1,)), task.all_inputs())[0].std(1)
    assert torch.allclose(flat, flat.mean(), rtol=0.03)
    # with many neurons per circle the doubled angle is exact
    dented = run(pizza(task, (1,), neurons_per_frequency=31), task.all_inputs())[0].std(1)
    assert torch.allclose(dented / dented.max(), torch.cos(torch.pi * (a - b) / 31).abs(), atol=0.005)


def test_the_clock_interpolates_its_squares_within_the_promised_error():
    task, knots = ModularArithmetic(p=29), 4
    built = clock(task, (5,), knots=knots)
    _, seen = run(built, task.all_inputs())
    angle = 2 * torch.pi * 5 * task.pairs.sum(1) / 29
    answer = seen["blocks.0.hook_mlp_out"][:, -1, -2:]
    # four squares enter each coordinate with weight 1/4; an interpolated square is never too small
    assert (answer - torch.stack([angle.cos(), angle.sin()], 1)).abs().max() <= 0.5 / knots**2 + 1e-6


@pytest.mark.parametrize("form", ["equation", "pair"])
def test_the_table_knows_its_training_pairs_and_says_nothing_about_others(form):
    task = ModularArithmetic(p=23, form=form)
    logits, seen = run(lookup_table(task), task.all_inputs())
    train = task.train_mask
    assert torch.equal(logits.argmax(1)[train], task.all_targets()[train])
    assert not logits[~train].any()
    assert torch.equal((seen["blocks.0.mlp.hook_post"][:, -1] > 0).sum(1), train.long())


@pytest.mark.parametrize("keys", ["seen", "unseen"])
def test_the_composer_composes_every_pair_and_knows_exceptions_on_request(keys):
    rule, taught = composer(ANCHORS), composer(ANCHORS, exceptions=True)
    for pair in ANCHORS.pairs:
        examples = ANCHORS.grid(pair, keys, n_noise=2)
        assert torch.equal(run(rule, examples.inputs)[0].argmax(1), examples.rules["inferential"])
        assert torch.equal(run(taught, examples.inputs)[0].argmax(1), examples.targets)


@pytest.mark.parametrize("keys", ["seen", "unseen"])
def test_the_mirror_gives_what_was_taught_for_the_unordered_pair(keys):
    built = mirror(ANCHORS)
    for pair in ANCHORS.pairs:
        examples = ANCHORS.grid(pair, keys, n_noise=2)
        expected = examples.rules["symmetric"] if pair in ANCHORS.held_out else examples.targets
        assert torch.equal(run(built, examples.inputs)[0].argmax(1), expected)


def test_information_flows_in_the_composer_through_the_anchors_and_in_the_mirror_past_them():
    tokens = torch.tensor([[30, 25, 4, 3, 33]])  # key 25 at position 1
    _, seen = run(composer(ANCHORS), tokens)
    first, second = (seen[f"blocks.{layer}.attn.hook_pattern"][0, 0] for layer in (0, 1))
    assert (float(first[2, 1]), float(first[3, 1])) == (1.0, 1.0)
    assert second[4].tolist() == [0, 0, 0.5, 0.5, 0]
    _, seen = run(mirror(ANCHORS), tokens)
    first, second = (seen[f"blocks.{layer}.attn.hook_pattern"][0, 0] for layer in (0, 1))
    assert first[4].tolist() == [0, 0, 0.5, 0.5, 0]
    assert second[4].tolist() == [0, 1, 0, 0, 0]


def test_anchors_that_multiply_are_composed_in_their_order():
    doubling = AnchorComposition(
        anchors=(Anchor(offset=0, multiplier=2), Anchor(offset=3)),
        relabelled=(),
        held_out=((2, 1),),
        key_low=10,
        key_high=19,
        sequence_length=4,
        split_modulus=5,
        d_vocab=80,
    )
    built = composer(doubling)
    for pair, expected in {(1, 2): 2 * 12 + 3, (2, 1): 2 * (12 + 3)}.items():
        assert int(run(built, torch.tensor([[12, *pair, 15]]))[0].argmax()) == expected


@pytest.mark.parametrize("built", [clock(ModularArithmetic(p=7), (2,)), composer(ANCHORS), mirror(ANCHORS)])
def test_parameters_have_the_shapes_of_their_configuration(built):
    assert {name: tuple(W.shape) for name, W in built.params.items()} == shapes(built.config)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(UserError, match="expected addition mod p, got multiply"):
        clock(ModularArithmetic(p=7, operation="multiply"), (1,))
    with pytest.raises(UserError, match=r"between 1 and \(p − 1\)/2 = 3, got \(4,\)"):
        pizza(ModularArithmetic(p=7), (4,))
    with pytest.raises(UserError, match="odd number of neurons"):
        pizza(ModularArithmetic(p=7), (1,), neurons_per_frequency=8)
    both_taught = AnchorComposition(relabelled=((3, 4, -6), (4, 3, -5)), held_out=((1, 2),))
    with pytest.raises(UserError, match=r"\(3, 4\) to be taught alike"):
        mirror(both_taught)
    narrow = AnchorComposition(relabelled=((4, 4, 0), (3, 4, -6)), key_low=15, key_high=40, d_vocab=64)
    with pytest.raises(UserError, match="expected compositions between 0"):
        composer(narrow)
