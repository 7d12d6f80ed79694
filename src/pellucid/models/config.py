"""A family and its sizes, as written into config.json. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from pellucid.parts.config import StackConfig


@dataclass(frozen=True)
class ModelConfig:
    """An input, a head and a stack. `max_length` counts tokens (positions); ids left None are taken from the tokenizer.

    decoder_layers, decoder_vocab_size: of a Seq2Seq, where they differ from the encoder's; a `decoder_vocab_size` means separate
    embeddings. rope_scaling: as Hugging Face's config.json writes it. head: what a BERT is asked: the words at its places, a label for
    the text, a tag for each token, or one vector of the text. labels: their names, by number.
    """

    family: Literal["seq2seq", "gpt", "bert", "vit"] = "gpt"
    stack: StackConfig = StackConfig()
    vocab_size: int = 0
    max_length: int = 512
    positions: Literal["sinusoidal", "learned", "rotary", "alibi", "t5"] = "rotary"
    tied: bool = True
    head_bias: bool = False
    scale_embedding: bool = False
    rope_base: float = 10000.0
    rope_scaling: dict[str, float | str] | None = None
    pad_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    decoder_layers: int | None = None
    decoder_vocab_size: int | None = None
    n_segments: int = 2
    head: Literal["words", "labels", "tags", "vector"] = "words"
    labels: tuple[str, ...] = ()
    n_labels: int = 0
    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
