"""The OpenAI-compatible HTTP server. `tusi.server.app.create_app` puts it together, `tusi serve` runs it."""
