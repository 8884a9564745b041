"""The same tasks in the interfaces of other libraries."""
