"""Pictures as a foreign vision model reads them, as its preprocessor_config.json says. Imports no torch.

Ours are cut to their middle square, resized (bicubic) and moved to [-1, 1] (see `data.images`). ViT's image processor squeezes a picture
to the size instead, with another filter, and may take ImageNet's mean from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.images import normalise
from pellucid.data.pictures import opened, read_image
from pellucid.errors import DataError, UserError
from pellucid.models.config import ModelConfig
from pellucid.models.foreign_files import preprocessor
from pellucid.text.beside import read_json

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {f"ViT{kind}" for kind in ("FeatureExtractor", "ImageProcessor", "ImageProcessorFast", "ImageProcessorPil")}
KNOWN = {
    "image_processor_type", "feature_extractor_type", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
    "rescale_factor", "do_normalize", "image_mean", "image_std",
    "do_convert_rgb", "processor_class", "data_format", "_valid_processor_keys",  # without effect
}  # fmt: skip
FILTERS = (0, 1, 2, 3, 4, 5)  # as Pillow numbers them


@dataclass(frozen=True)
class Pixels:
    """(x · scale − mean) / std of a picture resized by a filter of Pillow. size: (height, width), the shorter side, or None = as it is;
    crop: then the middle (height, width), None = all; mean, std: for all channels or for each."""

    size: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def read(self, path: str | Path, channels: int) -> np.ndarray:
        """A file -> float32 [channels,H,W]. Raises DataError: no Pillow, no image."""
        pixels = opened(path, lambda image: self._fitted(image, channels)).astype(np.float64)
        made = (pixels * self.scale - np.array(self.mean)) / np.array(self.std)
        return np.moveaxis(made, -1, 0).astype(np.float32)

    def _fitted(self, image: Any, channels: int) -> np.ndarray:
        """A Pillow image -> uint8 [H,W,channels]; what is transparent is not put on white, as there."""
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        if self.size is not None:
            width, height = image.size
            short = min(image.size)
            if isinstance(self.size, int):
                width, height = self.size * width // short, self.size * height // short
            else:
                height, width = self.size
            image = image.resize((width, height), self.resample)
        if self.crop is not None:
            left, top = ((side - wanted) // 2 for side, wanted in zip(image.size, self.crop[::-1], strict=True))
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def read_images(paths: Sequence[str | Path], config: ModelConfig, pixels: Pixels | None) -> "Tensor":
    """Image files as a model reads them, float32 [B,C,H,W]; pixels: what `read_pixels` gave."""
    import torch

    if pixels is None:
        return normalise(np.stack([read_image(path, config.image_size, config.channels) for path in paths]))
    return torch.from_numpy(np.stack([pixels.read(path, config.channels) for path in paths]))


def refuse_other(pixels: Pixels | None) -> None:
    """Raises UserError where a model reads pictures in another way than data is made here."""
    if pixels is not None:
        raise UserError(
            "this model's preprocessor_config.json makes other pixels than those it would be measured on",
            "classify the files, or fine-tune it first",
        )


def read_pixels(folder: Path, config: ModelConfig) -> Pixels | None:
    """How the folder says that its model reads pictures; None = as ours, also where it says nothing. Raises DataError naming the field that
    is not supported."""
    path = folder / "preprocessor_config.json"
    if config.family != "vit" or not path.is_file():
        return None
    try:
        said = read_json(path)
        return None if said == preprocessor(config) else _pixels(said, config)
    except DataError as error:
        where = "" if str(path) in error.problem else f"{path}: "
        raise DataError(where + error.problem, error.remedy) from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"{path} is damaged: {str(error)[:200]}", "copy the model again") from None


def _pixels(said: Mapping[str, Any], config: ModelConfig) -> Pixels:
    said = {name: value for name, value in said.items() if value is not None}
    kind = said.get("image_processor_type", said.get("feature_extractor_type", "ViTImageProcessor"))
    if kind not in KINDS:
        raise DataError(f"image_processor_type = {kind!r} is not supported, only {', '.join(sorted(KINDS))}")
    for name, value in said.items():
        if name not in KNOWN and value is not False:
            raise DataError(f"{name} = {value!r} is not supported", "its pixels could differ: it is not read")
    if said.get("resample", 2) not in FILTERS:
        raise DataError(f"resample = {said['resample']!r} is not supported, only {FILTERS}")
    size = _size("size", said.get("size", 224)) if said.get("do_resize", True) else None
    crop = _size("crop_size", said.get("crop_size", 224)) if said.get("do_center_crop", False) else None
    side = config.image_size
    if (crop or size) != (side, side) or (isinstance(size, int) and size < side):
        asked = f"size = {said.get('size')!r}, crop_size = {said.get('crop_size')!r}"
        raise DataError(f"{asked} do not give the {side} × {side} pixels that the model reads")
    normal = said.get("do_normalize", True)
    scale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise DataError(f"rescale_factor = {scale!r} is no number above 0")
    mean, std = (_numbers(name, said.get(name, 0.5), config.channels) for name in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise DataError(f"image_std = {said['image_std']!r} is not above 0: pixels are divided by it")
    return Pixels(
        size,
        said.get("resample", 2),
        crop,  # type: ignore[arg-type]
        scale,
        mean if normal else (0.0,),
        std if normal else (1.0,),
    )


def _size(name: str, said: Any) -> tuple[int, int] | int:
    """(height, width), or the shorter side. Raises DataError for what says it in another way."""
    if isinstance(said, int):
        return said, said
    if set(said) == {"height", "width"}:
        return said["height"], said["width"]
    if set(said) == {"shortest_edge"} and name == "size":
        return said["shortest_edge"]
    raise DataError(f"{name} = {said!r} is not supported, only a height and width, or the shortest_edge of size")


def _numbers(name: str, said: Any, channels: int) -> tuple[float, ...]:
    """One for all channels, or one for each."""
    found = tuple(map(float, said)) if isinstance(said, list) else (float(said),)
    if len(found) not in (1, channels):
        raise DataError(f"{name} has {len(found)} numbers, the model {channels} channels")
    if not all(map(math.isfinite, found)):
        raise DataError(f"{name} = {said!r} are not all numbers")
    return found
