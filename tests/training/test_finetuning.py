"""Fine-tuning: what is taken over, what stays as it is, how fast each layer learns; and a run that begins with another resumes exactly."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pellucid.errors import DataError, UserError
from pellucid.models import storage
from pellucid.models.build import build
from pellucid.training.config import TrainingConfig
from pellucid.training.finetuning import freeze, layer_rates, take_over
from pellucid.training.optimizers import Optimizer
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import resume, start
from pellucid.training.verify import verify_resume
from tests.families import ALL, make
from tests.runs import known_machine, shrunk, train, write_text


def test_what_fits_is_taken_over_the_head_is_new() -> None:
    pretrained = make("bert")
    model = build(replace(ALL["bert"], head="labels", n_labels=3), seed=9)
    head = {name: p.clone() for name, p in model.named_parameters() if name.startswith("head.")}
    note = take_over(model, dict(pretrained.named_parameters()), ALL["bert"])
    for name, parameter in model.named_parameters():
        source = head[name] if name in head else dict(pretrained.named_parameters())[name]
        assert torch.equal(parameter, source), name
    assert "new: head.classifier.bias" in note and "left behind: head." in note


def test_a_grown_vocabulary_keeps_its_rows_and_new_ones_are_the_mean() -> None:
    old, config = make("gpt2"), ALL["gpt2"]
    model = build(replace(config, vocab_size=config.vocab_size + 2), seed=9)
    take_over(model, dict(old.named_parameters()), config)
    table = model.embed.tokens.weight
    assert torch.equal(table[: config.vocab_size], old.embed.tokens.weight)
    torch.testing.assert_close(table[config.vocab_size], old.embed.tokens.weight.mean(0))
    with pytest.raises(DataError, match="has shape"):
        take_over(old, dict(model.named_parameters()), model.config)


@pytest.mark.parametrize(("labels", "taken"), [(("a", "b", "c"), True), (("c", "b", "a"), False), (("a", "b"), False)])
def test_what_decides_between_labels_is_taken_for_the_same_labels_only(labels: tuple[str, ...], taken: bool) -> None:
    theirs = replace(ALL["bert-labels"], labels=("a", "b", "c"))
    config = replace(theirs, labels=labels, n_labels=len(labels))
    old, model = build(theirs, 1), build(config, 2)
    fresh = {name: p.clone() for name, p in model.named_parameters()}
    note = take_over(model, dict(old.named_parameters()), theirs)
    decides, same = model.head.classifier.weight, dict(old.named_parameters())["head.classifier.weight"]
    assert torch.equal(decides, same if taken else fresh["head.classifier.weight"])
    assert torch.equal(model.head.pool.dense.weight, old.head.pool.dense.weight)
    assert ("new: head.classifier.bias" in note) == (not taken)


def test_freezing_by_pattern() -> None:
    model = make("bert-labels")
    note = freeze(model, ["embed.*", "stack.blocks.0.*"])
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {n for n, _ in model.named_parameters() if n.startswith(("embed.", "stack.blocks.0."))}
    assert f"{sum(p.numel() for n, p in model.named_parameters() if n in still):,}" in note
    with pytest.raises(UserError, match="'stack.block.0'"):
        freeze(model, ["stack.block.0"])
    with pytest.raises(UserError, match="nothing to train"):
        freeze(model, ["*"])


def test_layer_rates_fall_from_the_head_to_the_embeddings() -> None:
    rates = layer_rates(make("bert-labels"), 0.5)
    assert rates["head.classifier.weight"] == 1 and rates["stack.blocks.1.attention.branch.query.weight"] == 0.5
    assert rates["stack.blocks.0.feedforward.branch.up.bias"] == 0.25 and rates["embed.tokens.weight"] == 0.125


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_first_step_is_as_long_as_its_layers_rate_says(optimizer: str) -> None:
    """Both optimisers make updates of one size at first, whatever the gradient: lr times the layer's rate."""
    moved = {}
    for decay in (1.0, 0.5):
        model = make("bert-labels")
        before = {name: p.clone() for name, p in model.named_parameters()}
        config = TrainingConfig(optimizer=optimizer, weight_decay=0.0, layer_decay=decay)
        steps = Optimizer(model, config)
        torch.manual_seed(0)
        (model(torch.randint(3, 17, (4, 6))) * torch.randn(4, 3)).sum().backward()
        steps.step(1.0)
        moved[decay] = {name: float((p - before[name]).detach().norm()) for name, p in model.named_parameters()}
    rates = layer_rates(make("bert-labels"), 0.5)
    checked = 0
    for name, whole in moved[1.0].items():
        if whole > 1e-6:
            assert moved[0.5][name] / whole == pytest.approx(rates[name], rel=1e-2), name
            checked += 1
    assert checked > 20


