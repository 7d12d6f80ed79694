"""GPT-2, Llama and its kin: ours = `transformers`, both ways, for configurations drawn at random; no field is ignored."""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid.errors import DataError
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import FOREIGN, home
from pellucid.models.pretrained.family import settings as settings_of
from pellucid.models.pretrained.fields import spoken
from pellucid.parts.cache import positions_of
from pellucid.parts.config import Dropout, Heads
from pellucid.parts.positions import Rotary
from tests.families import GPTS
from tests.models import parity

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LENGTH = 13  # of the texts: longer than the windows, and than the contexts that rotary scalings count from
YARN = {"rope_type": "yarn", "factor": 5.0, "original_max_position_embeddings": 8}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    LLAMA3 | {"original_max_position_embeddings": 8},
    YARN,
    YARN | {"beta_fast": 4.0, "beta_slow": 0.5, "truncate": False, "attention_factor": 0.7},
    YARN | {"mscale": 0.8, "mscale_all_dim": 0.4},
]
GPT2 = {
    "n_embd, n_head": [(10, 2), (18, 3), (16, 4)],
    "n_layer": [1, 3],
    "n_inner": [None, 23],
    "activation_function": ["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu"],
    "layer_norm_epsilon": [1e-5, 1e-2],
    "scale_attn_weights": [True, False],
    "tie_word_embeddings": [True, False],
    "n_positions": [40],
}
SHARED = {
    "hidden_size, num_attention_heads, num_key_value_heads": [(16, 4, 2), (24, 4, 4), (30, 5, 1), (36, 6, 3)],
    "num_hidden_layers": [1, 3],
    "intermediate_size": [23, 40],
    "hidden_act": ["silu", "gelu", "gelu_pytorch_tanh"],
    "rms_norm_eps": [1e-6, 1e-2],
    "tie_word_embeddings": [True, False],
    "rope_parameters": [rope | {"rope_theta": base} for rope in ROPES for base in (10000.0, 300.0)],
    "max_position_embeddings": [40],
}
WINDOWS = {
    "use_sliding_window, sliding_window, max_window_layers": [(False, 4, 0), (True, 4, 28), (True, 4, 0), (True, 2, 0)]
}
VARIED: dict[
    str, dict[str, list]
] = {  # of each `model_type`, the fields that are drawn; several together where they must fit
    "gpt2": GPT2,
    "llama": SHARED | {"attention_bias": [False, True], "mlp_bias": [False, True], "head_dim": [None, 6]},
    "mistral": SHARED | {"sliding_window": [None, 2, 4], "head_dim": [None, 6, 10]},
    "qwen2": SHARED | WINDOWS,
    "qwen3": SHARED | WINDOWS | {"attention_bias": [False, True], "head_dim": [6, 10]},
}
each_kind = pytest.mark.parametrize("kind", VARIED)


