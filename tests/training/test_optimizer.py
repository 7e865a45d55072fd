"""The stacked AdamW against torch's, model by model."""

import pytest
import torch
from torch import Tensor

from tasks.base import UserError
from tasks.training.config import TrainingConfig
from tasks.training.optimizer import StackedAdamW, StackedParameters, _neighbours

SHAPES = {"embed.W_E": (5, 3), "mlp.b_in": (7,), "ln1.w": (3,), "ln1.b": (3,), "mlp.W_in": (3, 7), "unembed.b_U": (1,)}
RATES = torch.tensor([1e-2, 3e-3, 3e-3, 1e-2, 0.2], dtype=torch.float64)  # equal settings side by side, and apart
DECAYS = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.3], dtype=torch.float64)
STEPS = 40


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(len(RATES), *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_of(tensors: dict[str, Tensor], step: int) -> Tensor:
    """One number per model: a bowl whose bottom moves with the step, of very different steepness per tensor."""
    parts = [
        (10.0 ** (i - 2) * (value - 0.1 * step - i).square()).flatten(1).sum(1)
        for i, value in enumerate(tensors.values())
    ]
    return torch.stack(parts).sum(0)


def stacked(config: TrainingConfig) -> dict[str, Tensor]:
    """The parameters of the models after some steps of a warm-up in one stack."""
    params = StackedParameters({name: draw(shape, i) for i, (name, shape) in enumerate(SHAPES.items())})
    optimizer = StackedAdamW(params, config, DECAYS)
    for step in range(STEPS):
        params.differentiate(loss_of(params.tensors, step).sum())
        optimizer.step(RATES * min(step / 10, 1), step)
    return params.tensors


def alone(config: TrainingConfig, model: int) -> dict[str, Tensor]:
    """The same for one of the models, by torch.optim.AdamW."""
    tensors = {name: draw(shape, i)[model].clone().requires_grad_() for i, (name, shape) in enumerate(SHAPES.items())}
    kept = [name for name in tensors if config.decayed == "matrices" and not name.rpartition(".")[2].startswith("W_")]
    decay = float(DECAYS[model])
    groups = [
        {"params": [value for name, value in tensors.items() if name not in kept], "weight_decay": decay},
        {"params": [tensors[name] for name in kept], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]], betas=(config.beta1, config.beta2), eps=config.eps
    )
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = float(RATES[model]) * min(step / 10, 1)
        optimizer.zero_grad()
        loss_of({name: value.unsqueeze(0) for name, value in tensors.items()}, step).sum().backward()
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(tensors.values()), config.clip_norm)
        optimizer.step()
    return tensors


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(),
        TrainingConfig(decayed="matrices"),
        TrainingConfig(clip_norm=0.5, beta1=0.8, beta2=0.999, eps=1e-6),
        TrainingConfig(clip_norm=1e9),
    ],
    ids=["all decayed", "matrices decayed", "clipped", "clip never reached"],
)
def test_each_model_of_a_stack_follows_torchs_adamw_with_its_own_rate_and_decay(config):
    together = stacked(config)
    for model in range(len(RATES)):
        for name, expected in alone(config, model).items():
            # both round in float64, in the same order of operations
            torch.testing.assert_close(together[name][model], expected, rtol=1e-12, atol=1e-12)


def test_clipping_one_model_leaves_the_others_unclipped():
    # within a stack whose first model has a gradient of norm 5 and the second of norm 0.5
    params = StackedParameters({"W": torch.zeros(2, 2, 1, dtype=torch.float64)})
    optimizer = StackedAdamW(params, TrainingConfig(clip_norm=1.0), torch.zeros(2, dtype=torch.float64))
    slope = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64).unsqueeze(-1)
    params.differentiate((params.tensors["W"] * slope).sum())
    optimizer.step(torch.zeros(2, dtype=torch.float64), 0)
    norms = params.gradients.norm(dim=1)
    assert norms.tolist() == pytest.approx([1.0, 0.5], rel=1e-6)  # torch adds 1e-6 to the norm


def test_parameters_are_views_of_one_matrix_and_padding_stays_zero():
    params = StackedParameters({name: draw(shape, i) for i, (name, shape) in enumerate(SHAPES.items())})
    n = sum(value[0].numel() for value in params.tensors.values())
    optimizer = StackedAdamW(params, TrainingConfig(), DECAYS)
    for step in range(3):
        params.differentiate(loss_of(params.tensors, step).sum())
        optimizer.step(RATES, step)
    assert params.values.count_nonzero(dim=1).tolist() == [n] * len(RATES)
    for name, value in params.tensors.items():
        assert params.member(1)[name].equal(value[1])
        assert value.untyped_storage().data_ptr() == params.values.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "expected steps of at least 1, got 0"),
        ({"batch_size": 0}, "expected batch_size of at least 1"),
        ({"learning_rate": 0.0}, "expected a learning_rate above 0"),
        ({"weight_decay": -0.1}, "expected weight_decay of at least 0"),
        ({"snapshots": (-1,)}, "expected snapshot steps of at least 0"),
        ({"evaluate_every": 0}, "expected evaluate_every of at least 1"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**fields)


@pytest.mark.parametrize(
    ("models", "blocks"),
    [([0, 1, 2, 3], [(0, 4)]), ([2, 3, 5], [(2, 4), (5, 6)]), ([0, 2, 4], [(0, 1), (2, 3), (4, 5)]), ([7], [(7, 8)])],
)
def test_neighbours_are_updated_in_one_pass(models, blocks):
    assert [(block.start, block.stop) for block in _neighbours(models)] == blocks
