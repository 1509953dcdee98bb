"""vLLM's scheduler with hints: what nobody will ask for again is the first to go.

vLLM evicts what was used longest ago. That is the cache of agents which wait for a tool, while what
an agent has left behind that has just ended, and that nobody will ask for again, stays. A request's
``extra_args`` (over HTTP ``vllm_xargs``) may say

- ``helium_session``: whose prompt it is; each prompt of a session begins with the one before it,
- ``helium_ended``: sessions that have ended,
- ``helium_kept_tokens``: for each of these, how many of its first tokens others share,
- ``helium_used_tokens``: how many of the first tokens of this prompt and its answer requests to
  come will begin with.

What is of no use any more goes to the front of the queue of free blocks, unless somebody uses it.
Nothing else changes: what is computed, and whether, is vLLM's business. Hints may come from anybody
who asks a server: wrong ones cost time only, and what is no hint counts as not said.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from helium_agents.engines.reporting_scheduler import with_report
from helium_agents.engines.whole_answers import with_whole_answers

HINTED_SCHEDULER: Final = f"{__name__}.hinted_scheduler"
"""What vLLM is given as its ``scheduler_cls``."""

_MOST_SESSIONS = 4096
"""So many are known at most, whoever forgets to say that his have ended."""


def hinted_scheduler(vllm_config: Any, **arguments: Any) -> Any:
    """The scheduler that vLLM would choose by itself, adjusted."""
    return adjusted(vllm_config)(vllm_config=vllm_config, **arguments)


def adjusted(vllm_config: Any) -> type[Any]:
    """The class of the scheduler that vLLM would choose by itself, asynchronous or not.

    It takes hints, sends whole answers to who wants no other, and reports its steps.
    """
    unasked = copy.copy(vllm_config.scheduler_config)
    unasked.scheduler_cls = None
    scheduler = with_whole_answers(with_hints(unasked.get_scheduler_cls()))
    if vllm_config.parallel_config.data_parallel_size == 1:  # else several would write one report
        scheduler = with_report(scheduler)
    return scheduler


def with_hints(scheduler: type[Any]) -> type[Any]:
    """A scheduler class as one that takes hints; itself, with a warning, where that cannot be."""
    if not all(hasattr(scheduler, name) for name in ("add_request", "_free_request_blocks")):
        warnings.warn(
            f"{scheduler.__name__} of the installed vLLM takes no hints on its cache: it evicts as "
            "always",
            RuntimeWarning,
            stacklevel=2,
        )
        return scheduler

    class HintedScheduler(scheduler):  # type: ignore[misc]  # vLLM is not analysed
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._sessions: OrderedDict[Any, list[tuple[Any, Any]]] = OrderedDict()

        def add_request(self, request: Any) -> None:
            for session, kept_tokens in _hints(request).ended:
                first = -(-kept_tokens // self.block_size)
                self._let_go(self._sessions.pop(session, [])[first:])
            super().add_request(request)

        def _free_request_blocks(self, request: Any) -> None:
            hints = _hints(request)
            session = hints.session
            groups = self.kv_cache_manager.get_blocks(request.request_id).blocks
            if session is not None and request.is_finished() and len(groups) == 1:
                self._sessions[session] = [(block, block.block_hash) for block in groups[0]]
                self._sessions.move_to_end(session)
                if len(self._sessions) > _MOST_SESSIONS:
                    self._sessions.popitem(last=False)
            super()._free_request_blocks(request)
            used_tokens = hints.used_tokens
            if used_tokens is not None and request.is_finished() and len(groups) == 1:
                first = -(-used_tokens // self.block_size)
                self._let_go([(block, block.block_hash) for block in groups[0][first:]])

        def _let_go(self, blocks: list[tuple[Any, Any]]) -> None:
            """Put blocks to the front of the free queue, the ends of prompts first."""
            queue = self.kv_cache_manager.block_pool.free_block_queue
            unused = [
                block
                for block, content in blocks
                if block.ref_cnt == 0
                and block.block_hash == content  # else it holds something else by now
                and block.prev_free_block is not None  # it is in the queue
            ]
            for block in unused:
                queue.remove(block)
            queue.prepend_n(unused[::-1])

    return HintedScheduler


class _Hints(NamedTuple):
    session: str | int | None = None
    ended: Sequence[tuple[str | int, int]] = ()
    """With the tokens of each that are kept."""

    used_tokens: int | None = None


def _hints(request: Any) -> _Hints:
    """What a request says, without what is malformed."""
    sampling = request.sampling_params
    said = (sampling.extra_args or {}) if sampling is not None else {}
    session = said.get("helium_session")
    ended, kept = (said.get(name) for name in ("helium_ended", "helium_kept_tokens"))
    ended, kept = (each if isinstance(each, list | tuple) else () for each in (ended, kept))
    pairs = zip(ended, map(_count, [*kept, *[0] * len(ended)]), strict=False)
    return _Hints(
        session if isinstance(session, str | int) else None,
        [(each, num_kept or 0) for each, num_kept in pairs if isinstance(each, str | int)],
        _count(said.get("helium_used_tokens")),
    )


def _count(value: Any) -> int | None:
    return max(0, value) if isinstance(value, int) else None
