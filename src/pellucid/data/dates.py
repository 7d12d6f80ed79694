"""Dates as people write them, with noise, and the ISO 8601 date they mean: `de|3. Oktober 1990` ->
`1990-10-03`.

What a source means is one day only. Nine in ten name their locale, which settles 3/4/05. The tenth is written
in a form that needs none: a four-digit year and either the month in letters (by a word that is not another
month elsewhere) or year, month, day in this order. Two-digit years are read in 1950-2049. Noise drops a dot
or comma only where no numerals would run together, and a weekday is always the right one. Which days are held
out depends on the day alone, never on the seed. Imports no torch.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal, TypeVar

import numpy as np

from pellucid.data.batches import mix64, uniform
from pellucid.data.files import Example
from pellucid.data.locales import Format, LocaleData, days, locales

T = TypeVar("T")
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_CHUNK = 4096
_TAG = 0xDA7E5
_DRAWS = 14  # random numbers per example; _day, _locale … name them
_day, _locale, _form, _named, _alias, _native, _ordinal, _extra, _comma, _dot, _space, _where, _case, _marks = range(
    _DRAWS
)
_COMMA = re.compile(r"[,،](?=\s|$)")
_DOT = re.compile(r"\.(?=\s|$)")
_MARKS = {0x200E: None, 0x200F: None, 0x202F: " ", 0xA0: " "}  # invisible marks nobody types, narrow and hard spaces


@cache
def days_of(split: Split) -> np.ndarray:
    """The days of a split as places in `locales.days()`, int64: 1 in 20 is valid, 1 in 20 test, by a hash of
    the day."""
    share = mix64(np.arange(len(days()[0]), dtype=np.uint64)) % np.uint64(20)
    return np.flatnonzero({"valid": share == 0, "test": share == 1, "train": share > 1}[split])


@cache
def _choices(named: bool) -> list[list[tuple[LocaleData, list[Format]]]]:
    """By month: the locales, each with the formats that may be used with the locale named or not."""
    months = []
    for month in range(12):
        usable = [(locale, [f for f in locale.formats if named or f.alone[month]]) for locale in locales()]
        months.append([(locale, formats) for locale, formats in usable if formats])
    return months


def dates(split: Split, n: int, seed: int) -> Iterator[Example]:
    """n examples of a split; group = locale. The first k of n are the k of a smaller n. Held-out days never
    occur in "train"."""
    places = days_of(split)
    tuples, iso = days()
    for first in range(0, n, _CHUNK):
        drawn = uniform(_CHUNK * _DRAWS, _TAG, seed, SPLITS.index(split), first).reshape(_CHUNK, _DRAWS)
        chosen = places[(drawn[:, _day] * len(places)).astype(np.int64)].tolist()
        for place, u in zip(chosen[: n - first], drawn.tolist(), strict=False):
            source, group = _write(tuples[place], u)
            yield Example(source, iso[place], group)


def _pick(items: Sequence[T], u: float) -> T:
    return items[int(u * len(items))]


def _write(day: tuple[int, int, int, int], u: list[float]) -> tuple[str, str]:
    """A day and its random numbers -> the source and its locale."""
    named = u[_named] < 0.9
    locale, formats = _pick(_choices(named)[day[1]], u[_locale])
    form = _pick(formats, u[_form])
    fields = form.ordinal if form.ordinal and u[_ordinal] < 0.2 else form.fields
    text = form.template % tuple([table[day[part]] for table, part in fields])
    if u[_extra] < 0.08 and not form.has_weekday:
        text = _with_weekday(text, locale, day[3], u[_extra] / 0.08)
    text = _noise(text, u)
    if locale.digits and u[_native] < locale.native_share:
        text = text.translate(locale.digits)
    if not named:
        return text, locale.name
    code = _pick(locale.aliases, u[_alias] * 10) if u[_alias] < 0.1 else locale.name
    return f"{code}|{text}", locale.name


def _with_weekday(text: str, locale: LocaleData, weekday: int, u: float) -> str:
    """The day's weekday, long or short, where the language has it in its full form; u in [0, 1) says which."""
    width, mark = divmod(int(u * 4), 2)
    name, comma = locale.weekdays[width][weekday], (", ", " ")[mark]
    return f"{name}{comma}{text}" if locale.weekday_first else f"{text}{comma}{name}"


def _noise(text: str, u: list[float]) -> str:
    """What careless writers do to a date, none of which changes its meaning."""
    if u[_marks] < 0.7 and not text.isascii():
        text = text.translate(_MARKS)
    if u[_comma] < 0.15:
        text = _COMMA.sub("", text)
    if u[_dot] < 0.15:
        text = _DOT.sub("", text)
    if u[_space] < 0.1 and (gaps := text.count(" ")):
        at = -1
        for _ in range(int(u[_where] * gaps) + 1):
            at = text.index(" ", at + 1)
        text = f"{text[:at]} {text[at:]}"
    if u[_case] < 0.15:
        text = text.lower() if u[_case] < 0.1 else _upper(text)
    return text


def _upper(text: str) -> str:
    """Capitals as people write them: Georgian has none in use, and ß, ŉ … that would become two letters stay."""
    return "".join(c if "ა" <= c <= "ჿ" or len(c.upper()) != 1 else c.upper() for c in text)
