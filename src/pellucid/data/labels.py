"""What labels are called, and what a person should know of them before training: how common each is, which training never shows.

Labels are numbered on disk in the order they come (`Numbers`); their order in the model is settled when they are opened, so
that prepared data serves a new model and one that knows its labels already. Imports no torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pellucid.data.columns import MISSING
from pellucid.data.dates import Split
from pellucid.data.holdout import read_info
from pellucid.errors import DataError

UNSEEN = -1
"""The number of a label that training never shows."""
MANY_LABELS = 1000
LOPSIDED = 20  # times rarer: from here on the rarest label is hardly learnt unless it counts more
_SHOWN = 5


class Named(NamedTuple):
    """What has labels ("texts"), what one is called ("label"), and where to look if there are too few or too many."""

    examples: str
    label: str
    remedy: str


class Numbers(dict[str, int]):
    """Label -> number, given out in the order they come."""

    def __missing__(self, label: str) -> int:
        self[label] = len(self)
        return self[label]


class Settled(NamedTuple):
    """`names`: the labels in the model's order; `table` int64 [labels on disk]: their places in `names`, or UNSEEN; `notes` of
    each part."""

    names: tuple[str, ...]
    table: np.ndarray
    notes: dict[Split, list[str]]


def settled_in(
    folder: Path, numbers: Mapping[Split, np.ndarray], names: tuple[str, ...] | None, what: Named
) -> Settled:
    """See `settle`, for what is prepared in a folder: part -> the numbers of its labels, below 0 where there is none. The notes
    begin with those that were written there."""
    known = read_info(folder, "labels")["known"]
    counts = {part: np.bincount(its[its >= 0], minlength=len(known)) for part, its in numbers.items()}
    settled = settle(known, counts, names, what)
    return settled._replace(
        notes={part: read_info(folder, part)["notes"] + told for part, told in settled.notes.items()}
    )


def settle(
    known: Sequence[str], counts: Mapping[Split, np.ndarray], names: tuple[str, ...] | None, what: Named
) -> Settled:
    """The order of the labels `known` on disk. `counts`: part -> how often each occurs in it, int64 [labels]. `names`: those of
    a model that knows them already; None = the ones that the training part shows, sorted.

    Raises DataError: training shows one label only, or more than half of its examples have a label that no other has.
    """
    notes: dict[Split, list[str]] = {part: [] for part in counts}
    if names is None:
        names = _learnt(known, counts.get("train"), what)
    places = {name: place for place, name in enumerate(names)}
    if not any(label in places for label in known) and all(_is_place(label, names) for label in known):
        places |= {label: int(label) for label in known}
        told = ", ".join(f"{i} = {name!r}" for i, name in enumerate(names[:_SHOWN]))
        next(iter(notes.values()), []).append(
            f"{what[1]}s are numbers here; they are taken as places of the known ones: {told}"
        )
    table = np.array([places.get(label, UNSEEN) for label in known], np.int64)
    for part, count in counts.items():
        if part == "train":
            notes[part] += _distribution(names, _by_name(table, count, len(names)), what) + _missing(known, count, what)
        strange = np.flatnonzero((table == UNSEEN) & (count > 0)).tolist()
        notes[part] += _unseen(part, [known[i] for i in strange], int(count[strange].sum()), what)
    return Settled(names, table, notes)


def _learnt(known: Sequence[str], count: np.ndarray | None, what: Named) -> tuple[str, ...]:
    examples, label, remedy = what
    if count is None:
        raise DataError(f"which {label}s there are is told by training files, and there are none", "give --data.train")
    shown = [known[i] for i in np.flatnonzero(count).tolist()]
    n = int(count.sum())
    if len(shown) == 1:
        raise DataError(
            f"all {n:,} {examples} for training have the {label} {shown[0]!r}",
            f"at least two {label}s are needed; {remedy}",
        )
    if 2 * int((count == 1).sum()) > n:
        some = ", ".join(repr(name[:30]) for name in shown[:3])
        raise DataError(
            f"{len(shown):,} different {label}s in {n:,} {examples}: {some} …",
            f"a {label} needs several {examples} to be learnt from; {remedy}",
        )
    whole = all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in shown)
    return tuple(sorted(shown, key=lambda name: (int(name) if whole else 0, name)))


def _is_place(label: str, names: Sequence[str]) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]{0,5}", label) is not None and int(label) < len(names)


def _by_name(table: np.ndarray, count: np.ndarray, n: int) -> np.ndarray:
    seen = table != UNSEEN
    return np.bincount(table[seen], count[seen], n).astype(np.int64)


def _distribution(names: Sequence[str], counts: np.ndarray, what: Named) -> list[str]:
    """How training's labels are spread: names [L], counts int64 [L]."""
    examples, label, remedy = what
    total = int(counts.sum())
    if not total:
        return []
    order = np.argsort(-counts, kind="stable")
    shares = [f"{names[i]!r} {counts[i] / total:.1%}" for i in order[: 2 * _SHOWN]]
    rest = f" and {len(names) - len(shares)} more" if len(shares) < len(names) else ""
    most = f"always saying {names[order[0]]!r} is right {counts[order[0]] / total:.1%} of the time"
    notes = [f"{total:,} {examples} to learn {len(names)} {label}s from: {', '.join(shares)}{rest}; {most}"]
    if len(names) > MANY_LABELS:
        notes.append(f"more than {MANY_LABELS:,} {label}s; {remedy}")
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        notes.append(f"no training example has the {label} {_list(absent)}")
    rarest = order[len(names) - len(absent) - 1]
    if counts[order[0]] >= LOPSIDED * counts[rarest]:
        times = counts[order[0]] / counts[rarest]
        notes.append(f"{names[rarest]!r} is {times:,.0f} times rarer: consider --training.class-weight balanced")
    return notes


def _missing(known: Sequence[str], count: np.ndarray, what: Named) -> list[str]:
    return [
        f"{n:,} {what.examples} have the {what.label} {label!r}: if it says that there is none, leave the cell empty"
        for label, n in zip(known, count.tolist(), strict=True)
        if n and label.casefold() in MISSING
    ]


def _unseen(part: str, labels: list[str], n: int, what: Named) -> list[str]:
    if not labels:
        return []
    return [
        f"{n:,} {what.examples} of {part} have a {what.label} that training never shows ({_list(labels)}): "
        "they will count as wrong"
    ]


def _list(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(repr(label[:40]) for label in labels[:_SHOWN]) + more
