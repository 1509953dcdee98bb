"""The token-step model: what an order of calls costs, after the Helium paper.

The paper (arXiv 2603.16104) measures time in token steps: one step decodes one token of every call
that runs. It gives the usage of a call, the delay between dependent calls, and the makespan as
the objective; the rest of its formulation leaves room. It is read here as follows.

- **Usage.** A call that prefills p tokens and says o holds p + 1, p + 2, ..., p + o tokens in the
  KV cache, one step each: o·p + o(o + 1)/2 token·steps. Divided by the capacity M, that is the time
  for which the call would need the worker if the cache were always full:
  u = alpha·(o·p + o(o + 1)/2) with alpha = 1/M.
- **Prefill.** p counts the prompt's tokens below the lowest common ancestor with the call that ran
  just before, in the prefix tree of the prompts. The first call prefills everything. What ran
  earlier than the call before does not count, and neither do the tokens that a call said: they
  are nobody's prefix until a later prompt has them.
- **One worker** runs one call after another: a call starts when the one before has ended, at the
  earliest, and ends its usage later. Batching is in the usage, not in overlapping calls.
- **Delay.** A call that reads another's answer starts at least alpha·M·o = o steps after the
  other ended, o being what the other says: so long it takes to decode, however free the worker.
- **Makespan.** The end of the last call. No delay follows it.
- **Idling** is allowed, and given an order never helps: usage depends on the order alone, so to
  start every call as soon as it may is best. An order therefore has one cost.

To stay in whole numbers, times are in token·steps, that is in steps times M: usage is
o·p + o(o + 1)/2, the delay M·o. `Schedule.makespan_steps` divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scheduling.instance import Instance


@dataclass(frozen=True)
class Schedule:
    """What an order comes to.

    Args:
        order: Indices of the calls, first to last.
        starts: When each call starts, by its index, in token·steps.
        ends: When each call ends, by its index, in token·steps.
        kv_capacity_tokens: Token·steps in one step.
    """

    order: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    kv_capacity_tokens: int

    @property
    def makespan(self) -> int:
        """The end of the last call, in token·steps."""
        return max(self.ends, default=0)

    @property
    def makespan_steps(self) -> float:
        """The end of the last call, in steps."""
        return self.makespan / self.kv_capacity_tokens


def usage(instance: Instance, index: int, previous: int | None) -> int:
    """The token·steps of a call that runs just after another, or first."""
    call = instance.calls[index]
    shared = 0 if previous is None else call.shared_tokens(instance.calls[previous])
    o = call.output_tokens
    return o * (call.prompt_tokens - shared) + o * (o + 1) // 2


def delay(instance: Instance, index: int) -> int:
    """The token·steps from a call's end to the earliest start of a call that reads its answer."""
    return instance.kv_capacity_tokens * instance.calls[index].output_tokens


class Worker:
    """The one worker of an instance, as it takes calls.

    A policy that looks at what is ready asks it; to price a given order, every call is run in turn.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.free_at = 0
        """When the call that runs ends, in token·steps."""
        self.previous: int | None = None
        """The call that ran last."""
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}

    def ready_at(self, index: int) -> int | None:
        """When the answers that a call reads are there, or `None` while one of them has not run."""
        inputs = self.instance.calls[index].inputs
        if not all(source in self.ends for source in inputs):
            return None
        return max(
            (self.ends[source] + delay(self.instance, source) for source in inputs), default=0
        )

    def run(self, index: int) -> None:
        """Run a call as soon as the worker is free and the call is ready.

        Raises:
            ValueError: It has run already, or reads what has not run yet.
        """
        ready_at = self.ready_at(index)
        if index in self.ends or ready_at is None:
            raise ValueError(f"{self.instance.calls[index].name} cannot run now")
        self.starts[index] = max(self.free_at, ready_at)
        self.free_at = self.starts[index] + usage(self.instance, index, self.previous)
        self.ends[index] = self.free_at
        self.previous = index


def price(instance: Instance, order: Sequence[int]) -> Schedule:
    """What an order costs.

    Raises:
        ValueError: The order misses or repeats a call, or runs one before what it reads.
    """
    instance.check(order)
    worker = Worker(instance)
    for index in order:
        worker.run(index)
    indices = range(len(instance.calls))
    return Schedule(
        tuple(order),
        tuple(worker.starts[index] for index in indices),
        tuple(worker.ends[index] for index in indices),
        instance.kv_capacity_tokens,
    )
