"""Weights of a folder: the same numbers as the package safetensors reads, however they are stored, in memory of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid import progress
from pellucid.errors import DataError
from pellucid.models import pickled, weights
from pellucid.models.weights import Weights, open_weights

KINDS = ["single", "shards", "pickle", "pickle shards", "old pickle"]


def numbers() -> dict[str, Tensor]:
    """A tensor of every type that is read, among them empty ones, single numbers, and more than is read at once."""
    generator = torch.Generator().manual_seed(1)
    found = {
        str(dtype)[6:]: torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in weights.DTYPES.values()
    }
    large = torch.randn(weights.AT_ONCE // 4 + 7, generator=generator)
    return found | {"large": large, "none": torch.zeros(0, 4), "one": torch.tensor(3.5), "bf16": large[:9].bfloat16()}


def written(folder: Path, tensors: Mapping[str, Tensor], kind: str) -> Path:
    """A folder that holds the tensors in one of the ways they are found in the world."""
    folder.mkdir(exist_ok=True)
    if "shards" not in kind:
        parts = {"pytorch_model.bin" if "pickle" in kind else "model.safetensors": dict(tensors)}
    else:
        stem, end = ("pytorch_model", "bin") if "pickle" in kind else ("model", "safetensors")
        names = list(tensors)
        parts = {f"{stem}-0000{n + 1}-of-00002.{end}": {name: tensors[name] for name in names[n::2]} for n in (0, 1)}
        table = {name: file for file, part in parts.items() for name in part}
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    for file, part in parts.items():
        if "pickle" in kind:
            torch.save(part, folder / file, _use_new_zipfile_serialization="old" not in kind)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
    return folder


def read(found: Weights, **how: object) -> dict[str, Tensor]:
    return dict(found.tensors(found.shapes, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_however_they_are_stored(kind: str, tmp_path: Path) -> None:
    tensors = numbers()
    found = open_weights(written(tmp_path, tensors, kind))
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert {name: place.dtype for name, place in found.places.items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }
    for dtype in None, torch.float32, torch.bfloat16:
        for name, tensor in read(found, dtype=dtype).items():
            wanted = tensors[name].to(dtype if tensors[name].is_floating_point() else None)
            assert tensor.dtype == wanted.dtype and tensor.is_contiguous() and torch.equal(tensor, wanted), name
    assert [name for name, _ in found.tensors(["one"])] == ["one"]


def test_the_package_safetensors_reads_the_same(tmp_path: Path) -> None:
    reference = load_file(written(tmp_path, numbers(), "single") / "model.safetensors")
    for mapped in False, True:
        found = read(open_weights(tmp_path), mapped=mapped)
        assert found.keys() == reference.keys()
        assert all(torch.equal(found[name], reference[name]) for name in reference)


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    written(tmp_path, {"w": torch.ones(2)}, "pickle")
    assert open_weights(tmp_path).where.name == "pytorch_model.bin"
    written(tmp_path, {"w": torch.zeros(2)}, "shards")
    assert open_weights(tmp_path).where.name == "model.safetensors.index.json"
    written(tmp_path, {"w": torch.zeros(3)}, "single")
    assert open_weights(tmp_path).shapes == {"w": (3,)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_belongs_to_the_reader(kind: str, tmp_path: Path) -> None:
    tensors = {"a": torch.randn(64, 64), "b": torch.randn(64)}
    found = read(open_weights(written(tmp_path, tensors, kind)))
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for tensor in found.values():
        tensor += 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    for path in files:
        path.write_bytes(b"\0" * 16)  # rewritten in place, the worst that can happen to a mapped file
    assert all(torch.equal(found[name], tensor + 1) for name, tensor in tensors.items())
    for path in files:
        path.unlink()


def test_read_tensors_begin_where_those_of_torch_do(tmp_path: Path) -> None:
    """The last bits of a product of one row depend on it; a file may begin them anywhere."""
    found = open_weights(written(tmp_path, {f"{'x' * n}": torch.randn(n, 16) for n in range(1, 9)}, "single"))
    assert all(tensor.data_ptr() % 64 == 0 for tensor in read(found).values())


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a mapped file from being replaced")
def test_what_is_mapped_does_not_change_the_file_and_outlives_it(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(1000, 500), "i": torch.arange(5)}
    path = written(tmp_path, tensors, "single") / "model.safetensors"
    before, found = path.read_bytes(), read(open_weights(tmp_path), mapped=True)
    found["a"] += 1
    assert path.read_bytes() == before
    path.unlink()
    assert torch.equal(found["a"], tensors["a"] + 1) and torch.equal(found["i"], tensors["i"])


def test_tied_and_turned_tensors_of_a_pickle(tmp_path: Path) -> None:
    w = torch.nn.Parameter(torch.randn(4, 6))
    torch.save({"w": w, "tied": w, "turned": w.T, "part": w[1:3, ::2]}, tmp_path / "pytorch_model.bin")
    found = read(open_weights(tmp_path))
    assert torch.equal(found["turned"], w.T) and torch.equal(found["part"], w[1:3, ::2])
    assert torch.equal(found["w"], found["tied"]) and not any(tensor.requires_grad for tensor in found.values())
    assert all(tensor.is_contiguous() for tensor in found.values())


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    size = 1 << 36
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    try:
        os.truncate(path, 8 + len(header) + size)  # a hole: takes no room on the disk
    except OSError:
        pytest.skip("this file system has no holes")
    assert open_weights(tmp_path).shapes == {"w": (size // 4,)}


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("h.weight", torch.int8),
        ("h.qweight", torch.int32),
        ("w_packed.weight", torch.uint8),
        ("b", torch.float8_e4m3fn),
    ],
)
@pytest.mark.parametrize("kind", ["single", "pickle"])
def test_quantised_weights_are_refused_by_name(kind: str, name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    written(tmp_path, {"fine.weight": torch.ones(2), name: torch.ones(2, 2).to(dtype)}, kind)
    with pytest.raises(DataError, match=f"{name}.*quantised weights are not read"):
        open_weights(tmp_path)


def test_buffers_of_whole_numbers_are_none(tmp_path: Path) -> None:
    tensors = {"position_ids": torch.arange(9), "attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}
    assert open_weights(written(tmp_path, tensors, "single")).shapes["position_ids"] == (9,)


def test_a_pickle_is_said_aloud_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = open_weights(written(tmp_path, {"w": torch.ones(2)}, "pickle"))
    monkeypatch.setattr(pickled, "_told", set())
    read(found)
    assert capsys.readouterr().err == ""  # as a library it is quiet
    monkeypatch.setattr(progress, "shown", True)
    for _ in range(2):
        read(found)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "nothing in it is executed" in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["None", "torch.bfloat16"])
@pytest.mark.parametrize(
    "kind, made", [("single", "tensor"), ("single", "tensor.T.contiguous()"), ("pickle", "tensor")]
)
def test_loading_takes_hardly_more_memory_than_the_model(kind: str, made: str, dtype: str, tmp_path: Path) -> None:
    """Peak resident memory, pages of mapped files counted, at most 1.2 times the model, an embedding of 40 % in its midst; also when the
    caller turns each tensor, as a GPT-2's are, and lets go of what it was given."""
    sizes = [256, 768, 1024, 3072, 20 << 10, *[256, 1024, 3072] * 6]
    tensors = {f"layer{n}": torch.randn(size, 1024) for n, size in enumerate(sizes)}
    code = f"""
import sys, torch
from pathlib import Path
from pellucid.models.weights import open_weights
def resident(what):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(what))
folder, dtype = Path(sys.argv[1]), {dtype}
small = torch.ones(99).to(dtype or torch.float32)  # loads what torch needs for it
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
found = open_weights(folder)
model = {{name: {made} for name, tensor in found.tensors(found.shapes, dtype=dtype)}}
print(resident("VmHWM") - before, sum(tensor.nbytes for tensor in model.values()))
"""
    words = [sys.executable, "-c", code, str(written(tmp_path, tensors, kind))]
    ran = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, ran.stderr
    peak, size = map(int, ran.stdout.split())
    assert 0.9 * size < peak <= 1.2 * size
