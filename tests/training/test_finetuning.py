"""Fine-tuning: what is taken over, what stays as it is, how fast each layer learns; and a run that begins with another resumes exactly."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pellucid.cli.cost import find
from pellucid.errors import DataError, UserError
from pellucid.inspection.parity import verify
from pellucid.models import storage
from pellucid.models.adapters import WEIGHTS
from pellucid.models.build import build
from pellucid.training.config import LoraConfig, TrainingConfig
from pellucid.training.finetuning import freeze, layer_rates, take_over
from pellucid.training.fits import prepare
from pellucid.training.opening import open_model
from pellucid.training.optimizers import Optimizer
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import resume, start
from pellucid.training.verify import verify_resume
from tests.families import ALL, make
from tests.runs import known_machine, shrunk, text_recipe, train, write_text


def test_what_fits_is_taken_over_the_head_is_new() -> None:
    pretrained = make("bert")
    model = build(replace(ALL["bert"], head="labels", n_labels=3), seed=9)
    head = {name: p.clone() for name, p in model.named_parameters() if name.startswith("head.")}
    note = take_over(model, dict(pretrained.named_parameters()), ALL["bert"]).note
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
    note = take_over(model, dict(old.named_parameters()), theirs).note
    decides, same = model.head.classifier.weight, dict(old.named_parameters())["head.classifier.weight"]
    assert torch.equal(decides, same if taken else fresh["head.classifier.weight"])
    assert torch.equal(model.head.pool.dense.weight, old.head.pool.dense.weight)
    assert ("new: head.classifier.bias" in note) == (not taken)


def test_a_pooled_vector_goes_to_labels_and_nothing_of_another_head_does() -> None:
    """`head.dense` is a pooler in one head and a transform in another: a name alone proves nothing."""
    pooled = make("bert-vector")
    tensors = dict(pooled.named_parameters())
    labels = build(replace(ALL["bert"], head="labels", n_labels=3), seed=9)
    begun = take_over(labels, tensors, pooled.config)
    assert torch.equal(labels.head.pool.dense.weight, pooled.head.dense.weight)
    assert begun.new == ("head.classifier.bias", "head.classifier.weight") and "left behind" not in begun.note
    words = build(ALL["bert"], seed=9)
    fresh = words.head.dense.weight.clone()
    begun = take_over(words, tensors, pooled.config)
    assert torch.equal(words.head.dense.weight, fresh) and "head.dense.weight" in begun.new
    assert "left behind: head.dense.bias, head.dense.weight" in begun.note


def test_separate_embeddings_and_a_free_head_grow_together() -> None:
    old, config = make("tutorial"), ALL["tutorial"]
    n = config.vocab_size
    model = build(replace(config, vocab_size=n + 2, decoder_vocab_size=n + 2), seed=9)
    begun, own = take_over(model, dict(old.named_parameters()), config), dict(model.named_parameters())
    grown = [name for name, p in old.named_parameters() if len(p) == n and own[name].shape[0] == n + 2]
    assert len(grown) == 4 and sorted(begun.new) == sorted(grown), "two tables, the head and its bias"
    for name in grown:
        before = dict(old.named_parameters())[name]
        assert torch.equal(own[name][:n], before)
        torch.testing.assert_close(own[name][n:], before.mean(0).expand_as(own[name][n:]))


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


# --- updates of low rank ------------------------------------------------------------------------------------------------


RANK_TWO = LoraConfig(rank=2)


def lora_recipe(folder: Path, init: Path, lora: LoraConfig = RANK_TWO, **training: object) -> Recipe:
    return replace(labels_recipe(folder, **training), init=str(init), lora=lora)


@pytest.fixture(scope="module")
def adapted(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt labels by updates of low rank, with an average of its weights."""
    folder = tmp_path_factory.mktemp("adapted")
    train(lora_recipe(folder, pretrained, ema=0.9), folder / "run")
    return folder / "run"


