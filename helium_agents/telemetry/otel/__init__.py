"""OpenTelemetry: a session's calls as spans and metrics, after the conventions for generative AI.

`Session(otlp=...)` is what a user needs. Who watches is an observer (`spans`), which turns events
into records (`records`); a helper process makes spans of them and sends these off, so that tracing
takes nearly nothing of the run's own process. An application that has set up OpenTelemetry for
itself gets its spans from the same records, made in process.
"""

from helium_agents.telemetry.otel.settings import Otlp as Otlp
