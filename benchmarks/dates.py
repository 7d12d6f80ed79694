"""Question: how well and how fast does a model trained on dates read dates it has not seen, next to the library `dateparser`?

Command (RUN is a run of the recipe `dates`; the rest needs `pip install dateparser`):

    python benchmarks/dates.py runs/dates [--examples 2000] [--json FILE]

Prints for both the share of exactly right dates, the worst locale, and dates a second, all at once and (Pellucid) one at a time.
The dates are the run's own test part: days that are not in training, written by its generator.

dateparser is asked as well as we know how: the language of the source (`de|…`) is given, the region too where it knows it, the order
of numerals is the locale's, parsers are made once per locale and warmed up; where the source names no locale it finds out itself.
An exception, nothing, or another day is wrong. It reads two-digit years by Python's rule (69 is 1969, 68 is 2068), the data means
1950 to 2049: how many of its errors are the century alone is printed. The model was trained on this generator's forms, dateparser
on none: the comparison says how far a narrow model comes, not that dateparser is poor at what it is made for.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

import pellucid
from pellucid.data.dates import dates
from pellucid.data.files import Example

UNNAMED = ""


@cache
def parser_for(code: str) -> Any:
    """dateparser's parser for a code as the data writes it (de, de_DE, zh-TW), or None if it does not know the language."""
    from dateparser.data.languages_info import language_locale_dict, language_order
    from dateparser.date import DateDataParser

    if code == UNNAMED:
        return DateDataParser()
    name = {"zh-TW": "zh-Hant"}.get(code.replace("_", "-"), code.replace("_", "-"))
    language = name.partition("-")[0]
    if name in language_order:
        return DateDataParser(languages=[name])
    if name in language_locale_dict.get(language, ()):
        return DateDataParser(locales=[name])
    return DateDataParser(languages=[language]) if language in language_order else None


def read_by_dateparser(source: str) -> str:
    """The day as 2016-05-21, or why there is none."""
    code, mark, text = source.partition("|")
    parser = parser_for(code if mark else UNNAMED)
    if parser is None:
        return "unknown language"
    try:
        found = parser.get_date_data(text if mark else source).date_obj
    except Exception as error:  # whatever it cannot do is wrong
        return f"{type(error).__name__}: {error}"
    return found.date().isoformat() if found else "nothing"


def summary(examples: list[Example], said: list[str], seconds: float) -> dict[str, Any]:
    """Exact match, worst locale and speed."""
    right: dict[str, list[bool]] = defaultdict(list)
    for example, text in zip(examples, said, strict=True):
        right[example.group].append(text == example.target)
    shares = {group: sum(oks) / len(oks) for group, oks in right.items()}
    worst = min(shares, key=lambda group: shares[group])
    exact = sum(map(sum, right.values())) / len(examples)
    speed = len(examples) / seconds
    return {"exact_match": exact, "worst": [worst, shares[worst]], "dates_per_second": speed, "groups": shares}


def line(name: str, result: dict[str, Any]) -> str:
    worst, share = result["worst"]
    exact, speed = result["exact_match"], result["dates_per_second"]
    return f"{name:12}{exact:8.2%} exact · worst locale {worst} {share:.1%} · {speed:,.0f} dates a second"


def ask_pellucid(run: Path, examples: list[Example]) -> dict[str, Any]:
    """Greedy answers of the run's model, after a warm-up."""
    pipeline = pellucid.load(run)
    pipeline.generate([example.source for example in examples[:64]])
    begin = time.perf_counter()
    said = [answer.text for answer in pipeline.generate([example.source for example in examples])]
    result = summary(examples, said, time.perf_counter() - begin)
    few = examples[: min(100, len(examples))]
    begin = time.perf_counter()
    for example in few:
        pipeline.generate(example.source)
    return result | {"one_at_a_time": len(few) / (time.perf_counter() - begin)}


def ask_dateparser(examples: list[Example]) -> dict[str, Any]:
    """dateparser's answers to the same sources, after a warm-up of every locale it is asked for."""
    codes = [example.source.partition("|")[0] if "|" in example.source else UNNAMED for example in examples]
    first = {code: example for code, example in zip(codes, examples, strict=True)}
    for example in first.values():
        read_by_dateparser(example.source)
    begin = time.perf_counter()
    said = [read_by_dateparser(example.source) for example in examples]
    result = summary(examples, said, time.perf_counter() - begin)
    pairs = list(zip(examples, said, strict=True))
    wrong = [(example, text) for example, text in pairs if text != example.target]
    unnamed = [text == e.target for (e, text), code in zip(pairs, codes, strict=True) if code == UNNAMED]
    return result | {
        "century_alone": sum(text[2:] == example.target[2:] for example, text in wrong),
        "nothing": sum(not text[:4].isdigit() for _, text in wrong),
        "wrong": len(wrong),
        "without_locale": sum(unnamed) / max(1, len(unnamed)),
        "unknown": sorted(code for code in set(codes) if parser_for(code) is None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder of the recipe dates")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers, with the share of each locale")
    args = parser.parse_args()
    recipe = pellucid.load(args.run).recipe
    if recipe is None or recipe.data.kind != "dates":
        sys.exit(f"{args.run} is not a run that learned dates")
    if args.examples > recipe.data.held_out:
        print(f"the run's own test part has {recipe.data.held_out:,} dates; more come from the same held-out days")
    examples = list(dates("test", args.examples, recipe.seed))
    ours = ask_pellucid(args.run, examples)
    print(line("Pellucid", ours))
    print(f"{'':12}{ours['one_at_a_time']:,.0f} dates a second one at a time · {torch.get_num_threads()} threads")
    try:
        import dateparser
    except ImportError:
        sys.exit("dateparser is not installed: pip install dateparser")
    theirs = ask_dateparser(examples)
    print(line("dateparser", theirs))
    print(
        f"{'':12}version {dateparser.__version__}, one at a time, one thread · {theirs['wrong']:,} wrong, of these ",
        end="",
    )
    print(f"{theirs['nothing']:,} no date, {theirs['century_alone']:,} the century alone")
    print(f"{'':12}{theirs['without_locale']:.2%} exact where the source names no locale")
    print(f"{'':12}locales it does not know: {', '.join(theirs['unknown']) or 'none'}")
    poor = [f"{group} {share:.0%}" for group, share in sorted(theirs["groups"].items(), key=lambda x: x[1])[:8]]
    print(f"{'':12}its lowest: {', '.join(poor)}")
    if args.json:
        found = {"examples": len(examples), "pellucid": ours, "dateparser": theirs}
        args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
