"""Pellucid: from your own text to a Transformer you can see through."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`pellucid.load` and `pellucid.Pipeline`, imported when first asked for: the command line answers --help without torch."""
    if name in ("load", "Pipeline"):
        from pellucid import api

        return getattr(api, name)
    raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
