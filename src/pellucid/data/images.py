"""Images and the label of each: from files to batches. A batch, with its shifts and flips, is a pure function of (seed, step).
torch is imported where a batch becomes tensors."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.batches import Permutation, bits
from pellucid.data.config import DataConfig
from pellucid.data.dates import SPLITS, Split
from pellucid.data.files import Example
from pellucid.data.holdout import (
    borders,
    fallen,
    key_of,
    nothing_left,
    parts_of,
    read_json_lines,
    repeated,
    spread,
    write_info,
)
from pellucid.data.labels import UNSEEN, Named, Numbers, settled_in
from pellucid.data.pictures import Picture, read_image, read_pictures, subfolders
from pellucid.data.tokenised import cached, open_flat
from pellucid.errors import DataError, UserError

__all__ = ["ImageData", "ImageSet", "normalise", "prepare_images", "read_image"]

if TYPE_CHECKING:
    from torch import Tensor

_WHAT = Named("images", "label", "images lie in a folder for each label, with the label as its name")
_ORDER, _MOVES = 5, 6
_PARTS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
}
_PARTS |= {"test": "test", "testing": "test"}


@dataclass(frozen=True)
class ImageSet:
    """One part. `pixels` uint8 [N,H,W,C], memory-mapped; `labels` int64 [N]: places in `names`, UNSEEN (-1) for a label that
    training never shows; `notes`: what a person should be told."""

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    file: Path
    notes: tuple[str, ...] = ()
    places: Sequence[int] | None = None

    def examples(self, n: int | None = None) -> list[Example]:
        """Where the first n (None = all) images come from (`source`) and their labels as given (`target`), read from disk."""
        return [Example(*pair) for pair in read_json_lines(self.file, self.places, n)]

    def first(self, n: int) -> "ImageSet":
        """n of them (0 = all), evenly spread over the part: a folder is sorted by label."""
        places = spread(n, len(self.labels))
        if len(places) == len(self.labels):
            return self
        return replace(self, pixels=self.pixels[places], labels=self.labels[places], places=places)


def prepare_images(
    config: DataConfig, size: int, channels: int, seed: int, names: tuple[str, ...] | None = None
) -> dict[str, ImageSet]:
    """{"train": ImageSet, "valid": …, "test": …}, those that exist, each image [size,size,channels]; files are read only if they
    or the options changed. `names`: see `prepare_labels`. A folder with the folders train (and valid or val, test) gives these
    parts, see `_with_own_folders`. Held out by a hash of the pixels. Raises DataError: see `read_pictures` and `labels.settle`.
    """
    if channels not in (1, 3):
        raise UserError(f"images of {channels} channels cannot be made", "--model.channels 1 (grey) or 3 (RGB)")
    config = _with_own_folders(config)

    def fill(folder: Path) -> None:
        numbers, seen = Numbers(), dict[str, list[int]]()
        for part in SPLITS:
            if files := getattr(config, part):
                notes: list[str] = []
                pictures = read_pictures(files, size, channels, notes)
                shares = _shares(config, folder, pictures) if part == "train" else {part: pictures}
                for share, its in shares.items():
                    seen[share] = _write(folder, share, its, numbers)
                    told = notes if share == part else []
                    told += repeated(share, seen[share], seen.get("train", []), _WHAT.examples)
                    write_info(folder, share, {"notes": told})
        (folder / "all.pixels").unlink(missing_ok=True)
        write_info(folder, "labels", {"known": list(numbers)})

    folder = cached(key_of(config, seed, size=size, channels=channels), fill)
    labels = {part: open_flat(folder / f"{part}.labels", "<i8") for part in parts_of(config)}
    settled = settled_in(folder, labels, names, _WHAT)
    found: dict[str, ImageSet] = {}
    for part, its in labels.items():
        pixels = open_flat(folder / f"{part}.pixels", "u1").reshape(-1, size, size, channels)
        file, notes = folder / f"{part}.jsonl", tuple(settled.notes[part])
        found[part] = ImageSet(pixels, settled.table[its], settled.names, file, notes)
    return found


def _with_own_folders(config: DataConfig) -> DataConfig:
    """Where a part is one folder whose folders are called like parts, it is the one of its name; that of `train` gives the others
    too, unless they are given."""
    parts: dict[str, tuple[str, ...]] = {}
    for part in SPLITS:
        own = _parts_inside(getattr(config, part))
        if part == "train" and part in own:
            parts |= own
        if part in own or getattr(config, part):
            parts[part] = own.get(part, getattr(config, part))
    return replace(config, **parts)  # type: ignore[arg-type]


def _parts_inside(files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The parts in a folder that holds nothing but folders called like parts; else {}."""
    path = Path(os.path.expanduser(files[0])) if len(files) == 1 else None
    inside = subfolders(path) if path is not None and path.is_dir() else {}
    found: dict[str, tuple[str, ...]] = {
        _PARTS[name.lower()]: (str(place),) for name, place in inside.items() if name.lower() in _PARTS
    }
    return found if len(found) == len(inside) else {}


