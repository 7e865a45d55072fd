"""Public names of a package that load their module on first use: importing the package stays quick."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, name: str, where: Mapping[str, str]) -> Any:
    """The object ``name``, from the module that ``where`` names for it; for use in a package's ``__getattr__``.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in where:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = import_module(where[name])
    return module if where[name] == f"{package}.{name}" else getattr(module, name)
