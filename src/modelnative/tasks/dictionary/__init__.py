"""Remember pairs and answer queries."""
