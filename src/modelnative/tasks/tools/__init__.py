"""Tasks made of plain Python functions (`mn.tool`, `mn.ToolTask`): what a tool is, who calls it, the task of it all."""
