"""`OtlpHttp`: sends spans by OTLP over HTTP, as `OTEL_EXPORTER_OTLP_*` says.

It reads of the environment what the stock exporter reads, and like it gives a batch up when the
timeout has passed, attempts and waits together. Unlike it, it takes spans that are no SDK's, and
heeds what a collector says of spans that it took in part.
"""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.util.re import parse_env_headers
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_random_exponential,
)
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from helium_agents.telemetry.otel.protobuf import Encoder
from helium_agents.telemetry.otel.records import Whole
from helium_agents.telemetry.otel.sending import Outcome, Reporter

_MAY_PASS = {429, 502, 503, 504}  # after the specification of OTLP
_PROTOBUF = "application/x-protobuf"
_TIMEOUT_S = 10.0

_COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}

_back_off_s = wait_random_exponential(multiplier=1.0, min=0.5, max=5.0)


class _TryAgain(Exception):
    """An attempt failed, and another may not.

    Args:
        why: What a person is told.
        is_down: Whether the collector did not answer.
        after_s: When it wants to be asked again, if it says so.
    """

    def __init__(self, why: str, *, is_down: bool, after_s: float | None = None) -> None:
        super().__init__(why)
        self.is_down, self.after_s = is_down, after_s


class _Refused(Exception):
    """No attempt will do."""


class OtlpHttp:
    """Sends spans to one collector.

    Args:
        environ: The environment.
        encoder: Makes what is sent.
        reporter: Told of what does not work, while it is tried again.
    """

    def __init__(self, environ: Mapping[str, str], encoder: Encoder, reporter: Reporter) -> None:
        def setting(name: str) -> str:
            own = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
            return (own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")).strip()

        self._encoder = encoder
        self._reporter = reporter
        base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        self._url = own or f"{base.removesuffix('/')}/v1/traces"
        self._session = requests.Session()
        self._session.headers.update({"content-type": _PROTOBUF, "user-agent": "helium_agents"})
        self._session.headers.update(parse_env_headers(setting("HEADERS"), liberal=True))
        self._session.verify = setting("CERTIFICATE") or True
        certificate, key = setting("CLIENT_CERTIFICATE"), setting("CLIENT_KEY")
        if certificate:
            self._session.cert = (certificate, key) if key else certificate
        self._compress = self._compression(setting("COMPRESSION").lower())
        self._timeout_s = self._timeout(setting("TIMEOUT"))

    def export(self, spans: Sequence[Whole]) -> Outcome:
        """Send a batch, again where that may help."""
        data = self._compress(self._encoder.request(spans))
        retrying = Retrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_before_delay(self._timeout_s),
            wait=_wait_s,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return retrying(self._post, data, time.monotonic() + self._timeout_s)
        except (_TryAgain, _Refused) as error:
            return Outcome(len(spans), str(error))

    def _post(self, data: bytes, until_s: float) -> Outcome:
        left_s = max(until_s - time.monotonic(), 0.1)
        try:
            answer = self._session.post(self._url, data=data, timeout=left_s, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _TryAgain(str(error), is_down=True) from error
        except requests.RequestException as error:
            raise _Refused(str(error)) from error
        if answer.ok and not answer.is_redirect:
            return _accepted(answer)
        why = f"the collector answers {answer.status_code} {answer.reason}"
        if answer.status_code in _MAY_PASS:
            raise _TryAgain(why, is_down=False, after_s=_after_s(answer))
        raise _Refused(why)

    def _tell(self, state: RetryCallState) -> None:
        failure = _failure(state)
        is_down = isinstance(failure, _TryAgain) and failure.is_down
        self._reporter.complain(str(failure), is_down=is_down)

    def _compression(self, name: str) -> Callable[[bytes], bytes]:
        if name in _COMPRESSIONS:
            self._session.headers["content-encoding"] = name
            return _COMPRESSIONS[name]
        if name not in ("", "none"):
            trouble = f"OTEL_EXPORTER_OTLP_COMPRESSION={name!r} is none of gzip, deflate, none"
            self._reporter.complain(trouble, is_down=False)
        return bytes

    def _timeout(self, text: str) -> float:
        try:
            return float(text or _TIMEOUT_S)
        except ValueError:
            self._reporter.complain(
                f"OTEL_EXPORTER_OTLP_TIMEOUT={text!r} is no number of seconds", is_down=False
            )
            return _TIMEOUT_S


def _accepted(answer: requests.Response) -> Outcome:
    """What a collector says that took at least a part."""
    if not answer.headers.get("content-type", "").startswith(_PROTOBUF):
        return Outcome(0)
    try:
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    except DecodeError:
        return Outcome(0)  # it took them, and what it says besides nobody can tell
    return Outcome(partial.rejected_spans, partial.error_message)


def _after_s(answer: requests.Response) -> float | None:
    text = answer.headers.get("retry-after")
    try:
        return None if text is None else Retry().parse_retry_after(text)
    except InvalidHeader:
        return None  # as if it had said nothing


def _failure(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _wait_s(state: RetryCallState) -> float:
    failure = _failure(state)
    after_s = failure.after_s if isinstance(failure, _TryAgain) else None
    return _back_off_s(state) if after_s is None else after_s