@st.composite
def fields(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """A config.json of that `model_type`, as `transformers` writes it today."""
    chosen: dict[str, Any] = {"vocab_size": draw(st.integers(20, 40)), **IDS}
    for names, values in VARIED[kind].items():
        value = draw(st.sampled_from(values))
        chosen |= dict(zip(names.split(", "), value if ", " in names else [value], strict=True))
    return chosen


def in_transformers(kind: str, given: dict[str, Any], seed: int = 0, by: float = 0.15) -> Any:
    """A random model of theirs."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    return parity.shaken(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)), seed, by)


def as_ours(kind: str, given: dict[str, Any]) -> ModelConfig:
    """What we make of a config.json."""
    return replace(FOREIGN[kind].to_config(given, ()), **spoken(given, {}, "gpt") | {"suppress": None})


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def agree(ours: Any, theirs: Any, ids: Tensor, keep: Tensor) -> None:
    """Logits at once and token by token, and what each block gives, wherever there is a word."""
    places, _ = positions_of(keep, ids.shape[1], 0, ids.device)
    with torch.no_grad(), parity.watched(ours.stack) as seen:
        logits = ours(ids, keep)
        cache, steps = ours.new_cache(), range(ids.shape[1])
        reference = theirs(ids, attention_mask=keep.long(), position_ids=places, output_hidden_states=True)
        parity.same_states([*seen], reference.hidden_states, keep)
        parity.same(logits[keep], reference.logits[keep], "logits")
        cached = torch.cat([ours(ids[:, i : i + 1], keep[:, : i + 1], cache) for i in steps], dim=1)
        parity.same(cached[keep], reference.logits[keep], "logits with a cache")


def learn_alike(ours: Any, theirs: Any, ids: Tensor, keep: Tensor) -> None:
    """Loss and all gradients."""
    loss = parity.next_loss(ours(ids, keep), ids, keep)
    reference = theirs(ids, attention_mask=keep.long(), labels=ids.masked_fill(~keep, -100)).loss
    parity.same(loss, reference, "loss")
    loss.backward()
    reference.backward()
    parity.same_gradients(ours, theirs, but=[IDS["pad_token_id"]])


def speak_alike(ours: Any, theirs: Any, ids: Tensor, keep: Tensor, **how: Any) -> None:
    """The tokens of texts that are continued; `keep` is padded on the left."""
    texts = [row[real].tolist() for row, real in zip(ids, keep, strict=True)]
    assert parity.said(ours, texts, **how) == parity.said_by_theirs(theirs, ids, keep, **how)


# --- both ways -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.reference
@each_kind
@settings(max_examples=6)
@given(data=st.data())
def test_what_transformers_writes_opens_here(kind: str, data: st.DataObject) -> None:
    theirs = in_transformers(kind, data.draw(fields(kind)))
    with folder() as path:
        ours = parity.loaded(theirs, path)
    ids = parity.words(3, LENGTH, theirs.config.vocab_size)
    for keep in (parity.kept(3, LENGTH), parity.kept(3, LENGTH, left=True)):
        agree(ours, theirs, ids, keep)
    agree(ours, theirs, ids[:1], torch.ones(1, LENGTH, dtype=torch.bool))
    speak_alike(ours, theirs, ids.masked_fill(~keep, IDS["pad_token_id"]), keep)
    learn_alike(ours, theirs, ids, parity.kept(3, LENGTH))


@pytest.mark.slow
@pytest.mark.reference
@each_kind
@settings(max_examples=6)
@given(data=st.data(), seed=st.integers(0, 9))
def test_what_we_write_opens_there(kind: str, data: st.DataObject, seed: int) -> None:
    config = as_ours(kind, data.draw(fields(kind)))
    with folder() as path:
        ours, theirs = parity.returned(config, path, seed)
    ids, keep = parity.words(3, LENGTH, config.vocab_size), parity.kept(3, LENGTH, left=True)
    ids = ids.masked_fill(~keep, IDS["pad_token_id"])
    agree(ours, theirs, ids, keep)
    speak_alike(ours, theirs, ids, keep)
    with folder() as path:
        endless = parity.returned(replace(config, eos_id=None), path, seed)
    speak_alike(*endless, ids, keep, beam=3)


@pytest.mark.reference
def test_beams_with_ends_are_theirs(tmp_path: Path) -> None:
    for seed in range(10):
        ours, theirs = parity.returned(GPTS["llama"], tmp_path / str(seed), seed)
        ids = parity.words(4, 5, 17, seed)
        speak_alike(ours, theirs, ids, torch.ones_like(ids, dtype=torch.bool), beam=3)


@pytest.mark.reference
@given(
    st.sampled_from([32, 64, 128]),
    st.sampled_from([1e4, 5e5, 1e6]),
    st.fixed_dictionaries(
        {"factor": st.sampled_from([1.0, 4.0, 40.0]), "original_max_position_embeddings": st.sampled_from([512, 4096])},
        optional={"beta_fast": st.floats(8, 40), "beta_slow": st.floats(0.5, 4), "truncate": st.booleans()}
        | {name: st.floats(0.1, 2) for name in ("attention_factor", "mscale", "mscale_all_dim")},
    ),
)
def test_yarn_turns_as_theirs(head_dim: int, base: float, scaling: dict[str, Any]) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {"rope_type": "yarn", "rope_theta": base} | scaling
    theirs = LlamaRotaryEmbedding(
        LlamaConfig(head_dim=head_dim, rope_parameters=rope, max_position_embeddings=int(scaling["factor"]) * 4096)
    )
    ours = Rotary(head_dim, base, {"rope_type": "yarn", **scaling})
    assert torch.equal(ours.frequencies(torch.device("cpu")), theirs.inv_freq)
    assert ours.magnitude() == pytest.approx(theirs.attention_scaling, rel=1e-12)


# --- config.json ---------------------------------------------------------------------------------------------------------

LLAMA_2 = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    **IDS,
}
GPT_2 = {"vocab_size": 31, "n_embd": 24, "n_head": 4, "n_layer": 2, "n_positions": 40, **IDS}
HUB = {  # as files on the hub are written: fields of older versions, fields that say nothing, fields left out
    "tiny-llama": (
        "llama",
        {"num_key_value_heads": 2, "pretraining_tp": 2, "rope_scaling": None, "rope_theta": 500.0, "torch_dtype": "bfloat16"},
    ),
    "llama-2": ("llama", {"head_dim": None, "num_key_value_heads": None, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama-3.1": ("llama", {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8}, "eos_token_id": [2, 5]}),
    "llama-3-without-its-context": ("llama", {"rope_scaling": LLAMA3, "max_position_embeddings": 8}),
    "smollm2": (
        "llama",
        {"tie_word_embeddings": True, "rope_interleaved": False, "mlp_bias": False, "is_llama_config": True, "transformers.js_config": {}},
    ),
    "mistral": ("mistral", {"hidden_size": 32, "num_attention_heads": 8, "sliding_window": None, "rope_theta": 1e6}),
    "mistral-of-defaults": ("mistral", {"hidden_size": 32, "num_attention_heads": 16}),
    "qwen2.5": (
        "qwen2",
        {"use_mrope": False, "use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1, "num_key_value_heads": 2},
    ),
    "qwen2.5-yarn": (
        "qwen2",
        {"num_key_value_heads": 2, "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 8, "type": "yarn"}},
    ),
    "qwen3-of-defaults": ("qwen3", {"num_attention_heads": 32, "tie_word_embeddings": True}),
}  # fmt: skip


@pytest.mark.reference
@pytest.mark.parametrize("name", HUB)
def test_config_files_of_all_ages_are_understood(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, said = HUB[name]
    written = LLAMA_2 | said | {"model_type": kind, "architectures": ["AnyForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = parity.shaken(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).float())
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(written))
    agree(storage.load(tmp_path)[0], theirs, parity.words(2, LENGTH, 31), parity.kept(2, LENGTH))


SILENT = {  # fields that change nothing by themselves: no number of a language model depends on them
    "architectures", "model_type", "transformers_version", "dtype", "use_cache", "initializer_range", "_name_or_path", "bos_token_id",
    "eos_token_id", "pad_token_id", "decoder_start_token_id", "sep_token_id", "output_attentions", "output_hidden_states", "return_dict",
    "id2label", "label2id", "problem_type", "chunk_size_feed_forward", "task_specific_params", "forced_eos_token_id",
    "is_encoder_decoder", "pretraining_tp", "reorder_and_upcast_attn", "max_window_layers",  # layer_types says what the last one says
    "summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
}  # fmt: skip


OTHERS: dict[type, Any] = {
    bool: lambda value: not value,
    int: lambda value: value // 2,
    float: lambda value: value + 0.5,
}


@pytest.mark.reference
@each_kind
def test_every_field_is_honoured_or_refused_by_name(kind: str) -> None:
    from transformers import AutoConfig

    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    given = {name: value for name, value in windows.items() if name in " ".join(VARIED[kind])}
    every = AutoConfig.for_model(kind, **given | ({} if kind == "gpt2" else {"num_key_value_heads": 4})).to_dict()
    before = as_ours(kind, every)
    for name in every.keys() - SILENT:
        other = OTHERS.get(type(every[name]), lambda value: "other")
        try:
            assert as_ours(kind, every | {name: other(every[name])}) != before, f"{name} is ignored"
        except DataError as error:
            assert name in error.problem
        except (TypeError, ValueError, AttributeError):  # a word where a list, a table or a number belongs
            assert name in ("layer_types", "rope_parameters", "n_inner")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "'longrope'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "factor"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "mrope_section": [1]}}, "mrope_section"),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"sliding_window": 7}, "sliding_window"),
        ("llama", {"hidden_act": "relu"}, "hidden_act"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("mistral", {"attention_bias": True}, "attention_bias"),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 1, "num_key_value_heads": 2},
            "layer_types.*sliding_window",
        ),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2, "num_key_value_heads": 2}, "layer_types.*sliding_window"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_what_we_do_not_compute_is_refused_by_name(kind: str, change: dict, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps((GPT_2 if kind == "gpt2" else LLAMA_2) | change | {"model_type": kind})
    )
    with pytest.raises(DataError, match=f"config.json: .*{said}"):
        storage.read_config(tmp_path)


# --- what of ours has a home ---------------------------------------------------------------------------------------------

CHANGES: dict[str, list] = {  # settings of ours, and what they may be
    "stack.n_kv_heads": [1, 2],
    "stack.bias": [True, False],
    "stack.feedforward": ["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu"],
    "stack.residual": ["post"],
    "stack.dropout": [Dropout(0.1, 0.2, 0.3, 0.4)],
    "heads.width": [6],
    "heads.bias": ["none", "inputs", "all"],
    "heads.norm": ["none", "rms"],
    "heads.score": ["dot"],
    "window": [None, 3],
    "positions": ["learned", "rotary", "alibi"],
    "tied": [True, False],
    "head_bias": [True],
    "head_scale": [0.5],
    "scale_embedding": [True],
    "rope_base": [300.0],
    "rope_scaling": [None, {"rope_type": "linear", "factor": 2.5}, YARN],
    "suppress": [(), (0, 4)],
    "ends": [(5, 6)],
}


def changed(config: Any, name: str, value: Any) -> Any:
    """The config, another value at a dotted name."""
    first, _, rest = name.partition(".")
    return replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


def said_once(config: ModelConfig) -> ModelConfig:
    """The same model; what can be said in two ways is said the shorter one."""
    flat = settings_of(config)
    heads = replace(config.heads, width=flat["heads.width"], bias=flat["heads.bias"])
    return replace(config, heads=heads, stack=replace(config.stack, n_kv_heads=flat["stack.n_kv_heads"]))


@settings(max_examples=60)
@given(st.sampled_from([*GPTS]), st.dictionaries(st.sampled_from([*CHANGES]), st.integers(0, 5), max_size=3))
def test_every_setting_is_kept_or_named(name: str, changes: dict[str, int]) -> None:
    config = GPTS[name]
    for setting, which in changes.items():
        config = changed(config, setting, CHANGES[setting][which % len(CHANGES[setting])])
    config = said_once(config)
    family, strays = home(config)
    assert bool(family) == (not strays)
    for stray in strays:  # each is a setting, and the value it names is the one it has
        setting, value = stray.split(" (")[0].split(" = ")
        assert repr(settings_of(config)[setting]) == value
    with folder() as path:
        storage.save(build(config, 0), path)
        assert storage.load(path)[0].config == config
        assert storage.read_json(path / "config.json")["model_type"] == (
            family.model_type if family else "pellucid-gpt"
        )


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_each_kind_has_its_own_home(name: str) -> None:
    family, _ = home(GPTS[name])
    assert family is not None and family.model_type == name
    _, (stray,) = home(replace(GPTS[name], head_scale=0.5))
    assert stray.startswith("head_scale = 0.5")


@pytest.mark.reference
def test_a_llama_that_no_llama_can_be_is_a_mistral(tmp_path: Path) -> None:
    """`transformers` takes a Llama only if d_model is a multiple of the heads, however wide these are."""
    llama = GPTS["llama"]
    config = replace(llama, stack=replace(llama.stack, d_model=18), heads=Heads(width=6))
    ours, theirs = parity.returned(config, tmp_path)
    assert theirs.config.model_type == "mistral"
    agree(ours, theirs, parity.words(2, LENGTH, 17), parity.kept(2, LENGTH))


# --- files ---------------------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Any) -> None:
    file = path / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_files_of_all_ages_are_read(tmp_path: Path) -> None:
    """A head beside the embedding it is tied to, tables that are computed, names without the first part."""
    ids = parity.words(2, 9, 17)
    for name, first, carried in (
        ("llama", "model.", {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}),
        (
            "gpt2",
            "transformer.",
            {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)},
        ),
    ):
        ours = parity.shaken(build(GPTS[name], 0))
        storage.save(ours, tmp_path / name)
        rewritten(
            tmp_path / name,
            lambda t, first=first, carried=carried: {n.removeprefix(first): x for n, x in t.items()} | carried,
        )
        rewritten(
            tmp_path / name, lambda t, ours=ours: t | {"lm_head.weight": ours.embed.tokens.weight.detach().clone()}
        )
        with torch.no_grad():
            assert torch.equal(storage.load(tmp_path / name)[0](ids), ours(ids))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_tied_head_may_stand_for_the_embedding(name: str, tmp_path: Path) -> None:
    ours, ids = parity.shaken(build(GPTS[name], 0)), parity.words(2, 9, 17)
    storage.save(ours, tmp_path)
    table = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}[name]
    rewritten(tmp_path, lambda tensors: {n.replace(table, "lm_head.weight"): x for n, x in tensors.items()})
    with torch.no_grad():
        assert torch.equal(storage.load(tmp_path)[0](ids), ours(ids))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_tied_head_of_its_own_is_refused(name: str, tmp_path: Path) -> None:
    """`transformers` leaves the two untied then."""
    storage.save(build(GPTS[name], 0), tmp_path)
    rewritten(tmp_path, lambda tensors: tensors | {"lm_head.weight": torch.ones(17, 16)})
    with pytest.raises(DataError, match="tied"):
        storage.load(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_free_head_is_missed(name: str, tmp_path: Path) -> None:
    storage.save(build(replace(GPTS[name], tied=False), 0), tmp_path)
    rewritten(tmp_path, lambda tensors: {n: x for n, x in tensors.items() if n != "lm_head.weight"})
    with pytest.raises(DataError, match="missing: lm_head.weight"):
        storage.load(tmp_path)


@pytest.mark.data
@pytest.mark.reference
def test_a_trained_llama_tells_the_same_story(corpora: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = corpora / "weights" / "stories260K"
    ours, theirs = storage.load(path)[0], AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 403, 407, 261, 378], [1, 1, 410, 409, 265]])
    agree(ours, theirs, ids, torch.ones_like(ids, dtype=torch.bool))
    for how in ({"max_new": 200}, {"max_new": 60, "beam": 3}):
        speak_alike(ours, theirs, ids, torch.ones_like(ids, dtype=torch.bool), **how)


@pytest.mark.slow
@pytest.mark.reference
def test_a_gpt2_of_full_size_is_the_same(tmp_path: Path) -> None:
    theirs = in_transformers("gpt2", {}, by=0.03)
    ours = parity.loaded(theirs, tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == 124_439_808
    ids, keep = parity.words(2, 40, 50257), parity.kept(2, 40, left=True)
    agree(ours, theirs, ids, keep)
    speak_alike(ours, theirs, ids, keep, max_new=10)


def test_the_page_on_adding_a_family_shows_the_code_as_it_is() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "add_a_family.md").read_text(encoding="utf-8")
    pretrained = root / "src" / "pellucid" / "models" / "pretrained"
    code = [path.read_text(encoding="utf-8") for path in (*pretrained.glob("*.py"), Path(__file__))]
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        assert any(block in text for text in code), block


@pytest.mark.reference
def test_a_small_gpt2_with_its_class_defaults_opens(tmp_path: Path) -> None:
    """Its config names token 50256 as the end whatever the vocabulary: nothing ends then."""
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = parity.shaken(GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=8, n_layer=1, n_head=2, n_positions=16)))
    ours = parity.loaded(theirs, tmp_path)
    assert (ours.config.bos_id, ours.config.eos_id) == (None, None)
    ids = parity.words(2, 9, 31)
    parity.same(ours(ids), theirs(ids).logits)
    assert parity.said(ours, ids.tolist(), max_new=5) == parity.said_by_theirs(theirs, ids, ids > 0, max_new=5)
