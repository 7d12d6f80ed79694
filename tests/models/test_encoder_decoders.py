"""Marian, BART and T5: ours = `transformers`, both ways, for configurations drawn at random; no field is ignored, no padding seen."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import processors
from torch import Tensor, nn

from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError
from pellucid.generation.options import GenerationOptions
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import FOREIGN, home
from pellucid.models.pretrained.fields import spoken
from pellucid.parts.config import Dropout
from pellucid.parts.positions import Sinusoidal
from pellucid.tasks.translation import Held, Translation, seq2seq
from pellucid.text.tokenizer import train
from tests.cli.conftest import make_shell
from tests.families import SEQ2SEQS
from tests.models import parity

PAD, EOS = 0, 2
SOURCE, TARGET = 11, 7  # tokens of the longest row
IDS = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": EOS}
SIDES = {
    "d_model, encoder_attention_heads, decoder_attention_heads": [(10, 2, 2), (9, 3, 3), (7, 1, 1), (12, 4, 4)],
    "encoder_layers, decoder_layers": [(1, 2), (3, 1), (2, 2)],
    "encoder_ffn_dim, decoder_ffn_dim": [(13, 13), (8, 8)],
    "activation_function": ["relu", "gelu", "swish", "gelu_new"],
    "scale_embedding": [False, True],
    "max_position_embeddings": [20],
    "decoder_start_token_id, forced_bos_token_id": [(1, None), (PAD, None), (EOS, 1), (PAD, 5)],
}
VARIED: dict[str, dict[str, list]] = {  # of each `model_type`, the fields of its config that are drawn
    "marian": SIDES
    | {
        "share_encoder_decoder_embeddings, decoder_vocab_size, tie_word_embeddings": [
            (True, None, True),
            (False, 29, True),
            (False, 17, False),
            (True, None, False),
        ]
    },
    "bart": SIDES,
    "t5": {
        "d_model, num_heads, d_kv": [(10, 2, 5), (9, 2, 3), (6, 3, 7), (12, 4, 2)],
        "num_layers, num_decoder_layers": [(1, 2), (3, 1), (2, 2)],
        "d_ff": [13, 8],
        "feed_forward_proj": ["relu", "gated-gelu", "gelu", "gelu_new", "gated-silu", "silu", "gated-gelu_new"],
        "relative_attention_num_buckets, relative_attention_max_distance": [(32, 128), (8, 9), (6, 20)],
        "layer_norm_epsilon": [1e-6, 1e-2],
        "tie_word_embeddings": [True, False],
        "decoder_start_token_id": [PAD, 1],
    },
}
each_kind = pytest.mark.parametrize("kind", VARIED)


@st.composite
def fields(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """A config.json of that `model_type`."""
    chosen: dict[str, Any] = {"vocab_size": draw(st.integers(20, 40)), **IDS}
    for names, values in VARIED[kind].items():
        value = draw(st.sampled_from(values))
        chosen |= dict(zip(names.split(", "), value if ", " in names else [value], strict=True))
    return chosen


def in_transformers(kind: str, given: dict[str, Any], free_head: bool = False) -> Any:
    """A random model of theirs; what is a buffer to them, the bias of the logits, with a gradient. free_head: of a T5."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    forced = given.get("forced_bos_token_id")
    given = {name: value for name, value in given.items() if name != "forced_bos_token_id"}
    theirs: Any = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **given))
    theirs.generation_config.forced_bos_token_id = forced
    if kind != "t5":
        del theirs.final_logits_bias
        size = theirs.lm_head.weight.shape[0]
        theirs.final_logits_bias = nn.Parameter(torch.zeros(1, size))
    if free_head:
        theirs.lm_head.weight = nn.Parameter(theirs.lm_head.weight.detach().clone())
        del theirs.all_tied_weights_keys["lm_head.weight"]
    theirs.generation_config.forced_eos_token_id = None  # it would cut the last word of what is too long
    return parity.shaken(theirs, by=0.05 if kind == "t5" else 0.3)  # theirs begins with weights that are large


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def agree(ours: Any, theirs: Any, source: Tensor, keep: Tensor, target: Tensor) -> None:
    """Logits at once and token by token, and what each block of both sides gives, wherever there is a word."""
    order = FOREIGN[theirs.config.model_type].order(ours.config)
    with torch.no_grad(), parity.watched(ours.encoder) as read, parity.watched(ours.decoder) as written:
        logits = ours(source, target, keep)
        given = {"input_ids": source, "attention_mask": keep.long(), "decoder_input_ids": target}
        reference = theirs(**given, output_hidden_states=True)
        parity.same_states([*read], reference.encoder_hidden_states, keep, order)
        everywhere = torch.ones_like(target, dtype=torch.bool)
        parity.same_states([*written], reference.decoder_hidden_states, everywhere, order)
        parity.same(logits, reference.logits, "logits")
        memory, cache = ours.encode(source, keep), ours.new_cache()
        steps = [
            ours.head(ours.decode(target[:, i : i + 1], memory, keep, None, cache)) for i in range(target.shape[1])
        ]
        parity.same(torch.cat(steps, dim=1), reference.logits, "logits with a cache")


