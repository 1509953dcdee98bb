"""`@operator`: an async function whose calls are traced as nodes of a plan."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from helium_agents.authoring.messages import Prompt
from helium_agents.authoring.operator_arguments import check_operator
from helium_agents.errors import (
    EncodingError,
    ImpureCall,
    InvalidReply,
    RefMisuse,
    TransientEngineError,
)
from helium_agents.graph.body import Body
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.ref import Ref
from helium_agents.graph.trace import check_on_loop, entered_frame, root_frame
from helium_agents.graph.values import Slot, leaves_of, replace_leaves

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")

RetryOn = type[BaseException] | tuple[type[BaseException], ...]

RETRIED: tuple[type[BaseException], ...] = (TransientEngineError, InvalidReply)
"""What `retries=` of an operator covers by default."""


class Operator(Generic[P, T]):
    """An async function whose call returns a `Ref`. Made by `@operator`; see there."""

    def __init__(self, fn: Callable[P, Awaitable[T]], body: Body) -> None:
        functools.update_wrapper(self, fn)
        # inspect and anyio take for a coroutine function what looks like one
        for attribute in ("__code__", "__defaults__", "__kwdefaults__", "__annotations__"):
            setattr(self, attribute, getattr(fn, attribute))
        self.version = body.explicit_version
        self.body = body
        # Of the function itself: what it wraps may have another signature or other defaults.
        self._signature = inspect.signature(fn, follow_wrapped=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Ref[T]:
        """Record a call. Nothing runs until the Ref is awaited or started.

        Raises:
            EncodingError: An argument of a pure operator cannot be part of a key.
            ImpureCall: A plain operator was called inside a pure one.
            RefMisuse: A pure operator was given a Ref; `defer` takes those.
            OffLoopCall: No event loop runs here.
        """
        return self._record(self.body, args, kwargs, ())

    def defer(self, *args: Any, **kwargs: Any) -> Ref[T]:
        """Record a call whose arguments may be un-awaited Refs: the function gets their values.

        The loosely typed form of a call: with it a dependent call is known, and can be planned,
        before its input exists. Refs may stand inside tuples, lists and dict values.

        Raises:
            EncodingError: An argument contains itself or is nested too deeply; or, of a pure
                operator, cannot be part of a key.
            RefMisuse: An argument is a prompt.
        """
        return self._record(self.body, *self._with_slots(args, kwargs))

    def _with_slots(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Node, ...]]:
        """The arguments with a slot in place of each Ref, and the calls of the Refs."""
        inputs: dict[Node, Slot] = {}

        def to_slot(leaf: Any) -> Any:
            if issubclass(type(leaf), Ref):  # `isinstance` would ask the value for its class
                return inputs.setdefault(leaf.node, Slot(len(inputs)))
            if issubclass(type(leaf), Prompt):
                raise RefMisuse(
                    f"{self.body.name}.defer(...) takes values and Refs, not prompts: a prompt "
                    f"goes into a message of llm(...)"
                )
            return leaf

        def with_slots(argument: Any) -> Any:
            try:
                return replace_leaves(argument, to_slot)
            except RecursionError:
                if any(issubclass(type(leaf), Ref) for leaf in leaves_of(argument)):
                    raise EncodingError(
                        f"{self.body.name}.defer(...) was given a Ref inside an argument that "
                        f"contains itself or is nested too deeply: await the Ref, and call it with "
                        f"its value"
                    ) from None
                return argument

        args = tuple([with_slots(argument) for argument in args])
        kwargs = {name: with_slots(argument) for name, argument in kwargs.items()}
        return args, kwargs, tuple(inputs)

    def _record(
        self,
        body: Body,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: tuple[Node, ...],
    ) -> Ref[T]:
        frame = entered_frame() or root_frame()
        if frame.runner is None:  # a session checks it itself
            check_on_loop(body.name)
        if body.is_pure:
            for leaf in leaves_of((args, kwargs)):
                if issubclass(type(leaf), Ref):  # `isinstance` would ask the value for its class
                    raise self._refusal_of(leaf)
            try:
                bound = self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{body.name}(...): {error}") from None
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        elif frame.is_pure:
            raise ImpureCall(
                f"{body.name}(...) is not pure but was called inside the pure operator "
                f"{_pure_caller(frame)}: declare it @operator(pure=True), or drop pure=True there"
            )
        node = OperatorNode(frame, body, args, kwargs, inputs)
        if frame.runner is not None:
            caller = sys._getframe(2)  # above what the user called
            node.place = (caller.f_code, caller.f_lasti)
            frame.runner.on_created(node)
        return Ref(node)

    def _refusal_of(self, ref: Ref[Any]) -> RefMisuse:
        return RefMisuse(
            f"{self.body.name}(...) is pure and was given the Ref of {ref.node.label}(...): await "
            f"it first, or call {self.body.name}.defer(...), which receives its value"
        )

    @overload
    def __get__(self, instance: None, owner: type) -> Operator[P, T]: ...
    @overload
    def __get__(
        self: Operator[Concatenate[Any, Q], T], instance: object, owner: type
    ) -> BoundOperator[Q, T]: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        return self if instance is None else BoundOperator(self, instance)

    def __helium_version__(self) -> bytes:
        """What an operator counts as where it is itself an argument."""
        version = self.body.version
        return version if isinstance(version, bytes) else version.encode()

    def __repr__(self) -> str:
        return f"<operator {self.body.identity}{' (pure)' if self.body.is_pure else ''}>"


class BoundOperator(Generic[P, T]):
    """An operator that is a method, bound to its object."""

    def __init__(self, operator: Operator[Any, T], instance: object) -> None:
        self.operator = operator
        self.instance = instance
        body = operator.body
        self.body = body.of(type(instance)) if body.is_pure else body

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Ref[T]:
        """Record a call with the object as its first argument."""
        return self.operator._record(self.body, (self.instance, *args), kwargs, ())

    def defer(self, *args: Any, **kwargs: Any) -> Ref[T]:
        """Record a call whose arguments may be un-awaited Refs."""
        operator = self.operator
        return operator._record(self.body, *operator._with_slots((self.instance, *args), kwargs))

    def __getattr__(self, name: str) -> Any:  # __name__, __code__, ...: see Operator
        return getattr(self.operator, name)


@overload
def operator(
    fn: Callable[P, Coroutine[Any, Any, T]],
    /,
    *,
    pure: bool = ...,
    version: str | None = ...,
    name: str | None = ...,
    retries: int = ...,
    retry_on: RetryOn = ...,
    timeout: float | None = ...,
    predict: Callable[..., Any] | None = ...,
) -> Operator[P, T]: ...
@overload
def operator(
    *,
    pure: bool = ...,
    version: str | None = ...,
    name: str | None = ...,
    retries: int = ...,
    retry_on: RetryOn = ...,
    timeout: float | None = ...,
    predict: Callable[..., Any] | None = ...,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Operator[P, T]]: ...
def operator(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    pure: bool = False,
    version: str | None = None,
    name: str | None = None,
    retries: int = 0,
    retry_on: RetryOn = RETRIED,
    timeout: float | None = None,
    predict: Callable[..., Any] | None = None,
) -> Any:
    """Make an async function an operator: its calls become nodes of the session's plan.

    A plain operator is only traced: it runs when it is awaited, once per call, in its awaiter's
    task. A pure one promises that equal arguments give equal results and that nothing else
    depends on it having run; its calls are shared, remembered, and may be run early.

    Args:
        fn: The function, where the decorator is used without arguments.
        pure: Whether calls may be shared and remembered. Arguments must then be encodable.
        version: Stands for the source in keys; without it a pure operator's version is computed
            from its source and everything in its package that the source names.
        name: What people see; the function's name by default.
        retries: Further attempts after a failure that `retry_on` names, at once and in the same
            call: the body runs again from its start. Unseeded samples in it are drawn anew.
        retry_on: The class of exceptions, or a tuple of classes, that are worth a further attempt,
            as tenacity's ``retry_if_exception_type``. By default transient engine errors and
            replies that do not fit their schema; a program's own exceptions are not retried unless
            they are named, as in ``retry_on=(TimeoutError, ConnectionError)``. Prefect retries
            them all, for which write ``retry_on=Exception``.
        timeout: Seconds a waiter grants one call, all attempts together, counted from when its
            body begins: an int or float above 0.
        predict: Of a pure operator: guesses the result from the arguments, in no time. While a call
            runs, what comes after it may be computed as if the guess were right (see
            `Session(speculate=...)`); results are those that they would be without. It returns one
            value, or a list of pairs of a value and its probability; `None` for no guess.

    Raises:
        OperatorDefinitionError: The function is not a coroutine function, or an option is of the
            wrong type or out of range.
    """

    def make(fn: Callable[..., Any]) -> Operator[..., Any]:
        check_operator(
            fn, isinstance(fn, Operator | BoundOperator), pure=pure, version=version, name=name,
            retries=retries, retry_on=retry_on, timeout=timeout, predict=predict,
        )  # fmt: skip
        classes = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        body = Body(fn, name or fn.__name__, pure, version, retries, classes, timeout, predict)
        return Operator(fn, body)

    return make if fn is None else make(fn)


def _pure_caller(frame: Any) -> str:
    return frame.node.label if frame.node is not None else "around it"
