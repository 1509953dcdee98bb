"""Random programs as data, which prints itself as the code that it stands for.

A program is a block: steps done one after another. Steps make Refs under names, await them, and
hold blocks of their own: the bodies of operators, the items of maps, concurrent tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

Block = tuple["Step", ...]
GREEDY, UNSEEDED = "greedy", "unseeded"


# --- calls ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A call of the model.

    Args:
        text: The question; its first word decides how it fares, see `tests.fuzz.model`.
        slots: Refs that go un-awaited into the prompt.
        awaited: Refs that are awaited first.
        draw: `GREEDY`, `UNSEEDED`, or a seed.
        knows_row: Whether the row (of the map, or the operator's input) is part of the question.
        row_times: How often it is said then.
    """

    text: str
    slots: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    draw: str | int = GREEDY
    max_tokens: int = 64
    schema: str | None = None
    retries: int = 2
    share: bool = True
    timeout: float | None = None
    n: int = 1
    knows_row: bool = False
    row_times: int = 1

    def __str__(self) -> str:
        slots = "".join(f", {name}={name}" for name in self.slots)
        times = f" * {self.row_times}" if self.row_times > 1 else ""
        text = f'"{self.text}{f" {{row{times}}}" * self.knows_row}'
        text += "".join(f" {{{name}}}" for name in self.slots)
        text += "".join(f" {{await {name}}}" for name in self.awaited) + '"'
        options = "" if self.max_tokens == 64 else f", max_tokens={self.max_tokens}"
        if self.draw != GREEDY:
            options += ", temperature=1" + f", seed={self.draw}" * (self.draw != UNSEEDED)
        for name, default in (("schema", None), ("timeout", None), ("n", 1), ("share", True)):
            value = getattr(self, name)
            options += f", {name}={value}" if value != default else ""
        options += f", retries={self.retries}" if self.retries != 2 else ""
        return f"llm(user(prompt({text}{slots})){options})"


@dataclass(frozen=True)
class Op:
    """A call of an operator; its body is a block, which sees outer names unless it is pure.

    Args:
        inputs: Refs whose values it is given by `defer`; their text is its row.
    """

    body: Block
    is_pure: bool = False
    inputs: tuple[str, ...] = ()
    retries: int = 0
    timeout: float | None = None

    def head(self) -> str:
        options = [f"retries={self.retries}"] * bool(self.retries)
        options += [f"timeout={self.timeout}"] * (self.timeout is not None)
        made = ", ".join([*(["pure=True"] if self.is_pure else []), *options])
        call = f".defer({', '.join(self.inputs)})" if self.inputs else "()"
        return f"operator({made}){call}:"

    def __str__(self) -> str:
        return "\n".join([self.head(), *text_of(self.body, 1)])


@dataclass(frozen=True)
class Fib:
    """A pure operator that calls itself for n - 1 and n - 2; 1 and 0 ask the model."""

    n: int

    def __str__(self) -> str:
        return f"fib({self.n})"


@dataclass(frozen=True)
class Chain:
    """Declared calls, each with the one before in its prompt; the value is the last one's."""

    text: str
    length: int

    def __str__(self) -> str:
        return f'chain("{self.text}", length={self.length})'


@dataclass(frozen=True)
class Diamond:
    """Levels of two declared calls, each with both of the level before in its prompt."""

    text: str
    levels: int

    def __str__(self) -> str:
        return f'diamond("{self.text}", levels={self.levels})'


Call = Ask | Op | Fib | Chain | Diamond


# --- steps ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Make:
    """Make a Ref under a name."""

    name: str
    call: Call
    is_started: bool = False

    def lines(self) -> Iterator[str]:
        first, *rest = str(self.call).split("\n")
        yield f"{self.name} = {first}" + ".start()" * (self.is_started and not rest)
        yield from rest
        if self.is_started and rest:
            yield f"{self.name}.start()"


