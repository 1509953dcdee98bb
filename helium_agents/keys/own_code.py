"""Which modules count as the user's own: code that a version looks into, instead of naming it."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from helium_agents.keys.shapes import class_name, find_class, is_static


class OwnCode(NamedTuple):
    """A top-level package; for a script or a lone module, the folder that it stands in.

    Args:
        package: The first part of the modules' names.
        folder: Where a lone module stands. Modules and packages beside it are its own too, as they
            would be inside a package; without this an edit of ``prompts.py`` beside ``main.py``
            would go unseen.
    """

    package: str
    folder: str | None

    def has(self, module: str) -> bool:
        """Whether a module is part of it."""
        package = _package(module)
        return package == self.package or (
            self.folder is not None and self.folder == _folder(package)
        )

    def relative(self, path: str) -> str:
        """The path without what depends on where the code was checked out."""
        root = self.folder or _folder(self.package)
        if root is None or not os.path.isabs(path):
            return path
        relative = os.path.relpath(path, root)
        return path if relative.startswith(os.pardir) else relative


def own_code_of(module: str) -> OwnCode:
    """The own code of a module's code."""
    package = _package(module)
    is_package = hasattr(sys.modules.get(package), "__path__")
    return OwnCode(package, None if is_package else _folder(package))


def counts_by_name(cls: type) -> bool:
    """Whether a class is of an installed package, and can be found there by its name.

    What cannot be found was made by a call, perhaps by code of the user.
    """
    if is_static(cls):
        return True
    package = _package(cls.__module__)
    is_installed = package == _OURS or _is_installed(package)
    return is_installed and find_class(*class_name(cls)) is cls


def _package(module: str) -> str:
    # `python -m app.job` calls the module `__main__`; it is part of `app` all the same.
    spec: Any = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module == "__main__" and spec is not None:
        module = spec.name.removesuffix(".__main__")
    return module.partition(".")[0]


_OURS = __name__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages", os.path.dirname(os.__file__))


def _folder(package: str) -> str | None:
    """The folder that a top-level module or package stands in; `None` for installed ones.

    This package counts as installed, also for a script that stands beside it in a checkout.
    """
    if package == _OURS or _is_installed(package):
        return None
    return _place(package)


def _is_installed(package: str) -> bool:
    place = _place(package)
    return package in sys.builtin_module_names if place is None else place.endswith(_INSTALLED)


def _place(package: str) -> str | None:
    module = sys.modules.get(package)
    if module is None and package == _package("__main__"):
        module = sys.modules.get("__main__")
    paths = [*getattr(module, "__path__", ())]
    file = paths[0] if paths else getattr(module, "__file__", None)
    return None if file is None else os.path.dirname(os.path.abspath(file))
