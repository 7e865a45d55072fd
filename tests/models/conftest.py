"""Small models of many shapes with random weights, none of them zero."""

import pytest
import torch

from tasks.models.config import TransformerConfig
from tasks.models.hooked import HookedTransformer
from tasks.models.transformer import shapes

SIZE = {
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 3,
    "d_head": 5,
    "n_ctx": 4,
    "d_vocab": 11,
    "d_vocab_out": 7,
    "d_mlp": 24,
}
BIASES = {"attention_bias": True, "mlp_bias": True, "unembedding_bias": True}
ARCHITECTURES = {
    "plain": SIZE,
    "one layer, one head": SIZE | {"n_layers": 1, "n_heads": 1, "d_vocab_out": 11},
    "biases": SIZE | BIASES,
    "gelu, MLP biases": SIZE | {"act_fn": "gelu", "mlp_bias": True},
    "attention only": SIZE | {"d_mlp": None, "attention_bias": True},
    "pre-LN": SIZE | {"normalization": "pre"},
    "pre-LN, three layers, gelu, biases": SIZE | BIASES | {"normalization": "pre", "n_layers": 3, "act_fn": "gelu"},
    "pre-LN, attention only": SIZE | {"normalization": "pre", "d_mlp": None},
    "bidirectional": SIZE | {"causal": False},
    "tied": SIZE | {"tied_unembedding": True},
    "no positions": SIZE | {"positions": False},
    "post-LN": SIZE | BIASES | {"normalization": "post"},
    "post-LN, attention only": SIZE | {"normalization": "post", "d_mlp": None},
    "attention mix": SIZE | {"attention_mix": 0.5},
    "identity": SIZE | {"act_fn": "identity"},
    "real input": SIZE | {"d_vocab": None, "d_input": 6},
}


def random_model(config: TransformerConfig, seed: int = 0) -> HookedTransformer:
    """A model whose every parameter is drawn around 0 (LayerNorm weights around 1) with std 0.3."""
    rng = torch.Generator().manual_seed(seed)
    params = {name: 0.3 * torch.randn(shape, generator=rng) for name, shape in shapes(config).items()}
    return HookedTransformer(config, {k: v + 1 if k.endswith(".w") else v for k, v in params.items()})


@pytest.fixture
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    """The architecture that ``parametrize("model", …, indirect=True)`` names; "plain" otherwise."""
    return random_model(TransformerConfig(**ARCHITECTURES[getattr(request, "param", "plain")]))


@pytest.fixture
def tokens() -> torch.Tensor:
    """Six sequences of four tokens below 11."""
    return torch.randint(0, 11, (6, 4), generator=torch.Generator().manual_seed(1))
