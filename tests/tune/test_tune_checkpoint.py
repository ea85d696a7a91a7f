"""A checkpoint is whole or refused, and holds everything that the rest of a run depends on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tilth.errors import ArtefactError
from tilth.tune._checkpoint import (
    Checkpoints,
    State,
    optimizer_state,
    restore_optimizer,
    rng_state,
    set_rng,
)


def state_of(step: int) -> State:
    return State(
        step,
        {
            "model": {"w": torch.full((3,), float(step))},
            "optimizer": {"w//step": torch.tensor(1.0)},
        },
        {"state": {"rows": [{"step": step}]}, "trainer_state": {"global_step": step}},
    )


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Checkpoints, list[str]]:
    """Two checkpoints, and what is said to the user."""
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", "run", say=said.append)
    for step in (2, 4, 6):
        checkpoints.save(state_of(step))
    return checkpoints, said


def newest_file(checkpoints: Checkpoints, name: str) -> Path:
    return checkpoints.folder / "step-00000006" / name


def test_the_newest_comes_back_and_two_are_kept(saved: tuple[Checkpoints, list[str]]) -> None:
    checkpoints, said = saved
    state = checkpoints.newest()
    assert state is not None
    assert state.step == 6
    assert state.tensors["model"]["w"].tolist() == [6.0] * 3
    assert state.values == state_of(6).values
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]
    assert not said


def flip_a_bit(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "weights altered": ("model.safetensors", flip_a_bit),
    "optimiser altered": ("optimizer.safetensors", flip_a_bit),
    "optimiser missing": ("optimizer.safetensors", Path.unlink),
    "state cut short": ("state.json", lambda p: p.write_text(p.read_text()[:-5])),
    "state missing": ("state.json", Path.unlink),
    "manifest missing": ("manifest.json", Path.unlink),
    "manifest cut short": ("manifest.json", lambda p: p.write_text(p.read_text()[:40])),
    "manifest empty": ("manifest.json", lambda p: p.write_text("{}")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    saved: tuple[Checkpoints, list[str]], damage: str
) -> None:
    checkpoints, said = saved
    name, harm = DAMAGES[damage]
    harm(newest_file(checkpoints, name))
    state = checkpoints.newest()
    assert state is not None
    assert state.step == 4
    assert len(said) == 1
    assert "step-00000006" in said[0]
    assert (checkpoints.folder / "step-00000006.damaged").is_dir()
    checkpoints.save(state_of(6))  # the run goes on over it
    again = checkpoints.newest()
    assert again is not None
    assert again.step == 6


def test_no_whole_checkpoint_is_none(saved: tuple[Checkpoints, list[str]]) -> None:
    checkpoints, said = saved
    for folder in list(checkpoints.folder.iterdir()):
        (folder / "state.json").unlink()
    assert checkpoints.newest() is None
    assert len(said) == 2
    assert Checkpoints(checkpoints.folder / "none", "run").newest() is None


def test_a_checkpoint_of_another_run_is_not_used(saved: tuple[Checkpoints, list[str]]) -> None:
    checkpoints, said = saved
    assert Checkpoints(checkpoints.folder, "other", say=said.append).newest() is None
    assert "other settings, data or base weights" in said[0]


def test_half_written_folders_are_cleared_and_never_used(
    saved: tuple[Checkpoints, list[str]],
) -> None:
    checkpoints, said = saved
    partial = checkpoints.folder / "step-00000008.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    state = checkpoints.newest()
    assert state is not None
    assert state.step == 6
    assert not partial.exists()
    assert not said


def test_nothing_is_a_pickle(saved: tuple[Checkpoints, list[str]]) -> None:
    checkpoints, _ = saved
    kinds = {p.suffix for p in checkpoints.folder.rglob("*") if p.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtefactError, match="training checkpoint"):
        Checkpoints(tmp_path / "file" / "checkpoints", "run").save(state_of(1))


def test_an_optimiser_continues_as_if_never_stopped() -> None:
    def made() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3)
        groups = [
            {"params": [layer.bias], "weight_decay": 0.0},
            {"params": [layer.weight], "weight_decay": 0.1},
        ]
        return layer, torch.optim.AdamW(groups, lr=0.1)

    def steps(layer: torch.nn.Linear, optimizer: torch.optim.AdamW, seeds: range) -> None:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            layer(torch.randn(5, 4, generator=generator)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    whole, optimizer = made()
    steps(whole, optimizer, range(6))

    first, optimizer = made()
    steps(first, optimizer, range(3))
    names = {p: n for n, p in first.named_parameters()}
    tensors, values = optimizer_state(optimizer, names)
    second, fresh = made()
    second.load_state_dict(first.state_dict())
    restored = json.loads(json.dumps(values))
    restore_optimizer(fresh, {p: n for n, p in second.named_parameters()}, tensors, restored)
    steps(second, fresh, range(3, 6))
    assert torch.equal(whole.weight, second.weight)
    assert torch.equal(whole.bias, second.bias)


def test_every_random_stream_continues() -> None:
    torch.randn(3), np.random.rand(3), random.gauss(0, 1)  # leave a half-used pair behind
    tensors, values = rng_state()
    saved = {k: t.clone() for k, t in tensors.items()}, json.loads(json.dumps(values))

    def draw() -> tuple[object, ...]:
        numbers = np.random.standard_normal(3).tolist(), random.gauss(0, 1), random.random()
        return torch.randn(4).tolist(), *numbers

    first = draw()
    assert draw() != first
    set_rng(*saved)
    assert draw() == first
