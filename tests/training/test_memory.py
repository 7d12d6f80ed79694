"""What a run will hold is told beforehand, is what it then holds, and is refused where there is no room."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pellucid import room
from pellucid.data.buckets import Buckets
from pellucid.errors import UserError
from pellucid.tasks import language
from pellucid.training import devices, memory, ranks
from pellucid.training.config import TrainingConfig
from pellucid.training.devices import Choices
from pellucid.training.ema import Ema
from pellucid.training.fits import prepare
from pellucid.training.optimizers import Optimizer
from pellucid.training.recompute import recompute
from pellucid.training.rehearsal import Watch, rehearse
from pellucid.training.run import resume, start
from tests import families
from tests.inspection.subjects import inputs
from tests.runs import copy_recipe, text_recipe, train, write_text

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds in /proc")
PLAIN = {"warmup": 1, "precision": "float32", "device": "cpu"}


def text(n_rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = families.ids(n_rows, length)
    return {"ids": ids, "targets": ids}


def count(batch: Mapping[str, torch.Tensor]) -> int:
    return batch["targets"].numel()


def really_held(model: nn.Module, batch: dict[str, torch.Tensor], t: TrainingConfig) -> int:
    """The most bytes of tensors of a real step, counted while it runs."""
    optimizer = Optimizer(model, t, t.precision)
    with Watch() as watch:
        watch._run = lambda func, args, kwargs: func(*args, **kwargs)  # type: ignore[method-assign]
        for _ in range(2):
            average = Ema(model, t.ema) if t.ema else None
            language.loss(model, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(1.0)
            del average
    return watch.peak


@pytest.mark.parametrize("change", [{}, {"optimizer": "muon"}, {"ema": 0.9}, {"recompute": True}])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_rehearsed_step_holds_the_tensors_of_a_real_one(name: str, change: dict[str, Any]) -> None:
    t, batch = TrainingConfig(**PLAIN, **change), text(8, 30)
    model = families.make(name, dropout=0.1).train()
    model = recompute(model) if t.recompute else model
    before = [p.clone() for p in model.parameters()]
    watch = rehearse(model, language.loss, batch, count, t, Choices())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))
    assert watch.peak == pytest.approx(really_held(model, batch, t), rel=0.03)


def test_what_saves_memory_does_so_and_state_counts() -> None:
    batch = text(8, 40)

    def peak(**change: Any) -> int:
        model = families.make("llama").train()
        t = TrainingConfig(**PLAIN, **change)
        model = recompute(model) if t.recompute else model
        return rehearse(model, language.loss, batch, count, t, Choices()).peak

    weights = sum(p.nbytes for p in families.make("llama").parameters())
    plain, apart, again = peak(), peak(accumulate=4), peak(recompute=True)
    assert apart < 0.5 * plain and again < 0.8 * plain
    assert peak(recompute=True, accumulate=4) < min(apart, again)
    assert peak(ema=0.9) - plain == pytest.approx(weights, rel=0.05)
    assert plain - peak(optimizer="muon") == pytest.approx(weights, rel=0.5)


@pytest.mark.parametrize("name", sorted(families.TEXT | families.VITS))
def test_every_family_can_be_rehearsed(name: str) -> None:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        out = model(**batch)
        return out.float().sum()

    watch = rehearse(families.make(name), loss, inputs(name), lambda batch: 0, TrainingConfig(**PLAIN), Choices())
    assert watch.peak > 3 * sum(p.nbytes for p in families.make(name).parameters())


def test_each_part_has_its_own_targets_and_the_evaluation_all(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    t, model = TrainingConfig(**PLAIN, accumulate=3, ema=0.9), families.make("bert")
    both = [
        rehearse(model, language.loss, text(n, 12), lambda b: counted.append(count(b)) or count(b), t, Choices())
        for n in (8, 1)
    ]
    assert counted == [36, 36, 96, 12, 12] and both[0].peak > both[1].peak, "of one row the other parts are empty"
    counted.clear()
    monkeypatch.setattr(ranks, "world", lambda: 2)
    rehearse(model, language.loss, text(12, 12), lambda b: counted.append(count(b)) or count(b), t, Choices())
    assert counted == [24, 24, 144]


def test_an_evaluation_counts_where_it_holds_more_than_a_step() -> None:
    def peak(accumulate: int) -> int:
        def loss(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return language.loss(model, batch) + (0 if torch.is_grad_enabled() else torch.ones(10**8).sum())

        t = TrainingConfig(**PLAIN, accumulate=accumulate)
        return rehearse(families.make("gpt2"), loss, text(4, 12), count, t, Choices()).peak

    assert peak(1) < 4e8 < peak(2), "in one part a step holds more than its evaluation does"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200), st.integers(0, 3))
def test_the_widest_batches_are_of_the_epoch_asked_for(lengths: list[int], batch_tokens: int, epoch: int) -> None:
    side = np.array(lengths)
    buckets = Buckets((side,), batch_tokens)
    steps = range(epoch * buckets.steps_per_epoch, (epoch + 1) * buckets.steps_per_epoch)
    ids = {step: len(buckets.rows(step)) * side[buckets.rows(step)].max() for step in steps}
    assert buckets.widest(epoch) <= set(steps)
    assert max(ids[step] for step in buckets.widest(epoch)) == max(ids.values())


# --- room: files as Linux writes them -----------------------------------------------------------------------------------

MEMINFO = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 5000 kB\nSwapFree: 1000 kB\n"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V2 = "sys/fs/cgroup/outer"
V1 = "sys/fs/cgroup/memory/docker"


@pytest.mark.parametrize(
    "files, free",
    [
        ({}, 6000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                f"{V2}/inner/memory.max": "max\n",
                f"{V2}/memory.max": "3000000\n",
                f"{V2}/memory.current": "1000000\n",
                f"{V2}/memory.stat": "anon 900000\nfile 90000\ninactive_file 50000\nactive_file 40000\n",
            },
            2_090_000,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker\n",
                f"{V1}/memory.limit_in_bytes": "2000000",
                f"{V1}/memory.usage_in_bytes": "2500000",
                f"{V1}/memory.stat": "total_inactive_file 100",
            },
            0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/only/the/host/knows\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000",
                "sys/fs/cgroup/memory/memory.stat": "active_file 9\ntotal_inactive_file 7\ntotal_active_file 80",
            },
            3_000_087,
        ),
        ({"proc/self/cgroup": "4:memory:/docker\n", f"{V1}/memory.limit_in_bytes": str(2**63 - 4096)}, 6000 * 1024),
        ({"proc/meminfo": "nonsense"}, None),
    ],
)
def test_room_is_what_is_available_or_what_a_container_leaves(tmp_path: Path, files: Any, free: int | None) -> None:
    assert room.linux(system(tmp_path, files)) == free


@LINUX
def test_this_process_holds_something_and_may_hold_more() -> None:
    """In a process of its own: in this one the block may find memory that was kept."""
    code = """
