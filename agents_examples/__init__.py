"""Examples: multi-agent workflows as plain async functions, with a few rows to try them on."""
