"""BERT, DistilBERT, ViT and ViT-MAE, both ways: the same numbers as `transformers`, each field of their configs honoured or refused."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pellucid.api import load
from pellucid.errors import DataError, UserError
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import home
from pellucid.parts.config import Dropout, Heads, Norm, StackConfig
from tests.families import BERTS, VITS
from tests.models.parity import kept, loaded, returned, same, same_gradients, same_states, shaken, watched, words

pytestmark = pytest.mark.reference
few = settings(max_examples=5)

BERT_CLASSES = {
    "BertModel": "vector",
    "BertForMaskedLM": "words",
    "BertForPreTraining": "words",
    "BertForSequenceClassification": "labels",
    "BertForTokenClassification": "tags",
    "DistilBertModel": "states",
    "DistilBertForMaskedLM": "words",
    "DistilBertForSequenceClassification": "labels",
    "DistilBertForTokenClassification": "tags",
}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish")
RATES = st.sampled_from([0.0, 0.1, 0.3])


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A new folder at each call."""
    return lambda: tmp_path_factory.mktemp("model")


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, Any]:
    """Of a small encoder, in BERT's and ViT's words."""
    heads = draw(st.integers(1, 3))
    return {
        "hidden_size": heads * draw(st.integers(1, 4)) * 2,
        "num_attention_heads": heads,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "intermediate_size": draw(st.integers(3, 17)),
        "hidden_act": draw(st.sampled_from(ACTIVATIONS)),
        "hidden_dropout_prob": draw(RATES),
        "attention_probs_dropout_prob": draw(RATES),
    }


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """What a BERT has besides."""
    n = draw(st.integers(2, 4))
    labels = draw(st.sampled_from([{}, {"id2label": {i: f"name {i}" for i in range(n)}}, {"num_labels": n}]))
    return (
        draw(sizes())
        | labels
        | {
            "vocab_size": draw(st.integers(5, 23)),
            "max_position_embeddings": draw(st.integers(7, 12)),
            "type_vocab_size": draw(st.integers(1, 3)),
            "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-3])),
        }
    )


DISTIL = {
    "hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers", "intermediate_size": "hidden_dim",
    "hidden_act": "activation", "hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout",
}  # fmt: skip


def theirs_of(name: str, fields: dict[str, Any], **options: Any) -> Any:
    """A random model of theirs, with weights that show."""
    import transformers

    if name.startswith("Distil"):
        fields = {DISTIL.get(field, field): value for field, value in fields.items()}
        fields = {field: value for field, value in fields.items() if field not in ("type_vocab_size", "layer_norm_eps")}
    torch.manual_seed(0)
    config = getattr(transformers, name.split("For")[0].removesuffix("Model") + "Config")
    return shaken(getattr(transformers, name)(config(**fields), **options), by=0.15)


def answer(out: Any, head: str) -> torch.Tensor:
    """What our forward gives."""
    names = {"vector": "pooler_output", "states": "last_hidden_state"}
    return out[names.get(head, "prediction_logits" if "prediction_logits" in out else "logits")]


def asked(ours: Any, seed: int, length: int = 7, left: bool = False) -> tuple[Any, Any, dict[str, Any]]:
    """(ids, keep, segments for whoever has them) of 4 rows, padded."""
    c = ours.config
    keep, ids = kept(4, length, left), words(4, length, c.vocab_size, seed)
    generator = torch.Generator().manual_seed(seed)
    segments = torch.randint(0, max(c.n_segments, 1), ids.shape, generator=generator)
    return ids.masked_fill(~keep, 0), keep, {"segments": segments} if c.n_segments else {}


