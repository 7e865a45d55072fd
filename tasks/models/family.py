"""What the trainer knows about a model: how it is initialised, how it runs, and which shortcuts training may take.

A family is a module-level object with five functions. Every parameter has a leading ``model`` axis: a stack of M
models of one shape runs in one program, and a single model is a stack of one. The forward pass is a pure function of
its parameters; ``tap`` is shown each named activation and may replace it. Training taps nothing; the hooked model's
taps are its hook points. There is no second forward pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Parameters = Mapping[str, Float[Tensor, "model ..."]]
"""Parameter name (transformer-lens's) → tensor with a leading model axis."""

Inputs = Int[Tensor, "model batch pos"] | Float[Tensor, "model batch *pos d_input"]
"""A batch per model: token ids, or real vectors, one per input or one per position."""

Targets = Int[Tensor, "model batch *answer"] | Float[Tensor, "model batch *answer d_vocab_out"]
"""A batch per model: answers, or numbers to be met; one per input, or one at each of several positions."""

Shown = int | tuple[int, ...]
"""The position that a forward pass is asked about, or several."""

Tap = Callable[[str, Tensor], Tensor]
"""Called with an activation's name and value [model, batch, …]; what it returns takes the activation's place."""


def untapped(name: str, value: Tensor) -> Tensor:
    """The tap that looks at nothing."""
    return value


def names_shown(
    forward: Callable[..., Tensor], shapes: Mapping[str, tuple[int, ...]], inputs: Inputs, config: Any
) -> list[str]:
    """Names of all activations that a forward pass shows to a tap, in order; nothing is computed.

    Args:
        forward: of a family.
        shapes: of its parameters.
        inputs: of one model, on the device ``meta``.
        config: the architecture.
    """
    names: list[str] = []

    def note(name: str, value: Tensor) -> Tensor:
        names.append(name)
        return value

    params = {name: torch.empty((1, *shape), device="meta") for name, shape in shapes.items()}
    forward(params, inputs, config, tap=note)
    return names


@runtime_checkable
class ModelFamily(Protocol):
    """The five functions that make a model trainable and hookable."""

    name: str

    def shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter of one model, in forward order."""
        ...

    def hook_names(self, config: Any) -> list[str]:
        """Names of all activations that ``forward`` shows to a tap, in order."""
        ...

    def prepare(self, inputs: Int[Tensor, "example pos"] | Float[Tensor, "example *pos d_input"]) -> Any:
        """What can be computed once for a training set and reused at every step (a shortcut's table)."""
        ...

    def forward(
        self,
        params: Parameters,
        inputs: Inputs,
        config: Any,
        *,
        tap: Tap = untapped,
        answer_position: Shown | None = None,
        prepared: Any = None,
    ) -> Float[Tensor, "model batch shown d_vocab_out"]:
        """Logits of every model of the stack; only those at ``answer_position``, one or several, if it is given."""
        ...

    def mean_cross_entropy(
        self, params: Parameters, inputs: Inputs, targets: Int[Tensor, "model batch"], config: Any
    ) -> Float[Tensor, " model"] | None:
        """The mean cross entropy of every model's answers, where it is found faster together with them than after them
        (a shortcut of training); ``None`` elsewhere."""
        ...