import torch; from pellucid import room
held, most = room.resident(), room.resident("VmHWM")
block = torch.ones(2**26)
assert 0 < held <= most and room.resident() - held > 0.9 * block.nbytes
assert (room.available("cpu") or 0) > room.resident()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_free_is_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "resident", lambda: 7)
    monkeypatch.setitem(room.SYSTEMS, sys.platform, lambda: 1000)
    assert (room.available("cpu"), room.available("cpu", 4)) == (1007, 257) and room.is_measured("cpu")
    monkeypatch.delitem(room.SYSTEMS, sys.platform)
    monkeypatch.setattr(room, "_physical", lambda: 3 * 10**9)
    assert room.available("cpu") == 3 * 10**9 + 7 and not room.is_measured("cpu")
    told = memory.Forecast(10**9, 3 * 10**9, room.is_measured("cpu"))
    assert str(told) == "this run will need about 1.0 GB of memory, this machine has 3.0 GB"


def test_windows_may_use_its_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(status: Any) -> int:
        for i in range(7):
            setattr(status._obj, f"n{i}", 100 + i)
        return 1

    windll = SimpleNamespace(kernel32=SimpleNamespace(GlobalMemoryStatusEx=tell))
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)
    assert room.SYSTEMS["win32"]() == 103, "ullAvailPageFile: what a process may still be promised"


# --- a run --------------------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available", lambda device, sharers: 20_300_000_000)
    notes = prepare(copy_recipe(), None).notes
    told = [note for note in notes if "memory" in note]
    assert len(told) == 1 and told[0].startswith("this run will need about ") and told[0].endswith("20.3 GB are free")


@pytest.mark.slow
def test_a_run_that_cannot_fit_is_refused_before_its_folder_is_made(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "ASIDE", {("cpu", "float32"): memory.Aside(0, 0)})
    monkeypatch.setattr(room, "resident", lambda: 0)
    recipe = text_recipe(write_text(tmp_path / "text.txt"), length=32, batch_size=16)
    fit = prepare(recipe, None)
    need = memory.forecast(fit.model, fit.task, fit.data, recipe.training).need
    monkeypatch.setattr(room, "available", lambda device, sharers: int(0.6 * need))
    with pytest.raises(UserError) as refused:
        start(recipe, tmp_path / "run")
    assert "needs about" in refused.value.problem and not (tmp_path / "run").exists()
    ways, anyhow = refused.value.remedy.split("; to try all the same: ")
    assert anyhow == "--training.memory warn"
    flags = ways.removeprefix("this would fit: ").split(", or ")
    assert flags[0].startswith("--training.accumulate ")
    n = int(flags[0].split()[1])
    start(replace(recipe, training=replace(recipe.training, accumulate=n, steps=2)), tmp_path / "run")
    monkeypatch.setattr(room, "available", lambda device, sharers: 1000)
    with pytest.raises(UserError, match="smaller"):
        start(recipe, tmp_path / "none")


