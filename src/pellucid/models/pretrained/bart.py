"""BART as `transformers` lays it out: post-norm, learned positions behind two rows nobody uses, a norm of the embeddings, one table of
tokens for both sides and the head (Lewis et al. 2020)."""

from collections.abc import Collection

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import start_misfits
from pellucid.models.pretrained.marian import FREE, STANDARD, fields, rows, sides, tidy

ONLY = {
    "static_position_embeddings": False,
    "normalize_embedding": True,
    "extra_pos_embeddings": 2,
    "tie_word_embeddings": True,
}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    stack, common = sides(theirs, (), ONLY)
    bias = "final_logits_bias" in names
    return ModelConfig(**common, stack=stack, positions="learned", embedding_norm=True, head_bias=bias)


BART = Family(
    model_type="bart",
    standard=STANDARD | {"positions": "learned", "embedding_norm": True},
    free=FREE,
    to_config=to_config,
    from_config=fields,
    architecture=lambda c: "BartForConditionalGeneration",
    rows=rows,
    tidy=tidy,
    misfits=start_misfits,
)
