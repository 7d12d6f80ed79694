"""Files to text: what is read is what is written, and what is wrong is said with file and line."""

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.files import Example, expand, fingerprint, read_chunks, read_lines, read_pairs
from pellucid.errors import DataError

ANY_TEXT = st.text(st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"]), min_size=1)


def write(path, data: bytes | str):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


@given(ANY_TEXT, st.integers(1, 20), st.booleans(), st.booleans())
def test_chunks_join_to_the_text(tmp_path_factory, text, size, packed, windows):
    folder = tmp_path_factory.mktemp("f")
    data = ("\ufeff" + text.replace("\n", "\r\n") if windows else text).encode()
    name = write(folder / "a.txt", gzip.compress(data) if packed else data)
    chunks = list(read_chunks([name], size))
    assert "".join(c.text for c in chunks) == text
    assert [c.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
    lines = text.split("\n")
    assert list(read_lines([name])) == (lines[:-1] if lines[-1] == "" else lines)


def test_chunks_end_with_lines_and_one_long_line_is_not_read_whole(tmp_path):
    lines = write(tmp_path / "lines.txt", "some words on a line\n" * 5000)
    chunks = list(read_chunks([lines], 1000))
    assert len(chunks) > 50 and all(c.text.endswith("\n") for c in chunks)
    long = write(tmp_path / "long.txt", "word " * 4_000_000)
    tracemalloc.start()
    sizes = [len(c.text) for c in read_chunks([long])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 20_000_000 and max(sizes) < 1 << 20 and peak < 8_000_000


def test_globs_are_sorted_and_each_file_is_a_document(tmp_path):
    for name in "bac":
        write(tmp_path / f"{name}.txt", name)
    assert [tuple(c) for c in read_chunks([str(tmp_path / "*.txt")])] == [("a", True), ("b", True), ("c", True)]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a.txt is empty"),
        (b"\xef\xbb\xbf", "a.txt is empty"),
        (b"good\nbad \xff line\n", "a.txt line 2: byte 0xff is not UTF-8"),
        (b"good\n\ngo\xc3", "a.txt line 3: byte 0xc3 is not UTF-8"),
        (b"one\ntwo\n\0", "a.txt line 3: a NUL"),
        ("text".encode("utf-16"), "a.txt is UTF-16"),
        (b"PAR1....", "a.txt is a Parquet file"),
        (gzip.compress(b"text" * 1000)[:-9], "a.txt is a damaged gzip file"),
        (gzip.compress(b""), "a.txt is empty"),
    ],
)
def test_what_is_no_text_is_told(tmp_path, data, said):
    name = write(tmp_path / "a.txt", data)
    for size in (1, 3, 1 << 18):
        with pytest.raises(DataError) as caught:
            list(read_chunks([name], size))
        assert said in str(caught.value) and caught.value.remedy


def test_missing_files(tmp_path):
    write(tmp_path / "train.txt", "x")
    for name in (
        "photos/cat/1.JPG",
        "photos/cat/2.jpg",
        "text/1.txt",
        "tables/1.csv",
        "tables/2.csv",
        "tables/README",
        "empty/.x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, "x")
    for pattern, said in [
        (tmp_path / "trian.txt", "did you mean 'train.txt'"),
        (tmp_path / "no" / "train.txt", "does not exist"),
        (tmp_path / "*.tsv", "no file matches"),
        (tmp_path / "text", r"is a folder\n  name its files: '.*text/\*\.txt'"),
        (tmp_path / "empty", "is a folder\n  it holds no files"),
        (
            tmp_path / "photos",
            "is a folder\n  images have a recipe of their own: pellucid train images --data .*photos",
        ),
        (tmp_path / "tables", r"is a folder\n  name its files: '.*tables/\*\.csv'"),
    ]:
        with pytest.raises(DataError, match=said):
            expand([str(pattern)])
    with pytest.raises(DataError, match="no data files"):
        expand([])


def test_fingerprint_is_of_the_bytes(tmp_path):
    a, b = write(tmp_path / "a", "x"), write(tmp_path / "b", "x")
    first = fingerprint([a])
    assert first == fingerprint([b]) and first != fingerprint([a, b])
    write(tmp_path / "a", "y")
    assert first != fingerprint([a])


def test_the_fingerprint_of_a_folder_is_of_names_and_bytes(tmp_path):
    file, other = tmp_path / "i" / "a" / "x", tmp_path / "i" / "b" / "x"
    for path in (file, other):
        path.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    first = fingerprint([str(tmp_path / "i")])
    assert first == fingerprint([str(tmp_path / "i")])
    file.rename(other)
    second = fingerprint([str(tmp_path / "i")])
    other.write_bytes(b"2")
    assert len({first, second, fingerprint([str(tmp_path / "i")])}) == 3


def test_pairs_from_two_files(tmp_path):
    left, right = (
        write(tmp_path / "a.de", "eins\r\nzwei\u2028drei\nvier\n"),
        write(tmp_path / "a.en", "one\n\n four \n"),
    )
    notes: list[str] = []
    assert list(read_pairs([left, right], notes)) == [Example("eins", "one"), Example("vier", "four")]
    assert len(notes) == 1 and notes[0].startswith("1 pairs") and "a.de line 2" in notes[0]
    write(tmp_path / "a.en", "one\ntwo\n")
    with pytest.raises(DataError, match=r"a\.de has 3 lines, .*a\.en has 2"):
        list(read_pairs([left, right]))


def test_pairs_from_tsv(tmp_path):
    name = write(tmp_path / "a.tsv.gz", gzip.compress(b"a\tb\tlicence\n\nc\td\tby\n"))
    found = [Example("a", "b"), Example("c", "d")]
    assert list(read_pairs([name], None, ("1", "2"))) == found
    assert list(read_pairs([name, name], None, ("1", "2"))) == found * 2
    assert list(read_pairs([name])) == found, "by custom the first two columns of TSV are the pair"
    other = write(tmp_path / "a.csv", "a,b,licence\nc,d,by\n")
    with pytest.raises(
        DataError, match=r"first row has 3: 1 'a', 2 'b', 3 'licence'(?s:.*)--data\.columns SOURCE TARGET"
    ):
        list(read_pairs([other]))
    bad = write(tmp_path / "bad.tsv", "a\tb\nno tab here\n")
    with pytest.raises(DataError, match=r"bad\.tsv line 2: one column.*'no tab here'"):
        list(read_pairs([bad]))
    empty = write(tmp_path / "empty.tsv", "a\t\n\tb\n")
    with pytest.raises(DataError, match="all 2 pairs have an empty side"):
        list(read_pairs([empty]))
    three = [write(tmp_path / f"x.{i}", "a") for i in range(3)]
    with pytest.raises(DataError, match="3 files are no sentence pairs"):
        list(read_pairs(three))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": ["eins\n", None, "zwei"], "en": ["one", "x", "two"], "n": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    name = str(tmp_path / "a.parquet")
    assert [tuple(c) for c in read_chunks([f"{name}:text"])] == [("eins\n", True), ("zwei", True)]
    assert list(read_pairs([f"{name}:text", f"{name}:en"])) == [Example("eins", "one"), Example("zwei", "two")]
    for column, said in [("txt", "did you mean 'text'"), ("n", "holds int64")]:
        with pytest.raises(DataError, match=said):
            list(read_chunks([f"{name}:{column}"]))
    with pytest.raises(DataError, match="FILE.parquet:COLUMN"):
        list(read_chunks([name]))
