"""Which traces are recorded, as `OTEL_TRACES_SAMPLER` says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

_HEEDS_PARENT = "parentbased_"
_SHARES = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}


class Sampler:
    """Decides for a trace as a whole, where it begins.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
        short = name.removeprefix(_HEEDS_PARENT)
        if short not in _SHARES:
            warnings.warn(
                f"OTEL_TRACES_SAMPLER={name!r} is not known here, so all traces are recorded: use "
                f"{', '.join(_SHARES)}, or one of them with {_HEEDS_PARENT!r} before it",
                RuntimeWarning,
                stacklevel=2,
            )
            name = short = "always_on"
        self._heeds_parent = name != short
        share = _SHARES[short]
        self._below = round((_share_in(environ) if share is None else share) * 2**64)

    def takes(self, trace: bytes, is_parent_sampled: bool | None) -> bool:
        """Whether a trace is recorded.

        Args:
            trace: Its id.
            is_parent_sampled: Whether the caller records it; `None` where there is none.
        """
        if self._heeds_parent and is_parent_sampled is not None:
            return is_parent_sampled
        return int.from_bytes(trace[8:], "big") < self._below


def _share_in(environ: Mapping[str, str]) -> float:
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if 0.0 <= share <= 1.0:
        return share
    warnings.warn(
        f"OTEL_TRACES_SAMPLER_ARG={text!r} is no number from 0 to 1: all traces are recorded",
        RuntimeWarning,
        stacklevel=2,
    )
    return 1.0
