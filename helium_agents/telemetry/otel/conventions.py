"""Names of OpenTelemetry's conventions for generative AI, and our own beside them.

The conventions are in development and their names change. These are of the registry that the
installed semantic-conventions package has (0.66b2); this file is the only place that knows them.
"""

SCOPE = "helium_agents"

# --- operations --------------------------------------------------------------------------------

CHAT = "chat"
EXECUTE_TOOL = "execute_tool"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"

# --- attributes --------------------------------------------------------------------------------

AGENT_NAME = "gen_ai.agent.name"
CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CHOICE_COUNT = "gen_ai.request.choice.count"
ERROR_TYPE = "error.type"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
INPUT_MESSAGES = "gen_ai.input.messages"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
MAX_TOKENS = "gen_ai.request.max_tokens"
OPERATION_NAME = "gen_ai.operation.name"
OUTPUT_MESSAGES = "gen_ai.output.messages"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
SEED = "gen_ai.request.seed"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
STOP_SEQUENCES = "gen_ai.request.stop_sequences"
TEMPERATURE = "gen_ai.request.temperature"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
TOKEN_TYPE = "gen_ai.token.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOP_K = "gen_ai.request.top_k"
TOP_P = "gen_ai.request.top_p"
WORKFLOW_NAME = "gen_ai.workflow.name"

OPENINFERENCE_KIND = "openinference.span.kind"
"""What Phoenix shows a span as; it derives it from the operation's name, but not for workflows."""

CHAIN = "CHAIN"

# --- our own -----------------------------------------------------------------------------------

CALLS_SAVED = "helium.saved.calls"
INPUT_TOKENS_SAVED = "helium.saved.input_tokens"
INTERRUPTED = "helium.interrupted"
NUM_ATTEMPTS = "helium.attempts"
NUM_ROWS = "helium.rows"
OPERATOR = "helium.operator"
OUTPUT_TOKENS_SAVED = "helium.saved.output_tokens"
QUEUED_S = "helium.queue.duration"
ROW_INDEX = "helium.row.index"
RUN_ID = "helium.run.id"
SHARED_SPAN_ID = "helium.shared.span_id"
SHARED_TRACE_ID = "helium.shared.trace_id"
SOURCE = "helium.source"
SPECULATED = "helium.speculated"

# --- metrics -----------------------------------------------------------------------------------

AGENT_DURATION = "gen_ai.invoke_agent.duration"
CALLS = "helium.calls"
CLIENT_DURATION = "gen_ai.client.operation.duration"
CLIENT_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
CLIENT_TOKENS = "gen_ai.client.token.usage"
TOKENS_SAVED = "helium.saved.tokens"
TOOL_DURATION = "gen_ai.execute_tool.duration"
WORKFLOW_DURATION = "gen_ai.workflow.duration"

SECONDS_BUCKETS = tuple(0.01 * 2**power for power in range(14))
FIRST_CHUNK_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
TOKENS_BUCKETS = tuple(4**power for power in range(14))
