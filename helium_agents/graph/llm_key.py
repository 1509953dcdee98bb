"""The digest of what a model is asked, computed once per call: the hottest key of all.

The general encoding would do, at ten times the cost. This one is as injective: every piece is
preceded by its kind and its length, and the parts that have a fixed size come first.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from helium_agents.graph.sampling import Sampling
from helium_agents.graph.values import Slot


def question_digest(
    model_identity: bytes,
    messages: Sequence[tuple[str, Sequence[str | Slot]]],
    sampling: Sampling,
    json_schema: str | None,
) -> bytes:
    """32 bytes for a model, messages, sampling without `max_tokens`, and schema."""
    pieces = [b"k%d:" % len(model_identity), model_identity, sampling.encoded]
    for role, parts in messages:
        data = role.encode()
        pieces += (b"m%d,%d:" % (len(data), len(parts)), data)
        for part in parts:
            if isinstance(part, str):
                data = part.encode("utf-8", "surrogatepass")
                pieces += (b"t%d:" % len(data), data)
            else:
                pieces.append(b"i%d:" % part.index)
    if json_schema is not None:
        data = json_schema.encode()
        pieces += (b"j%d:" % len(data), data)
    return blake3(b"".join(pieces)).digest()


def join_digests(tag: bytes, *digests: bytes) -> bytes:
    """The digest of some digests under a tag; tags are of one byte, digests of 32."""
    return blake3(tag + b"".join(digests)).digest()
