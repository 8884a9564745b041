"""Remember streamed pairs and answer queries."""
