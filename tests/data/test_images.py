"""Images: every format to one shape, folders and IDX files to parts, batches that are moved as the step says."""

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.config import DataConfig
from pellucid.data.files import fingerprint
from pellucid.data.images import ImageData, ImageSet, normalise, prepare_images, read_image
from pellucid.errors import DataError, UserError

PIL = pytest.importorskip("PIL.Image")
GREY = DataConfig(kind="images", holdout=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


def noise(n, height=6, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width), np.uint8)


def idx(folder, pixels, labels, packed=True, name="a"):
    """A pair of IDX files, labels first."""
    images = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()
    files = {"labels": struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels), "images": images}
    for kind, data in files.items():
        (folder / f"{name}-{kind}").write_bytes(gzip.compress(data) if packed else data)
    return tuple(str(folder / f"{name}-{kind}") for kind in files)


def pictures(folder, labels, suffix=".png", seed=0):
    """A folder with a folder for each label: one noisy image for each place in `labels`."""
    for i, (label, pixels) in enumerate(zip(labels, noise(len(labels), seed=seed), strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        PIL.fromarray(pixels).save(folder / label / f"{i:03}{suffix}")
    return (str(folder),)


# ---- one image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".webp", ".jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(tmp_path, suffix, channels):
    pixels = np.full((9, 7, 3), 90, np.uint8)
    PIL.fromarray(pixels).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    found = read_image(tmp_path / f"a{suffix}", 5, channels)
    assert found.shape == (5, 5, channels) and found.dtype == np.uint8
    assert (abs(found.astype(int) - 90) <= (2 if suffix == ".jpg" else 0)).all()


def test_the_middle_is_cut_out_and_the_image_turned(tmp_path):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16], pixels[:4, 8:16] = 255, 128  # the middle third: grey above white
    exif = PIL.Exif()
    exif[0x0112] = 3  # upside down
    PIL.fromarray(pixels).save(tmp_path / "a.png")
    PIL.fromarray(pixels).save(tmp_path / "b.png", exif=exif)
    straight, turned = (read_image(tmp_path / f"{name}.png", 8, 1)[..., 0] for name in "ab")
    assert np.array_equal(straight, pixels[:, 8:16]) and np.array_equal(turned, straight[::-1, ::-1])


def test_what_is_transparent_is_white_and_sixteen_bits_are_not_cut_off(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2, :, 3] = 255  # the upper half is black, the rest transparent black
    PIL.fromarray(clear).save(tmp_path / "a.png")
    for channels in (1, 3):
        found = read_image(tmp_path / "a.png", 4, channels)
        assert (found[:2] == 0).all() and (found[2:] == 255).all()
    PIL.fromarray(np.array([[0, 0x8000], [0x00FF, 0xFFFF]], np.uint16)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png", 2, 1)[..., 0].tolist() == [[0, 128], [0, 255]]
    PIL.fromarray(np.array([[0, 100], [50, 255]], np.uint16)).save(tmp_path / "c.png")  # eight bits in sixteen
    assert read_image(tmp_path / "c.png", 2, 1)[..., 0].tolist() == [[0, 100], [50, 255]]


@given(st.sampled_from([".png", ".jpg", ".gif", ".bmp", ".webp"]), st.data())
def test_a_damaged_image_is_named(tmp_path_factory, suffix, data):
    file = tmp_path_factory.mktemp("i") / f"broken{suffix}"
    PIL.fromarray(noise(1, 20, 20)[0]).save(file)
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    file.write_bytes(whole[:place] if cut else whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    try:
        assert read_image(file, 8, 3).shape == (8, 8, 3)  # some damage cannot be seen
    except DataError as error:
        assert f"broken{suffix} is no image" in str(error)


def test_a_missing_image(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "a.png", 8, 3)


# ---- files to sets


@given(st.integers(10, 60), st.booleans(), st.sampled_from([1, 3]))
def test_idx_files_come_back_as_they_are(tmp_path_factory, n, packed, channels):
    pixels, labels = noise(n, seed=n), [i % 3 for i in range(n)]
    files = idx(tmp_path_factory.mktemp("i"), pixels, labels, packed)
    found = prepare_images(replace(GREY, train=files), 6, channels, 0)["train"]
    assert np.array_equal(found.pixels, np.repeat(pixels[..., None], channels, 3)) and found.labels.tolist() == labels
    assert found.names == ("0", "1", "2") and found.examples(1)[0].source.endswith("images, image 1")


@given(st.lists(st.integers(0, 15), min_size=20, max_size=60), st.floats(0.05, 0.3))
def test_copies_of_an_image_are_on_one_side(tmp_path_factory, which, holdout):
    pixels = noise(16)[which]
    files = idx(tmp_path_factory.mktemp("i"), pixels, [i % 2 for i in range(len(which))])
    try:
        sets = prepare_images(DataConfig(kind="images", train=files, holdout=holdout), 6, 1, 0)
    except DataError as error:  # a handful may all be held out
        assert len(set(which)) < 12, error
        return
    seen = [{image.tobytes() for image in found.pixels} for found in sets.values()]
    assert len(seen) == 3 and all(seen) and sum(map(len, seen)) == len(set.union(*seen)) == len(set(which))
    assert sum(len(found.labels) for found in sets.values()) == len(which)
    by_place = {int(e.source.rsplit(" ", 1)[1]) - 1: i for i, e in enumerate(sets["train"].examples())}
    assert all(np.array_equal(sets["train"].pixels[i, ..., 0], pixels[place]) for place, i in by_place.items())


def test_a_folder_of_folders(tmp_path):
    root = tmp_path / "flowers"
    config = replace(GREY, train=pictures(root, ["rose", "tulip", "rose", "aster"]))
    (root / "rose" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    found = prepare_images(config, 6, 1, 0)["train"]
    assert found.names == ("aster", "rose", "tulip") and found.labels.tolist() == [0, 1, 1, 2]
    assert np.array_equal(found.pixels[..., 0], noise(4)[[3, 0, 2, 1]])
    assert [e.source for e in found.examples()] == ["aster/003.png", "rose/000.png", "rose/002.png", "tulip/001.png"]
    assert "1 files of" in found.notes[0] and "rose/notes.txt" in found.notes[0]
    some = found.first(2)
    assert some.labels.tolist() == [0, 1] and [e.target for e in some.examples()] == ["aster", "rose"]
    known = prepare_images(config, 6, 1, 0, ("tulip", "rose"))["train"]
    assert known.labels.tolist() == [-1, 1, 1, 0]
    before = fingerprint([str(root)])
    (root / "rose" / "000.png").rename(root / "tulip" / "000.png")
    assert fingerprint([str(root)]) != before  # the name of its folder is its label
    assert prepare_images(config, 6, 1, 0)["train"].labels.tolist() == [0, 1, 2, 2]


def test_folders_called_like_parts_are_parts(tmp_path):
    root = tmp_path / "flowers"
    for seed, part in enumerate(("train", "val", "test")):
        pictures(root / part, ["a", "b"] * 3, seed=seed)
    sets = prepare_images(DataConfig(kind="images", train=(str(root),)), 6, 3, 0)
    assert {part: found.pixels.shape for part, found in sets.items()} == {
        part: (6, 6, 6, 3) for part in ("train", "valid", "test")
    }
    assert not sets["test"].notes
    for part in ("test", "valid"):  # of a folder of parts, the part that is asked for
        only = prepare_images(replace(GREY, **{part: (str(root),)}), 6, 3, 0, ("a", "b"))
        assert list(only) == [part] and np.array_equal(only[part].pixels, sets[part].pixels)
    same = replace(GREY, train=(str(root / "train"),), test=(str(root / "train"),))
    assert "6 of 6 images of test are also in training" in prepare_images(same, 6, 1, 0)["test"].notes[-1]
    assert sets["test"].names == ("a", "b") and sets["valid"].examples(1)[0].source == "a/000.png"


def test_few_broken_images_are_skipped_and_many_are_an_error(tmp_path):
    files = pictures(tmp_path / "i", ["a", "b"] * 60)
    (tmp_path / "i" / "a" / "000.png").write_bytes(b"no image")
    found = prepare_images(replace(GREY, train=files), 6, 1, 0)["train"]
    assert len(found.labels) == 119 and "1 of 120 images are broken" in found.notes[0] and "000.png" in found.notes[0]
    (tmp_path / "i" / "b" / "001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"000\.png is no image that can be read"):
        prepare_images(replace(GREY, train=files), 6, 1, 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: idx(d, noise(4), [0, 1]), r"4 images, .*2 labels"),
        (lambda d: idx(d, noise(4), [0, 1, 0, 1])[:1], r"no pair of IDX files: a-labels \(labels\)"),
        (lambda d: (*idx(d, noise(4), [0] * 4)[:1], __file__), r"test_images\.py \(no IDX file\)"),
        (lambda d: idx(d, noise(4), [0] * 4), "all 4 images for training have the label '0'"),
        (lambda d: pictures(d / "i", ["a", "b"]) * 2, "2 names where one folder"),
        (lambda d: (str(d),), "has no images in folders: it is empty(?s:.*)LABEL"),
        (
            lambda d: pictures(d / "i", ["a"] * 4),
            "at least two labels are needed; images lie in a folder for each label",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, make, said):
    with pytest.raises(DataError, match=said):
        prepare_images(replace(GREY, train=make(tmp_path)), 6, 1, 0)


def test_an_idx_file_that_is_cut_off_and_channels_that_cannot_be(tmp_path):
    files = idx(tmp_path, noise(4), [0, 1, 0, 1], packed=False)
    (tmp_path / "a-images").write_bytes((tmp_path / "a-images").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"143 bytes where its head says 144"):
        prepare_images(replace(GREY, train=files), 6, 1, 0)
    (tmp_path / "a-images").write_bytes(b"\x00\x00\x08\x03\xff")
    with pytest.raises(DataError, match="head says 0"):
        prepare_images(replace(GREY, train=files), 6, 1, 0)
    with pytest.raises(UserError, match="--model.channels 1"):
        prepare_images(replace(GREY, train=files), 6, 4, 0)


# ---- sets to batches


def made(n, batch_size=4, seed=0, labels=None, **moves) -> ImageData:
    pixels = np.zeros((n, 5, 7, 1), np.uint8)
    pixels[:, :, :, 0] = np.arange(n)[:, None, None]
    found = np.arange(n) % 3 if labels is None else np.array(labels)
    return ImageData(ImageSet(pixels, found, ("a", "b", "c"), None), batch_size, seed, **moves)  # type: ignore[arg-type]


@given(
    st.lists(st.integers(-1, 2), min_size=1, max_size=40), st.integers(1, 9), st.integers(-5, 2**40), st.integers(0, 9)
)
def test_every_known_image_once_per_epoch(labels, batch_size, seed, epoch):
    data, known = made(len(labels), batch_size, seed, labels), [i for i, label in enumerate(labels) if label >= 0]
    judged = list(data.sequential())
    assert torch.cat([b["rows"] for b in judged]).tolist() == list(range(len(labels)))
    assert torch.cat([b["labels"] for b in judged]).tolist() == labels
    if not known:
        with pytest.raises(DataError, match="no image has a label"):
            data.batch(0)
        return
    first = epoch * len(known)
    drawn = [
        row
        for step in range(first // batch_size, (first + len(known) - 1) // batch_size + 1)
        for place, row in enumerate(data.rows(step).tolist(), step * batch_size)
        if first <= place < first + len(known)
    ]
    assert sorted(drawn) == known
    batch = data.batch(epoch)
    assert batch["labels"].tolist() == [labels[row] for row in data.rows(epoch)]
    assert (batch["images"][:, 0, 0, 0] == normalise(data.images.pixels[data.rows(epoch)])[:, 0, 0, 0]).all()


@given(st.integers(0, 4), st.booleans(), st.integers(0, 2**40), st.permutations(range(6)))
def test_moves_are_those_of_the_step(shift, flip, seed, order):
    pixels = noise(9, 5, 7)[..., None]
    images = ImageSet(pixels, np.zeros(9, np.int64), ("a",), None)  # type: ignore[arg-type]
    data, other = (ImageData(images, 4, seed, shift, flip) for _ in range(2))
    expected = [data.batch(step) for step in range(6)]
    assert all(torch.equal(other.batch(step)["images"], expected[step]["images"]) for step in order)
    padded = np.pad(pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    for step in range(6):
        for image, row in zip(expected[step]["images"], data.rows(step), strict=True):
            places = [(y, x) for y in range(2 * shift + 1) for x in range(2 * shift + 1)]
            moved = [padded[row, y : y + 5, x : x + 7] for y, x in places]
            moved += [m[:, ::-1] for m in moved] if flip else []
            assert any(torch.equal(image, normalise(m[None])[0]) for m in moved)


def test_all_moves_occur_about_equally_often():
    pixels = np.tile(np.arange(7, dtype=np.uint8) * 10, (1, 5, 1))[..., None]
    data = ImageData(ImageSet(pixels, np.zeros(1, np.int64), ("a",), None), 3000, 1, 1, True)  # type: ignore[arg-type]
    _, counts = np.unique(data.batch(0)["images"].numpy(), axis=0, return_counts=True)
    assert len(counts) == 6 and counts.min() > 400  # three places, two ways round
    assert not torch.equal(data.batch(0)["images"], data.batch(1)["images"])


def test_epochs_have_orders_of_their_own():
    data = made(40, batch_size=40)
    orders = {tuple(data.rows(epoch).tolist()) for epoch in range(5)}
    assert len(orders) == 5 and all(sorted(order) == list(range(40)) for order in orders)


def test_normalised():
    pixels = np.array([[[[0, 255, 51]]]], np.uint8)
    found = normalise(pixels)
    assert found.shape == (1, 3, 1, 1) and found.dtype == torch.float32
    assert torch.allclose(found.flatten(), torch.tensor([-1.0, 1.0, -0.6]))
    with pytest.raises(UserError, match="data.shift is 5"):
        made(3, shift=5)


@pytest.mark.data
def test_mnist(corpora):
    folder = corpora / "images" / "mnist"
    files = {
        part: tuple(str(folder / f"{name}-{kind}-ubyte.gz") for kind in ("labels-idx1", "images-idx3"))
        for part, name in (("train", "train"), ("test", "t10k"))
    }
    sets = prepare_images(DataConfig(kind="images", **files), 28, 1, 0)  # type: ignore[arg-type]
    assert [len(found.labels) for found in sets.values()] == [56_982, 3018, 10_000]
    assert sets["test"].names == tuple("0123456789")
    assert np.bincount(sets["test"].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    small = prepare_images(DataConfig(kind="images", test=files["test"]), 16, 3, 0, sets["test"].names)["test"]
    assert small.pixels.shape == (10_000, 16, 16, 3) and np.array_equal(small.labels, sets["test"].labels)
