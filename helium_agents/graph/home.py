"""Which modules count as the user's own: code that a version looks into, instead of naming it."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple


class Home(NamedTuple):
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


def home_of(module: str) -> Home:
    """The home of a module's code."""
    package = _package(module)
    is_package = hasattr(sys.modules.get(package), "__path__")
    return Home(package, None if is_package else _folder(package))


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
    if package == _OURS:
        return None
    module = sys.modules.get(package)
    if module is None and package == _package("__main__"):
        module = sys.modules.get("__main__")
    paths = [*getattr(module, "__path__", ())]
    file = paths[0] if paths else getattr(module, "__file__", None)
    if file is None:
        return None
    folder = os.path.dirname(os.path.abspath(file))
    return None if folder.endswith(_INSTALLED) else folder
