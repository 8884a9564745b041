"""Follow a hidden map through a tool."""