def test_a_run_keeps_what_it_began_with_and_its_model_is_an_adapter(pretrained: Path, adapted: Path) -> None:
    before, _ = storage.load(pretrained / "model")
    written = {name for path in adapted.glob("checkpoints/*/model.safetensors") for name in load_file(path)}
    assert written == {
        f"head.{part}.{kind}" for part in ("classifier", "pool.dense") for kind in ("weight", "bias")
    } | {f"stack.blocks.0.attention.branch.{name}.{side}.weight" for name in ("query", "value") for side in "ab"}
    assert written == set(load_file(next(adapted.glob("checkpoints/*/ema.safetensors"))))
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in (adapted / "model").iterdir()
    } and not (adapted / "model" / "model.safetensors").exists()
    model, tokenizer = open_model(adapted)
    assert model.config.labels == ("cat", "dog") and tokenizer is not None
    own = dict(model.named_parameters())
    moved = {name for name, p in before.named_parameters() if name in own and not torch.equal(p, own[name])}
    assert moved == {f"stack.blocks.0.attention.branch.{name}.weight" for name in ("query", "value")}
    recipe = load_recipe(adapted / "run.toml")
    trained = sum(p.numel() for p in load_file(next(adapted.glob("checkpoints/*/model.safetensors"))).values())
    assert any(f"; {trained:,} of " in note and "left behind: head." in note for note in prepare(recipe, None).notes)


def test_a_run_under_way_is_its_newest_checkpoint(adapted: Path, tmp_path: Path) -> None:
    half = shutil.copytree(adapted, tmp_path / "half")
    for path in (half / "model").glob("adapter*"):
        path.unlink()
    whole, newest = dict(open_model(adapted)[0].named_parameters()), max(half.glob("checkpoints/step-*"))
    averaged = load_file(newest / "ema.safetensors")
    own = dict(open_model(half)[0].named_parameters())
    assert torch.equal(own["head.classifier.weight"], averaged["head.classifier.weight"])
    assert own.keys() == whole.keys() and torch.equal(own["embed.tokens.weight"], whole["embed.tokens.weight"])


def test_what_an_adapter_costs_is_told_without_its_base(adapted: Path, tmp_path: Path) -> None:
    config = open_model(adapted)[0].config
    alone = shutil.copytree(adapted, tmp_path / "alone")
    shutil.rmtree(alone / "checkpoints")
    says = alone / "model" / "adapter_config.json"
    says.write_text(says.read_text(encoding="utf-8").replace('_or_path": "', '_or_path": "/gone'), encoding="utf-8")
    for folder in (adapted, alone, alone / "model"):
        assert find(str(folder)).model == config


@pytest.mark.reference
def test_an_adapter_is_not_verified_and_says_so(adapted: Path) -> None:
    for folder in (adapted, adapted / "model"):
        with pytest.raises(DataError, match="is an adapter") as error:
            verify(folder)
        assert "lora.merge = true" in error.value.remedy


def test_merged_it_is_a_model_like_any_other(pretrained: Path, tmp_path: Path) -> None:
    train(lora_recipe(tmp_path, pretrained), tmp_path / "apart")
    train(lora_recipe(tmp_path, pretrained, LoraConfig(rank=2, merge=True)), tmp_path / "merged")
    merged, _ = storage.load(tmp_path / "merged" / "model")
    apart = dict(open_model(tmp_path / "apart")[0].named_parameters())
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(parameter, apart[name], rtol=1e-6, atol=1e-6)
    assert not (tmp_path / "merged" / "model" / "adapter_config.json").exists()


