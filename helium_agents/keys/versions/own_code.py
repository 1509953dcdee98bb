"""Which modules count as the user's own: code that a version looks into, instead of naming it."""

from __future__ import annotations

import os
import sys
from typing import Any

from helium_agents.keys.class_names import class_name, find_class
from helium_agents.keys.shapes import is_static


class OwnCode:
    """The packages that a version looks into.

    Of a script or a lone module these are all that stand in its folder, as they would be inside a
    package; without this an edit of ``prompts.py`` beside ``main.py`` would go unseen.
    """

    def __init__(self) -> None:
        self._packages: set[str] = set()
        self._folders: set[str] = set()

    def add(self, module: str) -> None:
        """Look into a module's package too."""
        package = _package(module)
        folder = _folder(package)
        self._packages.add(package)
        if folder is not None and not hasattr(sys.modules.get(package), "__path__"):
            self._folders.add(folder)

    def has(self, module: str) -> bool:
        """Whether a module is part of it."""
        package = _package(module)
        return package in self._packages or _folder(package) in self._folders


def counts_by_name(cls: type) -> bool:
    """Whether a class is of an installed package, and can be found there by its name.

    What cannot be found was made by a call, perhaps by code of the user.
    """
    if is_static(cls):
        return True
    return _is_installed(_package(cls.__module__)) and find_class(*class_name(cls)) is cls


def _package(module: str) -> str:
    # `python -m app.job` calls the module `__main__`; it is part of `app` all the same.
    spec: Any = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module == "__main__" and spec is not None:
        module = spec.name.removesuffix(".__main__")
    return module.partition(".")[0]


_OURS = __name__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages", os.path.dirname(os.__file__))


def _is_installed(package: str) -> bool:
    """This package counts as installed, also for a script that stands beside it in a checkout."""
    place = _place(package)
    is_builtin = place is None and package in sys.builtin_module_names
    return package == _OURS or is_builtin or (place or "").endswith(_INSTALLED)


def _folder(package: str) -> str | None:
    """The folder that a top-level module or package stands in; `None` for installed ones."""
    return None if _is_installed(package) else _place(package)


def _place(package: str) -> str | None:
    module = sys.modules.get(package)
    if module is None and package == _package("__main__"):
        module = sys.modules.get("__main__")
    paths = [*getattr(module, "__path__", ())]
    file = paths[0] if paths else getattr(module, "__file__", None)
    return None if file is None else os.path.dirname(os.path.abspath(file))