def labels_recipe(folder: Path, **changes: object) -> Recipe:
    """Texts whose label is whether they name a dog."""
    rows = [
        f"the {a} {b} sees {c}"
        for a in ("old", "new", "red")
        for b in ("dog", "cat")
        for c in ("me", "you", "us", "him")
    ]
    table = folder / "rows.tsv"
    table.write_text("".join(f"{row}\t{'dog' if 'dog' in row else 'cat'}\n" for row in rows), encoding="utf-8")
    recipe = shrunk(load_recipe("labels"), batch_tokens=64, **changes)
    data = replace(recipe.data, train=(str(table),), valid=(str(table),), test=(str(table),), vocab_size=100)
    return replace(recipe, data=data)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that has guessed words."""
    folder = tmp_path_factory.mktemp("pretrained")
    recipe = shrunk(load_recipe("mlm"), length=16, batch_size=4)
    data = replace(recipe.data, train=(str(write_text(folder / "text.txt")),), vocab_size=80, holdout=0.2)
    train(replace(recipe, data=data, model=replace(recipe.model, max_length=32)), folder / "run")
    return folder / "run"


def test_a_run_begins_with_another_and_keeps_what_is_frozen(pretrained: Path, tmp_path: Path) -> None:
    recipe = replace(labels_recipe(tmp_path, freeze=("embed.*",)), init=str(pretrained))
    train(recipe, tmp_path / "run")
    before, tokenizer = storage.load(pretrained / "model")
    after, same = storage.load(tmp_path / "run" / "model")
    assert after.config.labels == ("cat", "dog") and same.hash() == tokenizer.hash()
    assert torch.equal(before.embed.tokens.weight, after.embed.tokens.weight)
    name = "stack.blocks.0.feedforward.branch.up.weight"
    a, b = (dict(model.named_parameters())[name] for model in (before, after))
    assert a.shape == b.shape and not torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("begins", [True, False])
def test_resuming_is_exact_for_labels(pretrained: Path, tmp_path: Path, begins: bool) -> None:
    """Law 5 for another task, with and without a model to begin with."""
    recipe = labels_recipe(tmp_path, layer_decay=0.8, class_weight="balanced")
    recipe = replace(recipe, init=str(pretrained) if begins else "")
    with known_machine():
        assert verify_resume(recipe, tmp_path / "proof", steps=6).equal


def stopped(recipe: Recipe, folder: Path) -> None:
    """A run that was killed behind run.json and before its first checkpoint."""
    train(recipe, folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.jsonl").unlink()
    (folder / "model" / "model.safetensors").unlink()


def test_a_run_that_was_killed_at_once_begins_with_the_same_model_again(pretrained: Path, tmp_path: Path) -> None:
    recipe = replace(labels_recipe(tmp_path), init=str(shutil.copytree(pretrained, tmp_path / "init")))
    train(recipe, tmp_path / "whole")
    stopped(recipe, tmp_path / "killed")
    with known_machine():
        assert resume(tmp_path / "killed").kind == "done"
    a, b = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert a == b
    stopped(replace(recipe, seed=1), tmp_path / "changed")
    model, tokenizer = storage.load(tmp_path / "init" / "model")
    with torch.no_grad():
        model.embed.tokens.weight += 1
    storage.save(model, tmp_path / "init" / "model", tokenizer)
    with known_machine(), pytest.raises(DataError, match="has changed since the run began with it"):
        resume(tmp_path / "changed")


def test_what_tells_the_best_may_not_change(tmp_path: Path) -> None:
    recipe = labels_recipe(tmp_path)
    valid = tmp_path / "valid.tsv"
    valid.write_text("the old dog\tdog\nthe cat\tcat\n", encoding="utf-8")
    recipe = replace(recipe, data=replace(recipe.data, valid=(str(valid),)))
    train(recipe, tmp_path / "run")
    valid.write_text("the old dog\tcat\nthe cat\tdog\n", encoding="utf-8")
    with known_machine(), pytest.raises(DataError, match="data.valid files have changed"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("pattern", ["*", "nothing.*"])
def test_what_is_refused_leaves_no_folder(tmp_path: Path, pattern: str) -> None:
    with known_machine(), pytest.raises(UserError, match="training.freeze"):
        start(labels_recipe(tmp_path, freeze=(pattern,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_under_way_can_be_begun_with(pretrained: Path, tmp_path: Path) -> None:
    half = shutil.copytree(pretrained, tmp_path / "half")
    (half / "model" / "model.safetensors").unlink()
    train(replace(labels_recipe(tmp_path), init=str(half)), tmp_path / "run")
    written = load_recipe(tmp_path / "run" / "run.toml").model
    model, _ = storage.load(tmp_path / "run" / "model")
    assert written.vocab_size == model.config.vocab_size and written.stack == model.config.stack


def test_a_model_of_another_family_is_refused(pretrained: Path, tmp_path: Path) -> None:
    recipe = shrunk(load_recipe("instruct"))
    (tmp_path / "pairs.tsv").write_text("a\tb\n" * 40, encoding="utf-8")
    recipe = replace(recipe, init=str(pretrained), data=replace(recipe.data, train=(str(tmp_path / "pairs.tsv"),)))
    with pytest.raises(UserError, match="is a bert, the recipe asks for a gpt"):
        train(recipe, tmp_path / "run")