def test_an_adapter_can_be_begun_with_but_not_put_upon(adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is an adapter") as error:
        start(lora_recipe(tmp_path, adapted), tmp_path / "run")
    assert "lora.merge = true" in error.value.remedy
    train(lora_recipe(tmp_path, adapted / "model", LoraConfig(rank=1, merge=True)), tmp_path / "run")
    assert storage.load(tmp_path / "run" / "model")[0].config.labels == ("cat", "dog")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init": ""}, "lora.rank needs a model that is there already"),
        ({"training": TrainingConfig(freeze=("embed.*",))}, "exclude each other"),
        ({"lora": LoraConfig(rank=2, targets=("*.qeury",))}, "no linear layer is called '\\*.qeury'"),
    ],
)
def test_what_lora_cannot_do_is_refused_first(
    changes: dict[str, object], said: str, pretrained: Path, tmp_path: Path
) -> None:
    recipe = lora_recipe(tmp_path, pretrained)
    if "training" in changes:
        changes = {"training": replace(recipe.training, freeze=("embed.*",))}
    with known_machine(), pytest.raises(UserError, match=said):
        start(replace(recipe, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [{"rank": -1}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}])
def test_numbers_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"lora.{next(iter(wrong))}"):
        LoraConfig(**wrong)


def test_what_it_began_with_must_stay(pretrained: Path, tmp_path: Path) -> None:
    """The checkpoints do not hold it: changed or gone, there is no going on."""
    init = shutil.copytree(pretrained, tmp_path / "init")
    train(lora_recipe(tmp_path, init), tmp_path / "run")
    model, tokenizer = storage.load(init / "model")
    with torch.no_grad():
        model.embed.tokens.weight += 1
    storage.save(model, init / "model", tokenizer)
    with known_machine(), pytest.raises(DataError, match="has changed since the run began with it"):
        resume(tmp_path / "run")
    under_way = shutil.copytree(tmp_path / "run", tmp_path / "under-way")
    (under_way / "model" / WEIGHTS).unlink()
    for folder in (tmp_path / "run", tmp_path / "run" / "model", under_way):
        with pytest.raises(DataError, match="has changed since the run began with it"):
            open_model(folder)
    shutil.rmtree(init)
    with known_machine(), pytest.raises(DataError, match="init"):
        resume(tmp_path / "run")
    with pytest.raises(DataError, match="is not there"):
        open_model(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_is_exact_with_updates_of_low_rank(optimizer: str, pretrained: Path, tmp_path: Path) -> None:
    """Law 5: what is not in the checkpoint is where it was."""
    lora = LoraConfig(rank=3, targets=("*.query", "*.up"), dropout=0.2)
    recipe = lora_recipe(tmp_path, pretrained, lora, ema=0.9, average=2, optimizer=optimizer)
    with known_machine():
        assert verify_resume(recipe, tmp_path / "proof", steps=6).equal
    a, b = (load_file(tmp_path / "proof" / name / "model" / WEIGHTS) for name in ("uninterrupted", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("room", [0, 5])
def test_a_vocabulary_grows_for_new_specials_only_where_it_has_no_room(room: int, tmp_path: Path) -> None:
    train(text_recipe(write_text(tmp_path / "text.txt")), tmp_path / "text")
    model, tokenizer = storage.load(tmp_path / "text" / "model")
    size = model.config.vocab_size + room
    padded = build(replace(model.config, vocab_size=size))
    take_over(padded, dict(model.named_parameters()), model.config)
    storage.save(padded, tmp_path / "padded", tokenizer)
    (tmp_path / "pairs.tsv").write_text("".join(f"the {i % 7} a\tb {i % 5}\n" for i in range(60)), encoding="utf-8")
    recipe = shrunk(load_recipe("instruct"), batch_tokens=200)
    data = replace(recipe.data, train=(str(tmp_path / "pairs.tsv"),), holdout=0.2)
    fit = prepare(replace(recipe, data=data, init=str(tmp_path / "padded"), lora=LoraConfig(rank=2)), None)
    assert fit.tokenizer.answer_id == tokenizer.vocab_size and fit.config.vocab_size == max(
        size, fit.tokenizer.vocab_size
    )
    table = fit.model.embed.tokens.weight
    assert table.requires_grad == (room == 0) and torch.equal(table[:size], padded.embed.tokens.weight)
