"""Workers answer, fail and end as they should; medians, ratios and useful FLOPs are what they say."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import measure
from benchmarks.measure import Failed, Worker
from benchmarks.works import WORKS, useful

ECHO = "tests.benchmarks.echo"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_answers_whatever_it_prints_and_is_gone_afterwards() -> None:
    with Worker(ECHO, settings={"name": "one"}) as worker:
        assert worker.ready == {"settings": "one"}
        answer = worker.ask({"do": "it", "what": [1, 2]})
        assert answer["echo"] == [1, 2]
        assert alive(answer["pid"])
    assert not alive(answer["pid"])
    with pytest.raises(Failed):
        worker.ask({"do": "it"})


def test_a_worker_that_raises_lives_and_one_that_dies_has_last_words() -> None:
    with Worker(ECHO, settings={"name": "one"}) as worker:
        with pytest.raises(Failed, match="ValueError: as it was told"):
            worker.ask({"do": "fail"})
        assert worker.ask({"do": "it", "what": 3})["echo"] == 3
        with pytest.raises(Failed, match="last words"):
            worker.ask({"do": "die"})


def test_a_worker_that_takes_too_long_is_killed() -> None:
    with Worker(ECHO, settings={"name": "one"}, limit=20) as worker:
        worker.limit, begin = 0.3, time.monotonic()
        with pytest.raises(Failed, match="within"):
            worker.ask({"do": "sleep"})
        assert time.monotonic() - begin < 30


@pytest.mark.parametrize("python, reason", [("", "PELLUCID_PEERS"), ("/nowhere/python", "No such file")])
def test_what_cannot_start_is_skipped_with_a_reason(python: str, reason: str) -> None:
    with Worker(ECHO, python, {"name": "one"}) as worker:
        assert reason in worker.skipped
    with Worker("tests.benchmarks.nothing") as worker:
        assert "No module named" in worker.skipped


def test_all_take_turns_and_who_fails_is_skipped() -> None:
    with Worker(ECHO, settings={"name": "a"}) as a, Worker(ECHO, settings={"name": "b"}) as b:
        answers = measure.interleave({"a": a, "b": b}, {"do": "it", "what": 1}, 3)
        assert {name: len(found) for name, found in answers.items()} == {"a": 3, "b": 3}
        b.kill()
        answers = measure.interleave({"a": a, "b": b}, {"do": "it", "what": 1}, 2)
        assert len(answers["a"]) == 2
        assert answers["b"] == [] and b.skipped


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=30))
def test_a_median_stands_between_its_quartiles(values: list[float]) -> None:
    found = measure.summary(values, "tokens/s")
    low, high = found["spread"]
    assert min(values) - 1e-9 <= low <= found["value"] <= high <= max(values) + 1e-9
    assert sum(value < found["value"] * (1 - 1e-12) for value in values) <= len(values) / 2


def test_above_one_is_ahead_whichever_way_is_better() -> None:
    ours, theirs = (
        {"value": 4.0},
        {"peer": {"slow": {"value": 2.0}, "fast": {"value": 8.0}, "absent": {"skipped": "no"}}},
    )
    assert measure.ratios(ours, theirs) == {"peer, slow": 2.0, "peer, fast": 0.5, "best": 0.5}
    assert measure.ratios(ours, theirs, higher_is_better=False) == {"peer, slow": 0.5, "peer, fast": 2.0, "best": 0.5}
    assert measure.ratios({"skipped": "no"}, theirs) == {}


def test_rows_find_their_place() -> None:
    rows = {
        f"{toolkit}, {way}": {"value": 2.0} for toolkit in ("Pellucid", "peer") for way in ("no flag", "int8, fast")
    }
    work = measure.placed(rows | {"Pellucid, no flag": {"value": 3.0}}, "no flag")
    assert work["ours"] == {"value": 3.0}
    assert list(work["also"]) == ["int8, fast"]
    assert work["ratios"] == {"peer, no flag": 1.5, "peer, int8, fast": 1.5, "best": 1.5}
    assert measure.placed({"peer, int8": {"value": 2.0}}, "int8")["ours"]["skipped"]


def test_one_model_for_all_and_a_worker_for_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_PEERS", "")
    ways = {"Pellucid, int8": {"precision": "int8"}, "peer, fast": {}}
    with measure.same_model(ECHO, {"name": "one"}) as told, measure.opened(ECHO, told, ways) as workers:
        assert workers["Pellucid, int8"].ready == {"settings": "one"}
        assert "PELLUCID_PEERS" in workers["peer, fast"].skipped
        assert Path(told["folder"]).parent.exists()
    assert not Path(told["folder"]).parent.exists()


def test_further_numbers_of_the_rows_that_have_them() -> None:
    works = {"a": {"ours": {"value": 4.0, "first": 1234.5}, "also": {"int8": {"value": 4.0}}, "peers": {}}}
    assert measure.further({"works": works}, {"first": "ms"}).splitlines()[3:] == ["| a | Pellucid | 1,234 |"]


def test_a_table_names_all_that_was_measured_and_why_not() -> None:
    work = {
        "label": "Pellucid, AdamW",
        "ours": {"value": 4.0, "spread": [3.0, 5.0], "unit": "tokens/s"},
        "peers": {"peer": {"fast": {"skipped": "absent"}}},
    }
    result = {"command": "python -m benchmarks x", "machine": {}, "limit": {"bfloat16": 900.0}, "works": {"a": work}}
    table = measure.markdown(result)
    assert "| Pellucid, AdamW | 4 | 3-5 |" in table
    assert "absent" in table


def test_useful_flops_of_a_gpt_are_those_of_its_weights_counted_by_hand() -> None:
    work = WORKS["a"]
    weights = work.layers * (4 * 384 * 384 + 2 * 384 * 1536) + 65 * 384
    assert useful(work) == 6 * weights + 6 * work.layers * 384 * 256


@given(st.integers(1, 60), st.integers(1, 60))
def test_useful_flops_of_pairs_are_those_of_a_whole_pair_counted_by_hand(source: int, target: int) -> None:
    d, d_ff, vocabulary, layers = 256, 1024, 8000, 3
    encoder = layers * source * (4 * d * d + 2 * d * d_ff)
    decoder = layers * target * (4 * d * d + 2 * d * d_ff) + target * vocabulary * d
    between = layers * (2 * target * d * d + 2 * source * d * d)
    looks = layers * (source * source + target * target / 2 + target * source)
    pair = 6 * (encoder + decoder + between) + 12 * d * looks
    assert useful(WORKS["d"], source, target) == pytest.approx(pair / (source + target), rel=1e-12)