def same_answers(ours: Any, theirs: Any, seed: int = 0) -> None:
    """Answers, hidden states and gradients of right-padded rows; rows padded on the left, and alone, against theirs alone."""
    head = ours.config.head
    by_place = head in ("words", "tags", "states")
    ids, keep, side = asked(ours, seed)
    segments = {"token_type_ids": side["segments"]} if side else {}
    with watched(ours.stack) as seen:
        mine = ours(ids, keep, **side)
    out = theirs(input_ids=ids, attention_mask=keep.long(), output_hidden_states=True, **segments)
    reference = answer(out, head)
    mine, reference = (mine[keep], reference[keep]) if by_place else (mine, reference)
    same(mine, reference, "the answer")
    same(ours.embed(ids, torch.arange(7)[None], **side)[keep], out.hidden_states[0][keep], "the embedding")
    same_states(seen, out.hidden_states, keep)
    push = torch.randn(mine.shape, generator=torch.Generator().manual_seed(seed))
    for model, said in ((ours, mine), (theirs, reference)):
        model.zero_grad()
        (said * push).mean().backward()
    same_gradients(ours, theirs, but=[0])
    ids, keep, side = asked(ours, seed, left=True)
    with torch.no_grad():
        mine = ours(ids, keep, **side)
        for row, real, place in zip(ids, keep, range(4), strict=True):
            alone = {name: x[place][real][None] for name, x in side.items()}
            segments = {"token_type_ids": alone["segments"]} if alone else {}
            reference = answer(theirs(input_ids=row[real][None], **segments), head)
            same(ours(row[real][None], **alone), reference, "a row alone")
            same(mine[place][real] if by_place else mine[place], reference[0], "a row padded on the left")


# --- BERT and DistilBERT ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BERT_CLASSES)
def test_a_bert_of_theirs_is_ours(name: str, folder: Any) -> None:
    @few
    @given(texts(), st.integers(0, 99))
    def check(fields: dict[str, Any], seed: int) -> None:
        theirs = theirs_of(name, fields)
        ours = loaded(theirs, folder())
        c = ours.config
        assert (c.family, c.head) == ("bert", BERT_CLASSES[name])
        if c.head in ("labels", "tags"):
            assert c.n_labels == theirs.config.num_labels
            assert list(c.labels) == list(fields.get("id2label", theirs.config.id2label if c.labels else {}).values())
        same_answers(ours, theirs, seed)

    check()


def test_a_bert_without_pooler_gives_its_states(tmp_path: Path) -> None:
    theirs = theirs_of("BertModel", SMALL, add_pooling_layer=False)
    ours = loaded(theirs, tmp_path)
    assert ours.config.head == "states"
    same_answers(ours, theirs)


SMALL: dict[str, Any] = {"vocab_size": 17, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 10, "max_position_embeddings": 9}


SIGHT = {name: value for name, value in SMALL.items() if name not in ("vocab_size", "max_position_embeddings")}
SIGHT |= {"image_size": 6, "patch_size": 2}


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_the_first_files_of_bert_are_read(prefix: str, tmp_path: Path) -> None:
    """As Google's bert-base-uncased lies on the hub: norms called gamma and beta, counted positions, copies of the embedding, heads of
    pre-training in a file that config.json calls a masked language model's, and no word of the padding token."""
    theirs = theirs_of("BertForPreTraining", SMALL)
    loaded(theirs, tmp_path)
    file = tmp_path / "model.safetensors"
    old = {}
    for name, tensor in load_file(file).items():
        for new, before in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
            name = name.replace(new, before)
        old[prefix + name.removeprefix("bert.") if name.startswith("bert.") else name] = tensor
    old["bert.embeddings.position_ids"] = torch.arange(9)[None]
    old["cls.predictions.decoder.weight"] = theirs.bert.embeddings.word_embeddings.weight.detach().clone()
    old["cls.predictions.decoder.bias"] = theirs.cls.predictions.bias.detach().clone()
    save_file(old, file, metadata={"format": "pt"})
    edit(tmp_path, architectures=["BertForMaskedLM"], gradient_checkpointing=False, position_embedding_type="absolute")
    edit(tmp_path, pad_token_id=..., classifier_dropout=0.4, directionality="bidi", pruned_heads={})
    ours = storage.load(tmp_path)[0]
    assert ours.config.head == "words" and ours.config.pad_id == 0
    same_answers(ours, theirs)


def test_the_head_is_what_the_file_has(tmp_path: Path) -> None:
    """config.json may name a class whose head is not there, or none."""
    theirs = theirs_of("BertModel", SMALL)
    loaded(theirs, tmp_path)
    for named in (["BertForMaskedLM"], None, ["BertModel"]):
        edit(tmp_path, architectures=named)
        assert storage.load(tmp_path)[0].config.head == "vector"
    loaded(theirs_of("BertForSequenceClassification", SMALL), tmp_path)
    edit(tmp_path, architectures=None)
    assert storage.load(tmp_path)[0].config.head == "labels"


@st.composite
def stacks(draw: st.DrawFn, residual: str) -> StackConfig:
    heads = draw(st.integers(1, 3))
    return StackConfig(
        d_model=heads * 4 * draw(st.integers(1, 2)),
        n_layers=draw(st.integers(1, 3)),
        n_heads=heads,
        d_ff=draw(st.integers(3, 17)),
        feedforward=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        norm=Norm("layer", draw(st.sampled_from([1e-12, 1e-5]))),
        residual=residual,  # type: ignore[arg-type]
        dropout=Dropout(*(draw(RATES) for _ in range(4))),
    )


