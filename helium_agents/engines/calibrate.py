"""What a step of a running engine takes, measured through its own port in a few seconds at most.

Kept in the user's cache by model, settings and machine, so that it is measured once. It decides
between schedules whose times differ by a twentieth or more, so it need not be exact: what steps
take later corrects it (`helium_agents.optimizer.step_sums`).
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from tempfile import NamedTemporaryFile

from blake3 import blake3

from helium_agents.engines.cached_model import cache_root
from helium_agents.engines.cpu_cores import CORE_VARIABLES
from helium_agents.engines.engine import Capacity, Completion, Request
from helium_agents.errors import RequestError
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.step_cost import StepCost

Complete = Callable[[Request], Awaitable[Completion]]

_SHORT, _MIDDLE, _LONG, _LONGEST = 16, 64, 512, 1024
_ANSWER_TOKENS = 12
_BATCH = 16
_ANSWER_ROOM_TOKENS = 64
"""Of each of several answers to one prompt, whose last block may be its own."""
_FIRST_TOKEN_ID, _NUM_TOKEN_IDS = 300, 600
_LEAST_POSITION_SHARE = 1 / 50_000
"""Each position costs at least so much of a token: attention is never free, though often cheap."""
_NUM_AT_ONCE = 64
_FORMAT = 4
_DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", *CORE_VARIABLES)
"""They decide what an engine computes on."""


class _Probe:
    """Asks an engine prompts that it has not seen."""

    def __init__(self, complete: Complete) -> None:
        self._complete = complete
        self._random = random.Random(0)
        self._ids = count()

    def prompt(self, num_tokens: int) -> list[int]:
        return [_FIRST_TOKEN_ID + self._random.randrange(_NUM_TOKEN_IDS) for _ in range(num_tokens)]

    async def seconds(self, prompts: list[list[int]], max_tokens: int) -> tuple[float, int]:
        """How long some prompts take together, and the tokens of the longest answer."""
        clock = asyncio.get_running_loop().time
        start_s = clock()
        sampling = Sampling(max_tokens)
        answers = await asyncio.gather(
            *(
                self._complete(Request(f"calibrate-{next(self._ids)}", (), prompt, sampling))
                for prompt in prompts
            )
        )
        num_tokens = max(len(answer.choices[0].token_ids) for answer in answers)
        return clock() - start_s, num_tokens

    async def prefill_s(self, num_tokens: int) -> float:
        """From sending a prompt to its first token: the better of two."""
        return min([(await self.seconds([self.prompt(num_tokens)], 1))[0] for _ in range(2)])

    async def arrival_s(self, num_prompts: int, num_tokens: int) -> tuple[float, float]:
        """Each of so many requests on its way to the engine, and one from sending to its answer."""
        prompts = [self.prompt(num_tokens)] * num_prompts
        await self.seconds(prompts[:1], 1)  # from now on it is cached
        one_s = min([(await self.seconds(prompts[:1], 1))[0] for _ in range(3)])
        all_s = min([(await self.seconds(prompts, 1))[0] for _ in range(2)])
        return max(0.0, all_s - one_s) / max(1, num_prompts - 1), one_s

    async def step_s(self, num_prompts: int, num_tokens: int) -> float:
        """A step in which so many answers grow, after the same prompt of so many tokens."""
        prompts = [self.prompt(num_tokens)] * num_prompts
        await self.seconds(prompts[:1], 1)  # from now on it is cached
        first_s, _ = await self.seconds(prompts, 1)
        all_s, num_answered = await self.seconds(prompts, _ANSWER_TOKENS)
        return max(0.0, all_s - first_s) / max(1, num_answered - 1)


async def measure_cost(complete: Complete, capacity: Capacity) -> StepCost:
    """What a step takes of an engine that nobody else asks meanwhile.

    Args:
        complete: Asks it.
        capacity: What it holds.
    """
    most = min(capacity.max_model_tokens, capacity.kv_tokens) - _ANSWER_TOKENS
    long = min(_LONG, most)
    middle = min(_MIDDLE, long // 2)
    batch = max(2, min(_BATCH, capacity.max_requests, most // (_SHORT + _ANSWER_TOKENS)))
    probe = _Probe(complete)
    await probe.seconds([probe.prompt(_SHORT)], 4)  # what is done once is done
    prefill_s, position_s = await _prefill(probe, middle, long, min(_LONGEST, most))
    one_s, many_s = await probe.step_s(1, _SHORT), await probe.step_s(batch, _SHORT)
    # What one answer attends to takes less than the clock's noise, so many attend to it.
    num_far = max(1, min(batch, (most - long) // _ANSWER_ROOM_TOKENS))
    far_s = await probe.step_s(num_far, long)
    decode_s = max(0.0, many_s - one_s) / (batch - 1)
    near_s = one_s + decode_s * (num_far - 1)
    step_s = max(0.0, one_s - decode_s)
    # A block and a token more, so that all but a token is cached; and each has a block of its own.
    block = capacity.block_tokens
    at_once = max(1, min(_NUM_AT_ONCE, capacity.max_requests, capacity.kv_tokens // (2 * block)))
    request_s, answer_s = await probe.arrival_s(at_once, min(block + 1, most))
    return StepCost(
        step_s=step_s,
        decode_s=decode_s,
        context_s=max(0.0, far_s - near_s) / (num_far * (long - _SHORT)),
        prefill_s=prefill_s,
        position_s=position_s,
        request_s=request_s,
        reply_s=max(0.0, answer_s - request_s - step_s - prefill_s),
    )


async def _prefill(probe: _Probe, middle: int, long: int, longest: int) -> tuple[float, float]:
    """What a token of a prompt takes, and each of its positions more, from prompts of any length.

    The time of a prompt is a parabola in its length; that of tokens in the middle is their slope.
    """
    middle_s, long_s = await probe.prefill_s(middle), await probe.prefill_s(long)
    slope_s = max(0.0, long_s - middle_s) / (long - middle)
    position_s = 0.0
    if longest > long:
        steeper_s = (await probe.prefill_s(longest) - long_s) / (longest - long)
        position_s = 2 * (steeper_s - slope_s) / (longest - middle)
    # Half of the slope at most: the rest is the same for every token.
    position_s = min(max(position_s, _LEAST_POSITION_SHARE * slope_s), slope_s / (long + middle))
    return slope_s - position_s * (long + middle) / 2, position_s


async def cost_of(path: Path, complete: Complete, capacity: Capacity) -> StepCost:
    """The cost that was kept, or else measured now and kept; see `measure_cost`."""
    cost = await asyncio.to_thread(read_cost, path)
    if cost is None:
        cost = await measure_cost(complete, capacity)
        await asyncio.to_thread(keep_cost, path, cost)
    return cost


def cost_file(identity: str, settings: str) -> Path:
    """Where the cost of a model with some settings is kept, on a machine like this one."""
    cores = len(os.sched_getaffinity(0))
    devices = [os.environ.get(name, "") for name in _DEVICE_VARIABLES]
    where = f"{platform.node()}/{platform.machine()}/{cores}/{'/'.join(devices)}"
    key = blake3(f"{_FORMAT}|{identity}|{settings}|{where}".encode()).hexdigest()[:32]
    return cache_root() / "costs" / f"{key}.json"


def read_cost(path: Path) -> StepCost | None:
    """What was kept; `None` where nothing was, or something else."""
    try:
        return StepCost.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RequestError):
        return None


def keep_cost(path: Path, cost: StepCost) -> None:
    """Keep it, whole or not at all; where the cache cannot be written it is measured again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(cost.as_dict(), file)
        os.replace(file.name, path)
    except OSError:
        return
