"""Models: ``TransformerConfig``, ``Initialization``, ``HookedTransformer``. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from tasks.models.config import TransformerConfig
    from tasks.models.hooked import HookedTransformer
    from tasks.models.initialization import Initialization

__all__ = ["HookedTransformer", "Initialization", "TransformerConfig"]


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "HookedTransformer": "tasks.models.hooked",
            "Initialization": "tasks.models.initialization",
            "TransformerConfig": "tasks.models.config",
        },
    )
