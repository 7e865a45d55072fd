"""Where things stand in a sequence of anchor composition: key, first and second anchor, noise, and the last position,
which answers.

Mechanisms are read from sequences whose second anchor is not the last token, so that every role has a place of its own
(Zhang et al. 2024, arXiv 2405.05409, figures 3 to 5).
"""

from tasks.base import Task, UserError
from tasks.families.anchor import AnchorComposition
from tasks.models.config import TransformerConfig

ROLES = ("noise", "key", "first anchor", "second anchor", "last")


def anchor_task(task: Task) -> AnchorComposition:
    """The task, if it is anchor composition with room for every role.

    Raises:
        UserError: another task, or sequences of three tokens, where the second anchor is always last.
    """
    if not isinstance(task, AnchorComposition):
        raise UserError(f"expected a model of AnchorComposition, got one of {type(task).__name__}")
    if task.sequence_length < 4:
        raise UserError(
            "expected sequences of at least 4 tokens, so that the second anchor is not the last, got "
            f"{task.sequence_length}"
        )
    return task


def key_positions(task: AnchorComposition) -> list[int]:
    """Key positions that leave the last position to noise."""
    return list(range(task.sequence_length - 3))


def positions(task: AnchorComposition, key_position: int) -> dict[str, list[int]]:
    """The positions of each role; noise may have none.

    >>> positions(AnchorComposition(sequence_length=6), 1)
    {'noise': [0, 4], 'key': [1], 'first anchor': [2], 'second anchor': [3], 'last': [5]}
    """
    at, last = key_position, task.answer_position
    noise = [position for position in range(last) if not at <= position <= at + 2]
    return {"noise": noise, "key": [at], "first anchor": [at + 1], "second anchor": [at + 2], "last": [last]}


def layer_output(config: TransformerConfig, layer: int) -> str:
    """Hook name of what a layer hands to the next, after its last LayerNorm where the norm comes last; layer 0 is the
    first."""
    if config.normalization != "post":
        return f"blocks.{layer}.hook_resid_post"
    return f"blocks.{layer}.hook_normalized_{'mid' if config.d_mlp is None else 'post'}"