@dataclass(frozen=True)
class Await:
    """Await Refs in some way.

    Args:
        how: "await" (one after another), "gather", "gather_exceptions", "asyncio_gather" (with
            exceptions), "task_group", "tasks", "wait_for" (long enough).
        catches: Whether what is raised is kept as a result, or goes on through the block.
        in_handler: Whether it happens while another exception is being handled.
    """

    names: tuple[str, ...]
    how: str = "await"
    catches: bool = True
    in_handler: bool = False

    def lines(self) -> Iterator[str]:
        text = {
            "await": "; ".join(f"await {name}" for name in self.names),
            "gather": f"await gather({', '.join(self.names)})",
            "gather_exceptions": f"await gather({', '.join(self.names)}, return_exceptions=True)",
            "asyncio_gather": "await asyncio.gather("
            f"{', '.join(self.names)}, return_exceptions=True)",
            "task_group": f"async with TaskGroup: {', '.join(self.names)}  # each in a task",
            "tasks": f"await create_task of each of {', '.join(self.names)}",
            "wait_for": "; ".join(f"await wait_for({name}, 3600)" for name in self.names),
        }[self.how]
        caught = "  # caught" * self.catches + " in a handler" * self.in_handler
        yield text + caught


@dataclass(frozen=True)
class Stream:
    """Read a stream, to its end or only its first pieces."""

    target: str | Ask
    take: int | None = None
    closes: bool = True

    def lines(self) -> Iterator[str]:
        how = "" if self.take is None else f"  # {self.take} pieces, then break"
        how += "" if self.closes else ", not closed"
        yield f"async for piece in {self.target}.stream(){how}"


@dataclass(frozen=True)
class Together:
    """Blocks at once, each in a task of its own, which begins after some ticks."""

    blocks: tuple[Block, ...]
    ticks: tuple[int, ...]

    def lines(self) -> Iterator[str]:
        yield "together:"
        for ticks, block in zip(self.ticks, self.blocks, strict=False):
            yield f"  task after {ticks} ticks:"
            yield from text_of(block, 2)


@dataclass(frozen=True)
class Cancel:
    """A block in a task that is cancelled after some ticks; what it has is not looked at."""

    block: Block
    ticks: int

    def lines(self) -> Iterator[str]:
        yield f"task, cancelled after {self.ticks} ticks:"
        yield from text_of(self.block, 1)


@dataclass(frozen=True)
class Expire:
    """Something that is never answered, within a time limit, which certainly fires.

    Args:
        how: "wait_for", "timeout" (asyncio's), "llm" (`timeout=`), "operator", "pure".
        ask: The question; its text begins with `never`.
    """

    how: str
    ask: Ask

    def lines(self) -> Iterator[str]:
        yield f"await {self.ask} within 0.02 s by {self.how}"


@dataclass(frozen=True)
class Map:
    """A map over rows.

    Args:
        rows: The rows; equal ones are equal questions.
        body: What is done for each.
        fn: "function", "operator" or "pure".
        on_error: As of `session.map`.
        stop_after: Break after so many results.
        leaves_by: "break", "aclose" or "with".
        source: "list", "generator" or "async generator".
        fails_at: The source raises in place of this row.
        error: What it raises: "own" or "odd".
    """

    rows: tuple[int, ...]
    body: Block
    fn: str = "function"
    is_ordered: bool = True
    on_error: str = "raise"
    stop_after: int | None = None
    leaves_by: str = "break"
    source: str = "list"
    fails_at: int | None = None
    error: str = "own"
    read_ahead: int = 4096

    def lines(self) -> Iterator[str]:
        options = f", on_error={self.on_error!r}" + ", ordered=False" * (not self.is_ordered)
        options += f", read_ahead={self.read_ahead}" * (self.read_ahead != 4096)
        source = f"{self.source} of {list(self.rows)}"
        if self.fails_at is not None:
            source += f" that raises {self.error!r} in place of row {self.fails_at}"
        stop = f"  # {self.leaves_by} after {self.stop_after}" * (self.stop_after is not None)
        yield f"async for each of map({self.fn}, {source}{options}):{stop}"
        yield from text_of(self.body, 1)


