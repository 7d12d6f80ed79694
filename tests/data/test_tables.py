"""Tables to two columns of text: what was written is read, whatever it holds; columns are found; what is wrong is said with its line."""

import csv
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.columns import LABEL, SOURCE, TARGET, TEXT
from pellucid.data.files import Example, read_pairs
from pellucid.data.tables import both_given, read_table
from pellucid.errors import DataError

ODD = st.text(st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"]), max_size=20)
FLAT = st.text(st.characters(exclude_characters="\0\r\ufeff\n\t", exclude_categories=["Cs"]), max_size=20)
ROLES = TEXT, LABEL


def write(path, data: bytes | str):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def read(name, columns=(), roles=ROLES):
    return [(left, right) for left, right, _ in read_table([name], roles, columns)]


@given(rows=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=8), packed=st.booleans(), all_quoted=st.booleans())
def test_csv_holds_anything(tmp_path_factory, rows, packed, all_quoted):
    file = tmp_path_factory.mktemp("csv") / ("a.csv.gz" if packed else "a.csv")
    with (
        gzip.open(file, "wt", encoding="utf-8", newline="")
        if packed
        else open(file, "w", encoding="utf-8", newline="") as out
    ):
        writer = csv.writer(out, quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL)
        writer.writerows([("label", "id", "text"), *((b, 7, a) for a, b in rows)])
    assert read(str(file)) == rows
    assert read(str(file), ("text", "label")) == rows and read(str(file), ("id", "text")) == [("7", a) for a, _ in rows]


@given(rows=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=8), ascii_only=st.booleans())
def test_jsonl_holds_anything(tmp_path_factory, rows, ascii_only):
    file = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    lines = (json.dumps({"n": 1, "class": b, "content": a}, ensure_ascii=ascii_only) + "\n\n" for a, b in rows)
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
    assert read(str(file)) == rows


