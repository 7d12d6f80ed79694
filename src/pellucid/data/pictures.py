"""Images as arrays of one size: from folders of PNG, JPEG, BMP, GIF and WebP (through Pillow, an extra: pip install
'pellucid[images]') and from IDX files, as MNIST comes (LeCun et al. 1998). Imports no torch."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.data.sources import PICTURES, Source, expand, files_below, open_unpacked, read_bytes
from pellucid.errors import DataError

MOST_BROKEN = 0.01
_IDX = {b"\x00\x00\x08\x03": "images", b"\x00\x00\x08\x01": "labels"}
_AT_ONCE = 256


class Picture(NamedTuple):
    """`pixels` uint8 [H,W,C], its label, and the file or the place in it."""

    pixels: np.ndarray
    label: str
    where: str


def read_pictures(patterns: Sequence[str], size: int, channels: int, notes: list[str]) -> Iterator[Picture]:
    """The images of one folder with a folder for each label, or of two IDX files, images and labels in either order; all
    [size,size,channels] (see `fitted`). What is skipped is counted in `notes`. Raises DataError: see `_of_folder`, `_of_idx`."""
    folders = [path for pattern in patterns if (path := Path(pattern).expanduser()).is_dir()]
    if not folders:
        return _of_idx(expand(patterns), size, channels)
    if len(patterns) > 1:
        raise DataError(
            f"images: {len(patterns)} names where one folder is needed", "give one folder with a folder for each label"
        )
    return _of_folder(folders[0], size, channels, notes)


def read_image(path: str | Path, size: int, channels: int) -> np.ndarray:
    """An image file as the model sees it: uint8 [size,size,channels]; see `fitted`. Raises DataError: no Pillow, no image."""
    return opened(path, lambda image: fitted(image, size, channels))


def opened(path: str | Path, make: Callable[[Any], np.ndarray]) -> np.ndarray:
    """What `make` makes of an image file, opened with Pillow. Raises DataError: no Pillow, no image."""
    open_image = _pillow().open
    try:
        with open_image(path) as image:
            return make(image)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except Exception as error:  # Pillow's decoders raise all kinds
        raise DataError(f"{path} is no image that can be read: {str(error)[:100]}", "is the file damaged?") from None


def fitted(image: Any, size: int, channels: int) -> np.ndarray:
    """A Pillow image -> uint8 [size,size,channels]: turned as its EXIF data says, put on white where it is transparent, in grey
    (1 channel) or RGB (3), the middle cut out at whole pixels and resized (bicubic)."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # up to 16 bits a pixel: Pillow would cut off what is above 255
        values = np.asarray(image).clip(0, 2**16 - 1)
        image = Image.fromarray((values >> (8 if values.max() > 255 else 0)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    short = min(image.size)
    left, top = ((side - short) // 2 for side in image.size)
    image = image.crop((left, top, left + short, top + short))
    if short != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(size, size, channels)


def subfolders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name, hidden ones left out."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("reading images needs Pillow", "pip install 'pellucid[images]'") from None
    return Image


def _of_folder(folder: Path, size: int, channels: int, notes: list[str]) -> Iterator[Picture]:
    """Raises DataError: no images in folders of labels, or more than MOST_BROKEN of them broken; fewer are skipped and noted."""
    labelled: list[tuple[Path, str]] = []
    others: list[str] = []
    for path in files_below(folder):
        inside = path.relative_to(folder).parts
        is_image = path.suffix.lower() in PICTURES and len(inside) > 1
        labelled += [(path, inside[0])] if is_image else []
        others += [] if is_image else ["/".join(inside)]
    if not labelled:
        found = f"there are {len(others):,} other files, as {others[0]}" if others else "it is empty"
        raise DataError(
            f"{folder} has no images in folders: {found}", f"put them into {folder / 'LABEL'}, one for each label"
        )
    if others:
        notes.append(
            f"{len(others):,} files of {folder} are no images in a folder of a label: skipped, the first {others[0]}"
        )
    _pillow()
    broken: list[DataError] = []
    for (path, label), pixels in zip(labelled, _decoded([path for path, _ in labelled], size, channels), strict=True):
        if isinstance(pixels, DataError):
            broken.append(pixels)
            if len(broken) > MOST_BROKEN * len(labelled):
                raise broken[0]
        else:
            yield Picture(pixels, label, path.relative_to(folder).as_posix())
    if broken:
        notes.append(
            f"{len(broken)} of {len(labelled):,} images are broken and were skipped, the first: {broken[0].problem}"
        )


def _decoded(paths: Sequence[Path], size: int, channels: int) -> Iterator[np.ndarray | DataError]:
    """Each file's pixels or what is wrong with it, in order; Pillow decodes outside the interpreter's lock."""

    def one(path: Path) -> np.ndarray | DataError:
        try:
            return read_image(path, size, channels)
        except DataError as error:
            return error

    rest = iter(paths)
    with ThreadPoolExecutor() as pool:
        while some := list(itertools.islice(rest, _AT_ONCE)):
            yield from pool.map(one, some)


def _of_idx(sources: Sequence[Source], size: int, channels: int) -> Iterator[Picture]:
    """Raises DataError: not one file of images and one of labels, not equally many, a file that is not as long as it says."""
    found = {_kind(source): source for source in sources}
    if len(sources) != 2 or set(found) != {"images", "labels"}:
        told = ", ".join(f"{source.path.name} ({_kind(source) or 'no IDX file'})" for source in sources[:4])
        raise DataError(
            f"no pair of IDX files: {told}",
            "give two IDX files, images and labels, or one folder with a folder for each label",
        )
    images, labels = (_idx(found[kind]) for kind in ("images", "labels"))
    if len(images) != len(labels):
        raise DataError(f"{found['images']} has {len(images):,} images, {found['labels']} {len(labels):,} labels")
    same = images.shape[1:] == (size, size)
    if not same:
        _pillow()
    for i, (pixels, label) in enumerate(zip(images, labels.tolist(), strict=True), 1):
        where = f"{found['images'].path.name}, image {i:,}"
        yield Picture(
            np.repeat(pixels[..., None], channels, 2) if same else _resized(pixels, size, channels), str(label), where
        )


def _resized(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    from PIL import Image

    return fitted(Image.fromarray(pixels), size, channels)


def _kind(source: Source) -> str:
    with open_unpacked(source) as file:
        return _IDX.get(read_bytes(source, file, 4), "")


def _idx(source: Source) -> np.ndarray:
    """uint8 [N,H,W] or [N]: four bytes of magic number, the last of them the number of axes, then each axis' length."""
    with open_unpacked(source) as file:
        n_axes = read_bytes(source, file, 4)[3]
        head = read_bytes(source, file, 4 * n_axes)
        shape = [int.from_bytes(head[i : i + 4], "big") for i in range(0, len(head), 4)]
        n = math.prod(shape) if len(head) == 4 * n_axes else 0
        data = read_bytes(source, file, -1)
    if len(data) != n or not n:
        raise DataError(f"{source} has {len(data):,} bytes where its head says {n:,}", "fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)
