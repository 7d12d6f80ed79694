"""The fast engine gives what the library gives, for every text; and where it cannot be shown to, the library does the work."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pellucid.errors import DataError
from pellucid.text import bulk, engine, training
from pellucid.text.bulk import Bulk, flat
from pellucid.text.tokenizer import Tokenizer, train
from tests.text.multilingual import soiled_lines

gigatoken = pytest.importorskip("gigatoken", reason="gigatoken, the fast engine, is not installed")

LINES = ["the lowest of the newest, 'tis 1234 ½ Ⅷ  春眠不覺曉\n", "über\t  naïve é 한국어 don't they'll\r\n"] * 9
TOKENIZER = train(LINES, "byte-bpe", 420)
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6)
familiar = st.lists(st.lists(st.sampled_from([*"aehlst'1. \n\t½é春\u3000\x85", "'s", "<pad>", "  "])).map("".join))


def fast(tokenizer: Tokenizer) -> engine.Encoder:
    return engine.Encoder(tokenizer._state, lambda some: flat(tokenizer.encode_batch(some)))


FAST = fast(TOKENIZER)


def equal(one: bulk.Flat, other: bulk.Flat) -> bool:
    return all(map(np.array_equal, one, other))


# ---- encoding


@given(st.one_of(texts, familiar))
@example([])
@example(["", "<pad><bos> \ufffd\x00\ufeff👩‍👩‍👧 e\u0301", ""])
@example(["\u16ebb a\U00016ebba 1\U00011de01 .\U000323b0.", "plain"])
def test_ids_of_every_text(some: list[str]) -> None:
    assert equal(FAST(some), flat(TOKENIZER.encode_batch(some)))


@pytest.mark.data
@pytest.mark.parametrize("name", ["own", "gpt2"])
def test_ids_of_real_and_soiled_text(name: str, corpora: Path) -> None:
    lines = soiled_lines(corpora)
    tokenizer = (
        train(lines, "byte-bpe", 3000) if name == "own" else Tokenizer.load(corpora / "tokenizers/gpt2/vocab.json")
    )
    assert engine.fits(tokenizer._state)
    assert equal(fast(tokenizer)(lines), flat(tokenizer.encode_batch(lines)))


def test_only_the_proved_kind_fits() -> None:
    assert engine.fits(TOKENIZER._state)
    assert not any(
        engine.fits(train(LINES, kind, 300)._state) for kind in ("bpe", "wordpiece", "unigram", "char", "word")
    )
    assert not engine.fits(train(LINES, "byte-bpe", 420, lowercase=True)._state)
    other = json.loads(json.dumps(TOKENIZER._state))
    other["added_tokens"][0]["special"] = False
    assert not engine.fits(other) and not engine.fits(TOKENIZER._state | {"pre_tokenizer": None})


def test_a_character_that_is_cut_differently_goes_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine to which "é" is no letter."""
    real, asked = engine._open, []

    def other(file: str) -> Callable[[list[str]], Any]:
        encode = real(file)
        return lambda some: encode([text.replace("é", "%") for text in some])

    monkeypatch.setattr(engine, "_open", other)
    encode = engine.Encoder(TOKENIZER._state, lambda some: (asked.extend(some), flat(TOKENIZER.encode_batch(some)))[1])
    some = ["fine", "née", "too é", "again", ""]
    assert equal(encode(some), flat(TOKENIZER.encode_batch(some))) and asked == ["née", "too é"]


def test_half_of_a_surrogate_pair_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAYS", 0)
    tokenizer = Tokenizer(TOKENIZER.library)
    for some in (["fine"], ["fine", "a\ud800"]):
        if len(some) == 2:
            with pytest.raises(DataError, match="text 2, character 2.*surrogate"):
                tokenizer.encode_flat(some)
        else:
            tokenizer.encode_flat(some)


# ---- who encodes


def test_the_engine_takes_over_when_there_is_much_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def slow(some: Any) -> list[list[int]]:
        asked.append(len(some))
        return TOKENIZER.encode_batch(some)

    monkeypatch.setattr(bulk, "PAYS", 100)
    encode = Bulk(TOKENIZER._state, slow)
    for _ in range(5):
        assert equal(encode(LINES[:2]), flat(TOKENIZER.encode_batch(LINES[:2])))
    assert asked == [2, 2] and not encode.notes  # 80 characters each time; the second time to compare


