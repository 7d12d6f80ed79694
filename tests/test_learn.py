"""The pages that teach are true: every block of Python on docs/learn.md runs and prints what the page shows, each chapter in a
namespace of its own, from top to bottom; docs/learn.zh.md and README.zh.md are the same pages in Chinese: same code, same commands, same
links. `python -m pytest tests/test_learn.py -s -k chapter-04` runs one chapter and shows what it prints.
"""

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
LEARN, LEARN_ZH = ROOT / "docs" / "learn.md", ROOT / "docs" / "learn.zh.md"
README, README_ZH = ROOT / "README.md", ROOT / "README.zh.md"
PAGES = (LEARN, LEARN_ZH, README_ZH)


@dataclass(frozen=True)
class Chapter:
    """A heading and what stands below it, up to the next one. `line`: where its Python begins."""

    name: str
    code: str
    printed: tuple[str, ...]


def chapters(page: Path) -> list[Chapter]:
    """Those that hold Python, in order. The code keeps the page's line numbers, so that a traceback points into the page."""
    text = page.read_text(encoding="utf-8")
    headings = [*re.finditer(r"^##+ (.*)$", text, re.MULTILINE)]
    found = []
    for heading, end in zip(headings, [*(h.start() for h in headings[1:]), len(text)], strict=True):
        code = ""
        for block in re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL).finditer(text, heading.end(), end):
            code += "\n" * (text.count("\n", 0, block.start(1)) - code.count("\n")) + block[1]
        printed = re.findall(r"^```text\n(.*?)^```", text[heading.end() : end], re.MULTILINE | re.DOTALL)
        if code:
            found.append(Chapter(heading[1], code, tuple(printed)))
    return found


def label(chapter: Chapter) -> str:
    """chapter-04-attention-one-head-every-shape, mistake-05-a-row-of-nothing-but"""
    name = chapter.name.lower() if chapter.name.startswith("Mistake") else f"chapter {chapter.name.lower()}"
    kind, number, *words = re.findall(r"[a-z0-9]+", name)
    return "-".join([kind, number.zfill(2), *words])


@pytest.mark.slow
@pytest.mark.parametrize("chapter", chapters(LEARN), ids=label)
def test_a_chapter_runs_and_prints_what_the_page_shows(chapter: Chapter) -> None:
    torch.manual_seed(0)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(chapter.code, str(LEARN), "exec"), {"__name__": "learn"})
    print(f"\n{chapter.name}\n{out.getvalue()}")
    for block in chapter.printed:
        assert block in out.getvalue(), f"the page shows\n{block}"


def test_every_chapter_proves_something() -> None:
    found = chapters(LEARN)
    assert [int(c.name.split()[0]) for c in found if c.name[0].isdigit()] == [*range(1, 19)]
    mistakes = [int(number) for c in found for number in re.findall(r"^Mistake (\d+):", c.name)]
    assert mistakes == [*range(1, 16)]
    for chapter in found:
        assert sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(chapter.code))) >= 2, chapter.name


def test_the_chinese_page_teaches_by_the_same_code() -> None:
    """Comments may be translated: code is compared as Python understands it."""
    english, chinese = chapters(LEARN), chapters(LEARN_ZH)
    for ours, theirs in zip(english, chinese, strict=True):
        assert re.findall(r"\d+", ours.name)[:1] == re.findall(r"\d+", theirs.name)[:1], theirs.name
        assert ast.dump(ast.parse(ours.code)) == ast.dump(ast.parse(theirs.code)), theirs.name
        assert ours.printed == theirs.printed, theirs.name


@pytest.mark.parametrize(("english", "chinese"), [(LEARN, LEARN_ZH), (README, README_ZH)], ids=["learn", "readme"])
def test_a_translation_has_the_same_commands_links_and_tables(english: Path, chinese: Path) -> None:
    ours, theirs = english.read_text(encoding="utf-8"), chinese.read_text(encoding="utf-8")
    assert commands(ours) == commands(theirs)
    assert links(ours) | {english.name} == links(theirs) | {english.name}  # the two lead to one another
    assert f"]({english.name})" in theirs
    assert re.findall(r"^(#+) ", ours, re.MULTILINE) == re.findall(r"^(#+) ", theirs, re.MULTILINE)
    assert len(re.findall(r"^\|", ours, re.MULTILINE)) == len(re.findall(r"^\|", theirs, re.MULTILINE))


def commands(text: str) -> list[str]:
    """Lines inside blocks, without comments and what is drawn or explained beside them."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for language, block in blocks if language != "text" for line in block.splitlines()]
    return [bare for line in lines if (bare := re.split(r"\s*#|\s{3,}", line.rstrip())[0])]


def links(text: str) -> set[str]:
    """Files that a page links to, by name; the two languages of a page are one."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return {Path(link).name.replace(".zh.md", ".md") for link in found if not link.startswith("http")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_commands_exist(page: Path) -> None:
    from pellucid.cli.main import VERBS

    text = page.read_text(encoding="utf-8")
    targets = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if not link.startswith("http")]
    assert targets and [link for link in targets if not (page.parent / link).exists()] == []
    code = [*re.findall(r"`([^`\n]+)`", text), *commands(text)]
    named = [verb for line in code for verb in re.findall(r"^(?:\S*/)?pellucid ([a-z-]+)", line)]
    assert named and set(named) <= set(VERBS)
