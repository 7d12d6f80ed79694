"""Law 8: saved -> loaded -> the same; damage is named. That ours = `transformers` is tested family by family."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.errors import DataError
from pellucid.models import storage
from pellucid.models.pretrained.families import home
from tests.families import ALL, TEXT, make
from tests.laws.test_recording import run


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
    assert said and own_names == (home(ALL[name])[0] is None)


@pytest.mark.parametrize("name", TEXT)
def test_it_runs_in_the_dtype_it_is_loaded_in(name: str, tmp_path: Path) -> None:
    model = make(name)
    storage.save(model, tmp_path)
    half, _ = storage.load(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        exact, rough = run(model), run(half)
    assert rough.dtype == torch.bfloat16 and (rough - exact).norm() < 0.1 * exact.norm()


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
        ({"use_mrope": True}, "use_mrope = True is not supported"),
        ({"sliding_window": 7}, "sliding_window = 7 is not understood"),
        ({"head_dim": 32}, r"q_proj.weight has shape \[16, 16\], config.json asks for \[128, 16\]"),
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
    storage.save(make("alibi"), tmp_path)
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
