"""Public names of a package that load their module on first use: importing the package stays quick."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, name: str, where: Mapping[str, str]) -> Any:
    """What a package's ``__getattr__`` gives for ``name``: a module, or the object that ``where`` names with a colon.

    ``"interp.weights.condensation"`` is the module, ``"interp.subject:Subject"`` the object in it.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in where:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, attribute = where[name].partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
