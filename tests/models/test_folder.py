"""What stands beside config and weights: `transformers` makes of a text, a chat or a picture exactly what the model was trained on."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pellucid.api import Pipeline
from pellucid.data.images import normalise, read_image
from pellucid.data.prompts import PromptData
from pellucid.data.tokenised import Ragged
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.families import home
from pellucid.text.tokenizer import Kind, Tokenizer, train
from pellucid.training.kinds import kind_of
from pellucid.training.recipe import list_recipes, load_recipe
from tests.families import ALL, IDS
from tests.runs import TEXT

LINES = ["what a good film , it was kind .", "Ada saw Rome", *TEXT.splitlines()]
KINDS = get_args(Kind)


def tokenizer_of(kind: str, *specials: str) -> Tokenizer:
    return train(LINES * 4, kind, 150 if kind != "byte-bpe" else 320, specials=specials)  # type: ignore[arg-type]


def saved(name: str, folder: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> Pipeline:
    """A pipeline of a tiny model that has been written into the folder."""
    config: ModelConfig = replace(ALL[name], **changes)
    if tokenizer is not None:
        config = replace(config, vocab_size=tokenizer.vocab_size)
    model = build(config, 3).eval()
    storage.save(model, folder, tokenizer)
    return Pipeline(model, tokenizer)


# --- texts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_for_others_and_change_nothing_here(kind: str, tmp_path: Path) -> None:
    """run.json knows a run's tokenizer by its hash: it is the same before and after saving, and so are all ids."""
    tokenizer = tokenizer_of(kind, "<mask>")
    saved("bert", tmp_path, tokenizer)
    again = storage.load(tmp_path)[1]
    assert again is not None and again.hash() == tokenizer.hash() != tokenizer_of(kind).hash()
    assert again.library.encode("").ids == [1, 2] and tokenizer.library.encode("").ids == []
    assert again.encode_batch(LINES) == tokenizer.encode_batch(LINES) and again.encode("") == []


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_texts_as_our_bert_does(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = tokenizer_of(kind, "<mask>")
    ours = saved("bert", tmp_path, tokenizer, max_length=10)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*LINES, "a", "", " ".join(LINES)]:
        assert theirs(text, truncation=True)["input_ids"] == ours._read([text])[0][0].tolist(), text
    batch = theirs(LINES, truncation=True, padding=True, return_tensors="np")
    ids, keep = ours._read(LINES)
    assert (batch["input_ids"] == ids.numpy()).all() and (batch["attention_mask"] == keep.numpy()).all()
    roles = {"cls": "<bos>", "sep": "<eos>", "mask": "<mask>", "pad": "<pad>", "unk": "<unk>"}
    assert {role: getattr(theirs, f"{role}_token") for role in roles} == roles
    pair = theirs("Ada", "Rome")["input_ids"]
    assert pair == [1, *tokenizer.encode("Ada"), 2, *tokenizer.encode("Rome"), 2]


@pytest.mark.reference
def test_a_decoders_text_gets_nothing_around_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = tokenizer_of("byte-bpe")
    ours = saved("llama", tmp_path, tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Ada saw Rome")["input_ids"] == ours._encode(["Ada saw Rome"])[0] == tokenizer.encode("Ada saw Rome")


# --- chats --------------------------------------------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_is_a_training_row(kind: str, begins: bool, tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = tokenizer_of(kind, "<answer>")
    if begins:  # as Llama's files ask for it
        tokenizer.library.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
        tokenizer = Tokenizer(tokenizer.library)
    ours, theirs = saved("llama", tmp_path, tokenizer), AutoTokenizer.from_pretrained(tmp_path)
    said = ("what a film\n , it's {{ x }}", "Ada\n saw Rome ")
    user, answer = ({"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True))
    asked = theirs.apply_chat_template([user], add_generation_prompt=True)["input_ids"]
    assert asked == ours._encode([said[0]])[0]
    prompts, answers = (Ragged.of([tokenizer.encode(text)]) for text in said)
    edges = tokenizer.prompt_edges
    data = PromptData(prompts, answers, pad_id=0, eos_id=2, edges=edges, batch_tokens=100)
    row = data.collate(np.array([0]))
    whole = theirs.apply_chat_template([user, answer])["input_ids"]
    assert whole == [*row["ids"][0].tolist(), row["targets"][0, -1].item()] and whole[: len(asked)] == asked
    again = theirs.apply_chat_template([user, answer, user], add_generation_prompt=True)["input_ids"]
    assert again == whole + asked, "every turn is written as the first one is"


@pytest.mark.reference
@pytest.mark.parametrize(
    ("roles", "content"),
    [
        (["system", "user"], "be kind"),
        (["user", "tool"], "42"),
        (["user", "user"], "and?"),
        (["assistant"], "hello"),
        (["user"], [{"type": "text", "text": "hello"}]),
    ],
)
def test_what_was_never_learnt_is_no_chat(roles: list[str], content: Any, tmp_path: Path) -> None:
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    saved("llama", tmp_path, tokenizer_of("byte-bpe", "<answer>"))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(TemplateError, match="this model (knows user and assistant in turn|reads text only)"):
        theirs.apply_chat_template([{"role": role, "content": content} for role in roles], tokenize=False)


def test_without_a_token_that_asks_there_is_no_chat(tmp_path: Path) -> None:
    saved("llama", tmp_path, tokenizer_of("byte-bpe"))
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "apply_chat_template" not in (tmp_path / "README.md").read_text(encoding="utf-8")


# --- pictures -----------------------------------------------------------------------------------------------------------

SIDE = 16
OPAQUE = ("RGB", "L", "1", "P", "CMYK")


def pictures(width: int, height: int, modes: Iterable[str] = (*OPAQUE, "LA", "RGBA", "see-through")) -> Iterator[Any]:
    """Noise, of every mode that files have."""
    image = pytest.importorskip("PIL.Image")
    noise = image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 4), np.uint8))
    for mode in modes:
        opaque = noise.convert("RGB")
        picture = (
            noise.convert(mode) if mode in ("LA", "RGBA") else opaque.convert("P" if mode == "see-through" else mode)
        )
        if mode == "see-through":
            picture.info["transparency"] = 3
        yield picture


