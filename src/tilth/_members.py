"""Lets a verb's package offer its methods by class name without importing any of them.

``from tilth.select import Length`` imports ``tilth.select.length`` and nothing else. A class is
found by its module's name (``SelfInstruct`` lives in ``self_instruct``), so a new method is one
new file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

__all__ = ["members"]


def members(package: str, path: Iterable[str]) -> Callable[[str], Any]:
    """A module ``__getattr__`` (PEP 562) for the verb's package `package` at `path`."""

    def find(name: str) -> Any:
        if name[:1].isupper():
            for module in iter_modules(path):
                if module.name.replace("_", "") == name.lower():
                    return getattr(import_module(f"{package}.{module.name}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
