"""How 50 languages write a day, from Unicode CLDR through Babel, compiled once to templates (Babel's own
formatting is 50 times slower).

Only CLDR's `format` names are used, never `stand-alone` ones: Babel 2.18 fills the latter from whichever
locale was loaded before. Babel formats the Gregorian calendar for every locale, also where another is the
custom (fa, th, ar). Imports no torch.
"""

import datetime
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

LOCALES = tuple(
    "en en_GB de fr es it pt nl sv da nb fi is pl cs sk hu ro bg el ru uk hr sr sl lt lv et "
    "tr id vi th ja ko zh zh_Hant ar fa he hi bn mr ta ne my ur sw ka ca af".split()
)
FIRST_YEAR, LAST_YEAR = 1950, 2049
_LENGTHS = ("short", "medium", "long", "full")
_SKELETONS = ("yMd", "yMEd", "yMMMd", "yMMMEd", "yMMMMd", "yMMMMEEEEd")
_EXTRA = {"en": ("d 'of' MMMM y",), "en_GB": ("d 'of' MMMM y", "MMMM d, y")}
_ZERO = {  # the digit nought of a numbering system
    "arab": 0x660, "arabext": 0x6F0, "beng": 0x9E6, "deva": 0x966, "mymr": 0x1040, "thai": 0xE50, "tamldec": 0xBE6,
}  # fmt: skip
_PIECE = re.compile(r"'((?:[^']|'')*)'|(([a-zA-Z])\3*)|([^a-zA-Z']+)")


@dataclass(frozen=True)
class Format:
    """One way of writing a day: `template % fields`, each field a table and the part of the day (_DAY) that
    indexes it."""

    pattern: str
    template: str
    fields: tuple[tuple[tuple[str, ...], int], ...]
    ordinal: tuple[tuple[tuple[str, ...], int], ...] | None  # the same with "3rd" for "3"
    month: tuple[str, ...] | None  # the month's names if it is spelled
    has_weekday: bool
    alone: tuple[bool, ...]  # by month: may stand without a locale

    def render(self, day: tuple[int, int, int, int]) -> str:
        """day = (year - 1950, month - 1, day - 1, weekday), see `days`."""
        return self.template % tuple([table[day[part]] for table, part in self.fields])


@dataclass(frozen=True)
class LocaleData:
    """A locale's formats and what its noise needs."""

    name: str
    aliases: tuple[str, ...]  # the same with its likeliest territory: de_DE, de-DE
    formats: tuple[Format, ...]
    weekdays: tuple[tuple[str, ...], ...]
    weekday_first: bool
    digits: dict[int, int] | None  # to native digits, for str.translate
    native_share: float


_YEAR, _MONTH, _DAY, _WEEKDAY = range(4)


@cache
def days() -> tuple[list[tuple[int, int, int, int]], list[str]]:
    """Every day of 1950-2049: (year - 1950, month - 1, day - 1, weekday) and ISO 8601."""
    first = datetime.date(FIRST_YEAR, 1, 1).toordinal()
    last = datetime.date(LAST_YEAR, 12, 31).toordinal()
    dates = [datetime.date.fromordinal(o) for o in range(first, last + 1)]
    return [(d.year - FIRST_YEAR, d.month - 1, d.day - 1, d.weekday()) for d in dates], [d.isoformat() for d in dates]


