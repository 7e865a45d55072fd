"""Published layouts: what their authors' formulas compute from the stored tensors, there and back, and refusals."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.config import Layout, MLPConfig, TransformerConfig
from tasks.models.layouts import LAYOUTS, contents, read
from tasks.models.mlp import MLP
from tasks.models.transformer import Transformer, shapes

EQUATION, PAIR = (ModularArithmetic(p=7, form=form) for form in ("equation", "pair"))
SIZES = {"d_model": 16, "n_heads": 3, "d_head": 5, "d_mlp": 24}  # all different: a transpose shows
TRANSFORMERS = ["transformer_lens", "progress_measures", "clock_pizza", "group_transformer"]
TASKS = {
    "transformer_lens": EQUATION,
    "progress_measures": EQUATION,
    "clock_pizza": PAIR,
    "group_mlp": PAIR,
    "group_transformer": EQUATION,
}
MIX = {"clock_pizza": {"attention_mix": 0.3}}  # what the weights do not show


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Entries around 0 with std 0.4 in float64, so that sums in another order agree to many digits."""
    return 0.4 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transposed_transformer(task: ModularArithmetic, n_layers: int = 1, **sizes: int) -> dict[str, torch.Tensor]:
    """Random weights as Nanda et al. and Zhong et al. store them, with a mask, and a logit for every token."""
    n = SIZES | sizes
    d, h, e, m = (n[name] for name in ("d_model", "n_heads", "d_head", "d_mlp"))
    stored = {"embed.W_E": drawn(d, task.d_vocab), "pos_embed.W_pos": drawn(task.n_ctx, d)}
    for layer in range(n_layers):
        block = f"blocks.{layer}"
        stored |= {f"{block}.attn.W_{part}": drawn(h, e, d, seed=layer + 10 * i) for i, part in enumerate("KQV")}
        stored |= {f"{block}.attn.W_O": drawn(d, h * e, seed=layer), f"{block}.attn.mask": torch.ones(3, 3).tril()}
        stored |= {f"{block}.mlp.W_in": drawn(m, d, seed=layer), f"{block}.mlp.b_in": drawn(m, seed=layer)}
        stored |= {f"{block}.mlp.W_out": drawn(d, m, seed=5 + layer), f"{block}.mlp.b_out": drawn(d, seed=layer)}
    return stored | {"unembed.W_U": drawn(d, task.d_vocab, seed=3)}


def group_mlp(n: int = 7) -> dict[str, torch.Tensor]:
    return {"W_x": drawn(n, 5), "W_y": drawn(n, 5, seed=1), "W": drawn(10, 12), "W_U": drawn(12, n, seed=2)}


def in_our_axes(stored: dict[str, torch.Tensor], n_heads: int = 3) -> dict[str, torch.Tensor]:
    """The same weights as transformer-lens stores them, head by head, with a mask and copies of W_E among them."""
    ours = {"x_embed": stored["embed.W_E"].T, "y_embed": stored["embed.W_E"].T}
    for name, value in stored.items():
        kind = name.rsplit(".", 1)[-1]
        if kind in ("W_Q", "W_K", "W_V"):
            ours[name] = torch.stack([head.T for head in value])
        elif kind == "W_O":
            ours[name] = torch.stack([columns.T for columns in value.chunk(n_heads, dim=1)])
        else:
            ours[name] = value.T if kind in ("W_E", "W_in", "W_out") else value
    return ours


def stored(layout: str) -> dict[str, torch.Tensor]:
    """Random weights in a layout, for its task."""
    if layout == "group_mlp":
        return group_mlp()
    weights = transposed_transformer(TASKS[layout])
    return weights if layout in ("progress_measures", "clock_pizza") else in_our_axes(weights)


