"""Made examples: a source means one date only, held-out days never occur in training, noise changes no
meaning."""

import datetime
import itertools
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.dates import _noise, days_of
from pellucid.data.locales import LOCALES, _parts, days, locales, ordinals
from pellucid.data.synthetic import GENERATORS, SPLITS, copy, dates, reverse


def plain(text: str) -> str:
    """What noise leaves of a date: no case, marks, doubled spaces, commas or dots between words; digits as 0-9."""
    text = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in text).casefold()
    text = re.sub(r"[\u200e\u200f]", "", re.sub(r"[\u202f\xa0]", " ", text))
    return re.sub(r"\s+", " ", re.sub(r"[.,،]+(?=\s|$)", "", text)).strip()


def some_days() -> list[int]:
    """Days whose numerals may be confused: years and days of 1 to 6, and some others."""
    tuples, _ = days()
    wanted = {y - 1950 for y in [*range(2001, 2007), 1999]}
    return [i for i, (y, _, d, _) in enumerate(tuples) if y in wanted and (d < 6 or d == 30)]


def test_a_source_names_one_day_only():
    tuples, _ = days()
    alone: dict[str, int] = {}
    for locale in locales():
        named: dict[str, int] = {}
        for place in some_days():
            for form in locale.formats:
                text = plain(form.render(tuples[place]))
                assert named.setdefault(text, place) == place, (locale.name, text)
                if form.alone[tuples[place][1]]:
                    assert alone.setdefault(text, place) == place, (locale.name, text)


def test_our_templates_are_what_babel_writes():
    from babel.dates import format_date

    tuples, iso = days()
    for locale in locales():
        for form, place in itertools.product(locale.formats, (0, 1520, 20000, 36524)):
            # stand-alone names depend in Babel on which locales were loaded before
            pattern = "".join(
                f"{f.replace('c', 'E').replace('L', 'M')}" if f else f"'{s}'" for f, s in _parts(form.pattern)
            )
            expected = format_date(datetime.date.fromisoformat(iso[place]), pattern.replace("''", ""), locale.name)
            assert form.render(tuples[place]) == expected


def test_at_least_forty_locales_with_every_kind_of_format():
    assert len(set(LOCALES)) == len(locales()) >= 40
    assert sum(locale.digits is not None for locale in locales()) >= 8
    assert all(any(form.month or "年" in form.pattern for form in locale.formats) for locale in locales())
    seen = {e.group for e in dates("train", 5000, 0)}
    assert seen == set(LOCALES)


@given(
    st.sampled_from(["dates", "copy", "reverse"]), st.sampled_from(SPLITS), st.integers(0, 2**40), st.integers(0, 200)
)
def test_examples_depend_on_split_and_seed_only(kind, split, seed, n):
    make = GENERATORS[kind]
    some = list(make(split, n, seed))
    assert len(some) == n and some == list(make(split, 300, seed))[:n]
    assert n < 20 or some != list(make(split, n, seed + 1))


def test_held_out_days_and_strings_are_disjoint():
    places = [set(days_of(split).tolist()) for split in SPLITS]
    assert sum(map(len, places)) == len(set.union(*places)) == 36525
    assert all(0.04 < len(p) / 36525 < 0.06 for p in places[1:])
    for make in (dates, copy):
        found = [{e.target for seed in (0, 1) for e in make(split, 3000, seed)} for split in SPLITS]
        assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
    assert all(e.target == e.source[::-1] for e in reverse("test", 50, 3))


def test_targets_are_right_and_locales_are_given_nine_times_in_ten():
    examples = list(dates("train", 20_000, 5))
    assert all(datetime.date.fromisoformat(e.target).year in range(1950, 2050) for e in examples)
    given_one = [e for e in examples if "|" in e.source]
    assert 0.89 < len(given_one) / len(examples) < 0.91
    for e in given_one:
        code = e.source.split("|")[0]
        assert code == e.group or code[:2] == e.group[:2]
    for e in examples:  # every four-digit run is the year, a two-digit year its last digits
        numbers = re.findall(r"\d+", plain(e.source.partition("|")[2] or e.source))
        assert len(numbers) <= (4 if e.group == "vi" else 3)  # Th 2 is Monday
        assert max(map(len, numbers)) <= 4
        year = [n for n in numbers if len(n) == 4] or [n for n in numbers if n == e.target[2:4]]
        assert year and e.target[:4].endswith(year[0])


@given(st.sampled_from(LOCALES), st.integers(0, 36524), st.lists(st.floats(0, 0.999), min_size=14, max_size=14))
def test_noise_keeps_the_meaning(name, place, u):
    locale = next(x for x in locales() if x.name == name)
    for form in locale.formats:
        text = form.render(days()[0][place])
        assert plain(_noise(text, u)) == plain(text)


def test_ordinals():
    english = ordinals("en")
    assert english and [english[d - 1] for d in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)] == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 31st".split()
    )
    assert ordinals("fr")[:2] == ("1er", "2") and ordinals("de") is None
    sources = " ".join(e.source for e in dates("train", 5000, 1))
    assert "1er" in sources and "3rd" in sources.lower()


@pytest.mark.parametrize("module", ["config", "files", "synthetic", "prepare", "pairs", "text", "tagged", "images"])
def test_imports_no_torch(module):
    heavy = "{'torch', 'babel', 'PIL', 'pyarrow'} & set(sys.modules)"
    code = f"import sys, pellucid.data.{module}; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
