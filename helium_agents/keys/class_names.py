"""What classes are called from outside, and which class a name stands for."""

from __future__ import annotations

import sys
from typing import Any

from helium_agents.errors import EncodingError


def class_name(cls: type) -> tuple[str, str]:
    """Module and qualified name: what a class is called from outside.

    The name of a parametrised pydantic model, ``Box[Item]``, does not say whose ``Item`` is meant;
    here it does: ``Box[shop.Item]``.
    """
    generic = getattr(cls, "__pydantic_generic_metadata__", None)
    if not generic or not generic["args"]:
        return cls.__module__, cls.__qualname__
    module, qualname = class_name(generic["origin"])
    return module, f"{qualname}[{', '.join(map(_argument_name, generic['args']))}]"


def _argument_name(argument: object) -> str:
    if isinstance(argument, type) and not getattr(argument, "__args__", None):
        return ".".join(class_name(argument))
    name = repr(argument)
    if " at 0x" in name:
        raise EncodingError(f"the type argument {name} has no name")
    return name


def find_class(module: str, qualname: str) -> type | None:
    """The class of that name, among modules that are already imported.

    Nothing is imported, no descriptor or module `__getattr__` runs, and an alias is not followed:
    what is found calls itself by that name.
    """
    origin, bracket, _ = qualname.partition("[")
    found: Any = sys.modules.get(module)
    for name in origin.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    if not isinstance(found, type):
        return None
    candidates = type.__subclasses__(found) if bracket else [found]
    return next((cls for cls in candidates if class_name(cls) == (module, qualname)), None)
