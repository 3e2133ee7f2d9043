"""A server: OpenAI's transcription interface, a websocket for streams, and a page."""
