"""Adapters: saved -> opened -> the same; ours = `peft`'s, both ways; what would change numbers is refused by name."""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from pellucid.errors import DataError, UserError
from pellucid.models import adapters, storage
from pellucid.models.build import build
from pellucid.models.pretrained.families import home
from pellucid.parts.config import Norm
from pellucid.parts.lora import attach, attached, merge
from pellucid.training.config import LoraConfig
from pellucid.training.finetuning import begin
from pellucid.training.opening import open_model
from tests.families import ALL, close, ids, make
from tests.laws.test_recording import run
from tests.parts.test_lora import INNER, taught

BOTH_WAYS = ("llama", "gpt2")


def saved(name: str, folder: Path, **how: Any) -> tuple[nn.Module, Path]:
    """A taught model, and the folder of its adapter, next to that of what it began with."""
    model = taught(name, **how)
    storage.save(make(name), folder / "base")
    adapters.save(model, folder / "adapter", str(folder / "base"))
    return model, folder / "adapter"


def shake(model: nn.Module) -> None:
    """What is trained, moved."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", ALL)
def test_saved_then_opened_is_the_same(name: str, tmp_path: Path) -> None:
    model, folder = saved(name, tmp_path)
    opened, _ = open_model(folder)
    assert not attached(opened) and not opened.training and opened.config == model.config
    with torch.no_grad():
        assert close(run(opened), run(model))
    own = "Pellucid's own" in (folder / "README.md").read_text(encoding="utf-8")
    assert own == (home(ALL[name])[0] is None)


def test_it_holds_the_updates_alone_under_the_names_peft_gives_them(tmp_path: Path) -> None:
    _, folder = saved("llama", tmp_path, targets=("*.query", "*.down"))
    tensors = load_file(folder / adapters.WEIGHTS)
    layer = "base_model.model.model.layers.1."
    assert {name for name in tensors if ".1." in name} == {
        f"{layer}{part}.lora_{side}.weight" for part in ("self_attn.q_proj", "mlp.down_proj") for side in "AB"
    }
    says = json.loads((folder / adapters.SETTINGS).read_text())
    assert says["target_modules"] == ["down_proj", "q_proj"] and (says["r"], says["lora_alpha"]) == (3, 5)
    assert says["base_model_name_or_path"] == str((tmp_path / "base").resolve())


def test_the_base_may_move_along(tmp_path: Path) -> None:
    model, folder = saved("llama", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    folder = tmp_path / "there" / "adapter"
    with pytest.raises(DataError, match="is not there") as error:
        open_model(folder)
    assert "base_model_name_or_path" in error.value.remedy
    change(folder, base_model_name_or_path="../base")
    with torch.no_grad():
        assert close(run(open_model(folder)[0]), run(model))


def change(folder: Path, **fields: Any) -> None:
    path = folder / adapters.SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "use_dora = True is not understood"),
        ({"bias": "all"}, "bias = 'all' is not understood"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"invented_later": 3}, "invented_later = 3"),
        ({"r": None}, "r and lora_alpha must be numbers"),
        ({"r": 4}, "do not fit r = 4"),
        ({"rank_pattern": {"layers.0.mlp.up_proj": 2}}, "do not fit r = 2"),
    ],
)
def test_what_changes_numbers_is_refused(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    _, folder = saved("llama", tmp_path)
    change(folder, **fields)
    with pytest.raises(DataError, match=said):
        open_model(folder)


def test_what_has_no_effect_is_not(tmp_path: Path) -> None:
    model, folder = saved("llama", tmp_path)
    change(folder, use_dora=False, layers_to_transform=None, loftq_config={}, lora_dropout=0.3, peft_version="0.9")
    with torch.no_grad():
        assert close(run(open_model(folder)[0]), run(model))


def test_damage_and_strangers_are_named(tmp_path: Path) -> None:
    _, folder = saved("llama", tmp_path)
    file = folder / adapters.WEIGHTS
    tensors = load_file(file)
    first = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    for odd, said in (
        ({"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(3, 16)}, "layers.9.* to nothing"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(3, 17)}, "lora_embedding_A"),
        ({first + "B.weight": torch.ones(31, 3)}, "up_proj.* has no place"),
        ({first + "A.weight": torch.ones(3, 15)}, "up_proj.* has no place"),
        ({"base_model.model.model.norm.weight": torch.ones(3)}, "stack.norm.weight has shape"),
    ):
        save_file(tensors | odd, file)
        with pytest.raises(DataError, match=said):
            open_model(folder)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="is damaged"):
        open_model(folder)
    file.unlink()
    with pytest.raises(DataError, match="save the adapter as safetensors"):
        open_model(folder)


def test_a_new_head_is_saved_whole_and_may_not_be_missing(tmp_path: Path) -> None:
    base = make("bert")
    storage.save(base, tmp_path / "base")
    config = replace(base.config, head="labels", labels=("a", "b"), n_labels=2)
    model, note = begin(config, 1, base.config, dict(base.named_parameters()), LoraConfig(rank=2))
    shake(model)
    adapters.save(model.eval(), tmp_path / "adapter", str(tmp_path / "base"))
    opened, _ = open_model(tmp_path / "adapter")
    assert opened.config == config and "head.classifier.weight" in note
    with torch.no_grad():
        assert close(run(opened), run(model))
    file = tmp_path / "adapter" / adapters.WEIGHTS
    save_file({name: t for name, t in load_file(file).items() if "classifier" not in name}, file)
    with pytest.raises(DataError, match="does not hold head.classifier.bias, which is new"):
        open_model(tmp_path / "adapter")


def test_what_is_trained_but_has_no_name_is_refused(tmp_path: Path) -> None:
    model = taught("llama")
    model.odd = nn.Parameter(torch.zeros(2))
    storage.save(make("llama"), tmp_path / "base")
    with pytest.raises(UserError, match="cannot hold odd"):
        adapters.save(model, tmp_path / "adapter", str(tmp_path / "base"))
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_that_two_stacks_share_cannot_grow_in_an_adapter(tied: bool, tmp_path: Path) -> None:
    """PEFT would train one of the places it has in their model."""
    base = build(replace(ALL["t5"], tied=tied, head_scale=0.25 if tied else 1.0), 1)
    storage.save(base, tmp_path / "base")
    config = replace(base.config, vocab_size=base.config.vocab_size + 2)
    model, _ = begin(config, 1, base.config, dict(base.named_parameters()), LoraConfig(rank=2))
    with pytest.raises(UserError, match="tied table of tokens that has grown") as error:
        adapters.save(model, tmp_path / "adapter", str(tmp_path / "base"))
    assert "lora.merge = true" in error.value.remedy and not (tmp_path / "adapter").exists()


def test_updates_of_what_is_trained_whole_alone_are_no_adapter(tmp_path: Path) -> None:
    base = make("bert-labels")
    storage.save(base, tmp_path / "base")
    attach(base, ["head.pool.dense"], 2, 4.0, trained=["head.pool.dense.bias"])
    with pytest.raises(UserError, match="trained whole alone"):
        adapters.save(base, tmp_path / "adapter", str(tmp_path / "base"))


# --- peft ---------------------------------------------------------------------------------------------------------------


PEFTS_OWN = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"


def theirs_of(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
@pytest.mark.slow
@settings(max_examples=6)
@given(
    st.sampled_from(BOTH_WAYS),
    st.integers(1, 6),
    st.floats(0.5, 40.0),
    st.sets(st.sampled_from([*INNER, "*.0.*.key", "stack.blocks.1.*.query"]), min_size=1),
)
def test_peft_loads_ours(name: str, rank: int, alpha: float, targets: set[str]) -> None:
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as folder:
        model, adapter = saved(
            name, Path(folder), targets=(*sorted(targets - {"*.gate"}), "*.down"), rank=rank, alpha=alpha
        )
        plain, batch = theirs_of(Path(folder) / "base"), ids(2, 9)
        theirs = PeftModel.from_pretrained(plain, adapter).eval()
        said = theirs.peft_config["default"]
        assert sum(m.r["default"] for m in theirs.modules() if hasattr(m, "lora_alpha")) == rank * len(attached(model))
        assert said.base_model_name_or_path == str((Path(folder) / "base").resolve())
        with torch.no_grad():
            ours = model(batch)
            assert close(ours, theirs(batch).logits) and close(ours, theirs.merge_and_unload()(batch).logits)
            assert close(open_model(adapter)[0](batch), ours)


THEIR_LAYERS = {
    "llama": ["q_proj", "k_proj", "o_proj", "gate_proj", "layers.1.mlp.down_proj"],
    "gpt2": ["c_attn", "attn.c_proj", "mlp.c_proj", "h.1.mlp.c_fc"],
}


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
@pytest.mark.slow
@settings(max_examples=6)
@given(st.sampled_from(BOTH_WAYS), st.integers(1, 6), st.integers(1, 40), st.booleans(), st.data())
def test_we_open_what_peft_made(name: str, rank: int, alpha: int, rslora: bool, data: Any) -> None:
    from peft import LoraConfig as Theirs
    from peft import get_peft_model

    layers = data.draw(st.lists(st.sampled_from(THEIR_LAYERS[name]), min_size=1, unique=True))
    last = layers[0].rpartition(".")[2]
    patterns = {"rank_pattern": {layers[-1]: rank + 2}, "alpha_pattern": {rf"\w+\.\w+\.1\..*{last}": 3}}
    with tempfile.TemporaryDirectory() as folder:
        storage.save(make(name), Path(folder) / "base")
        plain = theirs_of(Path(folder) / "base")
        asked = Theirs(
            r=rank,
            lora_alpha=alpha,
            use_rslora=rslora,
            target_modules=layers,
            fan_in_fan_out=name == "gpt2",
            init_lora_weights=False,  # random, not nothing
            **patterns,
        )
        theirs = get_peft_model(plain, asked).eval()
        theirs.save_pretrained(Path(folder) / "adapter")
        with torch.no_grad():
            assert close(open_model(Path(folder) / "adapter")[0](ids(2, 9)), theirs(ids(2, 9)).logits)


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
@pytest.mark.parametrize(("name", "tied"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_peft_loads_a_vocabulary_that_has_grown(name: str, tied: bool, tmp_path: Path) -> None:
    from peft import PeftModel

    base = build(replace(ALL[name], tied=tied), 1)
    storage.save(base, tmp_path / "base")
    config = replace(base.config, vocab_size=base.config.vocab_size + 2)
    model, _ = begin(config, 1, base.config, dict(base.named_parameters()), LoraConfig(rank=2))
    shake(model)
    adapters.save(model.eval(), tmp_path / "adapter", str(tmp_path / "base"))
    assert "resize_token_embeddings" in (tmp_path / "adapter" / "README.md").read_text()
    plain = theirs_of(tmp_path / "base")
    plain.resize_token_embeddings(config.vocab_size, mean_resizing=False)
    theirs, batch = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval(), torch.arange(config.vocab_size)[None]
    with torch.no_grad():
        ours = model(batch)
        assert close(ours, theirs(batch).logits) and close(open_model(tmp_path / "adapter")[0](batch), ours)


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
@pytest.mark.parametrize(
    ("name", "kind", "whole"),
    [
        ("llama", "LlamaForCausalLM", ["embed_tokens"]),
        ("llama", "LlamaForCausalLM", ["lm_head"]),
        ("llama", "LlamaForCausalLM", ["embed_tokens", "lm_head"]),
        ("gpt2", "GPT2LMHeadModel", ["wte"]),
        ("t5", "T5ForConditionalGeneration", ["shared"]),
        ("bart", "BartForConditionalGeneration", ["lm_head"]),
        ("bert", "BertForMaskedLM", ["word_embeddings"]),
        ("bert", "BertForMaskedLM", ["word_embeddings", "decoder"]),
    ],
)
def test_what_peft_trains_apart_from_its_twin_is_refused(
    name: str, kind: str, whole: list[str], tmp_path: Path
) -> None:
    """Of a tied table PEFT copies the place it is told; ours has one."""
    theirs = of_peft(name, kind, tmp_path, modules_to_save=whole)
    shake(theirs)
    theirs.save_pretrained(tmp_path / "adapter")
    with pytest.raises(DataError, match=r"adapter_model.safetensors: .*(trained apart|belongs to nothing)"):
        open_model(tmp_path / "adapter")


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
def test_what_peft_trains_as_one_with_its_twin_is_read(tmp_path: Path) -> None:
    theirs = of_peft("llama", "LlamaForCausalLM", tmp_path, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    shake(theirs)
    theirs.eval().save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        assert close(open_model(tmp_path / "adapter")[0](ids(2, 9)), theirs(ids(2, 9)).logits)


def of_peft(name: str, kind: str, folder: Path, **says: Any) -> Any:
    """An adapter of theirs, on a model that is saved as folder/base."""
    import transformers
    from peft import LoraConfig as Theirs
    from peft import get_peft_model

    storage.save(make(name), folder / "base")
    layers = {"gpt2": "c_attn", "t5": "q", "bert": "query"}
    asked = Theirs(target_modules=[layers.get(name, "q_proj")], **says)
    return get_peft_model(getattr(transformers, kind).from_pretrained(folder / "base"), asked)


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
@pytest.mark.parametrize("labels", [("x",), ("x", "it's", 'a "z"'), ("v", "w", "x", "y", "z")])
@pytest.mark.parametrize("name", ["bert-labels", "distilbert-labels", "bert-tags", "vit"])
def test_the_line_on_the_card_loads_other_labels(name: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    """The classifier is new and of another size; PEFT takes DistilBERT's pre_classifier for one, which may have learnt an update."""
    import transformers
    from peft import PeftModel

    c = ALL[name]
    base = build(replace(c, stack=replace(c.stack, norm=Norm("layer", 1e-12))), 1)  # the one that DistilBERT has
    storage.save(base, tmp_path / "base")
    config = replace(base.config, n_labels=len(labels), labels=labels)
    targets = ("*.query", "head.*") if name == "distilbert-labels" else ("*.query",)
    lora = LoraConfig(rank=2, targets=targets)
    model, _ = begin(config, 1, base.config, dict(base.named_parameters()), lora)
    shake(model)
    adapters.save(model.eval(), tmp_path / "adapter", str(tmp_path / "base"))
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    names = {"PeftModel": PeftModel} | {kind: getattr(transformers, kind) for kind in re.findall(r"\w+For\w+", card)}
    line = next(part for part in card.split("`") if part.startswith("PeftModel.from_pretrained("))
    theirs = eval(line.replace("…", str(tmp_path / "adapter")), names).eval()
    assert theirs.config.id2label == dict(enumerate(labels))
    batch = torch.randn(2, 1, 8, 8) if name == "vit" else ids(2, 9)
    with torch.no_grad():
        ours = model(batch)
        assert close(ours, theirs(**{theirs.main_input_name: batch}).logits) and close(
            open_model(tmp_path / "adapter")[0](batch), ours
        )


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
def test_labels_of_a_bert_go_both_ways(tmp_path: Path) -> None:
    """No file of theirs says what the labels are called. The pooler is the base's, the classifier the adapter's."""
    from peft import LoraConfig as Theirs
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForSequenceClassification

    storage.save(make("bert-vector"), tmp_path / "base")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    asked = Theirs(r=2, task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights=False)
    theirs, batch = get_peft_model(plain, asked).eval(), ids(2, 9)
    theirs.save_pretrained(tmp_path / "adapter")
    opened, _ = open_model(tmp_path / "adapter")
    assert opened.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    with torch.no_grad():
        assert close(opened(batch), theirs(batch).logits)
    model, _ = begin(
        replace(opened.config, labels=("x", "y", "z")),
        1,
        make("bert-vector").config,
        dict(make("bert-vector").named_parameters()),
        LoraConfig(rank=2),
    )
    shake(model)
    adapters.save(model.eval(), tmp_path / "ours", str(tmp_path / "base"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    with torch.no_grad():
        assert close(model(batch), PeftModel.from_pretrained(again, tmp_path / "ours").eval()(batch).logits)


@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
@pytest.mark.parametrize("name", [name for name in ALL if home(ALL[name])[0] is not None])
def test_merged_by_peft_it_is_ours_merged_in_every_family(name: str, tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    model, folder = saved(name, tmp_path)
    kind = getattr(transformers, home(ALL[name])[0].architecture(ALL[name]))
    plain = kind.from_pretrained(tmp_path / "base")
    plain.generation_config = transformers.GenerationConfig() if plain.can_generate() else None
    PeftModel.from_pretrained(plain, folder).merge_and_unload().save_pretrained(tmp_path / "merged")
    theirs = dict(storage.load(tmp_path / "merged")[0].named_parameters())
    for path, parameter in merge(model).named_parameters():
        torch.testing.assert_close(theirs[path], parameter, rtol=1e-5, atol=1e-5)


@pytest.mark.data
@pytest.mark.reference
@pytest.mark.filterwarnings(PEFTS_OWN)
def test_real_weights_are_equal_to_the_bit(corpora: Path, tmp_path: Path) -> None:
    """Like with like, attached and merged: a merged weight is rounded, an attached one is not."""
    from peft import PeftModel

    base = corpora / "weights" / "stories260K"
    model, _ = storage.load(base)
    attach(model, ["*.query", "*.value", "*.down"], 8, 16.0)
    shake(model)
    adapters.save(model, tmp_path / "adapter", str(base))
    theirs, batch = PeftModel.from_pretrained(theirs_of(base), tmp_path / "adapter").eval(), ids(2, 100)
    with torch.no_grad():
        assert torch.equal(model(batch), theirs(batch).logits)
        assert torch.equal(open_model(tmp_path / "adapter")[0](batch), theirs.merge_and_unload()(batch).logits)
