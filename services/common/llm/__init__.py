"""A client for any server with OpenAI's streamed `/v1/chat/completions`."""
