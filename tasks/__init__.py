"""What is learned, and how it is trained: tasks, models, training. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from tasks.anchor import Anchor, AnchorComposition
    from tasks.base import Examples, Task, UserError
    from tasks.modular import ModularArithmetic
    from tasks.parity import SparseParity

__all__ = ["Anchor", "AnchorComposition", "Examples", "ModularArithmetic", "SparseParity", "Task", "UserError"]


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "Anchor": "tasks.anchor",
            "AnchorComposition": "tasks.anchor",
            "Examples": "tasks.base",
            "ModularArithmetic": "tasks.modular",
            "SparseParity": "tasks.parity",
            "Task": "tasks.base",
            "UserError": "tasks.base",
        },
    )
