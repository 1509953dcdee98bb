"""Tools from what a user has: typed functions, operators, or JSON schemas."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any, Final, NotRequired, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from helium_agents.authoring.operator import BoundOperator, Operator
from helium_agents.errors import InvalidReply, RequestError
from helium_agents.graph.arguments import complaint
from helium_agents.graph.reply_schema import reply_schema
from helium_agents.graph.tools import Tool, ToolSet
from helium_agents.keys.kept import kept_on

ToolLike = Callable[..., Any] | dict[str, Any]
"""A function (an operator, too) whose parameters are annotated, or a JSON schema: a dict with
`name`, `description` and `parameters`, or that as `function` of another one, as OpenAI has it."""

CHOICES: Final = ("auto", "none", "required")


def tool_set(tools: Sequence[ToolLike], choice: str = "auto") -> ToolSet:
    """What `tools=` and `tool_choice=` of a call ask for.

    Args:
        tools: At least one, no two of one name.
        choice: One of `CHOICES`, or the name of one of the tools.

    Raises:
        RequestError: They are something else.
    """
    if isinstance(tools, str | dict) or not isinstance(tools, Sequence) or not tools:
        raise RequestError(complaint("tools", tools, "a list of at least one function or schema"))
    found = tuple(map(as_tool, tools))
    names = [tool.name for tool in found]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"tools= has two of the name {name!r}: rename one of them")
    if choice not in CHOICES and choice not in names:
        want = f"one of {', '.join((*CHOICES, *names))}"
        raise RequestError(complaint("tool_choice", choice, want))
    return ToolSet(found, choice)


def as_tool(tool: ToolLike) -> Tool:
    """One tool.

    Raises:
        RequestError: It is neither a function nor a JSON schema, or its parameters cannot be told.
    """
    if isinstance(tool, dict):
        return _of_schema(tool)
    if not callable(tool):
        want = "functions with annotated parameters, or JSON schemas"
        raise RequestError(complaint("tools", tool, want))
    is_method = isinstance(tool, MethodType | BoundOperator)
    definition = tool
    if isinstance(tool, MethodType):
        definition = tool.__func__
    elif isinstance(tool, Operator | BoundOperator):
        definition = tool.body.fn
    kept = kept_on(definition) if isinstance(definition, FunctionType) else {}
    known: Tool | None = kept.get((Tool, is_method))
    if known is None:
        known = kept[Tool, is_method] = _of_function(definition, is_method=is_method)
    return replace(known, function=tool)


def _of_function(function: Callable[..., Any], *, is_method: bool) -> Tool:
    name = str(getattr(function, "__name__", type(function).__name__))
    try:
        adapter = TypeAdapter(_arguments_of(function, name, is_method=is_method))
        schema = adapter.json_schema(schema_generator=_WithoutTitles)
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(
            f"the parameters of the tool {name} cannot be told to a model: {error}. Annotate each "
            "with a type that pydantic knows, defined at the top of a module"
        ) from error
    schema.pop("title", None)

    def read(text: str) -> dict[str, Any]:
        try:
            return dict(adapter.validate_json(text or "{}"))
        except ValidationError as error:
            raise ValueError(_in_short(error)) from error

    return Tool(name, inspect.getdoc(function) or "", schema, read)


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names, in every prompt."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _arguments_of(function: Callable[..., Any], name: str, *, is_method: bool) -> Any:
    """The function's parameters as a class that pydantic reads: a TypedDict."""
    parameters = list(inspect.signature(function).parameters.values())
    if is_method:
        parameters = parameters[1:]  # its object
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise RequestError(
                f"the tool {name} has the parameter {parameter}: a model gives arguments by name, "
                "so each must be a named one"
            )
        if parameter.name not in hints:
            raise RequestError(
                f"the parameter {parameter.name!r} of the tool {name} has no annotation: say what "
                "type it is, so that a model can be told"
            )
        hint = hints[parameter.name]
        is_needed = parameter.default is parameter.empty
        fields[parameter.name] = hint if is_needed else NotRequired[hint]
    make: Any = TypedDict  # whose fields are known only now
    arguments = make(name, fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    return arguments


def _in_short(error: ValidationError) -> str:
    """What is wrong, without the library's links: a model is to read it."""
    problems = []
    for each in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, each["loc"]))
        problems.append(f"{where}: {each['msg']}" if where else each["msg"])
    return "; ".join(problems)


def _of_schema(tool: dict[str, Any]) -> Tool:
    asked = tool.get("function", tool)
    name = asked.get("name") if isinstance(asked, dict) else None
    parameters = asked.get("parameters", {"type": "object"}) if name else None
    if not isinstance(name, str) or not name or not isinstance(parameters, dict):
        want = 'a JSON schema like {"name": ..., "description": ..., "parameters": {...}}'
        raise RequestError(complaint("tools", tool, want))
    schema = reply_schema(parameters)

    def read(text: str) -> dict[str, Any]:
        try:
            value = schema.parse(text or "{}")
        except InvalidReply as error:
            raise ValueError(str(error)) from error
        if not isinstance(value, dict):
            raise ValueError("they are no JSON object")
        return value

    return Tool(name, str(asked.get("description", "")), parameters, read)