@st.composite
def labels(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(2, 4))
    return {"labels": draw(st.sampled_from([(), tuple(f"name {i}" for i in range(n))])), "n_labels": n}


@st.composite
def berts(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of configs of ours that have a home."""
    distil = draw(st.booleans())
    head = draw(st.sampled_from(["words", "labels", "tags", "states", *([] if distil else ["vector"])]))
    stack = draw(stacks("post"))
    ids = {name: draw(st.sampled_from([None, i])) for i, name in enumerate(("pad_id", "bos_id", "eos_id"))}
    return ids | (draw(labels()) if head in ("labels", "tags") else {}) | {
        "stack": replace(stack, norm=Norm("layer", 1e-12)) if distil else stack,
        "vocab_size": draw(st.integers(7, 23)),
        "max_length": draw(st.integers(7, 12)),
        "n_segments": 0 if distil else draw(st.integers(1, 3)),
        "head": head,
        "pooler": "relu" if distil else "tanh",
    }  # fmt: skip


@settings(max_examples=40)
@given(berts())
def test_a_bert_of_ours_is_theirs(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    config = ModelConfig("bert", positions="learned", **fields)
    bare = {"add_pooling_layer": False} if config.head == "states" and config.n_segments else {}
    ours, theirs = returned(config, tmp_path_factory.mktemp("back"), **bare)
    named = {"labels": "ForSequenceClassification", "tags": "ForTokenClassification", "words": "ForMaskedLM"}
    kind = "Bert" if config.n_segments else "DistilBert"
    assert type(theirs).__name__ == kind + named.get(config.head, "Model")
    if config.labels:
        assert tuple(theirs.config.id2label.values()) == config.labels
    same_answers(ours, theirs)


@pytest.mark.parametrize(
    ("config", "stray"),
    [
        (replace(BERTS["bert"], positions="rotary"), "positions = 'rotary'"),
        (replace(BERTS["bert"], n_segments=0), "pooler = 'tanh'"),
        (replace(BERTS["bert"], n_segments=0, pooler="relu"), "stack.norm.eps = 1e-05"),
        (replace(BERTS["bert"], n_segments=0, window=3), "n_segments = 0"),
        (replace(BERTS["bert"], heads=Heads(norm="rms")), "heads.norm = 'rms'"),
        (replace(VITS["vit"], stack=replace(VITS["vit"].stack, bias=False)), "stack.bias = False"),
    ],
)
def test_what_has_no_home_keeps_our_names_and_says_why(config: ModelConfig, stray: str, tmp_path: Path) -> None:
    assert any(told.startswith(stray) for told in home(config)[1]) or home(config)[0] is None
    storage.save(build(config), tmp_path)
    assert storage.read_json(tmp_path / "config.json")["model_type"] == f"pellucid-{config.family}"
    assert storage.load(tmp_path)[0].config == config
    assert home(config)[1][0] in (tmp_path / "README.md").read_text(encoding="utf-8")


# --- ViT and ViT-MAE --------------------------------------------------------------------------------------------------


@st.composite
def pictures(draw: st.DrawFn) -> dict[str, Any]:
    """What a ViT has besides; d_model is a multiple of 4 for positions in two dimensions."""
    found, patch = draw(sizes()), draw(st.integers(1, 3))
    eps, channels = draw(st.sampled_from([1e-12, 1e-3])), draw(st.sampled_from([1, 3]))
    side = patch * draw(st.integers(1, 3)) + draw(st.integers(0, patch - 1))
    width = {"hidden_size": 2 * found["hidden_size"], "layer_norm_eps": eps, "num_channels": channels}
    return found | width | {"image_size": side, "patch_size": patch}


def same_sight(ours: Any, theirs: Any, name: str = "", seed: int = 0) -> None:
    """Answers, hidden states and gradients of two pictures; of an autoencoder, where it masks nothing and shuffles nothing."""
    c = ours.config
    images = torch.randn(2, c.channels, c.image_size, c.image_size, generator=torch.Generator().manual_seed(seed))
    in_order = {}
    if hasattr(theirs.config, "mask_ratio"):
        theirs.config.mask_ratio = 0.0
        in_order = {"noise": torch.arange((c.image_size // c.patch_size) ** 2).repeat(2, 1).float()}
    with watched(ours.stack) as seen:
        mine = ours(images)
    base = theirs.vit if hasattr(theirs, "vit") else theirs
    out = base(images, output_hidden_states=True, **in_order)
    reference = out.last_hidden_state[:, 0]
    if hasattr(theirs, "classifier"):
        reference = theirs(images).logits
    elif c.head == "vector":
        reference = out.pooler_output
    same(mine, reference, "the answer")
    for place, (block, other) in enumerate(zip(seen[:-1], out.hidden_states[1:], strict=True)):
        same(block, other, f"behind block {place}")
    same(ours.embed(images), out.hidden_states[0], "the embedding")
    same(seen[-1], out.last_hidden_state, "the last states")
    push = torch.randn(mine.shape, generator=torch.Generator().manual_seed(seed))
    for model, said in ((ours, mine), (theirs, reference)):
        model.zero_grad()
        (said * push).mean().backward()
    same_gradients(ours, theirs)


VIT_CLASSES = {"ViTForImageClassification": "labels", "ViTModel": "vector", "ViTForMaskedImageModeling": "states"}


@pytest.mark.parametrize("name", VIT_CLASSES)
def test_a_vit_of_theirs_is_ours(name: str, folder: Any) -> None:
    @few
    @given(pictures(), st.integers(0, 99))
    def check(fields: dict[str, Any], seed: int) -> None:
        theirs = theirs_of(
            name, fields | {"pooler_act": "relu" if seed % 2 else "tanh", "num_labels": 1 + seed % 3 + 1}
        )
        ours = loaded(theirs, folder())
        assert ours.config.head == VIT_CLASSES[name]
        same_sight(ours, theirs, seed=seed)

    check()


def test_a_vit_by_the_names_it_has_in_memory(tmp_path: Path) -> None:
    theirs = theirs_of("ViTForImageClassification", SIGHT)
    loaded(theirs, tmp_path)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    same_sight(storage.load(tmp_path)[0], theirs)


@pytest.mark.parametrize("name", ["ViTMAEModel", "ViTMAEForPreTraining"])
def test_the_encoder_of_an_autoencoder_is_ours(name: str, folder: Any) -> None:
    @few
    @given(pictures())
    def check(fields: dict[str, Any]) -> None:
        fields |= {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
        theirs = theirs_of(name, fields)
        base = theirs.vit if hasattr(theirs, "vit") else theirs
        with torch.no_grad():
            base.embeddings.position_embeddings.copy_(grid(theirs.config))
        same_sight(loaded(theirs, folder()), theirs)

    check()


def grid(config: Any) -> torch.Tensor:
    """Their table of positions, as the published weights have it: columns first."""
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    side, d = config.image_size // config.patch_size, config.hidden_size
    table = build_2d_sinusoidal_position_embedding(side, side, d, cls_token=True)
    return torch.cat([table[:, d // 2 :], table[:, : d // 2]], 1)[None]


def test_positions_that_were_trained_are_not_taken_for_computed_ones(tmp_path: Path) -> None:
    theirs = theirs_of("ViTMAEModel", SIGHT)
    with torch.no_grad():
        theirs.embeddings.position_embeddings.copy_(grid(theirs.config) + 1e-3)
    with pytest.raises(DataError, match="position_embeddings is not what it is computed from"):
        loaded(theirs, tmp_path)


@st.composite
def vits(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of configs of ours; all have a home."""
    patch = draw(st.integers(1, 3))
    pooled = {"head": "vector", "pooler": draw(st.sampled_from(["tanh", "relu"]))}
    return draw(st.sampled_from([{"head": "labels"} | draw(labels()), pooled, {"head": "states"}])) | {
        "stack": draw(stacks("pre")),
        "positions": draw(st.sampled_from(["learned", "sinusoidal2d"])),
        "image_size": patch * draw(st.integers(1, 3)),
        "patch_size": patch,
        "channels": draw(st.sampled_from([1, 3])),
    }


@settings(max_examples=40)
@given(vits())
def test_a_vit_of_ours_is_theirs(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    config = ModelConfig("vit", **fields)
    bare = config.head != "vector" and not config.n_labels
    encoder = bare and config.positions == "sinusoidal2d"
    options = {"add_pooling_layer": False} if bare and not encoder else {}
    ours, theirs = returned(config, tmp_path_factory.mktemp("back"), **options)
    named = "ViTForImageClassification" if config.n_labels else "ViTMAEModel" if encoder else "ViTModel"
    assert type(theirs).__name__ == named
    same_sight(ours, theirs)


def test_a_vit_has_labels_or_a_pooled_vector() -> None:
    with pytest.raises(UserError, match="labels or a pooled vector"):
        build(replace(VITS["vit"], head="vector"))


# --- how they read pictures -------------------------------------------------------------------------------------------

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SHORTEST = {"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": {"height": 6, "width": 6}}
READINGS = [
    {},
    IMAGENET,
    IMAGENET | {"resample": 3},
    {"resample": 0},
    {"do_normalize": False},
    {"do_rescale": False},
    SHORTEST,
]


def seen_by(folder: Path, **reading: Any) -> tuple[Any, Any]:
    """(a classifier of theirs, its image processor), written into the folder."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    theirs = theirs_of("ViTForImageClassification", SIGHT | {"num_channels": 3, "num_labels": 3})
    theirs.save_pretrained(folder)
    processor = ViTImageProcessorPil(**{"size": {"height": 6, "width": 6}, **reading})
    processor.save_pretrained(folder)
    return theirs, processor


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: ", ".join(reading) or "as it is")
def test_pictures_are_classified_as_their_files_say(reading: dict[str, Any], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    theirs, processor = seen_by(tmp_path, **reading)
    ours = load(tmp_path, device="cpu")
    assert ours.pixels is not None
    for n, (width, height) in enumerate([(6, 6), (13, 31), (40, 17), (9, 5)]):
        noise = np.random.default_rng(n).integers(0, 256, (height, width, 4), np.uint8)
        picture, file = image.fromarray(noise[..., : 4 if n == 3 else 3]), tmp_path / "picture.png"
        picture = picture.convert(("RGB", "L", "P", "RGBA")[n])
        picture.save(file)
        with image.open(file) as opened:
            pixels = torch.tensor(np.stack(processor(opened.convert("RGB"))["pixel_values"]))
        same(torch.from_numpy(ours.pixels.read(file, 3))[None], pixels, "the picture")
        with torch.no_grad():
            reference = theirs(pixels).logits.softmax(-1)[0]
        same(torch.tensor(list(ours.classify(file).probabilities.values())), reference, "the probabilities")


def test_pictures_read_in_another_way_are_not_measured(tmp_path: Path) -> None:
    seen_by(tmp_path, **IMAGENET)
    with pytest.raises(UserError, match="makes other pixels"):
        load(tmp_path, device="cpu").evaluate(["nothing"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_processor_type": "ConvNextImageProcessor"}, "image_processor_type = 'ConvNextImageProcessor'"),
        ({"size": {"height": 8, "width": 8}}, "do not give the 6 × 6 pixels"),
        ({"size": {"longest_edge": 6}}, "size = .'longest_edge': 6. is not supported"),
        ({"do_pad": True}, "do_pad = True is not supported"),
        ({"crop_pct": 0.9}, "crop_pct = 0.9 is not supported"),
        ({"image_mean": [0.5, 0.5]}, "has 2 numbers, the model 3 channels"),
        ({"resample": 9}, "resample = 9"),
        ({"image_mean": "grey"}, "is damaged"),
    ],
)
def test_what_would_change_pixels_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    seen_by(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(storage.read_json(path) | change), encoding="utf-8")
    with pytest.raises(DataError, match=f"preprocessor_config.json.*{said}"):
        load(tmp_path, device="cpu")


# --- fields -----------------------------------------------------------------------------------------------------------

BASE_UNCASED = {
    "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
    "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True,
    "vocab_size": 30522,
}  # fmt: skip
VIT_BASE = {
    "architectures": ["ViTForImageClassification"], "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
    "hidden_size": 768, "id2label": {"0": "tench", "1": "goldfish"}, "image_size": 224, "initializer_range": 0.02,
    "intermediate_size": 3072, "label2id": {"tench": 0, "goldfish": 1}, "layer_norm_eps": 1e-12, "model_type": "vit",
    "num_attention_heads": 12, "num_channels": 3, "num_hidden_layers": 12, "patch_size": 16, "qkv_bias": True,
    "transformers_version": "4.13.0.dev0",
}  # fmt: skip


def edit(folder: Path, **fields: Any) -> None:
    """config.json with other fields, ... for a field that goes."""
    path = folder / "config.json"
    content = {**(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}), encoding="utf-8")


def test_the_hubs_own_configs_are_the_published_models(tmp_path: Path) -> None:
    edit(tmp_path, **BASE_UNCASED)
    bert, family = storage.read_config(tmp_path)
    stack = StackConfig(
        768, 12, 12, None, 3072, "gelu", Norm("layer", 1e-12), "post", dropout=Dropout(0.1, 0.1, 0.0, 0.1)
    )
    assert (
        bert == ModelConfig("bert", stack, 30522, 512, "learned", pad_id=0) and family and family.model_type == "bert"
    )
    (tmp_path / "config.json").unlink()
    edit(tmp_path, **VIT_BASE)
    vit, _ = storage.read_config(tmp_path)
    assert vit.labels == ("tench", "goldfish") and (vit.n_labels, vit.image_size, vit.patch_size) == (2, 224, 16)


@pytest.mark.parametrize(
    ("fields", "change", "said"),
    [
        (BASE_UNCASED, {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        (BASE_UNCASED, {"is_decoder": True}, "is_decoder = True"),
        (BASE_UNCASED, {"add_cross_attention": True}, "add_cross_attention = True"),
        (BASE_UNCASED, {"pruned_heads": {"1": [0]}}, "pruned_heads"),
        (BASE_UNCASED, {"hidden_act": "mish"}, "hidden_act = 'mish'"),
        (BASE_UNCASED, {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        (BASE_UNCASED, {"embedding_size": 128}, "embedding_size = 128 is not understood"),
        (BASE_UNCASED, {"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
        (BASE_UNCASED, {"architectures": ["BertForSequenceClassification"], "num_labels": 1}, "'regression'"),
        (
            BASE_UNCASED,
            {"architectures": ["BertForSequenceClassification"], "problem_type": "multi_label_classification"},
            "problem_type = 'multi_label_classification'",
        ),
        (
            BASE_UNCASED,
            {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "2": "B"}},
            r"id2label has the numbers \[0, 2\]",
        ),
        (VIT_BASE, {"qkv_bias": False}, "qkv_bias = False"),
        (VIT_BASE, {"image_size": [224, 112]}, "image_size = .*only squares"),
        (VIT_BASE, {"architectures": ["ViTModel"], "pooler_output_size": 64}, "pooler_output_size = 64"),
        (VIT_BASE, {"architectures": ["ViTModel"], "pooler_act": "gelu"}, "pooler_act = 'gelu'"),
        (VIT_BASE, {"problem_type": "regression"}, "problem_type = 'regression'"),
    ],
)
def test_what_would_change_numbers_is_refused(fields: dict, change: dict, said: str, tmp_path: Path) -> None:
    edit(tmp_path, **{**fields, **change})
    with pytest.raises(DataError, match=said):
        storage.read_config(tmp_path)


WITHOUT_EFFECT = {
    "initializer_range",
    "use_cache",
    "classifier_dropout",
    "qa_dropout",
    "seq_classif_dropout",
    "sinusoidal_pos_embds",
}
WITHOUT_EFFECT |= {"encoder_stride", "mask_ratio", "norm_pix_loss"}
OTHERS = {"hidden_act": "relu", "activation": "relu", "pooler_act": "relu"}


@pytest.mark.parametrize("name", ["BertForMaskedLM", "DistilBertForMaskedLM", "ViTModel", "ViTMAEModel"])
def test_every_field_counts_is_refused_or_is_known_to_have_no_effect(name: str, tmp_path: Path) -> None:
    """Each field of their class gets another value: the config we read is another one, or there is an error that names the field."""
    import transformers

    kind = getattr(transformers, name.split("For")[0].removesuffix("Model") + "Config")
    edit(tmp_path, **{**kind(architectures=[name]).to_dict(), "pooler_output_size": None})
    usual, _ = storage.read_config(tmp_path)
    own = {field.name for field in dataclasses.fields(kind)} - {
        field.name for field in dataclasses.fields(transformers.PreTrainedConfig)
    }
    assert len(own) > 10
    for field in own:
        before = storage.read_json(tmp_path / "config.json").get(field, ...)
        edit(tmp_path, **{field: OTHERS.get(field) or another(before)})
        try:
            counts = storage.read_config(tmp_path)[0] != usual
        except DataError as error:
            counts = field in str(error)
        assert counts != (field in WITHOUT_EFFECT or field.startswith("decoder_")), field
        edit(tmp_path, **{field: before})


def another(value: Any) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 or 0.5
    return value * 2 if value else 5
