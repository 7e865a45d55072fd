"""The tangent kernel against derivatives written down in full, and against closed forms."""

import pytest
import torch
from torch import Tensor

from interp.subject import Subject
from interp.weights.tangent import tangent_kernel
from tasks.base import Task, UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.families.regression import SineRegression
from tasks.models import mlp, transformer
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.registry import model_family

TASK = ModularArithmetic(p=5)
SIZES = {"n_layers": 2, "d_model": 6, "n_heads": 2, "d_head": 3, "n_ctx": 3, "d_vocab": 6, "d_vocab_out": 5}
BIASES = {"attention_bias": True, "mlp_bias": True, "unembedding_bias": True}


def random_subject(config, task: Task = TASK) -> Subject:
    shapes = (mlp if isinstance(config, MLPConfig) else transformer).shapes(config)
    drawn = torch.Generator().manual_seed(0)
    params = {
        name: torch.randn(shape, generator=drawn, dtype=torch.float64) / shape[-1] ** 0.5
        for name, shape in shapes.items()
    }
    return Subject.of(config, params, task)


def written_down(subject: Subject, inputs: Tensor) -> Tensor:
    """The kernel from the derivative of every logit by every parameter."""
    family, at = model_family(subject.config), subject.task.answer_position
    params = {name: value.clone().requires_grad_() for name, value in subject.params.items()}
    rows = []
    for example in inputs:
        stack = {name: value.unsqueeze(0) for name, value in params.items()}
        shown = family.forward(stack, example[None, None], subject.config)[0, 0]
        for logit in shown[at if len(shown) > 1 else 0]:
            each = torch.autograd.grad(logit, list(params.values()), retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([derivative.flatten() for derivative in each]))
    J = torch.stack(rows).unflatten(0, (len(inputs), -1))
    return torch.einsum("icp,jcp->ij", J, J)


TRANSFORMERS = {
    "plain": TransformerConfig(**SIZES, d_mlp=7),
    "biases": TransformerConfig(**SIZES, **BIASES, d_mlp=7, act_fn="gelu"),
    "attention only": TransformerConfig(**SIZES, positions=False, causal=False, attention_mix=0.5),
    "pre": TransformerConfig(**SIZES, **BIASES, d_mlp=7, normalization="pre"),
    "post": TransformerConfig(**SIZES, d_mlp=7, normalization="post"),
    "post, attention only": TransformerConfig(**SIZES, normalization="post"),
    "tied": TransformerConfig(**SIZES, d_mlp=7, tied_unembedding=True),
    "tied and normalised": TransformerConfig(**SIZES, d_mlp=7, tied_unembedding=True, normalization="pre"),
}
READS = {"n_ctx": 3, "d_vocab": 6, "d_vocab_out": 5, "d_hidden": (7, 4)}
MLPS = {
    "one hot": MLPConfig(**READS, input="one_hot"),
    "biases": MLPConfig(**READS, input="one_hot", bias=True, output_bias=True, act_fn="tanh"),
    "shared table": MLPConfig(**READS, input="embedding", d_embed=4),
    "table per position": MLPConfig(**READS, input="concatenated", d_embed=4, bias=True),
    "tied": MLPConfig(**READS, input="embedding", d_embed=4, tied_unembedding=True),
    "numbers": MLPConfig(**READS, input="bits", constant_input=True),
}


@pytest.mark.parametrize(
    "config", [*TRANSFORMERS.values(), *MLPS.values()], ids=[*TRANSFORMERS, *(f"MLP, {k}" for k in MLPS)]
)
def test_the_kernel_is_that_of_all_derivatives_written_down(config) -> None:
    subject, inputs = random_subject(config), TASK.all_inputs()[::3]
    torch.testing.assert_close(tangent_kernel(subject, inputs), written_down(subject, inputs), rtol=1e-10, atol=1e-10)


def test_so_it_is_where_one_logit_stands_for_two_answers_and_where_inputs_are_vectors() -> None:
    parity = SparseParity(n_bits=6, k=2, n_train=8, n_test=8)
    one = random_subject(MLPConfig(n_ctx=6, d_vocab=2, d_vocab_out=2, d_hidden=(5,), one_logit=True), parity)
    bits = parity.train_set().inputs
    torch.testing.assert_close(tangent_kernel(one, bits), written_down(one, bits))
    sine = SineRegression(dimension=4, n_train=6)
    vectors = sine.train_set().inputs.double()
    real = random_subject(MLPConfig(n_ctx=4, d_vocab_out=1, d_hidden=(5,), input="vector"), sine)
    torch.testing.assert_close(tangent_kernel(real, vectors), written_down(real, vectors))


def test_logits_taken_a_few_at_a_time_give_the_same_kernel(monkeypatch) -> None:
    subject, inputs = random_subject(TRANSFORMERS["tied"]), TASK.all_inputs()[:7]
    whole = tangent_kernel(subject, inputs)
    monkeypatch.setattr("interp.weights.tangent._DERIVATIVES", 1)
    torch.testing.assert_close(tangent_kernel(subject, inputs), whole)


def test_the_kernel_of_squares_is_that_worked_out_by_hand() -> None:
    # f = Σ_k u_k (w_k·x)²: ∂f/∂u_k = (w_k·x)², ∂f/∂w_k = 2 u_k (w_k·x) x, and with M = Σ_k u_k² w_k w_kᵀ
    # K(x, x′) = Σ_k (w_k·x)² (w_k·x′)² + 4 (x·x′) xᵀ M x′
    task = SineRegression(dimension=3, n_train=5)
    x = task.train_set().inputs.double()
    subject = random_subject(MLPConfig(n_ctx=3, d_vocab_out=1, d_hidden=(4,), input="vector", act_fn="square"), task)
    W, u = subject.params["layers.0.W_in"], subject.params["unembed.W_U"].squeeze(1)
    M = (W * u**2) @ W.T
    expected = (x @ W) ** 2 @ ((x @ W) ** 2).T + 4 * (x @ x.T) * (x @ M @ x.T)
    torch.testing.assert_close(tangent_kernel(subject, x), expected)


def test_scaling_the_weights_of_three_homogeneous_layers_scales_the_kernel_by_the_fourth_power() -> None:
    subject, inputs = random_subject(MLPS["one hot"]), TASK.all_inputs()[:9]
    doubled = subject.with_params({name: 2 * value for name, value in subject.params.items()})
    torch.testing.assert_close(tangent_kernel(doubled, inputs), 2**4 * tangent_kernel(subject, inputs))


def test_weights_in_float32_lose_rounding_alone() -> None:
    subject, inputs = random_subject(TRANSFORMERS["biases"]), TASK.all_inputs()
    single = subject.with_params({name: value.float() for name, value in subject.params.items()})
    exact = tangent_kernel(subject, inputs)
    assert float((tangent_kernel(single, inputs) - exact).norm() / exact.norm()) < 1e-5


def test_the_kernel_is_symmetric_and_has_no_negative_eigenvalue() -> None:
    kernel = tangent_kernel(random_subject(TRANSFORMERS["pre"]), TASK.all_inputs())
    torch.testing.assert_close(kernel, kernel.T)
    eigenvalues = torch.linalg.eigvalsh(kernel)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


def test_inputs_of_another_length_are_refused() -> None:
    with pytest.raises(UserError, match="expected inputs of 3 tokens, got 2"):
        tangent_kernel(random_subject(TRANSFORMERS["plain"]), TASK.all_inputs()[:, :2])