def test_weights_that_do_not_fit_are_refused_before_they_are_made(tmp_path: Path, monkeypatch: Any) -> None:
    recipe = text_recipe(write_text(tmp_path / "text.txt"))
    huge = replace(recipe, model=replace(recipe.model, stack=replace(recipe.model.stack, d_model=2**20, d_ff=2**22)))
    with pytest.raises(UserError, match="(?s)optimizer of this model alone need .*make the model smaller"):
        prepare(huge, None)


def test_what_has_begun_is_not_refused_nor_what_may_try(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    rehearsed: list[str] = []

    def noted(*given: Any) -> Watch:
        rehearsed.append(given[-1].precision)
        return rehearse(*given)

    monkeypatch.setattr(memory, "rehearse", noted)
    monkeypatch.setattr(room, "available", lambda device, sharers: 10**6)
    monkeypatch.setattr(devices, "bfloat16_is_native", lambda device: True)
    monkeypatch.setattr(devices, "time_steps", lambda *_: {"float32": 2.0, "bfloat16": 1.0})
    recipe = copy_recipe(memory="warn", precision="auto")
    assert train(recipe, tmp_path / "run").kind == "done" and set(rehearsed) == {"float32", "bfloat16"}
    rehearsed.clear()
    file = tmp_path / "run" / "run.toml"
    file.write_text(file.read_text().replace('"warn"', '"refuse"'))
    assert resume(tmp_path / "run").kind == "done" and set(rehearsed) == {"bfloat16"}
    assert capsys.readouterr().err.count("0 MB are free: it may not fit") == 2
    with pytest.raises(UserError, match="needs about"):
        prepare(replace(recipe, training=replace(recipe.training, memory="refuse")), None)


def test_what_cannot_be_foretold_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> Watch:
        raise RuntimeError("no such operation\nin FakeTensorMode")

    monkeypatch.setattr(memory, "rehearse", fail)
    notes = prepare(copy_recipe(), None).notes
    assert "how much memory this run will need cannot be foretold: RuntimeError: no such operation" in notes


def test_precisions_that_will_be_timed_count_and_the_leaner_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, t = prepare(copy_recipe(), None), copy_recipe(precision="auto").training
    monkeypatch.setattr(devices, "bfloat16_is_native", lambda device: True)
    monkeypatch.setattr(
        memory, "ASIDE", {("cpu", "float32"): memory.Aside(9 * 10**9, 0), ("cpu", "bfloat16"): memory.Aside(0, 0)}
    )
    assert memory.forecast(fit.model, fit.task, fit.data, t).need > 9 * 10**9
    monkeypatch.setattr(room, "available", lambda device, sharers: 5 * 10**9)
    with pytest.raises(UserError, match="this would fit: --training.precision bfloat16 "):
        memory.foresee(fit.model, fit.task, fit.data, t)


def test_it_may_not_fit_is_said_and_tried() -> None:
    assert str(memory.Forecast(1_200_000_000, None)) == "this run will need about 1.2 GB of memory"
    close = memory.Forecast(1_100_000_000, 1_000_000_000)
    assert close.fits and str(close).endswith("1.0 GB are free: it may not fit")
    assert not memory.Forecast(1_200_000_000, 1_000_000_000).fits
    assert memory.size(434_000_000) == "430 MB"


MEASURED = """
import json, sys
from pathlib import Path
from dataclasses import replace
from pellucid import room
from pellucid.training import memory, run
from tests.runs import text_recipe, known_machine
recipe = text_recipe(Path(sys.argv[1]), **json.loads(sys.argv[2]))
wide = int(sys.argv[4])
stack = replace(recipe.model.stack, d_model=wide, n_layers=4, n_heads=4, n_kv_heads=None, d_ff=4 * wide)
recipe = replace(recipe, model=replace(recipe.model, stack=stack, max_length=128))
found, told = memory.forecast, []
memory.forecast = lambda *args: (told.append(found(*args)), told[-1])[1]
with known_machine():
    run.start(recipe, Path(sys.argv[3]), "")
print(json.dumps([told[0].need, room.resident("VmHWM")]))
"""


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    "change, width",
    [
        ({}, 256),
        ({"precision": "bfloat16"}, 256),
        ({"optimizer": "muon", "ema": 0.99}, 256),
        ({"precision": "auto", "accumulate": 6, "batch_size": 48}, 256),
        ({"optimizer": "adamw", "average": 2, "batch_size": 2, "checkpoint_every": 1}, 768),
    ],
)
def test_the_prediction_is_within_15_percent_of_what_a_run_takes(tmp_path: Path, change: Any, width: int) -> None:
    file = write_text(tmp_path / "text.txt", 60)
    sizes = {"length": 128, "batch_size": 24, "steps": 4, "evaluate_every": 0, "checkpoint_every": 0} | change
    command = [sys.executable, "-c", MEASURED, str(file), json.dumps(sizes), str(tmp_path / "run"), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    need, most = json.loads(done.stdout.strip().splitlines()[-1])
    assert need == pytest.approx(most, rel=0.15)
