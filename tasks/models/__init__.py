"""Models: ``TransformerConfig``, ``MLPConfig``, ``Initialization``, ``HookedTransformer``, ``HookedMLP``. They
load when used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from tasks.models.config import MLPConfig, TransformerConfig
    from tasks.models.hooked import HookedTransformer
    from tasks.models.hooked_mlp import HookedMLP
    from tasks.models.initialization import Initialization

__all__ = ["HookedMLP", "HookedTransformer", "Initialization", "MLPConfig", "TransformerConfig"]


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "HookedMLP": "tasks.models.hooked_mlp:HookedMLP",
            "HookedTransformer": "tasks.models.hooked:HookedTransformer",
            "Initialization": "tasks.models.initialization:Initialization",
            "MLPConfig": "tasks.models.config:MLPConfig",
            "TransformerConfig": "tasks.models.config:TransformerConfig",
        },
    )
