"""How a model speaks."""