@dataclass(frozen=True)
class Pause:
    """Wait for ticks of the event loop, or for seconds."""

    ticks: int = 0
    seconds: float = 0.0
    by_row: bool = False

    def lines(self) -> Iterator[str]:
        amount = f"{self.seconds} s" if self.seconds else f"{self.ticks} ticks"
        yield f"sleep {amount}" + " + some by the row" * self.by_row


@dataclass(frozen=True)
class Raise:
    """Raise an exception of the program's own: "own", "vex" or "odd"."""

    kind: str
    text: str = "mine"
    knows_row: bool = False

    def lines(self) -> Iterator[str]:
        row = " {row}" * self.knows_row
        yield f"raise {self.kind}({self.text + row!r})"


@dataclass(frozen=True)
class Cycle:
    """Calls that wait for one another in a ring: `RefMisuse` for all.

    Args:
        kind: "plain" (each body awaits the next Ref), "pure" (each body calls the next), or
            "input" (each body asks the model with the next Ref in the prompt).
        at_once: Whether all are awaited at once, or only the first.
    """

    kind: str
    size: int
    at_once: bool

    def lines(self) -> Iterator[str]:
        yield f"ring of {self.size} {self.kind} calls, awaited {'all' * self.at_once or 'one'}"


@dataclass(frozen=True)
class OuterDraw:
    """An unseeded draw made outside and awaited inside a pure operator, then by itself."""

    text: str

    def lines(self) -> Iterator[str]:
        yield f'draw = llm(user("{self.text}"), temperature=1); pure(version="1")() awaits draw'


@dataclass(frozen=True)
class Leave:
    """Await Refs in tasks that nobody waits for before the session closes."""

    names: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        yield f"create_task of each of {', '.join(self.names)}, left at the session's end"


Step = (
    Make | Await | Stream | Together | Cancel | Expire | Map | Pause | Raise | Cycle | OuterDraw
    | Leave
)  # fmt: skip


def text_of(block: Block, indent: int = 0) -> list[str]:
    """The lines of a block."""
    lines = [line for step in block for line in step.lines()]
    return ["  " * indent + line for line in lines or ["pass"]]


def parts_of(thing: Any) -> Iterator[Any]:
    """The thing and every step and call inside it."""
    if isinstance(thing, tuple):
        for part in thing:
            yield from parts_of(part)
    elif is_dataclass(thing):
        yield thing
        for field in fields(thing):
            yield from parts_of(getattr(thing, field.name))


# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """How the optimised session is made, and how long answers take in each run.

    Args:
        rules: Names of the rules.
        memo: "none", "memory", "warm" (a second session on the first one's), "lmdb" (also warm).
        share: As of `Session`.
        memo_mode: As of `Session`.
        observer: `None`, "watches", or what it raises: "own" or "odd".
        is_recorded: `record=` of `Session`.
        has_capacity: Whether the engine claims a small KV cache.
        has_cost: Whether it says what a step takes, so that schedules are compared.
        guesses: What the program predicts of its calls: "right", "wrong", "mixed"; `None` nothing.
        dies_at: The number of the request at which the engine is killed.
        kills: When the process is killed, one life after another, if the program is run over a file
            of rows: the kind of moment ("request", "event" or "write"), and how far into the run.
    """

    rules: tuple[str, ...]
    memo: str = "none"
    share: bool = True
    memo_mode: str = "read-write"
    observer: str | None = None
    is_recorded: bool = False
    has_capacity: bool = False
    has_cost: bool = False
    guesses: str | None = None
    dies_at: int | None = None
    kills: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Case:
    """A program and a way to run it.

    Args:
        seed: What it was made from.
        is_calm: Whether nothing in it fails, is cancelled or left.
    """

    seed: int
    program: Block
    config: Config
    is_calm: bool

    def __str__(self) -> str:
        head = f"seed {self.seed}, {'calm, ' * self.is_calm}{self.config}"
        return "\n".join([head, *text_of(self.program, 1)])
