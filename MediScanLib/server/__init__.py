"""The REST server: predictions for others, over HTTP. See docs/server.md."""