def logits(config: TransformerConfig | MLPConfig, params: dict[str, torch.Tensor], task: ModularArithmetic):
    """Our logits at the answer."""
    family = MLP if isinstance(config, MLPConfig) else Transformer
    stack = {name: value.unsqueeze(0) for name, value in params.items()}
    return family.forward(stack, task.all_inputs()[None], config, answer_position=task.answer_position)[0, :, 0]


def by_formula(w: dict[str, torch.Tensor], task: ModularArithmetic, *, causal: bool, alpha: float, act=torch.relu):
    """Logits at the answer from the tensors as Nanda et al. and Zhong et al. store them, one head at a time."""
    x = w["embed.W_E"].T[task.all_inputs()] + w["pos_embed.W_pos"]
    for layer in range(sum(name.endswith("W_O") for name in w)):
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        z = []
        for W_Q, W_K, W_V in zip(*(w[f"{attn}.W_{part}"] for part in "QKV"), strict=True):
            scores = (x @ W_Q.T) @ (x @ W_K.T).transpose(1, 2) / W_Q.shape[0] ** 0.5
            if causal:
                scores = scores + torch.full(scores.shape[1:], -torch.inf).triu(1)
            z.append((alpha * scores.softmax(-1) + (1 - alpha)) @ (x @ W_V.T))
        x = x + torch.cat(z, dim=-1) @ w[f"{attn}.W_O"].T
        x = x + act(x @ w[f"{mlp}.W_in"].T + w[f"{mlp}.b_in"]) @ w[f"{mlp}.W_out"].T + w[f"{mlp}.b_out"]
    return (x[:, -1] @ w["unembed.W_U"])[:, : task.p]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to float64 sums in another order."""
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_the_command_line_offers_the_layouts_that_are_read():
    assert get_args(Layout) == tuple(LAYOUTS)


@pytest.mark.parametrize("heads", [{}, {"n_heads": 4, "d_head": 4}], ids=["narrow heads", "heads that fill d_model"])
def test_progress_measures_weights_compute_their_authors_formula(heads):
    weights = transposed_transformer(EQUATION, **heads)
    config, params = read({"model": weights, "train_losses": [0.1]}, "progress_measures", EQUATION)
    assert config == TransformerConfig(n_layers=1, **SIZES | heads, n_ctx=3, d_vocab=8, d_vocab_out=7, mlp_bias=True)
    assert_same(logits(config, params, EQUATION), by_formula(weights, EQUATION, causal=True, alpha=1.0))


@pytest.mark.parametrize("form", ["pair", "equation"])
@pytest.mark.parametrize("diff_vocab", [False, True])
def test_clock_pizza_weights_compute_their_authors_formula(form, diff_vocab, tmp_path):
    task = ModularArithmetic(p=7, form=form, diff_vocab=diff_vocab)
    weights = transposed_transformer(task, n_layers=2)
    torch.save(weights, tmp_path / "model_a1b2.pt")
    (tmp_path / "config_a1b2.json").write_text(json.dumps({"attn_coeff": 0.3, "act_fn": "GeLU", "n_layers": 2}))
    config, params = read(tmp_path / "model_a1b2.pt", "clock_pizza", task)
    assert (config.n_layers, config.causal, config.attention_mix, config.act_fn) == (2, False, 0.3, "gelu")
    expected = by_formula(weights, task, causal=False, alpha=0.3, act=torch.nn.functional.gelu)
    assert_same(logits(config, params, task), expected)


def test_what_is_said_by_keyword_stands_above_the_configuration_beside_the_file(tmp_path):
    torch.save(transposed_transformer(PAIR), tmp_path / "model_x.pt")
    (tmp_path / "config_x.json").write_text('{"attn_coeff": 0.3, "act_fn": "ReLU"}')
    config, _ = read(tmp_path / "model_x.pt", "clock_pizza", PAIR, attention_mix=0.0, act_fn="tanh")
    assert (config.attention_mix, config.act_fn) == (0.0, "tanh")


def test_group_mlp_weights_compute_their_authors_formula():
    w = group_mlp()
    config, params = read(w, "group_mlp", PAIR)
    assert (config.d_embed, config.d_hidden, config.act_fn) == (5, (12,), "relu")
    a, b = PAIR.pairs.T
    expected = torch.relu(torch.hstack([w["W_x"][a], w["W_y"][b]]) @ w["W"]) @ w["W_U"]
    assert_same(logits(config, params, PAIR), expected)


@pytest.mark.parametrize("layout", ["transformer_lens", "group_transformer"])
@pytest.mark.parametrize("columns", [7, 8], ids=["answers only", "with a column for ="])
def test_weights_in_our_own_axes_are_read_as_they_are_without_masks_and_copies(layout, columns):
    weights = transposed_transformer(EQUATION) | {"unembed.W_U": drawn(16, columns)}
    config, params = read(in_our_axes(weights), layout, EQUATION)
    assert set(params) == set(shapes(config))
    assert_same(logits(config, params, EQUATION), by_formula(weights, EQUATION, causal=True, alpha=1.0))


@pytest.mark.parametrize("layout", TRANSFORMERS)
def test_a_model_of_ours_that_is_written_in_a_layout_comes_back_bit_by_bit(layout):
    task = TASKS[layout]
    config = TransformerConfig(
        n_layers=2, **SIZES, n_ctx=task.n_ctx, d_vocab=task.d_vocab, d_vocab_out=7, mlp_bias=True
    )
    if layout == "clock_pizza":
        config = replace(config, causal=False, attention_mix=0.3)
    params = {name: drawn(*shape, seed=i) for i, (name, shape) in enumerate(shapes(config).items())}
    written = dict(params)
    if layout in ("progress_measures", "clock_pizza"):
        for name, value in params.items():
            kind = name.rsplit(".", 1)[-1]
            if kind in ("W_Q", "W_K", "W_V"):
                written[name] = value.mT
            elif kind == "W_O":
                written[name] = torch.cat([head.T for head in value], dim=1)
            elif kind in ("W_E", "W_in", "W_out"):
                written[name] = value.T
    back, found = read(written, layout, task, **MIX.get(layout, {}))
    assert back == config
    assert list(found) == list(params)
    assert all(found[name].equal(value) for name, value in params.items())
    assert logits(back, found, task).equal(logits(config, params, task))


MATRICES = [
    (layout, name) for layout in LAYOUTS for name, value in stored(layout).items() if value.ndim > 1 and "W_" in name
] + [("group_mlp", "W")]


@pytest.mark.parametrize(("layout", "name"), MATRICES)
def test_a_transposed_tensor_is_refused_by_its_name_and_with_both_shapes(layout, name):
    weights = stored(layout)
    wrong = weights | {name: weights[name].mT.contiguous()}
    with pytest.raises(UserError) as caught:
        read(wrong, layout, TASKS[layout], **MIX.get(layout, {}))
    message = str(caught.value)
    # where one tensor shows a size to the others, either may be the one that does not fit
    assert message.startswith("expected ")
    assert f" in layout {layout}, got (" in message
    assert "\n" not in message
    if not name.endswith(("W_pos", "W_Q", "W_x", "W_U")):
        assert message.startswith(f"expected {name} [")
        assert f"got {tuple(wrong[name].shape)}" in message


def test_a_transpose_that_no_shape_shows_is_read_and_changes_the_logits():
    weights = transposed_transformer(EQUATION, n_heads=4, d_head=4)
    wrong = weights | {"blocks.0.attn.W_O": weights["blocks.0.attn.W_O"].T}
    right, other = (logits(*read(w, "progress_measures", EQUATION), EQUATION) for w in (weights, wrong))
    assert (right - other).abs().max() > 0.1


@pytest.mark.parametrize(("layout", "other"), [(a, b) for a in LAYOUTS for b in LAYOUTS if LAYOUTS[a] != LAYOUTS[b]])
def test_weights_of_another_layout_are_refused(layout, other):
    with pytest.raises(UserError, match=f"in layout {other}, got .*another layout"):
        read(stored(layout), other, TASKS[layout], **MIX.get(other, {}))


OTHER_TASKS = [
    (layout, replace(task, **change))
    for layout, task in TASKS.items()
    for change in ({"p": 5}, {"p": 11}, {"form": "equation"}, {"form": "pair"}, {"diff_vocab": True})
    if replace(task, **change) != task
]


@pytest.mark.parametrize(("layout", "task"), OTHER_TASKS)
def test_a_task_of_other_sizes_is_refused_and_the_message_says_what_it_expected(layout, task):
    with pytest.raises(UserError, match=rf"expected .*(d_vocab {task.d_vocab}|pos {task.n_ctx}).*, got \("):
        read(stored(layout), layout, task, **MIX.get(layout, {}))


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (
            "progress_measures",
            {"unembed.W_U": None},
            r"expected W_U \[d_model, logit\] in layout .*, got no such tensor",
        ),
        ("group_mlp", {"W_y": None}, r"expected W_y \[d_vocab, d_embed\] in layout group_mlp, got no such tensor"),
        ("progress_measures", {"blocks.0.attn.W_K": None}, r"expected W_K \[head, d_head, d_model\] in layout"),
        ("transformer_lens", {"blocks.0.attn.W_K": None}, "missing parameter blocks.0.attn.W_K"),
        ("progress_measures", {"blocks.0.attn.b_Q": torch.zeros(3, 5)}, "got 'blocks.0.attn.b_Q': another layout"),
        ("group_mlp", {"W_z": torch.zeros(7, 5)}, "expected only W_x, W_y, W, W_U in layout group_mlp, got 'W_z'"),
        ("progress_measures", {"blocks.0.attn.W_Q": torch.zeros(16, 15)}, r"W_Q \[head, d_head, d_model 16\]"),
        ("transformer_lens", {"unembed.W_U": torch.zeros(16, 9)}, r"W_U \[d_model 16, logit 7\]"),
        ("group_mlp", {"epoch": 3}, "expected a state dict of tensors, got int under 'epoch'"),
    ],
)
def test_a_tensor_too_few_too_many_or_of_other_axes_is_refused(layout, change, message):
    weights = {name: value for name, value in (stored(layout) | change).items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        read(weights, layout, TASKS[layout])
    assert "\n" not in str(caught.value)


def test_an_unknown_layout_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"expected a layout among transformer_lens, .*, got 'pizza'"):
        read(stored("clock_pizza"), "pizza", PAIR)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (None, "expected attention_mix=…, or config_NAME.json with attn_coeff beside model_NAME.pt"),
        ('{"act_fn": "ReLU"}', "expected attention_mix=…"),
        ('{"attn_coeff": 0.', "config_x.json, it is damaged"),
        ("[1]", "config_x.json, it is damaged"),
        ('{"attn_coeff": 0.5, "act_fn": "Sine"}', "expected act_fn among .*, got 'sine'"),
    ],
)
def test_clock_pizza_weights_without_their_attention_coefficient_are_refused(beside, message, tmp_path):
    torch.save(transposed_transformer(PAIR), tmp_path / "model_x.pt")
    if beside is not None:
        (tmp_path / "config_x.json").write_text(beside)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "model_x.pt", "clock_pizza", PAIR)


def test_what_stands_beside_the_weights_is_kept(tmp_path):
    weights = group_mlp()
    torch.save({"model": weights, "train_losses": [2.0, 1.0], "epoch": 1}, tmp_path / "model_y.pt")
    (tmp_path / "config_y.json").write_text('{"seed": 3}')
    found, beside = contents(tmp_path / "model_y.pt")
    assert all(found[name].equal(value) for name, value in weights.items())
    assert beside == {"train_losses": [2.0, 1.0], "epoch": 1, "config": {"seed": 3}}
    assert contents(weights)[1] == {}
