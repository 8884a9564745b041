"""The networks: embeddings, a core, heads, under one contract."""