def alone(ours: Any, theirs: Any, source: Tensor, keep: Tensor, target: Tensor) -> None:
    """A row of ours, padded wherever it is padded, is theirs without any padding."""
    with torch.no_grad():
        logits = ours(source, target, keep)
        for row, real, asked, mine in zip(source, keep, target, logits, strict=True):
            reference = theirs(input_ids=row[real][None], decoder_input_ids=asked[None]).logits
            parity.same(mine[None], reference, "logits of a row alone")


def learn_alike(ours: Any, theirs: Any, source: Tensor, keep: Tensor, target: Tensor) -> None:
    """Loss and all gradients. The row of <pad> apart: where the head reads the table theirs is trained by the logits, ours never."""
    labels = torch.cat([target[:, 1:], torch.full_like(target[:, :1], EOS)], dim=1)
    labels[0, -3:] = -100
    loss = F.cross_entropy(ours(source, target, keep).flatten(0, 1), labels.flatten())
    given = {"input_ids": source, "attention_mask": keep.long(), "decoder_input_ids": target}
    reference = theirs(**given, labels=labels).loss
    parity.same(loss, reference, "loss")
    loss.backward()
    reference.backward()
    parity.same_gradients(ours, theirs, but=[PAD])


def speak_alike(ours: Any, theirs: Any, source: Tensor, keep: Tensor, **how: Any) -> None:
    """The tokens of answers; `keep` is padded on the right, as theirs counts places from the left."""
    c = ours.config  # their cache of a T5 has as many layers as its encoder
    theirs.generation_config.use_cache = c.decoder_layers is None or c.decoder_layers <= c.stack.n_layers
    texts = [row[real].tolist() for row, real in zip(source, keep, strict=True)]
    assert parity.said(ours, texts, **how) == parity.said_by_theirs(theirs, source, keep, **how)