def both(picture: Any, channels: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [C,H,W] of a picture's file as the model was trained on them, and as `transformers` makes them as the card says."""
    from PIL import Image
    from transformers import AutoImageProcessor

    file = folder / ("picture.jpg" if picture.mode == "CMYK" else "picture.png")
    picture.save(file)
    ours = normalise(read_image(file, SIDE, channels)[None])[0].numpy()
    with Image.open(file) as opened:
        theirs = AutoImageProcessor.from_pretrained(folder)(opened.convert("L") if channels == 1 else opened)
    return ours, np.asarray(theirs["pixel_values"][0])


@pytest.mark.reference
@pytest.mark.parametrize(
    ("width", "height"),
    [(SIDE, SIDE), (40, 40), (33, 33), (7, 7), (24, 20), (25, 20), (20, 40), (320, 240), (227, 320)],
)
def test_transformers_sees_pictures_as_we_do(width: int, height: int, tmp_path: Path) -> None:
    saved("vit", tmp_path, image_size=SIDE, channels=3)
    saved("vit", tmp_path / "grey", image_size=SIDE, channels=1)
    for picture in pictures(width, height):
        ours, theirs = both(picture, 3, tmp_path)
        assert ours.shape == theirs.shape == (3, SIDE, SIDE)
        assert np.abs(ours - theirs).max() < 1e-5, picture.mode
    for picture in pictures(width, height, OPAQUE):
        ours, theirs = both(picture, 1, tmp_path / "grey")
        assert ours.shape == theirs.shape == (1, SIDE, SIDE)
        assert np.abs(ours - theirs).max() < 1e-5, picture.mode


def test_the_card_tells_what_the_files_cannot(tmp_path: Path) -> None:
    saved("vit", tmp_path / "grey", channels=1)
    saved("vit", tmp_path / "colour", channels=3)
    saved("bert", tmp_path / "bert", tokenizer_of("char", "<mask>"))
    told = {path.parent.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*/README.md")}
    assert "`image.convert('L')`" in told["grey"] and "convert('L')" not in told["colour"]
    assert "PIL.Image" in told["grey"] and "PIL.Image" in told["colour"]
    assert "`<bos>` and `<eos>`" in told["bert"] and "PIL" not in told["bert"]


# --- recipes ------------------------------------------------------------------------------------------------------------


MIXED = {
    "shakespeare": ["stack.bias"],
    "tags": ["positions"],
}  # as nanoGPT has it; no BERT of theirs has rotary positions


@pytest.mark.parametrize("name", list_recipes())
def test_what_a_recipe_trains_has_a_home_in_transformers(name: str) -> None:
    """With the labels and ids that its data would bring."""
    recipe = load_recipe(name)
    head = kind_of(recipe).head
    labelled: dict[str, Any] = {"labels": ("a", "b"), "n_labels": 2} if head in ("labels", "tags") else {}
    config = replace(recipe.model, head=head, vocab_size=recipe.model.vocab_size or 100, **IDS, **labelled)
    assert [stray.partition(" ")[0] for stray in home(config)[1]] == MIXED.get(name, [])
