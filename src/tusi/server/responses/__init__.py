"""/v1/responses: OpenAI's newer form of a conversation, as items; here over the same jobs as chat completions."""
