"""The weights of a model folder: what is there is known before anything is read, and it is read one tensor at a time.

A folder holds model.safetensors, or several such files and model.safetensors.index.json that says which tensor is where, or
the same as pytorch_model.bin (see `pickled`). Nothing a folder says is believed: sizes, offsets and names are checked before memory is
asked for. What cannot be seen is a flipped bit among the numbers themselves; only a manifest of hashes shows that.

The layout of safetensors (github.com/huggingface/safetensors#format): 8 bytes length of the header (little endian), the header in
JSON {name: {dtype, shape, data_offsets}}, and the numbers, without gaps. The bytes are read straight into the tensors' own memory: the
pages of a mapped file count as memory while they are cast, a file in use that is rewritten ends the process, and where a tensor begins in
it is left to chance, while products of one row depend in their last bits on whether that is a multiple of 16 bytes (measured, float32).
"""

import json
import math
import mmap
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pellucid.errors import DataError
from pellucid.models import pickled

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
LONGEST_JSON = 16 << 20
"""Bytes of a header or an index: 200,000 tensors need less, and what Python makes of it stays within a few hundred MB."""
AT_ONCE = 8 << 20
"""Bytes read at a time where the numbers have to be cast or moved."""
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.(safetensors|bin)")
WORTH_MAPPING = 1 << 20
COPY = "copy the model again"
QUANTISED = "quantised weights are not read"
REMEDY = "take the model in float32, float16 or bfloat16"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: the bytes [begin, end) of a file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int = 0
    end: int = 0


@dataclass(frozen=True)
class Weights:
    """The tensors of a folder. `where` is the file to name when something is wrong with them."""

    where: Path
    places: dict[str, Place]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self.places.items()}

    def tensors(
        self, names: Collection[str], device: str = "cpu", dtype: torch.dtype | None = None, mapped: bool = False
    ) -> Iterator[tuple[str, Tensor]]:
        """These tensors one by one, the largest of a file first, on the device, in memory of their own; floating ones in `dtype`.

        Beside what has been handed out, 8 MB are held (of a pickle, a sixteenth). `mapped`: what needs no cast and no move is not read but
        mapped, page by page when it is used, which takes no time; what is written to it stays in memory. The file may then be replaced or
        removed, but not rewritten in place (on Windows, none of it), and last bits of products may differ, as they depend on where memory
        begins.

        Raises DataError when a file ends early or has gone.
        """
        by_file: dict[Path, dict[str, Place]] = {}
        for name in names:
            by_file.setdefault(self.places[name].file, {})[name] = self.places[name]
        for path, places in by_file.items():
            if path.suffix == ".bin":
                yield from pickled.tensors(path, places, device, dtype)
            else:
                yield from _read_file(path, places, device, dtype, mapped)


def open_weights(folder: Path) -> Weights:
    """What the folder holds, nothing read yet but names, shapes and types.

    Raises DataError naming the file that is missing or damaged, or a tensor that is quantised.
    """
    for single, index, look in (
        ("model.safetensors", "model.safetensors.index.json", _places),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", _pickled_places),
    ):
        if (folder / single).is_file():
            return _checked(Weights(folder / single, look(folder / single)))
        if (folder / index).is_file():
            return _checked(Weights(folder / index, _indexed(folder / index, look)))
    remedy = "a model folder holds config.json and model.safetensors"
    raise DataError(f"{folder / 'model.safetensors'} does not exist", remedy)


def open_file(path: Path) -> Weights:
    """What one safetensors file holds; as `open_weights`."""
    return _checked(Weights(path, _places(path)))


def outdated(folder: Path) -> list[Path]:
    """Files of another model's weights that lie beside a model.safetensors: an index with the files it names, and pickles."""
    found = [folder / "model.safetensors.index.json", *sorted(folder.glob("pytorch_model*.bin*"))]
    shards = [path for path in folder.glob("model-*.safetensors") if SHARD.fullmatch(path.name)]
    return [path for path in (*found, *shards) if path.is_file()]


