"""Runs a program once, in a loop of its own, and says what it gave and what went wrong."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
import warnings
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from helium_agents import Budget, Session
from helium_agents.engines.engine import Capacity, Completion, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.optimizer.rules import RULES
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost
from tests.fuzz.api import Library
from tests.fuzz.clock import Deadlock, VirtualLoop
from tests.fuzz.interpret import new_world, run_program
from tests.fuzz.model import Model, error_of
from tests.fuzz.program import Block, Config
from tests.fuzz.records import shown
from tests.fuzz.reference import Reference
from tests.fuzz.told import Told

MOST_S = 2.0
"""Seconds of computing that a run may take: more is a loop that is blocked."""
_MOST_REAL_S = 10.0
STUCK = ("hang", "blocked", "lost")
"""Kinds of problems after which nothing else can be said of a run."""
_PLANNED_S = 0.1
"""What every answer takes at least where schedules are compared: so long rows are waited for."""
_DIED = "died (death 1 in this session"
_UNAWAITED = "never awaited, so it did not run"


class Overtime(KeyboardInterrupt):
    """The loop is blocked. Of this class, since a task hands nothing else on to its loop."""


@dataclass
class Result:
    """What a run gave.

    Args:
        outcome: The record of the whole program.
        problems: What is wrong with it by itself; each begins with a kind and a colon.
        requests: What the engine was asked.
        unawaited: Warnings of plain operators never awaited, sorted.
        num_open: Requests that were open when the program had ended, before the session closed.
        caught: What the program caught, and where.
        seconds: Of computing.
        num_guesses: Requests that nobody had asked for when they ended.
        policy: Which rows the planner had open at once, in words; empty where it chose nothing.
    """

    outcome: Any = None
    problems: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    unawaited: list[str] = field(default_factory=list)
    num_open: int = 0
    caught: list[str] = field(default_factory=list)
    seconds: float = 0.0
    num_guesses: int = 0
    policy: str = ""

    @property
    def is_stuck(self) -> bool:
        """Whether it did not come to its end."""
        return any(problem.startswith(STUCK) for problem in self.problems)


_PLAIN = Config(rules=())
LAVISH = Budget(max_extra_tokens=1e9, least_probability=0.0)
"""What is guessed is tried."""


class MortalEngine(ScriptedEngine):
    """One that is killed when it gets a certain request."""

    dies_at: int | None = None
    cost: StepCost | None = None

    async def complete(self, request: Request, on_delta: Any = None) -> Completion:
        if self.num_requests + 1 == self.dies_at:
            self.dies_at = None
            asyncio.get_running_loop().call_soon(self.die)
        return await super().complete(request, on_delta)


def run_plain(program: Block, delay_seed: int) -> Result:
    """The plain program, which merges, remembers and schedules nothing."""
    return run(program, delay_seed, {"rules": (), "share": False, "memo": None})


def run_reference(program: Block, delay_seed: int) -> Result:
    """What the program must give, by code that shares nothing with the package's runtime."""
    result = Result()
    engine = ScriptedEngine(Model(delay_seed))
    in_loop(VirtualLoop(), _reference_main(program, engine, result), result)
    if result.problems:
        _bury()
    return result


def run_as(program: Block, delay_seed: int, config: Config, memo: Any) -> Result:
    """The same under a configuration."""
    options = {
        "rules": [rule for rule in RULES if rule.__name__ in config.rules],
        "share": config.share,
        "memo": memo,
        "memo_mode": config.memo_mode,
        "record": config.is_recorded,
        "observers": [] if config.observer is None else [_Observer(config.observer)],
        "speculate": "off" if config.guesses is None else LAVISH,
    }
    kv_tokens = 512 if config.has_cost else 256
    capacity = Capacity(kv_tokens, 16, 4096, 8) if config.has_capacity else None
    is_real = config.memo == "lmdb"
    return run(program, delay_seed, options, capacity, is_real=is_real, config=config)


def run(
    program: Block,
    delay_seed: int,
    options: dict[str, Any],
    capacity: Capacity | None = None,
    *,
    is_real: bool = False,
    config: Config = _PLAIN,
) -> Result:
    """Run a program in a session made with these options.

    Args:
        program: The program.
        delay_seed: Decides how long answers take.
        options: Those of the session.
        capacity: That of the engine.
        is_real: Whether time is real; threads need it so.
        config: What is guessed, when the engine dies, and whether it says what a step takes.
    """
    result = Result()
    least_s = _PLANNED_S if config.has_cost else 0.0
    engine = MortalEngine(Model(delay_seed, least_s), capacity=capacity)
    engine.dies_at = config.dies_at
    engine.cost = STEP_COSTS["cpu-medium"] if config.has_cost else None
    _run(program, engine, options, is_real, result, config.guesses)
    if result.problems:
        _bury()
    return result


def _run(
    program: Block,
    engine: ScriptedEngine,
    options: dict[str, Any],
    is_real: bool,
    result: Result,
    guesses: str | None,
) -> None:
    loop: asyncio.AbstractEventLoop = asyncio.new_event_loop() if is_real else VirtualLoop()
    start_s = time.process_time()
    most_s = _MOST_REAL_S if is_real else None
    in_loop(loop, _main(program, engine, options, result, guesses), result, most_s)
    # what was taken back while it was a guess comes again
    result.requests = [*dict.fromkeys(each for each in engine.requests if not each.is_guess)]
    result.num_guesses = len(engine.requests) - len(result.requests)
    result.seconds = time.process_time() - start_s


