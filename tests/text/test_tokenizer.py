"""Tokenizers: the promised round trip, special tokens, streaming, repeatable training in bounded memory, files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pellucid.errors import DataError, UserError
from pellucid.text.tokenizer import SPECIALS, Kind, Tokenizer, train
from pellucid.text.training import sample_lines
from tests.text.streams import check_stream

KINDS = get_args(Kind)
LINES = [
    "Ein Hund läuft über die Wiese. <pad> and <unk>, twice: <pad>x <unk>, \n",
    "the lowest of the newest is not the widest (they say): don't!\n",
    "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。\n",
    "\ttabs,  runs   of spaces and 123 numbers </w> x</w>y ## ##a ▁\r\n",
] * 4
TRAINED = {kind: train(LINES, kind, vocab_size=420) for kind in KINDS}
each_kind = pytest.mark.parametrize("kind", KINDS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
familiar = st.lists(
    st.sampled_from([*"aehlst春眠。\n\t ,.'", "  ", *SPECIALS, "</w>", "##", "the", " newest"]), max_size=20
).map("".join)


# ---- law 9: decode(encode(text)) == text, where it is promised


@given(st.one_of(texts, familiar))
@example("<pad><bos><eos><unk> <|endoftext|> \ufffd \x00 \ufeff 👩‍👩‍👧 e\u0301")
@example("\u2028\x85\xa0\r\n\r \u3000")
def test_bytes_keep_every_text(text: str) -> None:
    tokenizer = TRAINED["byte-bpe"]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and min(ids, default=9) >= len(SPECIALS)


@given(familiar, texts)
def test_characters_keep_known_characters(known: str, any_text: str) -> None:
    tokenizer = TRAINED["char"]
    letters = set("".join(LINES))
    for text in ("".join(c for c in known if c in letters), "".join(c for c in any_text if c in letters)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.unk_id not in ids and len(ids) == len(text)
    ids = tokenizer.encode(any_text)
    assert [i == tokenizer.unk_id for i in ids] == [c not in letters for c in any_text]


@given(familiar)
def test_end_of_word_keeps_known_words_but_for_white_space(text: str) -> None:
    plain = text.replace("<", "").replace("#", "")
    ids = TRAINED["bpe"].encode(plain)
    if TRAINED["bpe"].unk_id not in ids:
        assert TRAINED["bpe"].decode(ids) == " ".join(plain.split())


def test_who_promises_what() -> None:
    assert [kind for kind in KINDS if TRAINED[kind].promises_round_trip] == ["byte-bpe", "char"]
    assert not train(LINES, "char", lowercase=True).promises_round_trip
    assert [tokenizer.kind for tokenizer in TRAINED.values()] == list(KINDS)


@pytest.mark.data
def test_real_text_comes_back(corpora: Path) -> None:
    text = (corpora / "text/tinyshakespeare.txt").read_text(encoding="utf-8")
    for kind in ("char", "byte-bpe"):
        tokenizer = train([text[:200_000]], kind, vocab_size=600)
        ids = tokenizer.encode(text[200_000:230_000])
        assert tokenizer.decode(ids) == text[200_000:230_000]
    assert len(ids) < 16_000


# ---- special tokens


@each_kind
def test_special_tokens_are_the_first_ids(kind: Kind) -> None:
    tokenizer = TRAINED[kind]
    assert [tokenizer.special(name) for name in SPECIALS] == [0, 1, 2, 3]
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    assert tokenizer.library.get_vocab_size() == tokenizer.vocab_size <= 420


@each_kind
@given(familiar)
@example("<pad>")
@example("a <pad>x <unk>, <pad> <bos> </w>")
def test_a_special_tokens_name_in_text_is_text(kind: Kind, text: str) -> None:
    ids = TRAINED[kind].encode(text)
    assert not {0, 1, 2} & set(ids)
    assert TRAINED[kind].encode_batch([text, text]) == [ids, ids]


def test_names_stand_for_special_tokens_where_asked() -> None:
    tokenizer = train(LINES, "byte-bpe", 300, specials=("<mask>",))
    assert tokenizer.special("<mask>") == 4
    assert tokenizer.encode("a<mask>", specials=True)[1:] == [4] and 4 not in tokenizer.encode("a<mask>")
    assert tokenizer.decode([4, 0, 70, 2]) == tokenizer.decode([70]) == tokenizer.decode_batch([[1, 70]])[0]
    assert tokenizer.decode([2], skip_special=False) == "<eos>" == tokenizer.tokens([2])[0]
    with pytest.raises(UserError, match="did you mean '<mask>'"):
        tokenizer.special("<msk>")
    with pytest.raises(UserError, match="cannot be a special token"):
        train(LINES, specials=("mask",))


def test_pieces_are_readable() -> None:
    tokenizer = TRAINED["byte-bpe"]
    assert tokenizer.tokens(tokenizer.encode(" 龍\n")) == [" ", "<0xE9>", "<0xBE>", "<0x8D>", "\n"]
    assert "".join(tokenizer.tokens(tokenizer.encode("über 春眠"))) == "über 春眠"


# ---- streaming


@each_kind
@given(st.data())
def test_streamed_pieces_are_what_decoding_gives(kind: Kind, data: st.DataObject) -> None:
    tokenizer = TRAINED[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    check_stream(tokenizer, ids)
    check_stream(tokenizer, tokenizer.encode(data.draw(st.one_of(texts, familiar))))


def test_half_a_character_is_held_back() -> None:
    tokenizer = TRAINED["byte-bpe"]
    stream = tokenizer.stream()
    assert [stream.push(i) for i in tokenizer.encode("龍x")] == ["", "", "龍", "x"]
    assert stream.push(tokenizer.encode("龍")[0]) == "" and stream.finish() == "\ufffd"


# ---- training


@each_kind
def test_training_is_repeatable(kind: Kind, tmp_path: Path) -> None:
    """Other processes (other hash seeds), one thread or several, give the same file."""
    program = (
        "import sys; from pathlib import Path; from pellucid.text.tokenizer import train\n"
        "lines = Path(sys.argv[1]).read_text(encoding='utf-8').splitlines(keepends=True)\n"
        "print(train(lines, sys.argv[2], 420).hash())"
    )
    (tmp_path / "lines.txt").write_bytes("".join(LINES).encode())
    expected = train((tmp_path / "lines.txt").read_text(encoding="utf-8").splitlines(keepends=True), kind, 420).hash()
    for threads in ("1", "3"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", program, str(tmp_path / "lines.txt"), kind]
        assert (
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
            == expected
        )


def test_characters_are_counted_over_all_text() -> None:
    tokenizer = train(iter(["b\na", "a\tc c"]), "char")
    assert tokenizer.tokens(range(4, tokenizer.vocab_size)) == ["\t", "\n", " ", "a", "b", "c"]
    assert train(["ddccbbba"], "char", vocab_size=6).tokens([4, 5]) == ["b", "c"]  # c and d tie
    assert train(["aab"], "char", min_count=2).vocab_size == 5
    assert train(["Aa"], "char", lowercase=True).vocab_size == 5


def test_words_come_by_frequency() -> None:
    tokenizer = train(["b a b c", "c d"], "word", vocab_size=7)
    assert tokenizer.tokens([4, 5, 6]) == ["b", "c", "a"]
    assert tokenizer.encode("b nothing") == [4, 3]


def test_too_long_a_text_is_sampled_evenly() -> None:
    lines = [f"{i} " * 10 for i in range(20_000)]
    kept = sample_lines(iter(lines), 400_000)
    weight = sum(len(line) for line in kept)
    places = [int(line.split()[0]) for line in kept]
    assert 200 < len(kept) < 4_000 and weight < 400_000
    assert 8_000 < sum(places) / len(places) < 12_000 and 0.4 < sum(p % 2 for p in places) / len(places) < 0.6
    assert kept == sample_lines(iter(lines), 400_000) and sample_lines(lines, 10**9) == lines
    assert len(sample_lines(["x" * 250_000], 1)) == 1  # a long line comes in parts, and one is always kept


# ---- what is said when something is wrong


@each_kind
def test_errors_in_training(kind: Kind) -> None:
    nothings: list[list[str]] = [[], [""], ["", ""]]
    for nothing in nothings:
        with pytest.raises(DataError, match="no text"):
            train(nothing, kind)
    with pytest.raises(UserError, match="vocab_size 4 is too small"):
        train(LINES, kind, vocab_size=4)
    with pytest.raises(DataError, match="text 2, character 2.*surrogate"):
        train(["fine", "a\ud800"], kind)
    if kind in ("byte-bpe", "bpe", "wordpiece", "unigram"):
        with pytest.raises(UserError, match="vocab_size 20 is too small.*single"):
            train(LINES, kind, vocab_size=20)


def test_errors_in_use() -> None:
    with pytest.raises(UserError, match="did you mean 'unigram'"):
        train(LINES, "unigrams")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one string"):
        train("a text")
    with pytest.raises(UserError, match="line 1 is bytes"):
        train([b"bytes"])  # type: ignore[list-item]
    tokenizer = TRAINED["byte-bpe"]
    with pytest.raises(DataError, match="half of a surrogate pair"):
        tokenizer.encode("a\udfff")
    with pytest.raises(DataError, match="text 2"):
        tokenizer.encode_batch(["fine", "\ud800"])
    for wrong in (-1, tokenizer.vocab_size, 2**40):
        with pytest.raises(DataError, match=f"token id {wrong} is outside"):
            tokenizer.decode([5, wrong])


def test_errors_in_loading(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no tokenizer in this folder"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(DataError, match="SentencePiece"):
        Tokenizer.load(tmp_path)
    for name in ("tokenizer.json", "vocab.txt", "tok9.bin"):
        (tmp_path / name).write_text('{"a": 1}', encoding="utf-8")
        with pytest.raises(DataError, match=name):
            Tokenizer.load(tmp_path / name)
    (tmp_path / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    with pytest.raises(DataError, match=r"merges\.txt: missing"):
        Tokenizer.load(tmp_path / "vocab.json")


# ---- files


@each_kind
def test_saved_is_loaded(kind: Kind, tmp_path: Path) -> None:
    tokenizer = TRAINED[kind]
    file = tokenizer.save(tmp_path / "model")
    assert file == tmp_path / "model/tokenizer.json" and os.listdir(file.parent) == ["tokenizer.json"]
    for path in (file, file.parent):
        again = Tokenizer.load(path)
        assert again.hash() == tokenizer.hash() and again.kind == kind
        assert again.promises_round_trip == tokenizer.promises_round_trip
        text = "<pad> the lowest 春 "
        assert again.encode(text) == tokenizer.encode(text) and again.specials == tokenizer.specials


@pytest.mark.reference
@each_kind
def test_transformers_reads_it(kind: Kind, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(TRAINED[kind].save(tmp_path)))
    text = "the lowest of the newest, 春眠不覺曉 über"
    assert theirs(text, add_special_tokens=False)["input_ids"] == TRAINED[kind].encode(text)


def test_an_added_token_takes_the_promise_back(tmp_path: Path) -> None:
    state = json.loads(TRAINED["byte-bpe"].library.to_str())
    state["added_tokens"].append(state["added_tokens"][0] | {"id": 420, "content": "é", "special": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    assert not Tokenizer.load(tmp_path).promises_round_trip
