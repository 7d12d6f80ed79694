"""How any model learns any task."""