def refuse_remote_code(config: Mapping[str, Any], where: Path | str) -> None:
    """Raises DataError when a config.json says that Python files beside it make the model (`auto_map`): no such file is ever run."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]  # text_config and the like
    if any("auto_map" in part for part in parts):
        remedy = "pellucid runs no code of a model; take one of a family it knows, without auto_map"
        raise DataError(f"{where}: auto_map asks for Python code that comes with the model", remedy)


def _indexed(path: Path, look: Callable[[Path], dict[str, Place]]) -> dict[str, Place]:
    """The tensors of all files an index names; each is in one file, and in the one the index says."""
    if path.stat().st_size > LONGEST_JSON:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes, at most {LONGEST_JSON:,} are read", COPY)
    listed = _json(path, path.read_bytes()).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(file, str) for file in listed.values()):
        raise DataError(f"{path}: weight_map is missing or no table of file names", COPY)
    places: dict[str, Place] = {}
    for file in sorted(set(listed.values())):
        if not SHARD.fullmatch(file) or not path.name.endswith(f"{Path(file).suffix}.index.json"):
            raise DataError(f"{path}: {file!r:.80} is no name of a file beside it", "take the model from elsewhere")
        found = look(path.parent / file)
        twice = next((name for name in found if name in places), None)
        if twice is not None:
            raise DataError(f"{path.parent / file}: {twice!r:.80} is in {places[twice].file.name} too", COPY)
        places |= found
    for name, file in listed.items():
        if name not in places or places[name].file.name != file:
            raise DataError(f"{path}: {name!r:.80} is not in {file}", COPY)
    return places


def _places(path: Path) -> dict[str, Place]:
    """Where the header of a safetensors file says its tensors are, once that is known to be possible."""
    with _opened(path) as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_JSON):
            raise DataError(f"{path} is damaged: of its {size:,} bytes {length:,} would be the header", COPY)
        header = _json(path, file.read(length))
    header.pop("__metadata__", None)
    places = {name: _place(path, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != end:
            raise DataError(f"{path} is damaged: {name!r:.80} begins at byte {place.begin:,}, not at {end:,}", COPY)
        end = place.end
    if end != size:
        raise DataError(f"{path} is damaged: its tensors end at byte {end:,}, the file at {size:,}", COPY)
    return places


def _place(path: Path, name: str, entry: Any, start: int) -> Place:
    """One entry of a header; its bytes must be as many as its shape and type need."""
    kind = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(kind, str):
        raise DataError(f"{path} is damaged: {name!r:.80} has no type", COPY)
    if kind not in DTYPES:
        raise DataError(f"{path}: {name!r:.80} is of type {kind!r:.40}; {QUANTISED}", REMEDY)
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise DataError(f"{path} is damaged: shape or data_offsets of {name!r:.80} are no lists of numbers", COPY)
    begin, end = offsets
    strides = math.prod(
        max(n, 1) for n in shape
    )  # torch computes them for empty tensors too, and stumbles over large ones
    if end - begin != math.prod(shape) * DTYPES[kind].itemsize or strides >= 2**56:
        raise DataError(f"{path} is damaged: {name!r:.80} {shape!r:.80} of type {kind} has {end - begin:,} bytes", COPY)
    return Place(path, DTYPES[kind], tuple(shape), start + begin, start + end)


def _counts(found: Any) -> bool:
    """A short list of whole numbers that fit a file; true and 1.0 are none."""
    return isinstance(found, list) and len(found) <= 64 and all(type(n) is int and 0 <= n < 2**48 for n in found)


def _pickled_places(path: Path) -> dict[str, Place]:
    if not path.is_file():
        raise DataError(f"{path} does not exist", COPY)
    return {name: Place(path, tensor.dtype, tuple(tensor.shape)) for name, tensor in pickled.open_file(path).items()}


def _checked(weights: Weights) -> Weights:
    """The weights, if they are the numbers the model was trained with."""
    for name, place in weights.places.items():
        packed = "weight" in name.rpartition(".")[2] and not place.dtype.is_floating_point
        if packed or place.dtype not in DTYPES.values():
            raise DataError(f"{weights.where}: {name!r:.80} is of type {str(place.dtype)[6:]}; {QUANTISED}", REMEDY)
    return weights


def _read_file(
    path: Path, places: Mapping[str, Place], device: str, dtype: torch.dtype | None, mapped: bool
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a safetensors file, the largest first: what a caller needs beside one, to turn or pack it, is then needed while
    little else is held."""
    with _opened(path) as file:
        scratch = torch.empty(
            AT_ONCE, dtype=torch.uint8
        )  # one for all: freed each time, it would leave holes between the tensors
        for name, place in sorted(places.items(), key=lambda item: (item[1].begin - item[1].end, item[1].begin)):
            final = dtype if dtype and place.dtype.is_floating_point else place.dtype
            as_it_is = final == place.dtype and torch.device(device).type == "cpu"
            if mapped and as_it_is and place.end - place.begin >= WORTH_MAPPING and place.begin % final.itemsize == 0:
                yield name, _mapped(file, place)
                continue
            tensor = empty(place.shape, final, device)
            file.seek(place.begin)
            if as_it_is:
                _fill(file, tensor.view(-1))
            else:
                _fill_cast(file, tensor.view(-1), scratch.view(place.dtype))
            yield name, tensor
            del tensor  # else it would be held while the next is read


