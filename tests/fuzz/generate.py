"""Makes a random case from a seed.

Each case uses a random part of the features only, so that rare ones meet each other often enough.
What a program gives must be determined, whatever the order of events. So some things are not made,
each for the reason that stands where it is left out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fuzz.model import FITTING
from tests.fuzz.program import (
    GREEDY,
    UNSEEDED,
    Ask,
    Await,
    Block,
    Call,
    Cancel,
    Case,
    Chain,
    Config,
    Cycle,
    Diamond,
    Expire,
    Fib,
    Leave,
    Make,
    Map,
    Op,
    OuterDraw,
    Pause,
    Raise,
    Step,
    Stream,
    Together,
)

RULE_NAMES = ("substitute_known", "merge_identical", "subsume_shorter", "drop_unneeded")

CALM_FEATURES = (
    "slots", "pure", "plain", "lengths", "seeds", "unseeded", "schema", "start", "stream",
    "together", "map", "chain", "flaky", "own", "fib", "rows", "pause", "shared map",
)  # fmt: skip
MOMENTS = ("request", "event", "write")
KILLED = 8
"""Of programs with guesses, one in so many is killed."""

WILD_FEATURES = (
    *CALM_FEATURES, "boom", "boom", "vex", "odd", "raise", "unfit", "cancel", "expire", "break",
    "source", "cycle", "outer draw", "leave", "impure", "handler", "escape",
    "failing input",
)  # fmt: skip


@dataclass
class Var:
    """A name that a block sees.

    Args:
        is_tainted: Whether a plain operator is the call, or among its inputs. A plain operator
            runs in its first awaiter's task, and ends with it: which awaiter that is, is a matter
            of timing. So a tainted Ref is never awaited where its awaiter may be cancelled and
            somebody else may want it.
        fits_stream: Whether it is a model call that may be streamed anywhere: with a schema it
            may not, since whether a reader was there in time would decide if it is drawn anew.
    """

    name: str
    is_tainted: bool = False
    fits_stream: bool = False
    is_text: bool = True


@dataclass
class View:
    """What the block that is being made sees, and in how many rows of maps it stands."""

    names: list[Var] = field(default_factory=list)
    is_pure: bool = False
    depth: int = 0
    num_rows: int = 1

    def inner(self, *, may_be_cancelled: bool = False, num_rows: int = 1) -> View:
        names = [v for v in self.names if not (may_be_cancelled and v.is_tainted)]
        return View(names, self.is_pure, self.depth + 1, self.num_rows * num_rows)

    def of_pure(self, *, num_rows: int = 1) -> View:
        """For the body of a pure operator, which sees no names from outside."""
        return View([], True, self.depth + 1, self.num_rows * num_rows)


class Generator:
    """Makes one program."""

    def __init__(self, rng: random.Random, *, is_calm: bool) -> None:
        self.rng = rng
        self.is_calm = is_calm
        features = CALM_FEATURES if is_calm else WILD_FEATURES
        share = rng.choice([0.2, 0.4, 0.7])
        self.features = {name for name in features if rng.random() < share}
        self.num_names = 0
        self.budget = rng.choice([6, 10, 16, 26])
        self.num_topics = rng.choice([1, 2, 3, 6])
        self.follows = 0.15  # how often a question has an answer in it

    def has(self, feature: str, chance: float = 1.0) -> bool:
        return feature in self.features and self.rng.random() < chance

    # --- calls ------------------------------------------------------------------------------------

    def text(self) -> str:
        kinds = ["q"] * 5
        kinds += [name for name in ("boom", "vex", "odd") if name in self.features]
        if "flaky" in self.features:
            kinds.append(self.rng.choice(["flaky1", "flaky2"]))
        if "own" in self.features:
            kinds.append("own")
        return f"{self.rng.choice(kinds)} {self.rng.randrange(self.num_topics)}"

    def inputs(self, view: View) -> tuple[str, ...]:
        """Refs to go into a call un-awaited.

        Where the first of several fails, the others are given up, and a plain operator among them
        ends half-way: so of several none is tainted, unless nothing fails.
        """
        names = [v for v in view.names if v.is_text]
        if not names or not self.has("slots", 0.6):
            return ()
        count = self.rng.choice([1, 1, 2, 3])
        if count > 1 and not self.is_calm:
            names = [v for v in names if not v.is_tainted]
        chosen = self.rng.sample(names, min(count, len(names)))
        return tuple(v.name for v in chosen)

    def ask(self, view: View) -> Ask:
        rng, text = self.rng, self.text()
        draw: str | int = GREEDY
        if self.has("seeds", 0.35):
            draw = rng.choice([1, 2, 3])
        elif self.has("unseeded", 0.45) and (not view.is_pure or self.has("impure", 0.2)):
            draw = UNSEEDED
        schema = None
        if self.has("schema", 0.3):
            names = ["Mood", "Score", *["Digit", "EvenScore"] * 2 * ("unfit" in self.features)]
            is_flaky = text.startswith("flaky")  # both kinds of attempts draw on `retries`
            schema = rng.choice(names if self.has("unfit") and not is_flaky else list(FITTING))
        retries = 2
        if schema is not None and not text.startswith("flaky"):
            retries = rng.choice([0, 1, 2, 3])
        names = [v.name for v in view.names]
        return Ask(
            text,
            slots=self.inputs(view),
            awaited=(rng.choice(names),) if names and rng.random() < self.follows else (),
            draw=draw,
            max_tokens=rng.choice([2, 4, 64]) if self.has("lengths") and not schema else 64,
            schema=schema,
            retries=retries,
            share=not text.startswith("own"),
            timeout=3600.0 if self.has("expire", 0.1) else None,
            n=2 if schema is None and rng.random() < 0.03 else 1,
            knows_row=self.has("rows", 0.5),
        )

    def op(self, view: View) -> Op:
        is_pure = view.is_pure or not (self.has("plain", 0.5) or "pure" not in self.features)
        if view.is_pure and self.has("impure", 0.1):
            is_pure = False
        inputs = self.inputs(view)
        inner = view.of_pure() if is_pure else view.inner()
        if not is_pure and not self.is_calm:
            # its own awaiter may be cancelled: who made it does not say who awaits it
            inner = view.inner(may_be_cancelled=True)
        if self.has("flaky", 0.15):
            return self._retried(is_pure)
        body = self.block(inner, self.rng.choice([1, 2, 3]))
        return Op(body, is_pure, inputs, timeout=3600.0 if self.has("expire", 0.1) else None)

    def _retried(self, is_pure: bool) -> Op:
        """An operator whose retries cover what its call does not."""
        ask = Ask(f"flaky{self.rng.choice([1, 2])} {self.rng.randrange(2)}", retries=0)
        name = self.name()
        body = (Make(name, ask), Await((name,), catches=False))
        return Op(body, is_pure, retries=2)

    def call(self, view: View) -> Call:
        kind = self.rng.random()
        can_nest = view.depth < 3 and self.budget > 0
        if kind < 0.3 and can_nest and self.features & {"pure", "plain"}:
            return self.op(view)
        if kind > 0.95 and self.has("fib"):
            return Fib(self.rng.randrange(6))
        if kind > 0.85 and self.has("chain"):
            if self.rng.random() < 0.5:
                length = self.rng.choice([2, 3, 5, 12, 12, 60, 300])
                return Chain(self.text_of_chain(), length if view.depth == 0 else 3)
            levels = self.rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 5, 40])
            return Diamond(self.text_of_chain(), levels if view.depth == 0 else 2)
        return self.ask(view)

    def text_of_chain(self) -> str:
        """A failing member fails all that follow; a flaky one may be asked more than once."""
        return self.rng.choice(["q chain", "q chain", "boom chain" if self.has("boom") else "q c"])

    # --- blocks -----------------------------------------------------------------------------------

    def block(self, view: View, count: int) -> Block:
        steps: list[Step] = []
        for _ in range(count):
            if self.budget <= 0 and steps:
                break
            self.budget -= 1
            steps += self.step(view)
        return tuple(steps)

    def step(self, view: View) -> list[Step]:
        rng = self.rng
        rare = self.special(view)
        if rare is not None:
            return [rare]
        if view.depth == 0 and self.has("shared map", 0.1):
            return self.shared_map(view)
        if view.depth == 0 and self.has("failing input", 0.1):
            return [self.failing_input()]
        if view.depth < 2 and self.has("unfit", 0.15) and self.has("seeds"):
            return [self.attempts()]
        if len(view.names) >= 1 and rng.random() < 0.3:
            return [self.awaiting(view)]
        if self.has("map", 0.15) and view.depth < 3:
            return [self.map(view)]
        if self.has("together", 0.15) and view.depth < 3:
            blocks = tuple(self.block(view.inner(), rng.choice([1, 2])) for _ in range(3))
            return [Together(blocks, tuple(rng.choice([0, 0, 1, 4, 15]) for _ in blocks))]
        if self.has("pause", 0.15):
            seconds = rng.choice([0.0, 0.0, 0.0005])
            return [Pause(rng.choice([0, 1, 5]), seconds, by_row=rng.random() < 0.5)]
        made = self.make(view)
        if rng.random() < 0.5:
            return [made]
        is_handled = self.has("handler", 0.5)
        return [made, Await((made.name,), in_handler=is_handled)]

    def name(self) -> str:
        self.num_names += 1
        return f"v{self.num_names}"

    def make(self, view: View) -> Make:
        call = self.call(view)
        tainted = {v.name for v in view.names if v.is_tainted}
        is_tainted = isinstance(call, Op) and not call.is_pure
        if isinstance(call, Op | Ask):
            inputs = call.inputs if isinstance(call, Op) else call.slots
            is_tainted = is_tainted or bool(tainted & set(inputs))
        fits_stream = isinstance(call, Ask) and call.schema is None and call.n == 1
        made = Make(self.name(), call, is_started=self.has("start", 0.3))
        view.names.append(Var(made.name, is_tainted, fits_stream))
        return made

    def awaiting(self, view: View) -> Step:
        rng = self.rng
        if self.has("stream", 0.3):
            step = self.streaming(view)
            if step is not None:
                return step
        # latest first: they are the least likely to be known already
        names = view.names[-rng.choice([1, 2, 3, 6]) :]
        how = rng.choice(
            (
                "await", "await", "gather", "gather", "gather_exceptions", "asyncio_gather",
                "task_group", "tasks", "wait_for",
            )
        )  # fmt: skip
        # a failure in `gather` ends the others; so does `Odd` where exceptions are results
        ends_others = how == "gather" or (how == "gather_exceptions" and "odd" in self.features)
        if ends_others and not self.is_calm and len(names) > 1:
            names = [v for v in names if not v.is_tainted] or names[:1]
        if not names:
            return Pause(1)
        catches = not self.has("escape", 0.3) if not self.is_calm else rng.random() < 0.5
        if how in ("task_group", "tasks", "asyncio_gather", "gather_exceptions"):
            catches = True
        is_handled = how == "await" and catches and self.has("handler", 0.5)
        return Await(tuple(v.name for v in names), how, catches, is_handled)

    def streaming(self, view: View) -> Stream | None:
        """Of a Ref; or of a fresh call, which may have a schema since nobody else awaits it."""
        rng = self.rng
        take = rng.choice([1, 2, 3]) if self.has("break", 0.4) else None
        if rng.random() < 0.3:
            ask = replace(self.ask(view), n=1)
            tainted = {v.name for v in view.names if v.is_tainted}
            if take is None or not tainted & set(ask.slots):
                return Stream(ask, take, rng.random() < 0.6)
            return None
        names = [v for v in view.names if v.fits_stream and (take is None or not v.is_tainted)]
        if not names:
            return None
        return Stream(rng.choice(names).name, take, rng.random() < 0.6)

    def special(self, view: View) -> Step | None:
        """What ends, fails, or goes wrong."""
        rng, is_top = self.rng, view.depth == 0
        if self.has("cancel", 0.12) and view.depth < 3:
            inner = view.inner(may_be_cancelled=True)
            return Cancel(self.block(inner, 2), rng.choice([0, 1, 2, 3, 5, 8, 13, 30]))
        if self.has("expire", 0.1):
            how = rng.choice(["wait_for", "timeout", "llm", "operator", "pure"])
            if view.is_pure and how == "operator":
                how = "pure"
            ask = Ask(f"never {rng.randrange(2)}", max_tokens=rng.choice([4, 64]))
            return Expire(how, replace(ask, timeout=0.02) if how == "llm" else ask)
        if self.has("raise", 0.1) and view.depth > 0:
            return Raise(rng.choice(["own", "vex", *["odd"] * ("odd" in self.features)]))
        if is_top and self.has("cycle", 0.03):
            kind = rng.choice(["plain", "pure", "input"])
            return Cycle(kind, rng.choice([1, 2, 3]), rng.random() < 0.6)
        if is_top and self.has("outer draw", 0.03):
            return OuterDraw(f"q {rng.randrange(self.num_topics)}")
        if is_top and self.has("leave", 0.1) and view.names:
            return Leave(tuple(v.name for v in view.names[-3:]))
        return None

    def map(self, view: View) -> Map:
        rng = self.rng
        # `Odd` ends a map when it comes: how many rows of others were there by then is chance
        is_ordered = rng.random() < 0.7 or "odd" in self.features
        on_error = "raise" if is_ordered and not self.has("raise", 0.3) else "collect"
        stop_after = rng.choice([1, 2, 5]) if self.has("break", 0.4) else None
        source, fails_at, error = rng.choice(["list", "generator", "async generator"]), None, "own"
        counts = [count for count in (0, 1, 2, 4, 9, 12, 12, 30) if count * view.num_rows <= 120]
        num_rows = rng.choice(counts)
        if self.has("source", 0.4):
            source = rng.choice(["generator", "async generator"])
            fails_at = rng.randrange(num_rows) if num_rows else None
            error = rng.choice(["own", *["odd"] * ("odd" in self.features)])
        ends_items = stop_after is not None or fails_at is not None or on_error == "raise"
        ends_items = ends_items or "odd" in self.features  # not an error to collect: it ends all
        fn = "function" if rng.random() < 0.6 else rng.choice(["operator", "pure"])
        if view.is_pure and fn == "operator":
            fn = "pure"
        inner = view.inner(
            may_be_cancelled=ends_items and not self.is_calm, num_rows=max(1, num_rows)
        )
        if fn == "pure":
            inner = view.of_pure(num_rows=max(1, num_rows))
        num_kinds = rng.choice([1, 3, 100])
        return Map(
            tuple(rng.randrange(num_kinds) for _ in range(num_rows)),
            self.block(inner, rng.choice([1, 2, 3])),
            fn,
            is_ordered,
            on_error,
            stop_after,
            # `with` counts results, and so says nothing of rows that come out of order
            rng.choice(["break", "aclose", *["with"] * is_ordered]),
            source,
            fails_at,
            error,
            read_ahead=rng.choice([1, 2, 5]) if rng.random() < 0.15 else 4096,
        )

    # --- known to be hard: seldom made by chance --------------------------------------------------

    def shared_map(self, view: View) -> list[Step]:
        """A map inside a Ref that is made outside the items and awaited in every row."""
        rng = self.rng
        ask = Ask("q shared", knows_row=rng.random() < 0.7)
        name, inner, outer = self.name(), self.name(), self.name()
        corpus = Map(tuple(range(rng.choice([1, 9, 12]))), (Make(inner, ask), Await((inner,))))
        view.names.append(Var(name, is_tainted=True))
        rows = tuple(range(rng.choice([3, 9, 12, 30])))
        body = (Await((name,)), Make(outer, replace(ask, text="q row")), Await((outer,)))
        return [
            Make(name, Op((corpus,)), is_started=self.has("start", 0.2)),
            Map(
                rows,
                body,
                on_error="collect",
                is_ordered="odd" in self.features or rng.random() < 0.8,
            ),
        ]

    def failing_input(self) -> Map:
        """In every row the same declared calls, of which one fails, a little later in each."""
        rng, first, second = self.rng, self.name(), self.name()
        kind = rng.choice(["boom", "vex", *["odd"] * ("odd" in self.features)])
        body = (
            Pause(rng.choice([0, 2]), rng.choice([0.0, 0.0003, 0.0005]), by_row=rng.random() < 0.7),
            Make(first, Ask(f"{kind} {rng.randrange(30)}")),
            Make(second, Ask("q", slots=(first,))),
            Await((second,)),
        )
        return Map(tuple(range(rng.choice([9, 30, 60]))), body, on_error="collect")

    def attempts(self) -> Together:
        """The same question under different validators, retries and readers, at once or not."""
        rng, blocks = self.rng, []
        text, seed = f"q {rng.randrange(8)}", rng.randrange(4)
        for _ in range(rng.choice([2, 3, 4])):
            schema = rng.choice(["EvenScore", "EvenScore", "Score"])
            ask = Ask(text, draw=seed, schema=schema, retries=rng.choice([0, 0, 1, 2, 5]))
            name = self.name()
            block: Block = (Make(name, ask), Await((name,)))
            blocks.append((Stream(ask),) if self.has("stream", 0.4) else block)
        return Together(tuple(blocks), tuple(rng.choice([0, 0, 1, 30]) for _ in blocks))

    # --- programs ---------------------------------------------------------------------------------

    def program(self) -> Block:
        view = View()
        steps = list(self.block(view, self.rng.choice([3, 5, 8, 12])))
        if self.rng.random() < 0.8 and view.names:  # most of what was made is asked for at the end
            names = tuple(v.name for v in view.names)
            how = self.rng.choice(["await", "tasks", "task_group", "asyncio_gather"])
            steps.append(Await(names, how))
        return tuple(steps)

    def pure_program(self, inputs: tuple[str, ...] = ()) -> Block:
        """Pure operators whose calls follow from one another: there something can be guessed.

        Args:
            inputs: The names of Refs that go into each of them.
        """
        rng = self.rng
        self.features -= {"start", "leave", "outer draw"}
        self.features |= {"pure"}
        self.num_topics, self.follows = 12, 0.6
        steps: list[Step] = []
        for _ in range(rng.choice([1, 2, 3])):
            self.budget = rng.choice([6, 10, 16])
            view = View().of_pure()
            body = self.block(view, rng.choice([3, 5, 8]))
            if view.names:
                body += (Await((rng.choice(view.names).name,), catches=False),)
            if rng.random() < 0.3:
                steps.append(
                    Map(tuple(range(rng.choice([1, 3]))), body, "pure", on_error="collect")
                )
            else:
                steps.append(Make(self.name(), Op(body, is_pure=True, inputs=inputs)))
        names = tuple(step.name for step in steps if isinstance(step, Make))
        if not names:
            return tuple(steps)
        together = (Await(names, rng.choice(["await", "tasks", "gather_exceptions"])),)
        if self.has("cancel", 0.5):
            ticks = rng.choice([3, 8, 13, 30, 60])
            return (*steps, Cancel(together, ticks), *together)
        return (*steps, *together)

    def planned_program(self) -> Block:
        """Maps of rows that ask again and again of one text: order decides what is computed."""
        view = View()
        steps: list[Step] = []
        for _ in range(self.rng.choice([1, 1, 2])):
            steps += self.block(view, self.rng.choice([0, 0, 1, 2]))
            steps.append(self.growing(view))
        return tuple(steps)

    def growing(self, view: View) -> Map:
        """Rows of calls, each with the answers of those before at the end of the same prompt."""
        rng, made = self.rng, self.map(view)
        text, row_times = f"q {rng.randrange(self.num_topics)}", rng.choice([8, 40, 80])
        steps: list[Step] = []
        before: tuple[str, ...] = ()
        is_declared = rng.random() < 0.6
        for _ in range(rng.choice([2, 3, 5])):
            slots, awaited = (before, ()) if is_declared else ((), before)
            ask = Ask(text, slots, awaited, knows_row=True, row_times=row_times)
            steps.append(Make(self.name(), ask))
            before = (*before, f"v{self.num_names}")
            if rng.random() < 0.2:
                steps.append(Pause(seconds=rng.choice([0.05, 0.5, 3.0]), by_row=rng.random() < 0.5))
        rows = tuple(range(rng.choice([4, 12, 24])))
        fails_at = None if made.fails_at is None else rng.choice(rows)
        body = (*steps, *made.body, Await(before[-1:], catches=False))
        return replace(made, rows=rows, fails_at=fails_at, body=body)

    def row_program(self) -> Block:
        """The same for each row of a file: what a model says of the row goes into the operators."""
        draw = UNSEEDED if self.rng.random() < 0.3 else GREEDY
        first = Make("row", Ask("q row", draw=draw, knows_row=True))
        others = self.pure_program(inputs=("row",))
        chain = Make(self.name(), Op(self.steps_one_by_one(), is_pure=True, inputs=("row",)))
        return (first, chain, *others, Await((chain.name,)))

    def steps_one_by_one(self) -> Block:
        """Questions with the answer before in each of them."""
        steps: list[Step] = []
        before: tuple[str, ...] = ()
        for number in range(self.rng.choice([2, 3, 4])):
            ask = Ask(f"q {number}", awaited=before, knows_row=not before)
            steps.append(Make(self.name(), ask))
            before = (f"v{self.num_names}",)
        return (*steps, Await(before, catches=False))


def config_of(rng: random.Random) -> Config:
    """How the optimised session is made."""
    rules = RULE_NAMES
    if rng.random() < 0.35:
        rules = tuple(name for name in RULE_NAMES if rng.random() < 0.6)
    return Config(
        rules=rules,
        memo=rng.choices(["none", "memory", "warm", "lmdb"], [40, 20, 38, 2])[0],
        share=rng.random() < 0.93,
        memo_mode="off" if rng.random() < 0.05 else "read-write",
        observer=rng.choices([None, "watches", "own", "odd"], [73, 18, 8, 1])[0],
        is_recorded=rng.random() < 0.15,
        has_capacity=rng.random() < 0.2,
    )


def case_of(seed: int, *, guesses: bool = False, planned: bool = False) -> Case:
    """The case of a seed.

    Args:
        seed: Any number.
        guesses: Whether calls are guessed, and engines die, in a session that speculates; some
            of these programs are run over a file, and killed.
        planned: Whether the engine holds little and says what its steps take, and rows ask again
            and again of one text; not beside `guesses`.
    """
    rng = random.Random(seed)
    is_calm = rng.random() < 0.35
    is_killed = guesses and seed % KILLED == 0
    program: Any = ()
    while not program:
        generator = Generator(rng, is_calm=is_calm)
        if guesses:
            program = generator.row_program() if is_killed else generator.pure_program()
        elif planned:
            program = generator.planned_program()
        else:
            program = generator.program()
    config = config_of(rng)
    if planned:
        # rows wait for seconds, which are real ones with LMDB
        memo = "warm" if config.memo == "lmdb" else config.memo
        config = replace(config, memo=memo, has_capacity=True, has_cost=True)
    case = Case(seed, program, config, is_calm)
    if not guesses:
        return case
    config = replace(
        config,
        rules=RULE_NAMES,
        memo="warm" if rng.random() < 0.2 else "memory",
        share=True,
        memo_mode="read-write",
        guesses=rng.choice(["right", "wrong", "mixed", "mixed"]),
        dies_at=None if is_calm or rng.random() < 0.7 else rng.randrange(1, 12),
    )
    if is_killed:
        moments = [rng.choice(MOMENTS) for _ in range(rng.choice([1, 1, 2, 3]))]
        config = replace(config, kills=tuple((each, rng.random()) for each in moments))
    return replace(case, config=config)
