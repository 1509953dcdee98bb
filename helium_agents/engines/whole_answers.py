"""Makes a scheduler of vLLM send an answer that nobody streams at its end, whole.

vLLM sends each token to the process of the client as it comes, where something runs for it: at each
step of the engine, for each open request. Where only the whole answer is asked for, and nothing has
to look at the tokens on the way, that is for nothing; and on a CPU it is taken from the model.
"""

from __future__ import annotations

from typing import Any, Final

_CARRIED: Final = frozenset(
    {"request_id", "new_token_ids", "prefill_stats", "trace_headers", "num_nans_in_logits"}
)
"""What a part of an answer may say and still be sent later: it is joined, or every part says it."""


def with_whole_answers(scheduler: type[Any]) -> type[Any]:
    """A class of vLLM's schedulers as one that sends whole answers, where that loses nothing.

    With vLLM's statistics each token is sent as it comes: they count its time.
    """
    if not hasattr(scheduler, "update_from_output"):
        return scheduler
    from vllm.v1.engine import EngineCoreOutput

    others = [name for name in EngineCoreOutput.__struct_fields__ if name not in _CARRIED]

    def is_due(part: Any, request: Any) -> bool:
        """Whether a part is to be sent now, and then with what was not sent of it before."""
        before = getattr(request, "helium_unsent", None)
        if _is_wanted_whole(request) and all(getattr(part, name) is None for name in others):
            if before is None:
                request.helium_unsent = part
            else:
                before.new_token_ids = [*before.new_token_ids, *part.new_token_ids]
            return False
        if before is not None:
            part.new_token_ids = [*before.new_token_ids, *part.new_token_ids]
            part.prefill_stats = before.prefill_stats or part.prefill_stats
            request.helium_unsent = None
        return True

    class WholeAnswersScheduler(scheduler):  # type: ignore[misc]  # vLLM is not analysed
        def update_from_output(self, output: Any, *args: Any, **kwargs: Any) -> Any:
            if self.log_stats:
                return super().update_from_output(output, *args, **kwargs)
            # Those that this step ends are forgotten by it.
            requests = {name: self.requests.get(name) for name in output.num_scheduled_tokens}
            found = super().update_from_output(output, *args, **kwargs)
            for sent in found.values():
                sent.outputs = [
                    part for part in sent.outputs if is_due(part, requests.get(part.request_id))
                ]
            return {
                client: sent
                for client, sent in found.items()
                if sent.outputs or sent.finished_requests or sent.scheduler_stats
            }

    return WholeAnswersScheduler


def _is_wanted_whole(request: Any) -> bool:
    """Whether the client has no use for an answer's beginning, for which it looks for stops."""
    from vllm.sampling_params import RequestOutputKind

    sampling = getattr(request, "sampling_params", None)
    return (
        sampling is not None
        and sampling.output_kind == RequestOutputKind.FINAL_ONLY
        and not sampling.stop
    )
