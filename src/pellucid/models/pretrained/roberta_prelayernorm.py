"""RoBERTa with its norms before each part, as `transformers` lays it out (Wettig et al. 2023): the layout of a pre-norm BERT.

Places are counted from behind the padding token's id, so their table begins with as many unused rows. The dropout in front of a classifier
is not taken over, as of BERT.
"""

from collections.abc import Collection
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained import bert
from pellucid.models.pretrained.family import Family, Theirs, head_of
from pellucid.models.pretrained.mapping import Row, behind, both, row

PREFIX = "roberta_prelayernorm."
HEADS = {
    "RobertaPreLayerNormModel": "vector",
    "RobertaPreLayerNormForMaskedLM": "words",
    "RobertaPreLayerNormForSequenceClassification": "labels",
    "RobertaPreLayerNormForTokenClassification": "tags",
}
MARKS = {
    "words": ["lm_head.dense."],
    "labels": ["classifier.out_proj."],
    "tags": ["classifier."],
    "vector": ["pooler."],
}
WORDS = "its head of words has gelu whatever is said"
LAYER = {
    **{f"attention.self.{name}": f"attention.branch.{name}" for name in ("query", "key", "value")},
    "attention.output.dense": "attention.branch.out",
    "attention.LayerNorm": "attention.norm_in",
    "intermediate.dense": "feedforward.branch.up",
    "intermediate.LayerNorm": "feedforward.norm_in",
    "output.dense": "feedforward.branch.down",
}


def _unused(pad_id: int | None) -> int:
    """Rows of the table of positions that stand for no place."""
    return (1 if pad_id is None else pad_id) + 1


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    length = theirs.get("max_position_embeddings", 512) - _unused(theirs.get("pad_token_id", 1))
    head = head_of(theirs, names, HEADS, MARKS)
    c = bert.config_of({**theirs, "max_position_embeddings": length}, head, "pre")
    if head == "words" and c.stack.feedforward != "gelu":
        raise DataError(f"config.json: hidden_act = {theirs['hidden_act']!r} is not supported, only gelu: {WORDS}")
    return c


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    return bert.from_config(c) | {"max_position_embeddings": c.max_length + _unused(c.pad_id)}


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    base = _base(c)
    body = bert.body(c, base, base + "encoder.layer.{i}.", {"word": "tokens", "token_type": "segments"}, LAYER)
    places = row(
        base + "embeddings.position_embeddings.weight", "embed.positions.weight", form=behind(_unused(c.pad_id))
    )
    head = {
        "words": both("lm_head.dense", "head.dense")
        + both("lm_head.layer_norm", "head.norm")
        + [row("lm_head.bias", "head.logits.bias")],
        "labels": both("classifier.dense", "head.pool.dense") + both("classifier.out_proj", "head.classifier"),
        "tags": both("classifier", "head.classifier"),
        "vector": both("pooler.dense", "head.dense"),
        "states": [],
    }
    return [*body, places, *both(base + "LayerNorm", "stack.norm"), *head[c.head]]


def _base(c: ModelConfig) -> str:
    return "" if c.head in ("vector", "states") else PREFIX


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it; None for copies of the embedding and of its bias, and for heads that are not this
    model's."""
    bare = name.removeprefix(PREFIX)
    own = bare.startswith(("lm_head.", "classifier."))
    aside = bare.startswith("lm_head.decoder.") or bare.endswith(("position_ids", "token_type_ids"))
    if aside or (bare.startswith("pooler.") and c.head != "vector") or (own and not _base(c)):
        return None
    return bare if own else _base(c) + bare


def misfits(c: ModelConfig) -> list[str]:
    """What goes together there, and not here."""
    found = ["pad_id = None (roberta-prelayernorm counts places from it)"] * (c.pad_id is None)
    found += [f"n_segments = {c.n_segments} (roberta-prelayernorm has one or more)"] * (c.n_segments < 1)
    said = f"stack.feedforward = {c.stack.feedforward!r} ({WORDS})"
    return found + [said] * (c.head == "words" and c.stack.feedforward != "gelu")


ROBERTA_PRELAYERNORM = Family(
    model_type="roberta-prelayernorm",
    standard=bert.STANDARD | {"stack.residual": "pre", "head": (*MARKS, "states")},
    free=("n_segments",),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: next((name for name, head in HEADS.items() if head == c.head), "RobertaPreLayerNormModel"),
    rows=rows,
    tidy=tidy,
    misfits=misfits,
)
