"""What a recipe says is what is done, for every kind of task: recipe -> `prepare` -> batches, loss, judge, and the Pipeline of the result.

Nothing is trained here; a model's answers are made certain by hand where they are asked for.
"""

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pellucid
from pellucid.api import Pipeline
from pellucid.data.text import IGNORE
from pellucid.models import storage
from pellucid.parts import config as parts
from pellucid.parts.dropout import Dropout
from pellucid.training.fits import Fit, prepare
from pellucid.training.recipe import Recipe, load_recipe
from tests.runs import TEXT, shrunk

WORDS = ("good", "fine", "bad", "odd", "grey", "new", "old", "red")
ROWS = [(f"a {word} {thing} it is", "kind") for thing in ("film", "book") for word in WORDS]
ROWS += [(f"no {word} play", "mean") for word in WORDS[:5]] + [(f"so {word}", "none") for word in WORDS[:3]]
TAGGED = [("Ada B-PER", "saw O", f"{town} B-LOC") for town in ("Rome", "Oslo", "Bern", "Graz", "Lyon")]
TAGGED += [("Lee I-PER", "slept O")]
PAIRS = [{"prompt": f"say {word} to me", "answer": word.upper()} for word in WORDS]


def idx(file: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">i", n) for n in values.shape)
    file.write_bytes(head + values.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's data of every kind."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "labels.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in ROWS), encoding="utf-8")
    blocks = ["\n".join(lines) + "\n\n" for lines in TAGGED]
    (folder / "tags.conll").write_text("".join(blocks), encoding="utf-8")
    (folder / "text.txt").write_text(TEXT * 5, encoding="utf-8")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    draw = np.random.default_rng(0)
    idx(folder / "images", draw.integers(0, 256, (12, 8, 8)))
    idx(folder / "classes", np.array([3] * 7 + [5] * 4 + [8]))
    return folder


FILES = {
    "labels": ("labels.tsv",),
    "tags": ("tags.conll",),
    "mlm": ("text.txt",),
    "text": ("text.txt",),
    "instruct": ("pairs.jsonl",),
    "pairs": ("pairs.jsonl",),
    "images": ("images", "classes"),
}
CLASSIFY = ("labels", "tags", "images")
HELD = {"labels": len(ROWS), "tags": len(TAGGED), "instruct": len(PAIRS), "pairs": len(PAIRS), "images": 12}


def recipe_of(name: str, files: Path, **training: Any) -> Recipe:
    """A shipped recipe, tiny, of these files; the held-out examples are those that are learned."""
    own = tuple(str(files / file) for file in FILES[name])
    sizes = {"length": 16, "batch_size": 2, "batch_tokens": 60, "evaluate_limit": 0} | training
    recipe = shrunk(load_recipe(name), **sizes)
    model = replace(recipe.model, max_length=64, image_size=8, patch_size=4, channels=1)
    data = replace(recipe.data, train=own, valid=own, test=() if name in ("mlm", "text") else own, vocab_size=300)
    return replace(recipe, data=replace(data, shift=0, flip=False), model=model)


def fit_of(name: str, files: Path, **training: Any) -> Fit:
    fit = prepare(recipe_of(name, files, **training), None)
    fit.model.eval()
    return fit


def always(model: nn.Module, label: str) -> None:
    """From now on the model's answer is that label."""
    classifier = next(module for name, module in model.named_modules() if name.endswith("classifier"))
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.bias.zero_()[model.config.labels.index(label)] = 9.0


# --- the loss -----------------------------------------------------------------------------------------------------------


def said_and_true(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [N,K] and targets [N] of a batch of any kind, where there is one."""
    if "images" in batch:
        said, true = model(batch["images"]), batch["labels"]
    elif "source" in batch:
        said = model(batch["source"], batch["target_in"], batch["source_keep"])
        true = batch["target_out"].masked_fill(~batch["target_keep"], IGNORE)
    else:
        said = model(batch["ids"], batch["keep"]) if "keep" in batch else model(batch["ids"])
        true = batch["labels"] if "labels" in batch else batch["targets"]
    return said[true >= 0].float(), true[true >= 0]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_smoothed_as_the_recipe_says(name: str, smoothing: float, files: Path) -> None:
    fit = fit_of(name, files, label_smoothing=smoothing)
    batch = fit.data.batch(0)
    said, true = said_and_true(fit.model, batch)
    assert fit.task.count(batch) == len(true) > 0
    plain = F.cross_entropy(said, true, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(fit.task.loss(fit.model, batch), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFY)
def test_balanced_labels_weigh_the_same(name: str, files: Path) -> None:
    """N / (K n) for a label seen n times among N of K labels: counted here from the files."""
    fit = fit_of(name, files, class_weight="balanced", label_smoothing=0.1)
    given = {
        "labels": [label for _, label in ROWS],
        "tags": [word.split()[1] for lines in TAGGED for word in lines],
        "images": ["3"] * 7 + ["5"] * 4 + ["8"],
    }[name]
    names = fit.config.labels
    weights = torch.tensor([len(given) / (len(names) * given.count(label)) for label in names])
    assert weights.max() > 2 * weights.min()
    for step in range(3):
        batch = fit.data.batch(step)
        said, true = said_and_true(fit.model, batch)
        losses = F.cross_entropy(said, true, reduction="none", label_smoothing=0.1) * weights[true]
        torch.testing.assert_close(fit.task.loss(fit.model, batch), losses.sum(), rtol=1e-4, atol=1e-4)


def test_prompts_are_read_and_answers_learned(files: Path) -> None:
    fit = fit_of("instruct", files)
    tokenizer: Any = fit.tokenizer
    answers = {pair["answer"]: pair["prompt"] for pair in PAIRS}
    seen = set()
    for step in range(4):
        batch = fit.data.batch(step)
        for ids, targets in zip(batch["ids"].tolist(), batch["targets"].tolist(), strict=True):
            learned = [target for target in targets if target != IGNORE]
            answer = tokenizer.decode(learned)
            assert learned == [*tokenizer.encode(answer), tokenizer.eos_id]
            asked = fit.task.form.prompt(tokenizer.encode(answers[answer]))  # type: ignore[attr-defined]
            assert ids[: len(asked)] == asked == Pipeline(fit.model, tokenizer)._encode([answers[answer]])[0]
            assert targets[: len(asked) - 1] == [IGNORE] * (len(asked) - 1) and targets[len(asked) - 1] != IGNORE
            seen.add(answer)
    assert seen <= set(answers) and len(seen) > 3


# --- the judge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HELD)
def test_an_evaluation_looks_at_as_many_as_the_recipe_says(name: str, files: Path) -> None:
    for limit, n in ((4, 4), (0, HELD[name])):
        fit = fit_of(name, files, evaluate_limit=limit)
        assert fit.task.judge(fit.model).n == n


@pytest.mark.parametrize("name", ["mlm", "text"])
def test_of_a_text_it_reads_no_further_than_the_limit(name: str, files: Path) -> None:
    """Five windows of two a batch are three batches; and they are the first of the whole text."""
    some, whole = fit_of(name, files, evaluate_limit=5), fit_of(name, files)
    read: list[int] = []
    some.model.stack.register_forward_pre_hook(lambda module, given: read.append(len(given[0])))  # type: ignore[operator, union-attr]
    judged = some.task.judge(some.model)
    assert judged.n == 5 and read == [2, 2, 1]
    all_of_it = whole.task.judge(some.model)
    assert all_of_it.n > 10
    first = all_of_it.scores["loss"](np.arange(5))
    assert judged.scores["loss"](np.arange(5)) == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("name", ["labels", "images"])
def test_few_examples_are_of_all_labels(name: str, files: Path) -> None:
    """The files are sorted by label: the first four would have one."""
    fit = fit_of(name, files, evaluate_limit=4)
    assert len(set(fit.task.judge(fit.model).asked)) > 1


# --- labels keep their places -------------------------------------------------------------------------------------------


def test_a_confusion_matrix_has_the_truth_in_its_rows(files: Path) -> None:
    fit = fit_of("labels", files)
    always(fit.model, "mean")
    names, counts = Pipeline(fit.model, fit.tokenizer, recipe_of("labels", files)).confusion()
    assert names == ("kind", "mean", "none")
    assert counts.tolist() == [[0, 16, 0], [0, 5, 0], [0, 3, 0]]


@pytest.mark.parametrize("name", CLASSIFY)
def test_labels_of_other_files_are_those_that_were_learned(name: str, files: Path, tmp_path: Path) -> None:
    """In another order, some missing, one that was never seen: what is right stays right, also without the run's recipe."""
    fit = fit_of(name, files)
    other = tmp_path / "other"
    if name == "labels":
        other.write_text("no fun\tmean\nso so\tnone\nwell\tstrange\n", encoding="utf-8")
    elif name == "tags":
        other.write_text("Rome B-LOC\nis O\nAda B-PER\n\nbig B-NEW\n\n", encoding="utf-8")
    else:
        idx(other, np.zeros((4, 8, 8)))
        idx(tmp_path / "classes", np.array([8, 3, 5, 1]))
    shares = {
        "labels": {"kind": 0, "mean": 1 / 3, "none": 1 / 3},
        "tags": {"B-LOC": 1 / 4, "B-PER": 1 / 4, "I-PER": 0, "O": 1 / 4},
        "images": {"3": 1 / 4, "5": 1 / 4, "8": 1 / 4},
    }[name]
    assert fit.config.labels == tuple(shares)
    given = [str(other), *([str(tmp_path / "classes")] if name == "images" else [])]
    for label, share in shares.items():
        always(fit.model, label)
        for recipe in (recipe_of(name, files), None):
            found = Pipeline(fit.model, fit.tokenizer, recipe).evaluate(given)
            assert found["accuracy"] == pytest.approx(share), (label, recipe is None)
            assert math.isfinite(found["loss"])


# --- texts as a BERT reads them -----------------------------------------------------------------------------------------


def test_a_long_text_loses_its_end_alike_in_training_and_in_use(files: Path) -> None:
    """<bos>, as many tokens as there is room for, <eos>."""
    recipe = recipe_of("labels", files)
    fit = prepare(replace(recipe, model=replace(recipe.model, max_length=6)), None)
    tokenizer: Any = fit.tokenizer
    fit.model.eval()
    texts = [text for text, _ in ROWS]
    rows = [[1, *tokenizer.encode(text)[:4], 2] for text in texts]
    assert max(len(tokenizer.encode(text)) for text in texts) > 4 > min(len(tokenizer.encode(text)) for text in texts)
    pipeline, found = Pipeline(fit.model, tokenizer), 0
    for batch in fit.data.sequential():  # type: ignore[attr-defined]
        for row, ids, keep in zip(batch["rows"].tolist(), batch["ids"], batch["keep"], strict=True):
            assert ids[keep].tolist() == rows[row]
            found += 1
    assert found == len(rows)
    ids, keep = pipeline._read(texts)
    assert [i[k].tolist() for i, k in zip(ids, keep, strict=True)] == rows
    logits = torch.cat([fit.model(torch.tensor([row])) for row in rows]).softmax(-1)
    answers = [list(answer.probabilities.values()) for answer in pipeline.classify(texts)]  # type: ignore[union-attr]
    torch.testing.assert_close(torch.tensor(answers), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_vector_knows_nothing_of_the_texts_beside_it(pooling: str, files: Path) -> None:
    fit = fit_of("mlm", files)
    pipeline = Pipeline(fit.model, fit.tokenizer)
    with torch.no_grad():
        for p in fit.model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    alone, beside = pipeline.embed(["a cat"], pooling), pipeline.embed(["a cat", TEXT[:100]], pooling)
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)
    assert np.abs(beside[0] - beside[1]).max() > 1e-2


# --- beginning with another model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a BERT for words that has not been trained, with weights of its own seed."""
    folder = tmp_path_factory.mktemp("begun")
    fit = prepare(replace(recipe_of("mlm", files), seed=5), None)
    storage.save(fit.model, folder, fit.tokenizer)
    return folder


def test_dropout_is_the_recipes_weights_are_the_models(files: Path, begun: Path) -> None:
    recipe = replace(recipe_of("labels", files), init=str(begun))
    stack = replace(recipe.model.stack, dropout=parts.Dropout(embedding=0.11, residual=0.37))
    fit = prepare(replace(recipe, model=replace(recipe.model, stack=stack)), None)
    assert fit.config.stack.dropout == stack.dropout
    assert {module.rate for module in fit.model.modules() if isinstance(module, Dropout)} - {0.0} == {0.11, 0.37}
    theirs, ours = pellucid.load(begun, device="cpu").model.state_dict(), fit.model.state_dict()
    kept = [name for name in ours if name.startswith(("embed.", "stack."))]
    assert len(kept) > 10 and all(torch.equal(theirs[name], ours[name]) for name in kept)


@pytest.mark.parametrize("init", [False, True])
def test_what_is_frozen_gets_no_gradient(init: bool, files: Path, begun: Path) -> None:
    recipe = recipe_of("labels", files, freeze=("embed.*", "stack.blocks.0.attention.*"))
    fit = prepare(replace(recipe, init=str(begun) if init else ""), None)
    fit.task.loss(fit.model, fit.data.batch(0)).backward()
    still = {name for name, p in fit.model.named_parameters() if p.grad is None}
    expected = [n for n, _ in fit.model.named_parameters() if n.startswith(("embed.", "stack.blocks.0.attention."))]
    assert still == set(expected) and len(still) > 4
    assert any("parameters stay as they are" in note for note in fit.notes)
