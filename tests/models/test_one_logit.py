"""Loss and logit of a ReLU layer found in one pass, against the forward pass and the loss after it."""

import math
from dataclasses import replace

import pytest
import torch

from tasks.models import mlp
from tasks.models.config import MLPConfig
from tasks.models.mlp import MLP, forward, mean_cross_entropy, shapes
from tasks.models.mlp import _one_logit as one_by_one
from tasks.training.objective import cross_entropy, losses, mean_loss

BITS = MLPConfig(n_ctx=5, d_vocab=2, d_vocab_out=2, d_hidden=(6,), constant_input=True, one_logit=True)
KINDS = {
    "one layer": BITS,
    "width one": replace(BITS, d_hidden=(1,)),
    "a bias": replace(BITS, bias=True, constant_input=False),
    "three layers, biases": replace(BITS, d_hidden=(4, 9, 7), bias=True),
    "an embedding, two layers": replace(BITS, d_hidden=(4, 8), constant_input=False, input="embedding", d_embed=3),
}
one_logit = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


@pytest.fixture(params=["over the stack", "model by model"])
def either_way(request, monkeypatch):
    """Both ways to compute a stack, whatever the size of its activations."""
    monkeypatch.setattr("tasks.models.layers._WORTH_A_CALL", 1 if request.param == "model by model" else 1 << 60)


def stack(config: MLPConfig):
    """Random weights of three models, and a batch for each."""
    rng = torch.Generator().manual_seed(0)
    params = {name: torch.randn((3, *shape), generator=rng) for name, shape in shapes(config).items()}
    return params, torch.randint(0, 2, (3, 11, config.n_ctx), generator=rng)


def loss_and_gradients(how, params, tokens, targets, config):
    """Mean cross entropy of each model, and the gradients of a weighted sum of them."""
    params = {name: value.detach().requires_grad_() for name, value in params.items()}
    if how == "together":
        found = mean_cross_entropy(params, tokens, targets, config)
        assert found is not None
    else:
        found = cross_entropy(forward(params, tokens, config)[:, :, 0], targets).mean(-1)
    weights = 2.0 ** torch.arange(len(found))  # powers of two change no digits
    return [found.detach(), *torch.autograd.grad((weights * found).sum(), list(params.values()))]


@one_logit
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.usefixtures("either_way")
def test_loss_and_logit_found_together_are_what_they_are_one_after_the_other(config, dtype, tolerance):
    params, tokens = stack(config)
    params = {name: value.to(dtype) for name, value in params.items()}
    targets = torch.randint(0, 2, tokens.shape[:2], generator=torch.Generator().manual_seed(1))
    both = [loss_and_gradients(how, params, tokens, targets, config) for how in ("together", "apart")]
    for ours, theirs in zip(*both, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@one_logit
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so_found_a_member_of_a_stack_is_as_if_alone_and_a_shared_batch_as_copies_of_it(config, dtype):
    params, tokens = stack(config)
    params = {name: value.to(dtype) for name, value in params.items()}
    targets = torch.randint(0, 2, tokens.shape[:2], generator=torch.Generator().manual_seed(1))
    together = loss_and_gradients("together", params, tokens, targets, config)
    for m in range(3):
        one = {name: value[m : m + 1] for name, value in params.items()}
        loss, *gradients = loss_and_gradients("together", one, tokens[m : m + 1], targets[m : m + 1], config)
        torch.testing.assert_close(together[0][m : m + 1], loss)
        for ours, theirs in zip(together[1:], gradients, strict=True):
            assert torch.equal(ours[m : m + 1], 2.0**m * theirs)
    shared = [value[:1].expand(3, *value.shape[1:]) for value in (tokens, targets)]
    of_shared = loss_and_gradients("together", params, *shared, config)
    of_copies = loss_and_gradients("together", params, *(value.clone() for value in shared), config)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(of_shared, of_copies, strict=True))


@pytest.mark.usefixtures("either_way")
def test_found_together_a_loss_too_small_for_float32_still_has_a_gradient():
    config = replace(BITS, n_ctx=1, d_hidden=(1,), constant_input=False)
    params = {"layers.0.W_in": torch.tensor([[[30.0]]]), "unembed.W_U": torch.tensor([[[1.0]]])}
    for answer, loss, slope in ((1, math.exp(-30), -30 * math.exp(-30)), (0, 30, 30)):
        found = loss_and_gradients("together", params, torch.tensor([[[1]]]), torch.tensor([[answer]]), config)
        assert float(found[0]) == pytest.approx(loss, rel=1e-6)
        assert float(found[2]) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    "change", [{"output_bias": True}, {"act_fn": "square"}, {"one_logit": False}, {"input": "embedding", "d_embed": 7}]
)
def test_elsewhere_loss_and_logits_are_found_one_after_the_other(change):
    config = replace(BITS, **({"constant_input": False} | change))
    params, tokens = stack(config)
    assert mean_cross_entropy(params, tokens, tokens[:, :, 0], config) is None


@pytest.mark.parametrize(
    ("settings", "together"),
    [
        (("none", "cross_entropy", "float64"), True),
        (("none", "cross_entropy", "float32"), False),
        (("none", "stablemax", "float64"), False),
        (("none", "squared_error", "float64"), False),
        (("bfloat16", "cross_entropy", "float64"), False),
    ],
)
def test_training_finds_them_together_where_it_minimises_cross_entropy_in_float64(settings, together):
    params, tokens = stack(BITS)
    params = {name: value.requires_grad_() for name, value in params.items()}
    loss = mean_loss(params, tokens, tokens[:, :, 0], MLP(), BITS, -1, None, *settings)
    logits = forward(params, tokens, BITS)[:, :, 0]
    expected = losses(logits, tokens[:, :, 0], *settings[1:]).mean(-1).sum()
    torch.testing.assert_close(loss, expected, rtol=3e-2 if settings[0] == "bfloat16" else 1e-6, atol=0)
    assert (loss.grad_fn is not None and "OneLogitLoss" in loss.grad_fn.next_functions[0][0].name()) == together


def test_logits_without_gradients_found_model_by_model_are_those_with_them(monkeypatch):
    monkeypatch.setattr("tasks.models.layers._WORTH_A_CALL", 1)
    calls = []
    monkeypatch.setattr(mlp, "_one_logit", lambda *values: calls.append(values) or one_by_one(*values))
    for config in (BITS, replace(BITS, d_hidden=(4, 9), bias=True, output_bias=True)):
        params, tokens = stack(config)
        with_gradients = forward({name: value.requires_grad_() for name, value in params.items()}, tokens, config)
        assert not calls
        with torch.no_grad():
            torch.testing.assert_close(forward(params, tokens, config), with_gradients.detach())
        assert len(calls) == 1
        calls.clear()


def test_what_a_compiler_fuses_itself_is_left_to_it(monkeypatch):
    params, tokens = stack(BITS)
    assert mean_cross_entropy(params, tokens, tokens[:, :, 0], BITS) is not None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert mean_cross_entropy(params, tokens, tokens[:, :, 0], BITS) is None