def in_loop(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, None],
    result: Result,
    most_s: float | None = None,
) -> None:
    """Run something to its end, or note what kept it from it.

    Args:
        loop: Where.
        work: What.
        result: Gets what is wrong with it.
        most_s: Seconds that it may take, where time is real.
    """
    with _watched(loop, result):
        main = loop.create_task(work)
        try:
            if most_s is not None:
                loop.run_until_complete(asyncio.wait([main], timeout=most_s))
                if not main.done():
                    raise Deadlock("it has not ended in time")
            loop.run_until_complete(main)
        except (Deadlock, Overtime) as error:
            kind = "hang" if isinstance(error, Deadlock) else "blocked"
            result.problems.append(f"{kind}: {error}{stacks(loop)}")
        except BaseException as error:
            if type(error) in (KeyboardInterrupt, SystemExit):
                raise
            result.problems.append(f"lost: {type(error).__name__} came out of the loop: {error}")


async def _reference_main(program: Block, engine: ScriptedEngine, result: Result) -> None:
    world, reference = new_world(), Reference(engine)
    await engine.start()
    try:
        result.outcome = await run_program(reference, program)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        result.outcome = ("session raised", shown(error))
    tasks = {*reference.tasks, *world.left}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    world.caught.clear()


async def _main(
    program: Block,
    engine: ScriptedEngine,
    options: dict[str, Any],
    result: Result,
    guesses: str | None,
) -> None:
    world, not_ours, told = new_world(), asyncio.all_tasks(), Told()
    if guesses is not None:
        options = {**options, "observers": [*options["observers"], told]}
    try:
        async with Session(engine, **options) as session:
            result.outcome = await run_program(Library(session, guesses), program)
            result.num_open = engine.num_open
            result.policy = session.summary.policy
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        result.outcome = ("session raised", shown(error))
    if guesses is not None:
        result.problems += told.problems(session.summary)
    if world.left:
        await asyncio.wait(world.left)
    for task in world.left:
        if task.cancelled():
            result.problems.append("left waiter: it was cancelled, by nobody")
        else:
            task.exception()
    result.problems += world.caught.problems()
    result.caught = world.caught.kinds
    world.caught.clear()
    for _ in range(5):
        await asyncio.sleep(0)
    if asyncio.all_tasks() - not_ours:
        result.problems.append(f"leak: tasks are left{stacks(asyncio.get_running_loop())}")
    if engine.num_open:
        result.problems.append(f"leak: {engine.num_open} requests are open")
    if engine.is_started:
        result.problems.append("leak: the engine was not closed")


class _Observer:
    """Sees events; a failing one raises at every fifth."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._num_events = 0

    def __call__(self, event: Any) -> None:
        self._num_events += 1
        if self._kind != "watches" and self._num_events % 5 == 0:
            raise error_of(self._kind, "observer")


@contextmanager
def _watched(loop: asyncio.AbstractEventLoop, result: Result) -> Iterator[None]:
    """Collect warnings and what only the loop's handler saw; end a loop that is blocked."""

    def on_loop_error(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or "observer" not in error.args[:1]:  # of observers the loop shall hear
            result.problems.append(f"unhandled: {context['message']}: {error!r}")

    def on_overtime(*_: Any) -> None:
        raise Overtime(f"more than {MOST_S} s of computing")

    def on_unraisable(problem: Any) -> None:
        result.problems.append(f"unraisable: {problem.err_msg}: {problem.exc_value!r}")

    loop.set_exception_handler(on_loop_error)
    asyncio.set_event_loop(loop)
    old_hook, sys.unraisablehook = sys.unraisablehook, on_unraisable
    old_handler = signal.signal(signal.SIGPROF, on_overtime)
    signal.setitimer(signal.ITIMER_PROF, MOST_S, 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, old_handler)
            num_problems = len(result.problems)
            _close(loop)
            gc.collect()
            sys.unraisablehook = old_hook
            if result.is_stuck:  # what comes of tearing it down says nothing
                del result.problems[num_problems:]
    texts = [str(warning.message) for warning in caught]
    result.unawaited = sorted(text for text in texts if _UNAWAITED in text)
    if not result.is_stuck:
        unexpected = [text for text in texts if _UNAWAITED not in text and _DIED not in text]
        result.problems += [f"warning: {text}" for text in unexpected]


def _bury() -> None:
    """Tear down what a run that is stuck has left, and hear nothing of it."""
    old_hook, sys.unraisablehook = sys.unraisablehook, lambda problem: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            gc.collect()
    sys.unraisablehook = old_hook


def _close(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    asyncio.set_event_loop(None)
    loop.close()


def stacks(loop: asyncio.AbstractEventLoop) -> str:
    """Where every task waits, a line each."""
    lines = [
        f"\n    {task.get_name()}: {_chain(task.get_coro())}" for task in asyncio.all_tasks(loop)
    ]
    return "".join(sorted(lines)[:12])


def _chain(waiting: Any) -> str:
    """The functions of a suspended coroutine, outermost first."""
    names: list[str] = []
    while waiting is not None and len(names) < 60:
        for prefix in ("cr", "ag", "gi"):
            frame = getattr(waiting, f"{prefix}_frame", None)
            if frame is not None:
                names.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
                waiting = getattr(waiting, f"{prefix}_await", None) or getattr(
                    waiting, f"{prefix}_yieldfrom", None
                )
                break
        else:
            inner = gc.get_referents(waiting)  # what `__await__` of a coroutine gives hides it
            if type(waiting).__name__ != "coroutine_wrapper" or not inner:
                names.append(type(waiting).__name__)
                break
            waiting = inner[0]
    shown_names: Sequence[str] = names if len(names) < 14 else [*names[:4], "...", *names[-9:]]
    return " > ".join(shown_names)
