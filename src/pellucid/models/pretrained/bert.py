"""BERT (Devlin et al. 2019) and DistilBERT (Sanh et al. 2019) as `transformers` lays them out, with the heads they are given.

DistilBERT has no segments, epsilon 1e-12 everywhere, and relu in the vector its labels are read from. The dropout in front of a classifier
is not taken over: how much a model is dropped out in training is the recipe's to say.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.family import Family, Theirs, head_of
from pellucid.models.pretrained.fields import (
    OTHER_DROPOUT,
    activation,
    activation_said,
    honour,
    labels_of,
    labels_said,
    one_dropout,
    one_dropout_said,
)
from pellucid.models.pretrained.mapping import Row, both, per_layer, row
from pellucid.parts.config import Norm, StackConfig

STANDARD: dict[str, Any] = {
    "family": "bert",
    "positions": "learned",
    "stack.residual": "post",
    "stack.feedforward": ("gelu", "gelu_tanh", "relu", "silu"),
}
LABELLED = ("labels", "tags")


# --- what they share -----------------------------------------------------------------------------------------------------


def _honour(theirs: Theirs, head: str, honoured: Collection[str], only: Mapping[str, Any]) -> None:
    """An embedding and a head that are not tied matter where there is a head of words."""
    tied = {"tie_word_embeddings": True} if head == "words" else {"tie_word_embeddings": (True, False)}
    honour(theirs, {*honoured, OTHER_DROPOUT, "num_labels", "_num_labels"}, {**only, **tied})


def body(c: ModelConfig, base: str, layer: str, tables: Mapping[str, str], parts: Mapping[str, str]) -> list[Row]:
    """The table of names up to the head. tables, parts: their names, of embeddings and in a layer -> ours."""
    embeddings = [
        row(f"{base}embeddings.{name}_embeddings.weight", f"embed.{of}.weight") for name, of in tables.items()
    ]
    layers = [line for name, of in parts.items() for line in both(layer + name, "stack.blocks.{i}." + of)]
    return [*embeddings, *both(base + "embeddings.LayerNorm", "embed.norm"), *per_layer(layers, c.stack.n_layers)]


def stack_of(theirs: Theirs, residual: Literal["pre", "post"]) -> StackConfig:
    """The stack, in the fields that BERT, RoBERTa and ViT share."""
    return StackConfig(
        d_model=theirs["hidden_size"],
        n_layers=theirs["num_hidden_layers"],
        n_heads=theirs["num_attention_heads"],
        d_ff=theirs["intermediate_size"],
        feedforward=activation(theirs, "hidden_act"),
        norm=Norm("layer", theirs.get("layer_norm_eps", 1e-12)),
        residual=residual,
        dropout=one_dropout(theirs, "hidden_dropout_prob", "attention_probs_dropout_prob"),
    )


def stack_said(c: ModelConfig) -> dict[str, Any]:
    """`stack_of` backwards."""
    s = c.stack
    return {
        "hidden_size": s.d_model,
        "num_hidden_layers": s.n_layers,
        "num_attention_heads": s.n_heads,
        "intermediate_size": s.d_ff,
        "hidden_act": activation_said(s.feedforward),
        "layer_norm_eps": s.norm.eps,
        **one_dropout_said(c, "hidden_dropout_prob", "attention_probs_dropout_prob"),
    }


def _named(name: str, prefix: str, bare: bool, own: Sequence[str]) -> str:
    """A name as the table has it: with the prefix, but for parts that are the head's `own`, and but for a `bare` model."""
    name = name.removeprefix(prefix)
    return name if bare or name.startswith(tuple(own)) else prefix + name


# --- BERT ----------------------------------------------------------------------------------------------------------------

HONOURED = {
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "classifier_dropout",  # this one and the rest have no effect
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
}  # fmt: skip
ONLY = {"position_embedding_type": "absolute"}
HEADS = {
    "BertModel": "vector",
    "BertForMaskedLM": "words",
    "BertForPreTraining": "words",
    "BertForSequenceClassification": "labels",
    "BertForTokenClassification": "tags",
}
MARKS = {
    "words": ["cls.predictions.transform."],
    "labels": ["classifier.", "pooler."],
    "tags": ["classifier."],
    "vector": ["pooler."],
}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    return config_of(theirs, head_of(theirs, names, HEADS, MARKS))


def config_of(theirs: Theirs, head: str, residual: Literal["pre", "post"] = "post") -> ModelConfig:
    """As `to_config`, for a head that is known."""
    _honour(theirs, head, HONOURED, ONLY)
    return ModelConfig(
        "bert",
        stack_of(theirs, residual),
        theirs["vocab_size"],
        theirs["max_position_embeddings"],
        "learned",
        n_segments=theirs.get("type_vocab_size", 2),
        head=head,  # type: ignore[arg-type]
        **(labels_of(theirs, regresses=head == "labels") if head in LABELLED else {}),
    )


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    own = {"max_position_embeddings": c.max_length, "type_vocab_size": c.n_segments, "tie_word_embeddings": True}
    return stack_said(c) | own | labels_said(c)