def _shares(config: DataConfig, folder: Path, pictures: Iterator[Picture]) -> dict[Split, Iterator[Picture]]:
    """The training files' images by part. They are decoded once, into a file that goes again, as all must be known for the
    borders between the parts."""
    wanted = [part for part in parts_of(config) if part == "train" or not getattr(config, part)]
    if wanted == ["train"]:
        return {"train": pictures}
    whose: list[tuple[int, str, str]] = []
    shape: tuple[int, ...] = ()
    with open(folder / "all.pixels", "wb") as file:
        for pixels, label, where in pictures:
            shape = pixels.shape
            whose.append((_number(pixels), label, where))
            file.write(pixels.tobytes())
    low, high = borders(config, (number for number, _, _ in whose))
    everything = open_flat(folder / "all.pixels", "u1").reshape(-1, *shape)

    def of(part: Split) -> Iterator[Picture]:
        for pixels, (number, label, where) in zip(everything, whose, strict=True):
            if fallen(number, low, high) == part:
                yield Picture(pixels, label, where)

    return {part: of(part) for part in wanted}


def _number(pixels: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "big")


def _write(folder: Path, part: str, pictures: Iterator[Picture], numbers: Numbers) -> list[int]:
    """Returns the hash of each image."""
    found: list[int] = []
    seen: list[int] = []
    with (
        open(folder / f"{part}.pixels", "wb") as file,
        open(folder / f"{part}.jsonl", "w", encoding="utf-8", newline="\n") as raw,
    ):
        for pixels, label, where in pictures:
            file.write(pixels.tobytes())
            raw.write(json.dumps([where, label]) + "\n")
            found.append(numbers[label])
            seen.append(_number(pixels))
    if not found:
        raise nothing_left("images", part)
    (folder / f"{part}.labels").write_bytes(np.array(found, "<i8").tobytes())
    return seen


def normalise(pixels: np.ndarray) -> "Tensor":
    """uint8 [B,H,W,C] -> float32 [B,C,H,W] in [-1, 1]: (x / 255 - 0.5) / 0.5, as ViT's image processor does by default."""
    import torch

    channels_first = np.array(np.moveaxis(pixels, -1, 1), np.float32, order="C")
    return torch.from_numpy(channels_first).div_(255).sub_(0.5).div_(0.5)


class ImageData:
    """Batches of `batch_size` images, each image with a known label once per epoch.

    In training each image is moved by up to `shift` pixels either way, and with `flip` mirrored half of the time. What comes in
    at an edge repeats the image's own edge: black around MNIST's digits, white around drawings, and no frame around photos that
    would tell how far they were moved.
    """

    def __init__(self, images: ImageSet, batch_size: int, seed: int = 0, shift: int = 0, flip: bool = False) -> None:
        if not 0 <= shift < min(images.pixels.shape[1:3]):
            raise UserError(
                f"data.shift is {shift}, the images have {images.pixels.shape[1]} pixels", "choose a smaller one"
            )
        self.images, self.batch_size, self.seed, self.shift, self.flip = images, batch_size, seed, shift, flip
        self.notes: list[str] = []
        self._kept = np.flatnonzero(images.labels != UNSEEN)

    def __len__(self) -> int:
        """Images per epoch."""
        return len(self._kept)

    @property
    def steps_per_epoch(self) -> float:
        """Images / batch_size; where it is not whole, a batch has images of two epochs."""
        return len(self) / self.batch_size

    def rows(self, step: int) -> np.ndarray:
        """The images of a step's batch, as places in the set: int64 [B]. Raises DataError where none has a known label."""
        if not len(self):
            raise DataError("no image has a label to learn", "do the labels of the files belong to this model?")
        drawn = step * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(drawn, len(self))
        rows = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = Permutation(len(self), self.seed, epoch, _ORDER)(places[here])
        return self._kept[rows]

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step (0 is the first): "images" float32 [B,C,H,W] in [-1, 1], "labels" int64 [B]. A pure
        function of (seed, step)."""
        rows = self.rows(step)
        pixels = self.images.pixels[rows]
        return self._tensors(self._moved(pixels, step) if self.shift or self.flip else pixels, rows)

    def sequential(self, batch_size: int | None = None) -> "Iterator[dict[str, Any]]":
        """Every image once, in order and as it is, also those whose label is UNSEEN. Batches as of `batch`, and "rows" int64 [B]."""
        import torch

        size = batch_size or self.batch_size
        for start in range(0, len(self.images.labels), size):
            rows = np.arange(start, min(start + size, len(self.images.labels)))
            yield {**self._tensors(self.images.pixels[rows], rows), "rows": torch.from_numpy(rows)}

    def _moved(self, pixels: np.ndarray, step: int) -> np.ndarray:
        """Shifts and flips of a batch uint8 [B,H,W,C], drawn for this step."""
        n, height, width, _ = pixels.shape
        drawn = bits(3 * n, self.seed, step, _MOVES).reshape(3, n)
        moves = ((drawn[:2] >> np.uint64(1)) % np.uint64(2 * self.shift + 1)).astype(np.int64) - self.shift
        y = np.clip(np.arange(height) + moves[0][:, None], 0, height - 1)
        x = np.clip(np.arange(width) + moves[1][:, None], 0, width - 1)
        mirrored = (drawn[2] & np.uint64(1)).astype(bool) & self.flip
        x[mirrored] = x[mirrored][:, ::-1]
        return pixels[np.arange(n)[:, None, None], y[:, :, None], x[:, None, :]]

    def _tensors(self, pixels: np.ndarray, rows: np.ndarray) -> "dict[str, Tensor]":
        import torch

        return {"images": normalise(pixels), "labels": torch.from_numpy(self.images.labels[rows])}