def _mapped(file: BinaryIO, place: Place) -> Tensor:
    """A tensor on pages of its own, which are given back with it; a page that is written to is copied first."""
    start = place.begin - place.begin % mmap.ALLOCATIONGRANULARITY
    try:
        pages = mmap.mmap(file.fileno(), place.end - start, access=mmap.ACCESS_COPY, offset=start)
    except ValueError:  # "mmap length is greater than file size"
        raise DataError(f"{place.file} ended while it was read", COPY) from None
    count = math.prod(place.shape)
    return torch.frombuffer(pages, dtype=place.dtype, count=count, offset=place.begin - start).view(place.shape)


def empty(shape: Sequence[int], dtype: torch.dtype, device: str) -> Tensor:
    """Memory for a tensor. A large one on the CPU gets pages of its own, which go back when it is let go: where a caller turns what it is
    given into something else, freed memory would stay between what is kept (measured: a quarter of a GPT-2)."""
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or size < WORTH_MAPPING:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size, access=mmap.ACCESS_COPY), dtype=dtype).view(tuple(shape))


def _fill_cast(file: BinaryIO, flat: Tensor, scratch: Tensor) -> None:
    """The next numbers of the file, of scratch's type, into a flat tensor of another type or device, a few at a time."""
    for part in flat.split(len(scratch)):
        _fill(file, scratch[: len(part)])
        part.copy_(scratch[: len(part)])


def _fill(file: BinaryIO, flat: Tensor) -> None:
    """The next bytes of the file into a flat tensor, without a copy between."""
    rest = memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
    while len(rest):
        n = file.readinto(rest)  # type: ignore[attr-defined]
        if not n:
            raise DataError(f"{file.name} ended while it was read", COPY)
        rest = rest[n:]


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():  # a pipe or a device would be waited for, or never end
        raise DataError(f"{path} does not exist", COPY)
    return open(path, "rb", buffering=0)


def _json(path: Path, text: bytes) -> dict[str, Any]:
    """A JSON object; no name may stand in it twice, for readers differ in which one they take."""
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # json's and Unicode's errors are ValueErrors
        raise DataError(f"{path} is damaged: {str(error)[:200]}", COPY) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds no table of names", COPY)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for name, _ in pairs if table.pop(name, None) is None)
        raise ValueError(f"{twice!r:.80} stands in it twice")
    return table
