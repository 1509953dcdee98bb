"""What a user writes: operators, LLM calls, messages and prompts, gather."""
