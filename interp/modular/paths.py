"""Paths through the last layer of a model of addition, cut one at a time: its heads, its MLP, and what goes past each.

The answer position holds x before the last layer's attention, the heads add h, the MLP adds m:
logits = (x + h + m) W_U with m = MLP(x + h). The paths are

* *attention*: h of all heads, for the MLP and for the logits; and *head 0* …: that of one head;
* *past attention*: x, the skip connection around attention, likewise;
* *MLP*: m; and *past MLP*: x + h on its way to the logits alone, the skip connection around the MLP.

Each is put to zero, to its mean over all pairs, or taken from other pairs (``interp.modular.ablation``). Nanda et al.
2023 give zero for attention (loss 24.3) and past attention (19.1), zero and mean past the MLP (9.1e-7 and 7.3e-7, of
2.4e-7). Biases stay when what they are added to goes, but b_out is part of m. In a model of one layer whose answer
position is "=", x is the same on all pairs: its mean and another pair's value are its own, and only zero cuts that
path. Control: the same paths with random weights.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.modular.ablation import PartAblation, ablate, couples
from interp.modular.addition import AdditionTable, unembedding
from interp.subject import Subject, in_chunks
from tasks.models.config import TransformerConfig
from tasks.registry import model_family

_CHUNK = 4096


@torch.no_grad()
def logits_after_attention(
    subject: Subject, residual: Float[Tensor, "example d_model"]
) -> Float[Tensor, "example d_vocab_out"]:
    """The logits when the answer position holds this after the last layer's attention, in the weights' precision."""
    if len(residual) > 1 and (residual == residual[0]).all():  # as without attention to anything but "="
        return logits_after_attention(subject, residual[:1]).expand(len(residual), -1)
    config, params = _last_layer(subject)

    def logits(chunk: Tensor) -> Tensor:
        def tap(name: str, value: Tensor) -> Tensor:
            return chunk[None, :, None] if name == "blocks.0.hook_resid_mid" else value

        tokens = torch.zeros(1, len(chunk), 1, dtype=torch.int64)
        return model_family(config).forward(params, tokens, config, tap=tap)[0, :, 0]

    return in_chunks(logits, residual.to(params["embed.W_E"].dtype), size=_CHUNK)


def _last_layer(subject: Subject) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """The last layer as a model of its own, with next to nothing of an attention that will not be used."""
    config, last = subject.config, f"blocks.{subject.config.n_layers - 1}."
    params = {}
    for name, value in subject.params.items():
        if name.startswith("blocks.") and not name.startswith(last):
            continue
        part = name.rsplit(".", 1)[-1]
        if part in ("W_Q", "W_K", "W_V"):
            value = value[:1, :, :1]
        elif part in ("W_O", "b_Q", "b_K", "b_V"):
            value = value[:1, :1]
        params[name.replace(last, "blocks.0.")] = value.unsqueeze(0)
    return replace(config, n_layers=1, n_heads=1, d_head=1), params


def path_ablations(subject: Subject, table: AdditionTable, *, seed: int = 0) -> dict[str, PartAblation]:
    """Each path cut, by its name; without ``W_L`` not those around the MLP.

    Args:
        subject: whose table it is.
        table: of ``interp.modular.addition``.
        seed: of the pairs drawn.
    """
    attn, dtype = f"blocks.{subject.config.n_layers - 1}.attn", subject.params["embed.W_E"].dtype
    past, W_O = table.past_attention.to(dtype), subject.params[f"{attn}.W_O"]
    heads = torch.matmul(table.heads.to(dtype).transpose(0, 1), W_O)
    attention = heads.sum(0)
    bias = subject.params.get(f"{attn}.b_O", torch.zeros(()))
    whole = past + attention + bias
    cut = {"attention": (attention, past + bias), "past attention": (past, attention + bias)}
    cut |= {f"head {head}": (part, whole - part) for head, part in enumerate(heads)}
    drawn = couples(len(table.targets), seed)

    def logits(residual: Tensor) -> Tensor:
        return logits_after_attention(subject, residual)[:, : table.p]

    found = {name: ablate(part, rest, table.targets, drawn, logits) for name, (part, rest) in cut.items()}
    if (written := table.neuron_logits) is not None:
        W_U, b_U = unembedding(subject, table.p)
        if (b_out := subject.params.get(f"blocks.{subject.config.n_layers - 1}.mlp.b_out")) is not None:
            written = written + b_out.double() @ W_U
        passed = table.logits - written - b_U
        found["MLP"] = ablate(written, passed + b_U, table.targets, drawn)
        found["past MLP"] = ablate(passed, written + b_U, table.targets, drawn)
    return found
