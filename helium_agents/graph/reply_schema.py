"""What `schema=` asks of a reply: the JSON schema that decoding keeps to, and a parser.

One is made for each schema and kept: with a class that is local to a function, and may hold what
this has in hand, only as long as the class. Python takes `A | B` and `B | A` for equal, at any
depth, although pydantic tries them in order; so the key of what is kept is the structure of a type,
with the identity of its leaves, and not the type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from helium_agents.errors import InvalidReply, PromptError, shown
from helium_agents.graph.reply import Choice
from helium_agents.keys.kept import kept_on

_MOST_KEPT: Final = 256
_LONGEST_END: Final = 40


class ReplySchema:
    """A schema that was asked for. Made by `reply_schema`.

    Args:
        asked: What the caller gave: a type that pydantic validates, or the text of a JSON schema.

    Attributes:
        asked: As given.
        json_schema: The JSON schema as text.
    """

    __slots__ = ("_parse", "asked", "json_schema")

    def __init__(self, asked: Any, json_schema: str, parse: Callable[[str], Any]) -> None:
        self.asked = asked
        self.json_schema = json_schema
        self._parse = parse

    def parse(self, text: str) -> Any:
        """The value of a reply's text.

        Raises:
            InvalidReply: It does not fit. Whatever else a validator of the user's raises comes out
                as itself.
        """
        return self._parse(text)

    def __repr__(self) -> str:
        return shown(self.asked)


def reply_schema(asked: Any) -> ReplySchema:
    """The schema for a `schema=` argument.

    Args:
        asked: A pydantic model, an Enum, any type that pydantic validates; or a JSON schema as a
            dict, which may be changed afterwards.

    Raises:
        PromptError: It is none of these, or no valid JSON schema.
    """
    key = _json_text(asked) if isinstance(asked, dict) else _structure(asked)
    known = _kept.get(key)
    if known is None:
        kept = _kept_of(asked)
        known = kept.get(key)
        if known is None:
            made = _of_json(key, asked) if isinstance(key, str) else _of_type(asked)
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            known = kept[key] = made  # which keeps `asked` alive, and so its id its own
    return known


_kept: dict[Any, ReplySchema] = {}


def parse_reply(
    schema: ReplySchema | None,
    choices: Sequence[Choice],
    max_tokens: int,
    describe: Callable[[], str],
) -> tuple[Any, ...]:
    """The values of a reply's answers; none without a schema.

    Args:
        schema: What was asked for.
        choices: The answers.
        max_tokens: Where they were cut, if they were.
        describe: Names the call, for messages.

    Raises:
        InvalidReply: An answer does not fit.
    """
    if schema is None:
        return ()
    return tuple([_parse_choice(schema, each, max_tokens, describe) for each in choices])


def _parse_choice(
    schema: ReplySchema, choice: Choice, max_tokens: int, describe: Callable[[], str]
) -> Any:
    try:
        return schema.parse(choice.text)
    except InvalidReply as error:
        if choice.finish_reason == "length" and not _is_whole(choice.text):
            raise InvalidReply(
                f"the reply to {describe()} was cut at max_tokens={max_tokens}, before it was "
                f"whole: it ends in {choice.text[-_LONGEST_END:]!r}. For schema={schema!r} give "
                f"it a larger max_tokens",
                choice.text,
            ) from error.__cause__
        raise InvalidReply(
            f"the reply to {describe()} does not fit schema={schema!r}: {error}", choice.text
        ) from error.__cause__


def _is_whole(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


# --- types ---------------------------------------------------------------------------------------


def _structure(asked: Any) -> Any:
    """A type's structure, in which the order of a union counts and the leaves are themselves."""
    if isinstance(asked, list):  # the parameters in Callable[[...], ...]
        return tuple(map(_structure, asked))
    if isinstance(asked, str | int):  # a value of Literal
        return type(asked), asked
    origin = get_origin(asked)
    if origin is None:
        return id(asked)
    return id(origin), tuple(map(_structure, get_args(asked)))


def _kept_of(asked: Any) -> dict[Any, ReplySchema]:
    """Where the schema of a type is kept."""
    for leaf in _leaves(asked):
        if isinstance(leaf, type) and "<locals>" in leaf.__qualname__:
            kept: dict[Any, ReplySchema] = kept_on(leaf).setdefault(ReplySchema, {})
            return kept
    return _kept


def _leaves(asked: Any) -> Iterator[Any]:
    """What a type is made of: classes, values of Literal, annotations."""
    parts = asked if isinstance(asked, list) else get_args(asked)
    if not parts:
        yield asked
    for part in parts:
        yield from _leaves(part)


def _of_type(asked: Any) -> ReplySchema:
    try:
        adapter = TypeAdapter(asked)
        json_schema = json.dumps(adapter.json_schema(), ensure_ascii=False)
    except Exception as error:
        raise PromptError(
            f"schema={shown(asked)} is nothing that pydantic can turn into a JSON schema: {error}"
        ) from error

    def parse(text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            raise InvalidReply(str(error)) from error

    return ReplySchema(asked, json_schema, parse)


# --- JSON schemas --------------------------------------------------------------------------------


def _json_text(asked: dict[Any, Any]) -> str:
    try:
        return json.dumps(asked, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptError(f"schema={shown(asked)} is no JSON: {error}") from error


def _of_json(text: str, asked: dict[Any, Any]) -> ReplySchema:
    # Here, since it takes 50 ms to import, and few need it.
    from jsonschema import SchemaError
    from jsonschema import ValidationError as JsonValidationError
    from jsonschema.validators import validator_for
    from referencing import Registry

    schema = json.loads(text)
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise PromptError(
            f"schema={shown(asked)} is no valid JSON schema: {error.message} (at {error.json_path})"
        ) from error
    validator = kind(schema, registry=Registry())  # an empty one, which fetches nothing

    def parse(text: str) -> Any:
        try:
            value = from_json(text, allow_inf_nan=False)
            validator.validate(value)
        except ValueError as error:
            raise InvalidReply(f"it is no JSON: {error}") from error
        except JsonValidationError as error:
            raise InvalidReply(f"{error.message} (at {error.json_path})") from error
        return value

    return ReplySchema(text, text, parse)