LAYER = {
    **{f"attention.self.{name}": f"attention.branch.{name}" for name in ("query", "key", "value")},
    "attention.output.dense": "attention.branch.out",
    "attention.output.LayerNorm": "attention.norm_out",
    "intermediate.dense": "feedforward.branch.up",
    "output.dense": "feedforward.branch.down",
    "output.LayerNorm": "feedforward.norm_out",
}
TABLES = {"word": "tokens", "position": "positions", "token_type": "segments"}


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    words, base = "cls.predictions.", "" if c.head in ("vector", "states") else "bert."
    head = {
        "words": [
            *both(words + "transform.dense", "head.dense"),
            *both(words + "transform.LayerNorm", "head.norm"),
            row(words + "bias", "head.logits.bias"),
        ],
        "labels": both("bert.pooler.dense", "head.pool.dense") + both("classifier", "head.classifier"),
        "tags": both("classifier", "head.classifier"),
        "vector": both("pooler.dense", "head.dense"),
        "states": [],
    }
    return body(c, base, base + "encoder.layer.{i}.", TABLES, LAYER) + head[c.head]


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it, norms by today's names; None for heads that are not this model's, copies of the
    embedding, and counted positions."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.replace(old, new)
    name = _named(name, "bert.", c.head in ("vector", "states"), ("cls.", "classifier."))
    aside = ("cls.predictions.decoder.", "cls.seq_relationship.") if c.head == "words" else ("cls.",)
    pooled = c.head in ("labels", "vector")
    left = name.startswith(aside) or name.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))
    return None if left or ("pooler." in name and not pooled) else name


BERT = Family(
    model_type="bert",
    standard=STANDARD | {"head": (*MARKS, "states")},
    free=("n_segments",),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: next((name for name, head in HEADS.items() if head == c.head), "BertModel"),
    rows=rows,
    tidy=tidy,
    misfits=lambda c: [] if c.n_segments > 0 else [f"n_segments = {c.n_segments} (bert has one or more)"],
)

# --- DistilBERT ----------------------------------------------------------------------------------------------------------

DISTIL_HONOURED = {
    "vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "activation", "dropout", "attention_dropout", "max_position_embeddings",
    "seq_classif_dropout", "qa_dropout", "sinusoidal_pos_embds",  # without effect: how positions began, they are in the file
}  # fmt: skip
DISTIL_ONLY = {"tie_weights_": True}
DISTIL_HEADS = {
    "DistilBertModel": "states",
    "DistilBertForMaskedLM": "words",
    "DistilBertForSequenceClassification": "labels",
    "DistilBertForTokenClassification": "tags",
}
DISTIL_MARKS = {"words": ["vocab_transform."], "labels": ["pre_classifier."], "tags": ["classifier."], "states": []}
DISTIL_OWN = ("vocab_", "classifier.", "pre_classifier.")


def distil_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    head = head_of(theirs, names, DISTIL_HEADS, DISTIL_MARKS)
    _honour(theirs, head, DISTIL_HONOURED, DISTIL_ONLY)
    stack = StackConfig(
        d_model=theirs["dim"],
        n_layers=theirs["n_layers"],
        n_heads=theirs["n_heads"],
        d_ff=theirs["hidden_dim"],
        feedforward=activation(theirs, "activation"),
        norm=Norm("layer", 1e-12),
        residual="post",
        dropout=one_dropout(theirs, "dropout", "attention_dropout"),
    )
    return ModelConfig(
        "bert",
        stack,
        theirs["vocab_size"],
        theirs["max_position_embeddings"],
        "learned",
        n_segments=0,
        head=head,  # type: ignore[arg-type]
        pooler="relu",
        **(labels_of(theirs, regresses=head == "labels") if head in LABELLED else {}),
    )


def distil_fields(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    s = c.stack
    return {
        "dim": s.d_model,
        "n_layers": s.n_layers,
        "n_heads": s.n_heads,
        "hidden_dim": s.d_ff,
        "activation": activation_said(s.feedforward),
        "max_position_embeddings": c.max_length,
        "sinusoidal_pos_embds": False,
        "tie_word_embeddings": True,
        **one_dropout_said(c, "dropout", "attention_dropout"),
        "seq_classif_dropout": s.dropout.residual,
        **labels_said(c),
    }


DISTIL_LAYER = {
    **{f"attention.{name[0]}_lin": f"attention.branch.{name}" for name in ("query", "key", "value")},
    "attention.out_lin": "attention.branch.out",
    "sa_layer_norm": "attention.norm_out",
    "ffn.lin1": "feedforward.branch.up",
    "ffn.lin2": "feedforward.branch.down",
    "output_layer_norm": "feedforward.norm_out",
}
DISTIL_TABLES = {"word": "tokens", "position": "positions"}


def distil_rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    base = "" if c.head == "states" else "distilbert."
    head = {
        "words": [
            *both("vocab_transform", "head.dense"),
            *both("vocab_layer_norm", "head.norm"),
            row("vocab_projector.bias", "head.logits.bias"),
        ],
        "labels": both("pre_classifier", "head.pool.dense") + both("classifier", "head.classifier"),
        "tags": both("classifier", "head.classifier"),
        "states": [],
    }
    return body(c, base, base + "transformer.layer.{i}.", DISTIL_TABLES, DISTIL_LAYER) + head[c.head]


def distil_tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it; None for the embedding's copy, counted positions, and heads of words that are not
    this model's."""
    name = _named(name, "distilbert.", c.head == "states", DISTIL_OWN)
    aside = ("vocab_projector.weight",) if c.head == "words" else ("vocab_",)
    return None if name.startswith(aside) or name.endswith("embeddings.position_ids") else name


DISTILBERT = Family(
    model_type="distilbert",
    standard=STANDARD | {"n_segments": 0, "pooler": "relu", "stack.norm.eps": 1e-12, "head": tuple(DISTIL_MARKS)},
    free=(),
    to_config=distil_config,
    from_config=distil_fields,
    architecture=lambda c: next(name for name, head in DISTIL_HEADS.items() if head == c.head),
    rows=distil_rows,
    tidy=distil_tidy,
)
