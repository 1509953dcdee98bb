"""Profiles in a store: how they are found, read and written."""

from __future__ import annotations

import zlib
from functools import cache
from inspect import unwrap
from types import CodeType
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from helium_agents.errors import HeliumError
from helium_agents.keys.encoding import fingerprint
from helium_agents.keys.versions.version import version_of
from helium_agents.memo.store import KeepsProfiles, Store
from helium_agents.optimizer.profile import Profile

_FORMAT: Final = b"profile 2\n"

_MOST_VALUES: Final = 20_000
"""A workflow that names a large table is not held up by reading it: a profile can be wrong."""


def workflow_key(workflow: Any, models: bytes) -> bytes | None:
    """What a workflow's profile is kept under; `None` for one that is no function.

    Its version is in it, or, where that cannot be computed, that of its own code.

    Args:
        workflow: The mapped function.
        models: Identifies the models that it may ask.
    """
    workflow = unwrap(workflow)
    version: bytes | None
    try:
        version = version_of(workflow, _MOST_VALUES).digest()
    except HeliumError:  # it names a client or a large table, say, or what is in a closure
        version = _own_version(workflow)
    if version is None:
        return None
    return fingerprint("profile", name_of(workflow), version, models)


def _own_version(workflow: Any) -> bytes | None:
    """The version of a function's own code: what it calls may change, which the rows then show."""
    code = getattr(workflow, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    constants = [each for each in code.co_consts if isinstance(each, str | bytes | int | float)]
    return fingerprint(code.co_code, list(code.co_names), constants)


def name_of(workflow: Any) -> str:
    """What a person calls a mapped function."""
    workflow = unwrap(workflow)
    name = getattr(workflow, "__qualname__", None) or type(workflow).__name__
    return f"{getattr(workflow, '__module__', '')}:{name}"


def load_profile(store: Store | None, key: bytes) -> Profile | None:
    """The profile that a store has; `None` where it has none that can be read."""
    data = store.profile(key) if isinstance(store, KeepsProfiles) else None
    return None if data is None else decode_profile(data)


def save_profile(store: Store | None, key: bytes, profile: Profile) -> None:
    """Keep a profile, where the store can."""
    if isinstance(store, KeepsProfiles):
        store.put_profile(key, encode_profile(profile))


def encode_profile(profile: Profile) -> bytes:
    """A profile as bytes."""
    return _FORMAT + zlib.compress(_adapter().dump_json((profile,)))


def decode_profile(data: bytes) -> Profile | None:
    """What `encode_profile` gave; `None` for anything else: another version's is learned anew."""
    if not data.startswith(_FORMAT):
        return None
    try:
        (profile,) = _adapter().validate_json(zlib.decompress(data[len(_FORMAT) :]))
    except (zlib.error, ValidationError):
        return None
    return profile


@cache
def _adapter() -> TypeAdapter[tuple[Profile]]:
    config = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
    )
    return TypeAdapter(tuple[Profile], config=config)  # which only what is around a profile takes
