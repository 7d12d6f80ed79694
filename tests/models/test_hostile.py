"""Folders that are broken or mean harm: a DataError that names the file and says what to do, nothing executed, memory bounded."""

import json
import math
import os
import pickle
import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from pellucid.errors import DataError
from pellucid.models import storage, weights
from pellucid.models.build import build
from pellucid.models.sentences import read_sentences
from pellucid.models.weights import open_weights, refuse_remote_code
from pellucid.tasks.pixels import read_pixels
from tests.families import BERTS, GPTS, SEQ2SEQS, VITS
from tests.models.test_weights import read, written

TENSORS = {"a.weight": torch.randn(2, 3), "b": torch.randn(4), "c": torch.ones(1, dtype=torch.int64)}
GOOD = save(TENSORS, {"format": "pt"})
LENGTH = int.from_bytes(GOOD[:8], "little")
SHAPES = sorted(tuple(tensor.shape) for tensor in TENSORS.values())
ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: Any, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refused(folder: Path, file: str = "model.safetensors") -> str:
    """What is said when the folder is opened and read: it names the file and a remedy, and took hardly any memory to find out."""
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        read(open_weights(folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, f"{peak:,} bytes"
    assert str(folder / file) in caught.value.problem and caught.value.remedy
    assert len(str(caught.value)) < 600 + len(str(folder)), "a hostile name may be as long as the file"
    return str(caught.value)


# --- safetensors -----------------------------------------------------------------------------------------------------

BROKEN = {
    "empty": b"",
    "cut in the length": GOOD[:5],
    "cut in the header": GOOD[: LENGTH // 2],
    "cut in the data": GOOD[:-1],
    "longer than its tensors": GOOD + b"\0",
    "a header of 2**60 bytes": (2**60).to_bytes(8, "little") + GOOD[8:],
    "a header of 2**64 - 1 bytes": b"\xff" * 8 + GOOD[8:],
    "a header as long as the file": len(GOOD).to_bytes(8, "little") + GOOD[8:],
    "no JSON": file_of(b"{'w': 1}"),
    "no UTF-8": file_of(b'{"\xff": 1}'),
    "a list": file_of([ONE]),
    "a number": file_of(7),
    "very deep": file_of(b"[" * 100_000),
    "an endless number": file_of(b'{"w": ' + b"9" * 10_000 + b"}"),
    "a name twice": file_of(b'{"w": %b, "w": %b}' % ((json.dumps(ONE).encode(),) * 2)),
    "a field twice": file_of(b'{"w": {"dtype": "F32", "dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}'),
    "overlapping": file_of({"v": ONE, "w": ONE}),
    "a gap": file_of({"w": ONE | {"data_offsets": [8, 16]}}, b"\0" * 16),
    "beyond the end": file_of({"w": ONE | {"shape": [4], "data_offsets": [0, 16]}}),
    "backwards": file_of({"w": ONE | {"data_offsets": [8, 0]}}),
    "negative offsets": file_of({"w": ONE | {"data_offsets": [-8, 0]}}),
    "negative sizes": file_of({"w": ONE | {"shape": [-1, -2]}}),
    "fractions": file_of({"w": ONE | {"shape": [2.0]}}),
    "true for one": file_of({"w": ONE | {"shape": [2, True]}}),
    "three offsets": file_of({"w": ONE | {"data_offsets": [0, 4, 8]}}),
    "no offsets": file_of({"w": {"dtype": "F32", "shape": [2]}}),
    "a type nobody knows": file_of({"w": ONE | {"dtype": "F33"}}),
    "a type that is a list": file_of({"w": ONE | {"dtype": ["F32"]}}),
    "an entry that is none": file_of({"w": 3}),
    "nothing of absurd size": file_of({"w": ONE | {"shape": [2**47, 2**47, 0], "data_offsets": [0, 0]}}, b""),
    "sizes whose product wraps": file_of({"w": ONE | {"shape": [2**32, 2**32, 2]}}),
    "many sizes": file_of({"w": ONE | {"shape": [2] + [1] * 10_000}}),
    "a long name": file_of({"w" * 100_000: 3}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BROKEN[what])
    refused(tmp_path)


def opens_or_is_refused(folder: Path, content: bytes) -> bool:
    """Whether it opens, then with tensors of the sizes that were saved; every other way out than DataError is a fault."""
    (folder / "model.safetensors").write_bytes(content)
    try:
        found = open_weights(folder)
    except DataError:
        return False
    assert sorted(found.shapes.values()) == SHAPES
    assert sorted(tuple(tensor.shape) for tensor in read(found).values()) == SHAPES
    return True


@pytest.mark.slow
def test_a_flipped_bit_in_the_header_is_seen_or_harms_only_a_name(tmp_path: Path) -> None:
    opened = 0
    for place in range(8 * (8 + LENGTH)):
        content = bytearray(GOOD)
        content[place // 8] ^= 1 << place % 8
        opened += opens_or_is_refused(tmp_path, bytes(content))
    assert 0 < opened < 8 * LENGTH // 2  # names and what they are told apart by may change: the config finds that


@given(content=st.binary(max_size=200), keep=st.integers(0, len(GOOD)))
def test_any_bytes_are_refused(content: bytes, keep: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    opens_or_is_refused(folder, GOOD[:keep] + content)
    (folder / "model.safetensors").write_bytes(file_of(content))
    try:
        assert open_weights(folder).shapes == {}
    except DataError:
        pass


def test_a_file_that_is_cut_after_it_was_opened(tmp_path: Path) -> None:
    found = open_weights(written(tmp_path, {"w": torch.randn(1000)}, "single"))
    os.truncate(found.where, 2000)
    with pytest.raises(DataError, match="ended while it was read"):
        read(found)
    found.where.unlink()
    with pytest.raises(DataError, match="does not exist"):
        read(found)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_file_to_wait_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    refused(tmp_path)


# --- several files ---------------------------------------------------------------------------------------------------

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    """Writes the index anew with a changed table of names."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        table = json.loads(path.read_text())["weight_map"]
        changed = change(table)
        path.write_bytes(changed if isinstance(changed, bytes) else json.dumps({"weight_map": changed}).encode())

    return write


TRICKS = ["../x.safetensors", "/etc/x.safetensors", "C:x.safetensors", "C:\\x.safetensors", "a\\x.safetensors",
          "a/x.safetensors", "..", ".", "", ".x.safetensors", "x.bin", "x.safetensors\n", "x\0.safetensors",
          "x" * 5000 + ".safetensors/"]  # fmt: skip
SHARDS = {
    "no JSON": index(lambda table: b"{"),
    "no object": index(lambda table: b"[]"),
    "no table": index(lambda table: b'{"metadata": {}}'),
    "a list for a table": index(lambda table: [FIRST]),
    "an empty table": index(lambda table: {}),
    "files that are no names": index(lambda table: table | {"b": 7}),
    "a name twice": index(lambda table: b'{"weight_map": {"b": "%b", "b": "%b"}}' % (FIRST.encode(), SECOND.encode())),
    "a tensor nobody has": index(lambda table: table | {"d": FIRST}),
    "a tensor in the other file": index(lambda table: table | {"a.weight": table["b"]}),
    "a file that is not there": index(lambda table: table | {"a.weight": "x.safetensors"}),
    "a million tensors": index(
        lambda table: b'{"weight_map": {%b}}' % b",".join(b'"%07d":"%b"' % (n, FIRST.encode()) for n in range(10**6))
    ),
} | {f"{trick!r:.40}": index(lambda table, trick=trick: table | {"a.weight": trick}) for trick in TRICKS}


@pytest.mark.parametrize("what", SHARDS)
def test_a_broken_index_is_refused(what: str, tmp_path: Path) -> None:
    written(tmp_path, TENSORS, "shards")
    SHARDS[what](tmp_path)
    told = refused(tmp_path, "x.safetensors" if "not there" in what else "model.safetensors.index.json")
    assert "million" not in what or "bytes" in told


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    written(tmp_path, TENSORS, "shards")
    (tmp_path / SECOND).write_bytes(GOOD)
    assert FIRST in refused(tmp_path, SECOND)


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    written(tmp_path, TENSORS, "shards")
    (tmp_path / SECOND).write_bytes(GOOD[:-1])
    assert SECOND in refused(tmp_path, SECOND)


@pytest.mark.skipif(os.name == "nt", reason="needs the right to make links")
def test_links_are_followed_as_the_cache_of_the_hub_has_them(tmp_path: Path) -> None:
    blobs, folder = written(tmp_path / "blobs", TENSORS, "shards"), tmp_path / "snapshot"
    folder.mkdir()
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(path)
    assert read(open_weights(folder)).keys() == TENSORS.keys()


# --- pickles ---------------------------------------------------------------------------------------------------------


class Payload:
    """Writes a file when a pickle that holds it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo harm > {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["a value", "all of it", "a plain pickle"])
def test_a_payload_is_refused_and_not_executed(kind: str, zipped: bool, tmp_path: Path) -> None:
    harm, path = tmp_path / "harm", tmp_path / "pytorch_model.bin"
    payload = Payload(harm)
    if kind == "a plain pickle":
        path.write_bytes(pickle.dumps({"w": payload}))
    else:
        torch.save(
            {"w": torch.ones(2), "x": payload} if kind == "a value" else payload,
            path,
            _use_new_zipfile_serialization=zipped,
        )
    told = refused(tmp_path, path.name)
    assert "nothing in it was executed" in told and "weights_only=False" not in told and not harm.exists()
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert harm.exists()  # the payload is real: read without care, it acts


def test_pickles_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    for content in (
        [torch.ones(2)],
        {"w": 3},
        {3: torch.ones(2)},
        {"w": {"v": torch.ones(2)}},
        {"w": torch.ones(2).to_sparse()},
        {"w": torch.ones(2, device="meta")},
    ):
        torch.save(content, path)
        refused(tmp_path, path.name)


def test_a_view_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "pytorch_model.bin")
    assert "claims more" in refused(tmp_path, "pytorch_model.bin")


def test_a_compressed_archive_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
    assert path.stat().st_size < 1 << 20 and "compressed" in refused(tmp_path, path.name)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_pickles_are_refused_or_read(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    good, dice = path.read_bytes(), random.Random(0)
    for _ in range(300):
        content = bytearray(good)
        content[dice.randrange(len(good))] ^= 1 << dice.randrange(8)
        path.write_bytes(content if dice.random() < 0.8 else content[: dice.randrange(len(good))])
        try:
            assert sum(tensor.numel() for tensor in read(open_weights(tmp_path)).values()) < 1000
        except DataError as error:
            assert str(path) in error.problem and "weights_only=False" not in str(error)


# --- what else a folder may hold -------------------------------------------------------------------------------------


def test_a_folder_without_weights_says_what_one_holds(tmp_path: Path) -> None:
    assert "config.json and model.safetensors" in refused(tmp_path)


def test_remote_code_is_refused_by_name() -> None:
    refuse_remote_code({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "m/config.json")
    for config in ({"auto_map": {"AutoModel": "modeling.Evil"}}, {"text_config": {"auto_map": {}}}):
        with pytest.raises(DataError, match="m/config.json.*auto_map"):
            refuse_remote_code(config, "m/config.json")


def test_a_header_of_any_size_is_refused_unread(tmp_path: Path) -> None:
    size = weights.LONGEST_JSON + 1
    path = tmp_path / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little"))
    os.truncate(path, 8 + 2 * size)
    assert "would be the header" in refused(tmp_path)


# --- config.json -----------------------------------------------------------------------------------------------------


def told_of(folder: Path, file: str = "config.json", **fields: Any) -> str:
    """What is said of the folder when a file has these fields too; it takes no time and hardly any memory to find out."""
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(DataError) as caught:
        storage.load(folder)
    peak, spent = tracemalloc.get_traced_memory()[1], time.perf_counter() - began
    tracemalloc.stop()
    path.write_text(json.dumps(content))
    assert peak < 8 << 20 and spent < 5, f"{peak:,} bytes, {spent:.1f} s"
    return str(caught.value)


LARGE = {
    "gpt2": (GPTS["gpt2"], "n_layer", "n_embd", "vocab_size", "n_positions"),
    "llama": (GPTS["llama"], "num_hidden_layers", "intermediate_size", "vocab_size"),
    "t5": (SEQ2SEQS["t5"], "num_layers", "num_decoder_layers", "d_ff", "vocab_size"),
    "vit": (VITS["vit"], "num_hidden_layers", "image_size", "num_channels"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_config_that_asks_for_more_than_the_file_holds(name: str, tmp_path: Path) -> None:
    """Refused before anything of that size, or so many layers, is made."""
    config, *fields = LARGE[name]
    storage.save(build(config, 0), tmp_path)
    for field in fields:
        for size in (100_000_000, 2**31 - 1, 2**60):
            said = told_of(tmp_path, **{field: size})
            assert "does not fit" in said or field in said or "multiple of" in said, said
    storage.load(tmp_path)


def test_our_own_config_is_held_to_the_same(tmp_path: Path) -> None:
    config = replace(GPTS["gpt2"], positions="alibi")
    storage.save(build(config, 0), tmp_path)
    own = json.loads((tmp_path / "config.json").read_text())["pellucid"]
    assert "100,000,000 layers" in told_of(tmp_path, pellucid=own | {"stack": own["stack"] | {"n_layers": 10**8}})
    for name, value in {
        "vocab_size": -1,
        "max_length": 0,
        "rope_base": math.nan,
        "d_model": 3,
        "pad_id": 10**6,
    }.items():
        said = told_of(tmp_path, pellucid=own | {name: value})
        assert name in said or (name == "pad_id" and "pad_token_id" in said)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eos_token_id", 99999), ("eos_token_id", "x"), ("eos_token_id", [2, -1]), ("pad_token_id", 0.5), ("pad_token_id", True),
        ("suppress_tokens", [99999]), ("suppress_tokens", 3.0), ("decoder_start_token_id", [0, 1]), ("bad_words_ids", [3]),
        ("forced_bos_token_id", 1000),
    ],
)  # fmt: skip
def test_tokens_that_are_none_are_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    storage.save(build(SEQ2SEQS["bart"], 0), tmp_path)
    assert field in told_of(tmp_path, "generation_config.json", **{field: value})


def test_a_generation_config_that_is_a_list_is_named_alone(tmp_path: Path) -> None:
    storage.save(build(GPTS["gpt2"], 0), tmp_path)
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(DataError) as caught:
        storage.load(tmp_path)
    assert "generation_config.json" in caught.value.problem and "/config.json" not in caught.value.problem


@pytest.mark.parametrize("path", ["../other", "/tmp", "..", "a/b", "a\\b", 7])
def test_modules_outside_the_folder_are_refused(path: Any, tmp_path: Path) -> None:
    kinds = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": path}]
    (tmp_path / "modules.json").write_text(json.dumps(kinds))
    with pytest.raises(DataError, match="modules.json: path = .* is no name of a folder"):
        read_sentences(tmp_path, BERTS["bert"], None)


@pytest.mark.parametrize(
    ("field", "value"), [("image_std", [0, 0, 0]), ("image_std", -1), ("image_mean", math.nan), ("rescale_factor", 0)]
)
def test_pixels_that_would_be_no_numbers_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    side = VITS["vit"].image_size
    said = {"size": side, "image_mean": 0.5, "image_std": 0.25, field: value}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match=f"preprocessor_config.json: {field}"):
        read_pixels(tmp_path, replace(VITS["vit"], channels=3))
