"""Initial weights, chosen per part of the model.

Parts: *embedding* (W_E, W_pos, read-in), *qk* (W_Q, W_K), *ov* (W_V, W_O), *mlp* (W_in, W_out), *unembedding* (W_U).
Each tensor has its own random stream, keyed by the seed and its name: widening one tensor changes no other. The code of
published anchor runs draws all of a model's from one stream; it can be asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from tasks.base import Fields, Tensor, UserError, generator

Scheme = Literal["power", "gain", "progress_measures"]
Stream = Literal["per_tensor", "torch"]
PARTS: dict[str, str] = {
    "W_E": "embedding",
    "W_pos": "embedding",
    "W": "embedding",
    "W_Q": "qk",
    "W_K": "qk",
    "W_V": "ov",
    "W_O": "ov",
    "W_in": "mlp",
    "W_out": "mlp",
    "W_U": "unembedding",
}
_TABLES = ("W_E", "W_pos")
_TORCH_AXES = {"W_E": (0, 1), "W_pos": (0, 1), "W_Q": (0, 2, 1), "W_K": (0, 2, 1), "W_V": (0, 2, 1), "W_O": (2, 0, 1)}
"""The axes of a tensor in the order in which torch has them; those of other matrices are exchanged."""


@dataclass(frozen=True, kw_only=True)
class Initialization(Fields):
    """Gaussian weights whose standard deviation follows a scheme.

    Args:
        scheme: ``power``: std = fan_in^−γ (Zhang et al. 2024, arXiv 2405.05409), with fan_in = d_model for embeddings
            and n_heads · d_head for W_O, and the unembedding bias uniform in ±1/√d_model. ``gain``: std = gain/√fan_in
            (arXiv 2605.04396), not to be confused with it. ``progress_measures``: std = 1/√d_model everywhere but
            1/√d_vocab for W_U (Nanda et al. 2023), where d_vocab counts input tokens.
        gamma: the exponent γ of ``power``. 0.5 is about the usual initialisation, 0.8 at d_model 400 is small.
        gain: multiplies every weight matrix, whatever the scheme (α of Omnigrok).
        embedding, qk, ov, mlp, unembedding: γ of this part under ``power``, a gain of its own otherwise, which
            multiplies ``gain``; ``None``: the common γ, or 1.
        circle: frequencies k. Where any are given, nothing of W_E is drawn: the row of number t holds cos(2πkt/p) and
            sin(2πkt/p) for each k, p the number of answers; rows of other tokens are 0.
        stream: random numbers. ``per_tensor``: each tensor has its own, keyed by the seed and its name. ``torch``: all
            in float32 from the one that ``torch.manual_seed(seed)`` starts, in the order of the code that Zhang et al.
            published with the logs of its seed 1; with ``power`` alone.

    Raises:
        UserError: an unknown scheme or stream, a frequency below 1, the stream torch with another scheme or circles.

    LayerNorm weights start at 1; all biases at 0 except the one named above. γ does not carry over between widths: at
    d_model 400, γ = 0.8 is std 0.0083; at 64 it is 0.036.
    """

    scheme: Scheme = "power"
    gamma: float = 0.5
    gain: float = 1.0
    embedding: float | None = None
    qk: float | None = None
    ov: float | None = None
    mlp: float | None = None
    unembedding: float | None = None
    circle: tuple[int, ...] = ()
    stream: Stream = "per_tensor"

    def __post_init__(self) -> None:
        if self.scheme not in ("power", "gain", "progress_measures"):
            raise UserError(f"expected an initialisation scheme power, gain or progress_measures, got {self.scheme!r}")
        if self.circle and min(self.circle) < 1:
            raise UserError(f"expected frequencies of at least 1 in circle, got {min(self.circle)}")
        if self.stream not in ("per_tensor", "torch"):
            raise UserError(f"expected a stream per_tensor or torch, got {self.stream!r}")
        if self.stream == "torch" and (self.scheme != "power" or self.circle):
            got = f"the circles {self.circle}" if self.scheme == "power" else f"the scheme {self.scheme}"
            raise UserError(f"expected the scheme power and no circles with the stream torch, got {got}")

    def std(self, name: str, shape: tuple[int, ...], config: Any) -> float:
        """Standard deviation of the weight tensor of this name and shape in a model of this configuration."""
        tensor = _tensor(name)
        own = getattr(self, PARTS[tensor])
        fan_in = shape[-1] if tensor in _TABLES else math.prod(shape[:-1]) if tensor == "W_O" else shape[-2]
        if self.scheme == "power":
            return self.gain * fan_in ** -(self.gamma if own is None else own)
        scale = self.gain * (1.0 if own is None else own)
        if self.scheme == "gain":
            return scale / math.sqrt(fan_in)
        width: int = (config.d_vocab or config.d_out) if tensor == "W_U" else config.d_model
        return scale / math.sqrt(width)


def initialize(
    shapes: Mapping[str, tuple[int, ...]], config: Any, init: Initialization, seed: int, dtype: str = "float32"
) -> dict[str, Float[Tensor, "..."]]:
    """Initial parameters of one model: a tensor per name of ``shapes``, drawn in float64, from the stream torch in
    float32, and rounded to ``dtype``.

    Raises:
        UserError: ``init.circle`` for a model whose tables are not as wide as its circles, or that has none;
            ``init.stream`` torch for a model that is not built as the published one, or a seed beyond 64 bits.
    """
    import torch

    if init.stream == "torch":
        drawn = _torch_stream(shapes, config, init, seed)
        return {name: drawn[name].to(getattr(torch, dtype)) for name in shapes}
    if init.circle and not any(name.endswith("W_E") for name in shapes):
        raise UserError(f"expected a model with an embedding for circle {init.circle}, this one has no table W_E")
    params: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        tensor = _tensor(name)
        rng = generator(seed, "init", name)
        if tensor == "W_E" and init.circle:
            values = torch.from_numpy(_circles(init.circle, shape, config.d_out))
        elif tensor in PARTS:
            values = torch.from_numpy(rng.standard_normal(shape)) * init.std(name, shape, config)
        elif tensor == "w":
            values = torch.ones(shape)
        elif tensor == "b_U" and init.scheme == "power":
            values = torch.from_numpy(rng.uniform(-1.0, 1.0, shape)) / math.sqrt(config.d_model)
        else:
            values = torch.zeros(shape)
        params[name] = values.to(getattr(torch, dtype))
    return params


def _torch_stream(
    shapes: Mapping[str, tuple[int, ...]], config: Any, init: Initialization, seed: int
) -> dict[str, Float[Tensor, "..."]]:
    """Initial parameters in float32 from one stream. Each module is filled by torch's defaults first; then its matrices
    are drawn anew, in torch's layout [outputs, inputs]."""
    import torch

    biases = sorted(name for name in shapes if _tensor(name).startswith("b_"))
    missing = [name for name in ("embed.W_E", "pos_embed.W_pos", "unembed.W_U") if name not in shapes]
    if missing or biases != ["unembed.b_U"]:
        raise UserError(
            "expected a transformer with positions, an unembedding of its own and a bias there alone for the stream "
            f"torch, as the published one is, got the biases {', '.join(biases) or 'none'}"
            + (f" and no {', '.join(missing)}" if missing else "")
        )
    if not 0 <= seed < 2**64:
        raise UserError(f"expected a seed from 0 to 2⁶⁴ − 1 for the stream torch, got {seed}")
    stream = torch.Generator().manual_seed(seed)
    params: dict[str, Tensor] = {}
    for _, module in groupby(shapes, key=_module):
        names = list(module)
        for name in names:
            values, tensor = torch.empty(shapes[name]), _tensor(name)
            if tensor in _TABLES:
                values.normal_(generator=stream)
            elif tensor in PARTS or tensor == "b_U":  # the bias keeps it; of the others only what it uses up counts
                bound = 1 / math.sqrt(config.d_model)
                values.uniform_(-bound, bound, generator=stream)
            else:
                values.fill_(tensor == "w")
            params[name] = values
        for name in names:
            if _tensor(name) not in PARTS:
                continue
            axes = _TORCH_AXES.get(_tensor(name), (1, 0))
            std = init.std(name, shapes[name], config)
            drawn = torch.empty([shapes[name][axis] for axis in axes]).normal_(0.0, std, generator=stream)
            params[name] = drawn.permute([axes.index(axis) for axis in range(len(axes))]).contiguous()
    return params


def _tensor(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _module(name: str) -> str:
    """What is filled together: both tables, an MLP, the unembedding; of attention, each matrix by itself."""
    if _tensor(name) in _TABLES:
        return "embedding"
    return name if ".attn." in name else name.rsplit(".", 1)[0]


def _circles(frequencies: tuple[int, ...], shape: tuple[int, ...], p: int) -> np.ndarray:
    """A table of this shape with a circle of p numbers per frequency."""
    n_rows, width = shape
    if width != 2 * len(frequencies):
        raise UserError(f"expected an embedding of width {2 * len(frequencies)} for circle {frequencies}, got {width}")
    if max(frequencies) > p // 2:
        raise UserError(f"expected frequencies of at most {p // 2} in circle for p = {p}, got {max(frequencies)}")
    angle = 2 * np.pi / p * (np.outer(np.arange(p), frequencies) % p)
    table = np.zeros((n_rows, width))
    table[:p, 0::2], table[:p, 1::2] = np.cos(angle), np.sin(angle)
    return table
