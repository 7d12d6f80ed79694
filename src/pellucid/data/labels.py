"""What labels are called, and what a person should know of them before training: how common each is, which training never shows.

Labels are numbered on disk in the order they come (`Numbers`); their order in the model is settled when they are opened, so
that prepared data serves a new model and one that knows its labels already. Imports no torch.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pellucid.errors import DataError

UNSEEN = -1
"""The number of a label that training never shows."""
MOST_LABELS = 1000
LOPSIDED = 20  # times rarer: from here on the rarest label is hardly learnt unless it counts more
_SHOWN = 5


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
    notes: dict[str, list[str]]


def settle(
    known: Sequence[str], counts: Mapping[str, np.ndarray], names: tuple[str, ...] | None, what: tuple[str, str]
) -> Settled:
    """The order of the labels `known` on disk. `counts`: part -> how often each occurs in it, int64 [labels]. `names`: those of
    a model that knows them already; None = the ones that the training part shows, sorted. `what`: what has labels, and what
    they are called ("texts", "label").

    Raises DataError: training shows one label only, more than MOST_LABELS, or as many as examples.
    """
    notes: dict[str, list[str]] = {part: [] for part in counts}
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
            notes[part] += _distribution(names, _by_name(table, count, len(names)), what)
        strange = np.flatnonzero((table == UNSEEN) & (count > 0)).tolist()
        notes[part] += _unseen(part, [known[i] for i in strange], int(count[strange].sum()), what)
    return Settled(names, table, notes)


def _learnt(known: Sequence[str], count: np.ndarray | None, what: tuple[str, str]) -> tuple[str, ...]:
    examples, label = what
    if count is None:
        raise DataError(f"which {label}s there are is told by training files, and there are none", "give --data.train")
    shown = [known[i] for i in np.flatnonzero(count).tolist()]
    n = int(count.sum())
    if len(shown) == 1:
        raise DataError(
            f"all {n:,} {examples} for training have the {label} {shown[0]!r}",
            f"at least two {label}s are needed; is it the right column?",
        )
    if len(shown) > MOST_LABELS or len(shown) == n:
        some = ", ".join(repr(name[:30]) for name in shown[:3])
        raise DataError(
            f"{len(shown):,} different {label}s in {n:,} {examples}: {some} …",
            "is it the right column? Name the two that count: --data.columns",
        )
    whole = all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in shown)
    return tuple(sorted(shown, key=lambda name: (int(name) if whole else 0, name)))


def _is_place(label: str, names: Sequence[str]) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]{0,5}", label) is not None and int(label) < len(names)


def _by_name(table: np.ndarray, count: np.ndarray, n: int) -> np.ndarray:
    seen = table != UNSEEN
    return np.bincount(table[seen], count[seen], n).astype(np.int64)


def _distribution(names: Sequence[str], counts: np.ndarray, what: tuple[str, str]) -> list[str]:
    """How training's labels are spread: names [L], counts int64 [L]."""
    examples, label = what
    total = int(counts.sum())
    if not total:
        return []
    order = np.argsort(-counts, kind="stable")
    shares = [f"{names[i]!r} {counts[i] / total:.1%}" for i in order[: 2 * _SHOWN]]
    rest = f" and {len(names) - len(shares)} more" if len(shares) < len(names) else ""
    most = f"always saying {names[order[0]]!r} is right {counts[order[0]] / total:.1%} of the time"
    notes = [f"{total:,} {examples} to learn {len(names)} {label}s from: {', '.join(shares)}{rest}; {most}"]
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        notes.append(f"no training example has the {label} {_list(absent)}")
    rarest = order[len(names) - len(absent) - 1]
    if counts[order[0]] >= LOPSIDED * counts[rarest]:
        times = counts[order[0]] / counts[rarest]
        notes.append(f"{names[rarest]!r} is {times:,.0f} times rarer: consider --training.class-weight balanced")
    return notes


def _unseen(part: str, labels: list[str], n: int, what: tuple[str, str]) -> list[str]:
    if not labels:
        return []
    return [
        f"{n:,} {what[0]} of {part} have a {what[1]} that training never shows ({_list(labels)}): they will count as wrong"
    ]


def _list(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(repr(label[:40]) for label in labels[:_SHOWN]) + more
