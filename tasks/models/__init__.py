"""Models: ``TransformerConfig``, ``MLPConfig``, ``Initialization``, ``HookedTransformer``. They load when used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from tasks.models.config import MLPConfig, TransformerConfig
    from tasks.models.hooked import HookedTransformer
    from tasks.models.initialization import Initialization

__all__ = ["HookedTransformer", "Initialization", "MLPConfig", "TransformerConfig"]


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "HookedTransformer": "tasks.models.hooked",
            "Initialization": "tasks.models.initialization",
            "MLPConfig": "tasks.models.config",
            "TransformerConfig": "tasks.models.config",
        },
    )
