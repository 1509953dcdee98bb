"""vLLM's scheduler with hints: the cache of sessions that have ended is the first to go.

vLLM evicts what was used longest ago. That is the cache of agents which wait for a tool, while what
an agent has left behind that has just ended, and that nobody will ask for again, stays. A request's
``extra_args`` (over HTTP ``vllm_xargs``) may say

- ``helium_session``: whose prompt it is; each prompt of a session begins with the one before it,
- ``helium_shared_tokens``: how many of its first tokens others share,
- ``helium_ended``: sessions that have ended.

Blocks of the latter that nobody uses go to the front of the queue of free blocks. Nothing else
changes: what is computed, and whether, is vLLM's business.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

_MOST_SESSIONS = 4096
"""So many are known at most, whoever forgets to say that his have ended."""


def with_hints(scheduler: type[Any]) -> type[Any]:
    """A class of schedulers as one that takes hints; itself, with a warning, where that cannot be.

    Args:
        scheduler: vLLM's, asynchronous or not.
    """
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
            for session in _hints(request).get("helium_ended", ()):
                self._let_go(self._sessions.pop(session, []))
            super().add_request(request)

        def _free_request_blocks(self, request: Any) -> None:
            hints = _hints(request)
            session = hints.get("helium_session")
            if session is not None and request.is_finished():
                first = int(hints.get("helium_shared_tokens", 0)) // self.block_size
                groups = self.kv_cache_manager.get_blocks(request.request_id).blocks
                self._sessions[session] = [
                    (block, block.block_hash)
                    for blocks in groups
                    for block in list(blocks)[first:]
                    if block.block_hash is not None
                ]
                self._sessions.move_to_end(session)
                if len(self._sessions) > _MOST_SESSIONS:
                    self._sessions.popitem(last=False)
            super()._free_request_blocks(request)

        def _let_go(self, blocks: list[tuple[Any, Any]]) -> None:
            """Put blocks to the front of the free queue, the ends of prompts first."""
            queue = self.kv_cache_manager.block_pool.free_block_queue
            unused = [
                block
                for block, content in blocks
                if block.ref_cnt == 0
                and block.block_hash == content  # else it holds something else by now
                and block.prev_free_block is not None
            ]
            for block in unused:
                queue.remove(block)
            queue.prepend_n(unused[::-1])

    return HintedScheduler


def _hints(request: Any) -> dict[str, Any]:
    sampling = request.sampling_params
    return (sampling.extra_args or {}) if sampling is not None else {}
