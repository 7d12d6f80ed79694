"""What to run a model on: random ids or pixels, or a text or an image as the model reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import UserError
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.generation.speakers import start_ids
from pellucid.models.config import ModelConfig
from pellucid.tasks.pixels import Pixels, read_images
from pellucid.tasks.reading import asked
from pellucid.text.tokenizer import Tokenizer

LENGTH = 8
MOST = 64  # tokens of an answer the model gives itself


@dataclass
class Subject:
    """A forward pass's arguments by name. said: what they are, in words. labels: axis -> the token at each place."""

    inputs: dict[str, Tensor]
    said: list[str] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Subject":
        """The same on a device."""
        return Subject({name: x.to(device) for name, x in self.inputs.items()}, self.said, self.labels)


def random_subject(config: ModelConfig, length: int | None = None, batch: int = 1, seed: int = 0) -> Subject:
    """Random ids (of a Seq2Seq source and target, both `length`) or random pixels."""
    dice = torch.Generator().manual_seed(seed)
    if config.family == "vit":
        shape = (batch, config.channels, config.image_size, config.image_size)
        return Subject({"images": torch.randn(shape, generator=dice)}, [f"images  random numbers, {list(shape)}"])
    length = length or min(LENGTH, config.max_length)
    sizes = {"ids": config.vocab_size}
    if config.family == "seq2seq":
        sizes = {"source": config.vocab_size, "target": config.decoder_vocab_size or config.vocab_size}
    inputs, said = {}, []
    for name, size in sizes.items():
        if size < 1:
            raise UserError("the model's vocabulary has no size yet", "say one: --model.vocab-size N")
        inputs[name] = torch.randint(min(4, size - 1), size, (batch, length), generator=dice)  # the first are special
        said.append(f"{name:8}random: {_few(inputs[name][0].tolist())}" + (f", {batch} rows" if batch > 1 else ""))
    return Subject(inputs, said)


def text_subject(model: nn.Module, tokenizer: Tokenizer, text: str, target: str | None = None) -> Subject:
    """A text as the model reads it. A Seq2Seq's target without `target` is its own greedy answer."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    (ids,) = asked([text], tokenizer, config)
    if not ids:
        raise UserError("the text holds no token", "give more text, or leave it out for random ids")
    if config.family != "seq2seq":
        return _named({"ids": ids}, tokenizer)
    first, speaks = start_ids(config), tokenizer.target
    if target is not None:
        return _named({"source": ids, "target": first + speaks.encode(target)}, tokenizer)
    best = generate(model, [ids], GenerationOptions(max_new=min(MOST, config.max_length - 1)), speaks)[0][0]
    said = [i for i in best.ids if i != config.eos_id]
    subject = _named({"source": ids, "target": first + said}, tokenizer)
    subject.said.append(f"        target is the model's own greedy answer: {best.text!r}")
    return subject


def image_subject(config: ModelConfig, file: Path, pixels: Pixels | None = None) -> Subject:
    """An image file as the model reads it. pixels: as its folder says (None = as in training here)."""
    images = read_images([file], config, pixels)
    return Subject({"images": images}, [f"images  {file}, as {list(images.shape)}"])


@contextmanager
def still(model: nn.Module) -> Iterator[Any]:
    """Dropout off and no gradients meanwhile: as a model is used."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def _named(rows: dict[str, list[int]], tokenizer: Tokenizer) -> Subject:
    inputs = {name: torch.tensor([ids]) for name, ids in rows.items()}
    words = {name: tokenizer.tokens(ids) for name, ids in rows.items()}
    said = [
        line
        for name, ids in rows.items()
        for line in _lines(name, [f"{word!r} {i}" for word, i in zip(words[name], ids, strict=True)])
    ]
    axes = {"ids": "tokens", "target": "tokens", "source": "source"}
    return Subject(inputs, said, {axes[name]: list(map(_bare, found)) for name, found in words.items()})


def _lines(name: str, pieces: list[str], width: int = 100) -> list[str]:
    """The pieces in lines of about `width`, the name before the first."""
    lines = [f"{name:8}"]
    for piece in pieces:
        if len(lines[-1]) > 8 and len(lines[-1]) + len(piece) > width:
            lines.append(" " * 8)
        lines[-1] += piece + "  "
    return [line.rstrip() for line in lines]


def _bare(word: str) -> str:
    return word.replace("\n", "\\n").strip() or "␣"


def _few(ids: list[int]) -> str:
    return " ".join(map(str, ids[:12])) + (" …" if len(ids) > 12 else "")
