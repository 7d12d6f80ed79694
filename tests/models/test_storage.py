"""Law 8: saved -> loaded -> the same; ours = `transformers`, both ways; damage is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.errors import DataError
from pellucid.models import storage
from tests.families import ALL, TEXT, close, ids, make
from tests.laws.test_recording import run

IN_TRANSFORMERS = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}


@pytest.mark.parametrize("name", ALL)
def test_saved_then_loaded_is_the_same(name: str, tmp_path: Path) -> None:
    model = make(name)
    storage.save(model, tmp_path)
    loaded, tokenizer = storage.load(tmp_path)
    assert tokenizer is None and not loaded.training
    with torch.no_grad():
        assert torch.equal(run(model), run(loaded))
    said = "transformers" in (tmp_path / "README.md").read_text(encoding="utf-8")
    own_names = json.loads((tmp_path / "config.json").read_text())["model_type"].startswith("pellucid-")
    assert said and own_names == (name not in IN_TRANSFORMERS)


@pytest.mark.parametrize("name", TEXT)
def test_it_runs_in_the_dtype_it_is_loaded_in(name: str, tmp_path: Path) -> None:
    model = make(name)
    storage.save(model, tmp_path)
    half, _ = storage.load(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        exact, rough = run(model), run(half)
    assert rough.dtype == torch.bfloat16 and (rough - exact).norm() < 0.1 * exact.norm()


@pytest.mark.reference
@pytest.mark.parametrize("name", IN_TRANSFORMERS)
def test_transformers_loads_ours(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, batch = make(name), ids(2, 9)
    storage.save(model, tmp_path)
    theirs, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == IN_TRANSFORMERS[name]
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    keep = torch.ones(2, 9, dtype=torch.bool)
    keep[0, 6:] = False
    with torch.no_grad():
        reference = theirs(batch, attention_mask=keep.long()).logits
        assert close(model(batch, keep)[keep], reference[keep])


@pytest.mark.reference
@pytest.mark.parametrize("tied", [True, False])
def test_we_load_a_llama_of_transformers(tied: bool, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": 31,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 16, "rope_theta": 5000.0}
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            **sizes, num_key_value_heads=2, tie_word_embeddings=tied, rope_parameters=rope, initializer_range=0.3
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours, _ = storage.load(tmp_path)
    batch = torch.randint(0, 31, (2, 40))
    with torch.no_grad():
        assert close(ours(batch), theirs(batch).logits)


@pytest.mark.reference
def test_we_load_a_gpt2_of_transformers_also_under_its_first_names(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 31, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 4}
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0)).eval()
    theirs.save_pretrained(tmp_path)
    batch = torch.randint(0, 31, (2, 20))
    with torch.no_grad():
        reference = theirs(batch).logits
        assert close(storage.load(tmp_path)[0](batch), reference)
        file = tmp_path / "model.safetensors"
        old = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
        old["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
        save_file(old, file, metadata={"format": "pt"})
        assert close(storage.load(tmp_path)[0](batch), reference)


def saved(folder: Path) -> Path:
    storage.save(make("llama"), folder)
    return folder


def test_misfits_are_all_named(tmp_path: Path) -> None:
    file = saved(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.ones(3)
    tensors["extra"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, file)
    with pytest.raises(DataError) as error:
        storage.load(tmp_path)
    for part in (
        "missing: model.layers.0.mlp.up_proj.weight [32, 16]",
        "unexpected: extra",
        "model.norm.weight has shape [3]",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attention_bias": True}, "attention_bias = True is not supported"),
        ({"sliding_window": 7}, "sliding_window = 7 is not understood"),
        ({"head_dim": 32}, "head_dim = 32 is not supported"),
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_fields_that_change_numbers_are_refused(change: dict, said: str, tmp_path: Path) -> None:
    path = saved(tmp_path) / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    with pytest.raises(DataError, match=said):
        storage.load(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path / "cut") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="model.safetensors is damaged"):
        storage.load(tmp_path / "cut")
    (saved(tmp_path / "config") / "config.json").write_text("{")
    with pytest.raises(DataError, match="config.json is damaged"):
        storage.load(tmp_path / "config")
    with pytest.raises(DataError, match="has no config.json"):
        storage.load(tmp_path)
    (saved(tmp_path / "none") / "model.safetensors").unlink()
    with pytest.raises(DataError, match="does not exist"):
        storage.load(tmp_path / "none")


def test_an_unknown_field_of_ours_is_refused(tmp_path: Path) -> None:
    storage.save(make("original"), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"vocab_size"', '"vocab_sise"'))
    with pytest.raises(DataError, match="did you mean 'vocab_size'"):
        storage.load(tmp_path)


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "README.md").write_text("my own card")
    storage.save(make("llama", seed=4), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "README.md").read_text() == "my own card"
    with torch.no_grad():
        assert torch.equal(run(storage.load(tmp_path)[0]), run(make("llama", seed=4)))
    assert not list(tmp_path.parent.glob(".*-new"))