@given(rows=st.lists(st.tuples(FLAT, FLAT).filter(lambda r: "".join(r).strip()), min_size=1, max_size=8))
def test_tsv_is_split_at_tabs_only(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("tsv") / "a.tsv"
    file.write_text("Sentence \tLABEL\n" + "".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8", newline="\n")
    assert read(str(file)) == rows


@pytest.mark.parametrize(
    ("name", "data", "columns", "found"),
    [
        ("a.tsv", 'a "b\tx\nc\ty\n', (), [('a "b', "x"), ("c", "y")]),  # no header, lone quotes
        ("a.txt", "a\tx\tmore\nb\ty\t\n", ("1", "2"), [("a", "x"), ("b", "y")]),
        ("a.txt", "a\tx\t\nb\ty\n", (), [("a", "x"), ("b", "y")]),  # a delimiter at the end
        ("a.csv", "review_text,mood\na,0\nb,1\n", (), [("a", "0"), ("b", "1")]),  # a word above numbers
        ("a.csv", "id,review_text,mood\n1,a,0\n2,b,1\n", ("2", "3"), [("a", "0"), ("b", "1")]),
        ("a.csv", "a,n/a\nb,0\nc,1\n", (), [("a", "n/a"), ("b", "0"), ("c", "1")]),
        ("a.csv", "hallo, du;pos\nach;neg\n", (), [("hallo, du", "pos"), ("ach", "neg")]),
        ("a.csv", "hallo, du;pos\nach, ja;neg\n", (), [("hallo, du", "pos"), ("ach, ja", "neg")]),
        ("a.csv", 'a,"x;y"\n"b, c",z\n', (), [("a", "x;y"), ("b, c", "z")]),
        ("a.csv", "a, b\tx\nc\ty\n", (), [("a, b", "x"), ("c", "y")]),
        ("a.csv", "1,a,x\n2,b,y\n", ("2", "3"), [("a", "x"), ("b", "y")]),
        ("a.csv", "no,review,stars\n1,a,x\n", ("2", "3"), [("a", "x")]),  # numbers, and yet a header
        ("a.csv", "review;stars\na, b;5\n", (), [("a, b", "5")]),
        ("a.csv", "title,text,label\nt,a,x\n", (), [("a", "x")]),  # the more telling name
        ("a.csv", '\ufeff"text","label"\r\n"a\r\nb","x"\r\n\r\n', (), [("a\nb", "x")]),
        ("a.csv", "text,label,\na,x,\nb,y,,\n", (), [("a", "x"), ("b", "y")]),
        ("a.jsonl", '{"q": "a", "k": "b", "n": 3}\n', ("q", "k"), [("a", "b")]),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": 2.5, "label": true}\n', (), [("a", "1"), ("2.5", "true")]),
        ("a.jsonl", '{"text": "a", "label": null}\n{"text": "b"}\n', (), [("a", ""), ("b", "")]),
        ("a.json", '{"x": "a", "y": 0}\n', ("x", "y"), [("a", "0")]),
    ],
)
def test_columns_are_found(tmp_path, name, data, columns, found):
    assert read(write(tmp_path / name, data), columns) == found


@pytest.mark.parametrize(
    ("name", "data", "columns", "said"),
    [
        ("a.csv", "text,label\na,x\nb\n", (), r"a\.csv line 3: one column where two are needed: 'b'"),
        ("a.csv", "text,label\na,b,x\n", (), r"line 2: 3 columns, the header has 2(?s:.*)needs quotes"),
        ("a.csv", 'text,label\n"a\nb"c,x\n', (), r"line 2 is not CSV"),
        ("a.csv", 'text,label\n"a\n,x\n', (), r"line 2 is not CSV: unexpected end(?s:.*)quote not closed"),
        ("a.csv", "text\na\n", (), r"line 1: one column where two are needed: 'text'\n  complete the row"),
        ("a.csv", "a,x\nb\n", (), r"line 2: one column(?s:.*)complete the row: a text and a label"),
        ("a.csv", "a,x\nwell, b,y\n", (), r"line 2: 3 columns, the first row has 2(?s:.*)needs quotes"),
        ("a.tsv", "a\tx\nb\ty\tmore\n", (), "line 2: 3 columns, the first row has 2(?s:.*)tab in a text"),
        ("a.tsv", "a\tx\tmore\nb\ty\n", ("1", "2"), "line 2: 2 columns, the first row has 3(?s:.*)complete"),
        (
            "a.csv",
            "id,review_text,sentiment\n1,a,x\n",
            (),
            r"which column is the text(?s:.*) 1 'id', 2 'review_text', 3 'sentiment'\n.*--data\.columns TEXT LABEL, by",
        ),
        ("a.csv", "text,label\n", (), r"a\.csv has a header and no rows"),
        ("a.jsonl", '{"label": "x", "t": "a"}\n', (), r"which column is the text(?s:.*)There are: label, t\n"),
        ("a.csv", "text,label\na,x\n", ("text", "lable"), "no column 'lable'(?s:.*)did you mean 'label'"),
        ("a.csv", "a,x\nb,y\n", ("1", "3"), "no columns 1 and 3: there are 2"),
        ("a.csv", "a,x\nb,y\n", ("0", "1"), "no columns 0 and 1"),
        ("a.csv", "text,label\na,x\n", ("text",), "data.columns has 1 names"),
        ("a.csv", "\n\n", (), "has no rows"),
        ("a.tsv", "text\tlabel\na\tb\tx\n", (), "line 2: 3 columns, the header has 2(?s:.*)tab in a text"),
        ("a.tsv", "a\tx\nb y\n", (), r"a\.tsv line 2: one column.*'b y'\n  write text, a tab character, label"),
        ("a.jsonl", '{"a": "b"}\n', (), "which column is the text, which the label. There are: a\n.*--data.columns"),
        ("a.jsonl", '{"a": "b", "c": "d", "e": "f"}\n', (), "There are: a, c, e"),
        ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text":\n', (), r"a\.jsonl line 3 is not JSON(?s:.*)the line: "),
        ("a.jsonl", '{"text": "a", "label": [1]}\n', (), "line 1: list where a text or a number is needed"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "\\ud800", "label": "x"}\n', (), "line 2: half of a surro"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n', ("txt", "label"), "no column 'txt'(?s:.*)did you mean 'text'"),
        ("a.json", '[{"text": "a"}]', (), "line 1: list where an object(?s:.*)jq"),
        ("a.json", '{\n"text": "a"}', (), "line 1 is not JSON(?s:.*)one object a line"),
        ("a.json", "[" * 100_000, (), "line 1 is not JSON"),
        ("a.parquet", "PAR1 no", (), "cannot read .*a.parquet as Parquet"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, data, columns, said):
    with pytest.raises(DataError, match=said):
        read(write(tmp_path / name, data), columns)


def test_notes_and_rows_with_something_missing(tmp_path):
    name = write(tmp_path / "a.csv", "id,text,label\n1,a, x\n2, ,y\n3,c,\n")
    notes: list[str] = []
    rows = list(both_given(read_table([name, name], ROLES, (), notes), "rows", "no text", notes))
    assert rows == [("a", "x")] * 2 and len(notes) == 2
    assert "a.csv: the first line is a header; 'text' is the text, 'label' the label" in notes[0]
    told: list[str] = []
    both = [name, write(tmp_path / "n.csv", "a,x\nb,y\n"), write(tmp_path / "m.csv", "c,z\n")]
    assert len(list(read_table(both, ROLES, (), told))) == 6 and len(told) == 2, "each way of reading once"
    assert told[1].endswith(
        "n.csv: no header was found (the first row is 'a', 'x'); column 1 is the text, column 2 the label"
    )
    assert notes[1].startswith("4 rows with no text were skipped, the first at") and notes[1].endswith("a.csv line 3")
    with pytest.raises(DataError, match=r"all 1 rows have no text, the first: .*b\.csv line 2"):
        list(both_given(read_table([write(tmp_path / "b.csv", "text,label\n,x\n")], ROLES), "rows", "no text", None))


def test_a_text_of_a_million_characters_is_read_and_more_than_can_be_is_said(tmp_path, monkeypatch):
    rows = [("word " * 200_000, "x"), ("b" * 131_073, "y")]
    file = write(tmp_path / "a.csv", "text,label\n" + "".join(f'"{a}",{b}\n' for a, b in rows))
    assert read(file) == rows
    monkeypatch.setattr("pellucid.data.tables.LONGEST_LINE", 150_000)
    with pytest.raises(DataError, match="line 2 is not CSV: field larger(?s:.*)quote not closed"):
        read(file)


def test_pairs_from_tables(tmp_path):
    jsonl = write(tmp_path / "a.jsonl", '{"id": 1, "prompt": "p", "answer": "a"}\n')
    table = write(tmp_path / "b.csv", "prompt,completion\nq,b\n")
    assert list(read_pairs([jsonl, table])) == [Example("p", "a"), Example("q", "b")]
    notes: list[str] = []
    tsv = write(tmp_path / "a.tsv", "source\ttarget\ns\tt\n")
    assert list(read_pairs([tsv], notes)) == [Example("s", "t")] and "header" in notes[0]
    assert list(read_pairs([tsv], None, ("target", "source"))) == [Example("t", "s")]
    sides = [write(tmp_path / side, side) for side in ("de", "en")]
    assert list(read_pairs(sides)) == [Example("de", "en")]
    with pytest.raises(DataError, match="no columns a and b"):
        list(read_pairs(sides, None, ("a", "b")))


def test_parquet_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kinds = pyarrow.array(["x", "y", None]).dictionary_encode()
    table = pyarrow.table({"n": [1, 2, None], "text": ["a", "b\nc", "d"], "kind": kinds, "f": [1.5, float("nan"), 0]})
    parquet.write_table(table, tmp_path / "a.parquet")
    name = str(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="which column is the label|There are: n, text, kind, f"):
        read(name)
    assert read(name, ("text", "kind")) == [("a", "x"), ("b\nc", "y"), ("d", "")]
    assert read(name, ("text", "n")) == [("a", "1"), ("b\nc", "2"), ("d", "")]
    assert read(name, ("text", "f")) == [("a", "1.5"), ("b\nc", ""), ("d", "0.0")]
    assert [tuple(e[:2]) for e in read_pairs([name], None, ("text", "kind"))] == [("a", "x"), ("b\nc", "y")]
    assert [where for _, _, where in read_table([name], ROLES, ("text", "n"))][-1] == f"{name} row 3"
    for wrong, said in [((f"{name}:text"), "one column where two"), (name, "no column 'lbl'")]:
        with pytest.raises(DataError, match=said):
            list(read_table([wrong], (SOURCE, TARGET), ("text", "lbl")))