def _english(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def ordinals(language: str) -> tuple[str, ...] | None:
    """How a language writes the ordinal of days 1 to 31 where it differs from the number; None = not known
    here."""
    only_first = {"fr": "1er", "es": "1º", "it": "1º", "pt": "1º", "ca": "1r"}
    suffix = {"nl": "e", "sv": ":e", "el": "η", "ru": "-го", "uk": "-го", "af": "de"}
    if language == "en":
        return tuple(_english(d) for d in range(1, 32))
    if language in only_first:
        return (only_first[language], *(str(d) for d in range(2, 32)))
    if language == "sv":
        return tuple(f"{d}:{'a' if d % 10 in (1, 2) and d not in (11, 12) else 'e'}" for d in range(1, 32))
    if language == "af":
        return tuple(f"{d}{'ste' if d in (1, 8) or d >= 20 else 'de'}" for d in range(1, 32))
    return tuple(f"{d}{suffix[language]}" for d in range(1, 32)) if language in suffix else None


def _parts(pattern: str) -> list[tuple[str, str]]:
    """A CLDR pattern -> (field, "") and ("", literal) pairs. (UTS 35, part 4, "Date Format Patterns".)"""
    parts = []
    for quoted, field, _, literal in _PIECE.findall(pattern):
        parts.append((field, "") if field else ("", literal or quoted.replace("''", "'") or "'"))
    return parts


def _table(field: str, locale: Any) -> tuple[tuple[str, ...], int]:
    width = {3: "abbreviated", 4: "wide", 5: "narrow"}.get(len(field), "abbreviated")
    match field[0]:
        case "y" if len(field) == 2:
            return tuple(f"{y % 100:02d}" for y in range(FIRST_YEAR, LAST_YEAR + 1)), _YEAR
        case "y":
            return tuple(str(y) for y in range(FIRST_YEAR, LAST_YEAR + 1)), _YEAR
        case "M" | "L" if len(field) > 2:
            return tuple(locale.months["format"][width][m] for m in range(1, 13)), _MONTH
        case "M" | "L":
            return tuple(f"{m:0{len(field)}d}" for m in range(1, 13)), _MONTH
        case "d":
            return tuple(f"{d:0{len(field)}d}" for d in range(1, 32)), _DAY
        case "E" | "c":
            return tuple(locale.days["format"][width][d] for d in range(7)), _WEEKDAY
        case "G":
            return tuple([locale.eras[width][1]] * 100), _YEAR
    raise ValueError(f"a field this module does not know: {field}")


def _format(pattern: str, locale: Any) -> Format:
    parts = _parts(pattern)
    template = "".join("%s" if field else literal.replace("%", "%%") for field, literal in parts)
    fields = [(field, *_table(field, locale)) for field, _ in parts if field]
    month = next((table for f, table, p in fields if p == _MONTH and len(f) > 2 and not table[0].isdigit()), None)
    words = ordinals(locale.language)
    ordinal = None
    if month and words and any(f == "d" for f, _, _ in fields):
        ordinal = tuple((words if f == "d" else table, part) for f, table, part in fields)
    return Format(
        pattern,
        template,
        tuple((table, part) for _, table, part in fields),
        ordinal,
        month,
        any(p == _WEEKDAY for _, _, p in fields),
        (False,) * 12,
    )


def _order(pattern: str) -> str:
    """The order of the numerals, with `yy` told apart: 'dMy', 'dMY'."""
    return "".join("Y" if f == "yy" else f[0] for f, _ in _parts(pattern) if f and f[0] in "ydM")


def _patterns(name: str, locale: Any) -> list[str]:
    """Short to full and the skeletons, once each. (That no two of a locale contradict each other, d/M and
    M/d, is tested.)"""
    found = [locale.date_formats[length].pattern for length in _LENGTHS]
    found += [locale.datetime_skeletons[s].pattern for s in _SKELETONS if s in locale.datetime_skeletons]
    return list(dict.fromkeys([*found, *_EXTRA.get(name, ())]))


def _stripped(name: str) -> str:
    return name.casefold().replace(".", "")


@cache
def locales() -> tuple[LocaleData, ...]:
    """All of LOCALES, compiled (about 0.2 s the first time)."""
    from babel import Locale

    raw = [(name, Locale.parse(name)) for name in LOCALES]
    formats = {name: [_format(p, locale) for p in _patterns(name, locale)] for name, locale in raw}
    meanings: dict[str, set[int]] = {}
    for of_locale in formats.values():
        for form in of_locale:
            for number, word in enumerate(form.month or ()):
                meanings.setdefault(_stripped(word), set()).add(number)
    return tuple(_locale(name, locale, formats[name], meanings) for name, locale in raw)


def _alone(form: Format, meanings: dict[str, set[int]]) -> tuple[bool, ...]:
    """By month: does the text name one day without a locale? Four-digit year; the month spelled by a word
    that means the same month in every locale here (listopad is October in Croatian, November in Polish), or
    year, month, day in this order."""
    order = _order(form.pattern)
    if "Y" in order:
        return (False,) * 12
    if form.month:
        return tuple(len(meanings[_stripped(word)]) == 1 for word in form.month)
    return (order == "yMd",) * 12


def _locale(name: str, locale: Any, formats: list[Format], meanings: dict[str, set[int]]) -> LocaleData:
    from babel.core import get_global

    likely = get_global("likely_subtags").get(name, "")
    territory = likely.rpartition("_")[2]
    aliases: tuple[str, ...] = (name.replace("_", "-"),)
    if territory:
        aliases = tuple(f"{name.partition('_')[0]}{mark}{territory}" for mark in "_-")
    system = locale.other_numbering_systems.get("native", "latn")
    zero = _ZERO.get(system)
    full = _parts(locale.date_formats["full"].pattern)
    return LocaleData(
        name,
        aliases,
        tuple(replace(form, alone=_alone(form, meanings)) for form in formats),
        tuple(tuple(locale.days["format"][w][d] for d in range(7)) for w in ("wide", "abbreviated")),
        next(f[0] for f, _ in full if f) in "Ec",
        None if zero is None else {ord("0") + i: zero + i for i in range(10)},
        0.7 if locale.default_numbering_system == system else 0.3,
    )