@pytest.mark.parametrize("wrong", ["ids", "missing", "broken"])
def test_where_the_engine_is_not_to_be_trusted_the_library_goes_on(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(file: str) -> Callable[[list[str]], Any]:
        if wrong != "ids":
            raise engine.Unfit("gigatoken: gone") from (ImportError() if wrong == "missing" else RuntimeError())
        encode = real(file)
        return lambda some: encode([text.replace("newest", "oldest") for text in some])

    real = engine._open
    monkeypatch.setattr(engine, "_open", opened)
    monkeypatch.setattr(bulk, "PAYS", 0)
    tokenizer = Tokenizer(TOKENIZER.library)
    for _ in range(3):
        assert equal(tokenizer.encode_flat(LINES), flat(TOKENIZER.encode_batch(LINES)))
    said = {"ids": "gives other ids", "broken": "gigatoken: gone"}
    assert said[wrong] in tokenizer.notes[0] if wrong in said else not tokenizer.notes


def test_an_engine_that_fails_on_the_way_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As of Rust."""

    class Failing:
        left = 3

        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

        @classmethod
        def from_json(cls, file: str) -> "Failing":
            return cls(real.from_json(file))

        def encode_batch(self, some: list[str]) -> Any:
            Failing.left -= 1
            if Failing.left < 0:
                raise Panic("index out of bounds")
            return self.tokenizer.encode_batch(some)

    real = gigatoken.Tokenizer
    monkeypatch.setattr(gigatoken, "Tokenizer", Failing)
    monkeypatch.setattr(bulk, "PAYS", 0)
    tokenizer = Tokenizer(TOKENIZER.library)
    for _ in range(5):
        assert equal(tokenizer.encode_flat(LINES), flat(TOKENIZER.encode_batch(LINES)))
    assert "index out of bounds" in tokenizer.notes[0] and Failing.left == -1


def test_the_engine_begins_anew_so_that_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], engine._open
    monkeypatch.setattr(engine, "_open", lambda file: (opened.append(file), real(file))[1])
    monkeypatch.setattr(engine, "FRESH", 1000)
    encode = fast(TOKENIZER)
    for _ in range(10):
        assert equal(encode(LINES), flat(TOKENIZER.encode_batch(LINES)))
    assert opened.count(encode._file) == 1 + 10 * sum(map(len, LINES)) // 1400


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text() -> None:
    """Words that never come again, which is the worst that can come."""
    program = """
import resource, sys
import numpy as np
from pellucid.text import bulk, engine
from pellucid.text.tokenizer import train
bulk.PAYS, engine.FRESH = 0, 1_000_000
tokenizer, draw, peaks = train(["a b c"] * 9, "byte-bpe", 270), np.random.default_rng(0), []
for _ in range(12):
    letters = draw.integers(97, 123, 1_000_000).astype(np.uint8)
    letters[::7] = 32
    tokenizer.encode_flat([letters.tobytes().decode()])
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[3], peaks[-1])
"""
    if sys.platform != "linux":
        pytest.skip("peak memory is read in KiB")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    early, late = map(float, done.stdout.split())
    assert late < early + 15  # eight million characters more, which would be 50 MB


# ---- learning


def by_library(some: list[str], n_merges: int) -> list[list[str]]:
    names = list(training.SPECIALS)
    library = training.learn_merges(
        some, "byte-bpe", training.outline("byte-bpe", False, names), 260 + n_merges, 2, names, []
    )
    return json.loads(library.to_str())["model"]["merges"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(st.sampled_from("aab ’é.\n"), min_size=1, max_size=40), min_size=1, max_size=30),
    st.integers(1, 40),
)
@example(["aaa aaaa aaaaa aa"] * 3, 4)
@example(["ab cd ab cd ef ef"], 3)
@example(["low \U00016ebb! low\U00016ebb!"] * 9, 2)  # a letter since Unicode 17
def test_merges_are_the_librarys_or_none(tmp_path: Path, some: list[str], n_merges: int) -> None:
    (tmp_path / "texts").write_bytes(b"".join(text.encode() + engine.BETWEEN for text in some))
    (tmp_path / "characters").write_bytes("".join(set("".join(some))).encode())
    try:
        engine.learn(str(tmp_path), str(n_merges))
    except engine.Unfit:
        assume(False)
    assert json.loads((tmp_path / "merges").read_bytes()) == by_library(some, n_merges)


def test_where_the_text_ends_so_does_the_engine() -> None:
    some = ["low lower lowest\n", "a newest widest\n", "alone"] * 2
    merges = engine.learn_merges(some, 100)
    assert [list(pair) for pair in merges] == by_library(some, 100) and 10 < len(merges) < 40
    assert engine.learn_merges(some, 4) == merges[:4]


@pytest.mark.slow
def test_the_same_file_whoever_learnt_it(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Real text of many words: this Python's library. And nothing of what the engine prints comes through."""
    files = sorted(Path(json.__file__).parents[1].glob("*.py"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines(keepends=True)]
    learnt, real = Counter[str](), engine.learn_merges
    monkeypatch.setattr(engine, "learn_merges", lambda *given: (learnt.update(["engine"]), real(*given))[1])
    monkeypatch.setattr(training, "ENGINE_PAYS", (0, 0))
    quick = train(lines, "byte-bpe", 3000, specials=["<mask>"])
    monkeypatch.setattr(training, "ENGINE_PAYS", (float("inf"), 1))
    slow = train(lines, "byte-bpe", 3000, specials=["<mask>"])
    assert learnt["engine"] == 1
    assert quick.library.to_str(pretty=True) == slow.library.to_str(pretty=True) and quick.hash() == slow.hash()
    assert capfd.readouterr() == ("", "")


def test_a_module_of_the_users_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w').close()\nraise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    some = ["low lower lowest\n", "a newest widest\n"] * 3
    assert [list(pair) for pair in engine.learn_merges(some, 9)] == by_library(some, 9)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", ["missing", "late", "refused"])
def test_where_the_engine_does_not_learn_the_library_does(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, notes = LINES, list[str]()
    monkeypatch.setattr(training, "ENGINE_PAYS", (0, 0))
    if wrong == "missing":
        monkeypatch.setattr(engine, "find_spec", lambda name: None)
    elif wrong == "late":
        monkeypatch.setattr(engine, "PATIENCE", 0.001)
    else:
        lines = [*LINES, "\U00016ebb"]  # a letter since Unicode 17
    quick = train(lines, "byte-bpe", 420, notes=notes)
    monkeypatch.setattr(training, "ENGINE_PAYS", (float("inf"), 1))
    assert quick.hash() == train(lines, "byte-bpe", 420).hash()
    said = {"late": "gigatoken: not done in 0.001 seconds", "refused": "gigatoken: it takes a character of this text"}
    assert len(notes) == (wrong in said)
    assert not notes or notes[0].startswith("the slower tokenizers library learnt from this text: " + said[wrong])