def asked(config: ModelConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(sources, what of them is real, targets)."""
    source, keep = parity.words(3, SOURCE, config.vocab_size), parity.kept(3, SOURCE)
    target = parity.words(3, TARGET, min(config.vocab_size, config.decoder_vocab_size or config.vocab_size), seed=1)
    return source.masked_fill(~keep, PAD), keep, target


# --- both ways -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.reference
@each_kind
@given(data=st.data())
def test_what_transformers_writes_opens_here(kind: str, data: st.DataObject) -> None:
    given = data.draw(fields(kind))
    free_head = kind == "t5" and not given["tie_word_embeddings"] and data.draw(st.booleans())
    theirs = in_transformers(kind, given, free_head)
    with folder() as path:
        ours = parity.loaded(theirs, path)
    source, keep, target = asked(ours.config)
    agree(ours, theirs, source, keep, target)
    agree(ours, theirs, source[:1], keep[:1], target[:1])
    alone(ours, theirs, source, keep, target)
    left = parity.kept(3, SOURCE, left=True)
    alone(ours, theirs, parity.words(3, SOURCE, ours.config.vocab_size), left, target)
    speak_alike(ours, theirs, source, keep)
    learn_alike(ours, theirs, source, keep, target)


@pytest.mark.slow
@pytest.mark.reference
@each_kind
@given(data=st.data(), seed=st.integers(0, 9))
def test_what_we_write_opens_there(kind: str, data: st.DataObject, seed: int) -> None:
    config = as_ours(kind, data.draw(fields(kind)), data.draw(st.booleans()))
    with folder() as path:
        ours, theirs = parity.returned(config, path, seed)
    source, keep, target = asked(config)
    agree(ours, theirs, source, keep, target)
    speak_alike(ours, theirs, source, keep)
    speak_alike(ours, theirs, source, keep, beam=3)


def as_ours(kind: str, given: dict[str, Any], more: bool = False) -> ModelConfig:
    """What we make of a config.json; with `more` tensors in the file than there must be."""
    given = {"model_type": kind, **given}
    config = FOREIGN[kind].to_config(given, ["lm_head.weight", "final_logits_bias"] if more else ["-"])
    return replace(config, **spoken(given, {}, "seq2seq") | {"suppress": None})


# --- config.json ---------------------------------------------------------------------------------------------------------

SIZES = {"d_model": 12, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 20, "decoder_ffn_dim": 20}
SIZES |= {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "vocab_size": 31, "max_position_embeddings": 40}
LABELS = {
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "gradient_checkpointing": False,
    "torch_dtype": "float32",
}
OLD = {
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "normalize_before": False,
    "classif_dropout": 0.0,
    "num_hidden_layers": 2,
}
SEARCH = {
    "max_length": 142,
    "min_length": 5,
    "num_beams": 4,
    "length_penalty": 2.0,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
}
TASKS = {"task_specific_params": {"summarization": SEARCH | {"prefix": "summarize: "}}, "output_past": True}
T5_SIZES = {
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 20,
    "num_heads": 3,
    "num_layers": 2,
    "vocab_size": 31,
    "decoder_start_token_id": 0,
}
HUB = {  # as files on the hub are written: fields of older versions, fields that say nothing, fields left out
    "opus-mt": (
        "marian",
        SIZES
        | OLD
        | LABELS
        | {"normalize_embedding": False, "static_position_embeddings": True, "extra_pos_embeddings": 31, "activation_function": "swish"}
        | {"scale_embedding": True, "pad_token_id": 30, "eos_token_id": 0, "bos_token_id": 0, "decoder_start_token_id": 30}
        | {"bad_words_ids": [[30]], "max_length": 512, "num_beams": 6, "decoder_vocab_size": 31, "forced_eos_token_id": 0},
    ),
    "bart-large-cnn": (
        "bart",
        SIZES
        | OLD
        | LABELS
        | SEARCH
        | TASKS
        | {"normalize_embedding": True, "static_position_embeddings": False, "extra_pos_embeddings": 2, "_num_labels": 3, "prefix": " "}
        | {"force_bos_token_to_be_generated": True, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
    ),
    "bart-of-defaults": ("bart", SIZES),
    "a-table-of-characters": ("bart", SIZES | {"grapheme_chars": "_ AIOWY'-æð"}),
    "t5-small": ("t5", T5_SIZES | TASKS | {"n_positions": 512, "eos_token_id": 1, "pad_token_id": 0, "is_encoder_decoder": True}),
    "flan-t5": (
        "t5",
        T5_SIZES
        | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 2, "dense_act_fn": "gelu_new"}
        | {"is_gated_act": True, "relative_attention_max_distance": 128, "classifier_dropout": 0.0, "tokenizer_class": "T5Tokenizer"},
    ),
}  # fmt: skip


@pytest.mark.reference
@pytest.mark.parametrize("name", HUB)
def test_config_files_of_all_ages_are_understood(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    kind, said = HUB[name]
    written = said | {"model_type": kind, "architectures": ["AnyForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(written))
    torch.manual_seed(0)
    theirs = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(tmp_path)).float()
    if said.get("tie_word_embeddings") is False:
        theirs.lm_head.weight = nn.Parameter(theirs.lm_head.weight.detach().clone())
        del theirs.all_tied_weights_keys["lm_head.weight"]
    parity.shaken(theirs, by=0.1).save_pretrained(tmp_path)
    spoken_by_theirs = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written))
    (tmp_path / "generation_config.json").unlink()
    ours = storage.load(tmp_path)[0]
    source, keep, target = asked(ours.config)
    agree(ours, theirs, source, torch.ones_like(keep), target)
    c, expected = (
        ours.config,
        spoken_by_theirs,
    )  # the same tokens, whether config.json or generation_config.json says them
    start = (expected["decoder_start_token_id"], expected.get("forced_bos_token_id"))
    assert (c.start or (c.bos_id,)) == tuple(token for token in start if token is not None)
    assert (c.pad_id, c.eos_id) == (expected["pad_token_id"], expected["eos_token_id"])
    assert c.suppress in ((None,) if name == "opus-mt" else ((),))


NOT_OF_THE_NUMBERS = {  # that none of them counts in `transformers` either is seen in test_mutations.py
    "architectures", "model_type", "transformers_version", "dtype", "use_cache", "initializer_range", "_name_or_path", "bos_token_id",
    "eos_token_id", "pad_token_id", "decoder_start_token_id", "sep_token_id", "output_attentions", "output_hidden_states", "return_dict",
    "id2label", "label2id", "problem_type", "chunk_size_feed_forward", "task_specific_params", "forced_eos_token_id",
    "init_std", "initializer_factor", "encoder_layerdrop", "decoder_layerdrop", "classifier_dropout", "extra_pos_embeddings",
    "is_encoder_decoder",
}  # fmt: skip


@pytest.mark.reference
@each_kind
def test_every_field_is_honoured_or_refused_by_name(kind: str) -> None:
    from transformers import AutoConfig

    every = AutoConfig.for_model(kind).to_dict()
    every.pop("scale_decoder_outputs", None)  # of T5; where it is, tie_word_embeddings says no more
    before = as_ours(kind, every)
    others = {bool: lambda v: not v, int: lambda v: 2 * v, float: lambda v: v / 2 + 0.1, str: lambda v: "other"}
    for name in every.keys() - NOT_OF_THE_NUMBERS:
        if type(every[name]) in others:
            try:
                changed = as_ours(kind, every | {name: others[type(every[name])](every[name])})
                assert changed != before, f"{name} is ignored"
            except DataError as error:
                assert name in error.problem or name.partition("_")[2] in error.problem


@pytest.mark.reference
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_a_gate_by_either_gelu_is_theirs(activation: str, tmp_path: Path) -> None:
    """feed_forward_proj says gated-gelu for both: dense_act_fn tells them apart, read and written."""
    from transformers import AutoModelForSeq2SeqLM

    theirs = in_transformers("t5", T5_SIZES | IDS | {"feed_forward_proj": "gated-gelu", "dense_act_fn": activation})
    source, keep, target = parity.words(2, 11, 20), parity.kept(2, 11), parity.words(2, 7, 20, 1)
    ours = parity.loaded(theirs, tmp_path)
    assert ours.config.stack.feedforward == ("geglu" if activation == "gelu" else "geglu_tanh")
    agree(ours, theirs, source, keep, target)
    storage.save(ours, tmp_path)
    agree(ours, AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval(), source, keep, target)
    assert storage.load(tmp_path)[0].config == ours.config


def test_a_t5_reads_texts_of_any_length(tmp_path: Path) -> None:
    """n_positions is a hint of old; the length of one that was made here is kept."""
    (tmp_path / "config.json").write_text(json.dumps(T5_SIZES | {"model_type": "t5", "n_positions": 512}))
    assert storage.read_config(tmp_path)[0].max_length > 100_000
    ours = build(SEQ2SEQS["t5"], 0)
    storage.save(ours, tmp_path)
    again = storage.load(tmp_path)[0].config
    assert again.max_length == SEQ2SEQS["t5"].max_length < 100_000
    storage.save(build(replace(again, max_length=1 << 20), 0), tmp_path)
    opened = storage.load(tmp_path)[0]
    said = parity.said(opened, [parity.words(1, 700, opened.config.vocab_size)[0].tolist()], max_new=3)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("marian", {"normalize_before": True}, "normalize_before"),
        ("marian", {"normalize_embedding": True}, "normalize_embedding"),
        ("marian", {"static_position_embeddings": False}, "static_position_embeddings"),
        ("marian", {"decoder_ffn_dim": 24}, "encoder_ffn_dim = 20 and decoder_ffn_dim = 24"),
        ("marian", {"decoder_vocab_size": 7}, "decoder_vocab_size = 7"),
        ("marian", {"activation_function": "mish"}, "activation_function = 'mish'"),
        ("bart", {"decoder_attention_heads": 4}, "decoder_attention_heads = 4"),
        ("bart", {"add_final_layer_norm": True}, "add_final_layer_norm"),
        ("bart", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("bart", {"position_kind": "rotary"}, "position_kind"),
        ("bart", {"d_model": None}, "d_model"),
        ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj"),
        ("t5", {"dense_act_fn": "silu"}, "dense_act_fn"),
        ("t5", {"is_decoder": True}, "is_decoder"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder"),
        ("t5", {"relative_attention_max_distance": 4}, "relative_distance"),
    ],
)
def test_what_we_do_not_compute_is_refused_by_name(kind: str, change: dict, said: str, tmp_path: Path) -> None:
    written = (T5_SIZES if kind == "t5" else SIZES) | change | {"model_type": kind}
    (tmp_path / "config.json").write_text(
        json.dumps({name: value for name, value in written.items() if value is not None})
    )
    with pytest.raises(DataError, match=f"config.json: .*{said}"):
        storage.read_config(tmp_path)


# --- what of ours has a home ---------------------------------------------------------------------------------------------

CHANGES: dict[str, list] = {  # settings of ours, and what they may be
    "stack.n_kv_heads": [2],
    "stack.bias": [True, False],
    "stack.feedforward": ["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu", "geglu_tanh"],
    "stack.residual": ["pre", "post"],
    "stack.norm.eps": [1e-5, 1e-6],
    "stack.dropout": [
        Dropout(0.1, 0.2, 0.3, 0.4),
        Dropout(0.0, 0.2, 0.0, 0.4),
        Dropout(0.1, 0.1, 0.1, 0.1),
        Dropout(0.1),
    ],
    "heads.width": [6],
    "heads.bias": ["none"],
    "heads.score": ["dot"],
    "window": [3],
    "positions": ["learned", "sinusoidal", "t5"],
    "tied": [True, False],
    "head_bias": [True],
    "head_scale": [0.5, 1.0],
    "scale_embedding": [False, True],
    "embedding_norm": [False, True],
    "relative_buckets": [8],
    "decoder_layers": [1, 3],
    "decoder_vocab_size": [17, 19],
    "start": [(), (0,), (2, 1), (2, 1, 5)],
    "bos_id": [None],
    "suppress": [(), (0, 4)],
    "ends": [(5, 6)],
}


@settings(max_examples=30)
@given(st.sampled_from([*SEQ2SEQS]), st.dictionaries(st.sampled_from([*CHANGES]), st.integers(0, 6), max_size=4))
def test_every_setting_is_kept_or_named(name: str, changes: dict[str, int]) -> None:
    config = SEQ2SEQS[name]
    for setting, which in changes.items():
        config = changed(config, setting, CHANGES[setting][which % len(CHANGES[setting])])
    family, strays = home(config)
    assert bool(family) == (not strays) and all(
        stray.split(" = ")[0] in {*CHANGES, "stack.norm.kind"} for stray in strays
    )
    with folder() as path:
        storage.save(build(config, 0), path)
        assert storage.load(path)[0].config == config
        kind = storage.read_json(path / "config.json")["model_type"]
        assert kind == (family.model_type if family else "pellucid-seq2seq")


def changed(config: Any, name: str, value: Any) -> Any:
    """The config, another value at a dotted name."""
    first, _, rest = name.partition(".")
    return replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


@pytest.mark.parametrize(("name", "kind"), [("original", "marian"), ("bart", "bart"), ("t5", "t5")])
def test_each_kind_has_its_own_home(name: str, kind: str) -> None:
    family, _ = home(SEQ2SEQS[name])
    assert family is not None and family.model_type == kind
    _, (stray,) = home(replace(SEQ2SEQS[name], window=3))
    assert stray == f"window = 3 ({kind} has None)"


# --- files ---------------------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Any) -> None:
    file = path / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
CARRIED = {  # by our model: what their first part is, their table, and what older files carry along
    "original": ("model.", "model.shared.weight", ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")),
    "bart": ("model.", "model.shared.weight", ("encoder.version", "decoder.version")),
    "t5": ("", "shared.weight", ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CARRIED)
def test_files_of_all_ages_are_read(name: str, tmp_path: Path) -> None:
    """A table stored four times or under another of its names, names without the first part, tensors nobody needs."""
    first, table, carried = CARRIED[name]
    ours = parity.shaken(build(SEQ2SEQS[name], 0))
    storage.save(ours, tmp_path)
    shared = load_file(tmp_path / "model.safetensors")[table]
    source, keep, target = asked(ours.config)

    def same(path: Path) -> bool:
        with torch.no_grad():
            return torch.equal(storage.load(path)[0](source, target, keep), ours(source, target, keep))

    more = {copy: shared.clone() for copy in COPIES} | {name: torch.ones(2, 3) for name in carried}
    rewritten(
        tmp_path,
        lambda tensors: (
            tensors | {name if "lm" in name else f"{first}{name.removeprefix(first)}": t for name, t in more.items()}
        ),
    )
    assert same(tmp_path)
    rewritten(tmp_path, lambda tensors: {name.removeprefix(first): tensor for name, tensor in tensors.items()})
    assert same(tmp_path)
    rewritten(
        tmp_path,
        lambda tensors: {
            name: t for name, t in tensors.items() if name not in (table.removeprefix(first), "lm_head.weight")
        },
    )
    assert same(tmp_path)


@pytest.mark.reference
@pytest.mark.parametrize("d_model", [1, 7, 16, 30])
def test_sines_and_cosines_are_those_of_marian_at_other_places(d_model: int) -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    config = replace(SEQ2SEQS["original"], stack=replace(SEQ2SEQS["original"].stack, d_model=d_model, n_heads=1))
    order = FOREIGN["marian"].order(config)
    assert order is not None and sorted(order.tolist()) == [*range(d_model)]
    reference = MarianSinusoidalPositionalEmbedding(512, d_model).create_weight()
    ours = Sinusoidal(d_model)(torch.arange(512)[None])[0]
    assert (ours - reference[:, order]).abs().max() <= 6e-8  # the last digit of a number below 1


# --- learning and speaking with them -------------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrstuvwxyz "
SMALL = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
SMALL |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
FINETUNED: dict[str, dict[str, Any]] = {
    "marian": SMALL | {"decoder_start_token_id": PAD, "scale_embedding": True},
    "bart": SMALL | {"decoder_start_token_id": EOS, "forced_bos_token_id": 1},
    "t5": {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_heads": 2, "num_layers": 2, "decoder_start_token_id": PAD},
}


def written(kind: str, path: Path) -> Any:
    """A tiny model that `transformers` has written, and a tokenizer that puts <eos> behind a text, in front of BART's <bos> too."""
    tokenizer = train([LETTERS], "char")
    around = "<bos> $A <eos>" if kind == "bart" else "$A <eos>"
    tokens = [("<bos>", 1), ("<eos>", EOS)]
    tokenizer.library.post_processor = processors.TemplateProcessing(single=around, special_tokens=tokens)
    theirs = in_transformers(kind, FINETUNED[kind] | IDS | {"vocab_size": tokenizer.vocab_size})
    theirs.save_pretrained(path)
    tokenizer.save(path)
    return theirs


@pytest.mark.reference
@each_kind
def test_training_asks_what_transformers_asks(kind: str, tmp_path: Path) -> None:
    """Sources with what the tokenizer puts around them, targets from the model's start: the same loss as of labels given to theirs."""
    theirs = written(kind, tmp_path)
    ours, tokenizer = storage.load(tmp_path)
    assert tokenizer is not None
    form = seq2seq(tokenizer, ours.config)
    sources, targets = (Ragged.of(tokenizer.encode_batch(texts)) for texts in (["ab", "cdefg"], ["hijk", "l"]))
    batch = form.data(sources, targets, 1000).batch(0)
    behind = [1] if kind == "bart" else []
    assert sorted(
        row[real].tolist() for row, real in zip(batch["source"], batch["source_keep"], strict=True)
    ) == sorted([*behind, *row, EOS] for row in tokenizer.encode_batch(["ab", "cdefg"]))
    assert list(form.prompt(tokenizer.encode("ab"))) == [*behind, *tokenizer.encode("ab"), EOS]
    task = Translation(Held([], sources, targets), tokenizer, GenerationOptions(), form)
    labels = batch["target_out"].masked_fill(~batch["target_keep"], -100)
    given = {"input_ids": batch["source"], "attention_mask": batch["source_keep"].long(), "labels": labels}
    forced = {"decoder_input_ids": batch["target_in"]} if kind == "bart" else {}  # otherwise they make it of the labels
    with torch.no_grad():
        parity.same(task.loss(ours, batch) / task.count(batch), theirs(**given, **forced).loss, "loss")
    assert task.count(batch) == 4 + 1 + 2


@pytest.mark.slow
@pytest.mark.reference
@each_kind
def test_fine_tuned_by_command_it_leaves_as_what_it_was(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    written(kind, tmp_path / "theirs")
    few = ["--data.examples", "200", "--data.held_out", "10", "--training.steps", "6", "--training.evaluate_every", "6"]
    ran = make_shell(tmp_path)("train", "copy", "--out", "run", "--init", "theirs", *few)
    assert ran.returncode == 0, ran.stderr
    theirs, told = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert theirs.config.model_type == kind and not any(told.values())
    before, (ours, tokenizer) = storage.load(tmp_path / "theirs")[0], storage.load(tmp_path / "run" / "model")
    assert ours.config.start == before.config.start and tokenizer is not None
    assert not torch.equal(ours.embed.tokens.weight, before.embed.tokens.weight)
    sources = [list(seq2seq(tokenizer, ours.config).prompt(tokenizer.encode(text))) for text in ("hello", "a b")]
    for source in sources:
        given = torch.tensor([source])
        speak_alike(ours, theirs, given, torch.ones_like(given, dtype=torch.bool))


@pytest.mark.data
@pytest.mark.reference
def test_a_trained_bart_pronounces_words(corpora: Path) -> None:
    """Letters to phonemes: our tokens are those of `transformers`, and the words sound right."""
    from transformers import AutoModelForSeq2SeqLM

    path = corpora / "weights" / "bart-g2p-us"
    ours, theirs = storage.load(path)[0], AutoModelForSeq2SeqLM.from_pretrained(path).eval()
    tables = json.loads((path / "config.json").read_text(encoding="utf-8"))
    spoken = {
        "hello": "hˈɛlO",
        "world": "wˈɜɹld",
        "attention": "ətˈɛnʃən",
        "knight": "nˈIt",
        "transformer": "tɹænsfˈɔɹməɹ",
    }
    rows = [[1, *(tables["grapheme_chars"].index(letter) for letter in word), 2] for word in spoken]
    source = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    agree(ours, theirs, source, source != PAD, source[:, :4])
    for how in ({"max_new": 30}, {"max_new": 30, "beam": 3}):
        speak_alike(ours, theirs, source, source != PAD, **how)
    said = ["".join(tables["phoneme_chars"][i] for i in ids).strip("_") for ids in parity.said(ours, rows, max_new=30)]
    assert said == [*spoken.values()]
