"""Tiny runs, trained in a second or two: a Seq2Seq that copies letters, and a Llama-shaped GPT of characters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pellucid.parts.config import Dropout
from pellucid.training import devices
from pellucid.training.loop import Outcome
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import start

TEXT = "".join(
    f"the {a} {b} sees the {c}.\n" for a in ("old", "new", "red") for b in ("dog", "cat") for c in ("man", "sea")
)


def shrunk(recipe: Recipe, **training: Any) -> Recipe:
    """A shipped recipe cut down: the same parts, tiny; in float32 on one thread, where nothing has to be timed."""
    stack = replace(recipe.model.stack, d_model=16, n_layers=1, n_heads=2, d_ff=32, dropout=Dropout(residual=0.1))
    stack = replace(stack, n_kv_heads=1 if recipe.model.stack.n_kv_heads else None)
    pace: dict[str, Any] = {"steps": 6, "warmup": 1, "evaluate_every": 3, "checkpoint_every": 2, "evaluate_limit": 8}
    pace |= {"log_every": 1, "precision": "float32", "threads": 1, "compile": "off", "device": "cpu"} | training
    return replace(
        recipe,
        model=replace(recipe.model, stack=stack),
        data=replace(recipe.data, examples=200, held_out=12),
        training=replace(recipe.training, **pace),
    )


def copy_recipe(**training: Any) -> Recipe:
    """The recipe copy, tiny."""
    return shrunk(load_recipe("copy"), **({"batch_tokens": 300} | training))


def text_recipe(file: Path, **training: Any) -> Recipe:
    """The recipe text, tiny, on the characters of a file."""
    recipe = shrunk(load_recipe("text"), **({"length": 16, "batch_size": 4} | training))
    data = replace(recipe.data, train=(str(file),), tokenizer="char", holdout=0.2)
    return replace(recipe, data=data, model=replace(recipe.model, max_length=32))


def write_text(file: Path, repeat: int = 5) -> Path:
    """A file with TEXT in it."""
    file.write_text(TEXT * repeat, encoding="utf-8")
    return file


@contextmanager
def known_machine() -> Iterator[None]:
    """Within, nothing is chosen by timing (a busy machine may choose otherwise the second time, and then the last bits differ)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "onednn_is_exact", lambda: False)
        patch.setattr(devices, "measure_peak", lambda device, precision: 1e10)
        yield


def train(recipe: Recipe, folder: Path) -> Outcome:
    """`start` on a known machine, asserting that it comes to its end."""
    with known_machine():
        outcome = start(recipe, folder, "tiny")
    assert outcome.kind == "done"
    return outcome
