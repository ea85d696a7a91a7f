"""What each adapter costs on a model: trained weights, memory and seconds of a step, measured.

Each member is measured in a process of its own, so that one leaves nothing in the memory of the
next. The rows are random tokens: what is measured does not depend on what they say.

    python -m tilth.tune.adapter_costs seedling:small lora '{"steps": 5}'
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from tilth.errors import ModelError, TilthError, TrainingError
from tilth.tune.adapters import MEMBERS, adapter_settings

if TYPE_CHECKING:
    import torch

__all__ = ["AdapterCost", "adapter_costs", "measure"]


_TOLD = 3
"""The exit code of a measurement that told its error."""


@dataclass(frozen=True)
class AdapterCost:
    """The cost of one adapter.

    Attributes:
        adapter: Its short form.
        trained: Weights that are trained.
        share: Of all weights, the adapter's included.
        saved_bytes: Size of what is saved.
        memory_bytes: Highest memory above that of the libraries: model, gradients, optimiser and
            activations; on an accelerator, what was allocated there.
        step_seconds: Median over the steps of forward, backward and optimiser, the first left out.
        problem: Why it could not be measured; empty where it was.
    """

    adapter: str
    trained: int = 0
    share: float = 0.0
    saved_bytes: int = 0
    memory_bytes: int = 0
    step_seconds: float = 0.0
    problem: str = ""


def adapter_costs(
    model: str,
    adapters: Sequence[str] = tuple(MEMBERS),
    *,
    steps: int = 5,
    rows: int = 8,
    length: int = 128,
    device: str = "auto",
) -> Iterator[AdapterCost]:
    """Measures one adapter after the other.

    Args:
        model: A reference of a local model.
        adapters: Short forms, e.g. ``lora:rank=32``.
        steps: Steps that are timed; one more comes before them.
        rows: Rows of a batch.
        length: Tokens of a row; the model's context where that is shorter.
        device: Where, as in :func:`tilth.models.load`.

    Raises:
        TilthError: The model cannot be loaded; an adapter that does not fit says so in its row.
    """
    options = json.dumps({"steps": steps, "rows": rows, "length": length, "device": device})
    for text in adapters:
        adapter = adapter_settings(text)
        done = subprocess.run(
            [sys.executable, "-m", __name__, model, str(adapter), options],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        if done.returncode == _TOLD:
            raise ModelError(*json.loads(done.stdout.splitlines()[-1]))
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise TrainingError(
                f"{adapter} could not be measured: {said[-1] if said else 'it was killed'}",
                where=model,
            )
        yield AdapterCost(**json.loads(done.stdout.splitlines()[-1]))


def measure(
    model: str, adapter: str, *, steps: int, rows: int, length: int, device: str
) -> AdapterCost:
    """Measures one adapter in this process; see :func:`adapter_costs`."""
    import torch

    from tilth.models.adapters.nf4 import weights_in
    from tilth.models.load import load, pick_device
    from tilth.models.reference import resolve
    from tilth.tune._adapters import adapt, save_adapter

    place = pick_device(device)
    before = _memory(place)
    settings = adapter_settings(adapter)
    base, _ = load(resolve(model), str(place), "float32")
    torch.manual_seed(0)
    if settings.kind == "full":
        tuned: torch.nn.Module = base
    else:
        try:
            tuned = adapt(base, settings, seed=0, base_name=model)
        except TilthError as error:
            problem = f"{error.problem}; {error.fix}" if error.fix else error.problem
            return AdapterCost(adapter, problem=problem)
    context = getattr(base.config, "max_position_embeddings", None)  # not every model has one
    room = (context or 2 * length) - getattr(settings, "tokens", 0)  # prompts take some of it
    ids = torch.randint(0, base.config.vocab_size, (rows, min(length, room)), device=place)
    seconds = _timed(tuned, ids, settings.learning_rate, steps)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if settings.kind == "full":
            base.save_pretrained(folder)
        else:
            save_adapter(tuned, folder)  # type: ignore[arg-type]
        saved = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    memory = _memory(place) - before
    return AdapterCost(adapter, trained, trained / weights_in(tuned), saved, memory, seconds)


def _timed(model: torch.nn.Module, ids: torch.Tensor, rate: float, steps: int) -> float:
    """Median seconds of a step."""
    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    times = []
    for _ in range(steps + 1):
        start = perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if ids.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return median(times[1:])


def _memory(place: torch.device) -> int:
    """The highest memory so far, in bytes."""
    import torch

    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    try:
        cost = measure(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
    except TilthError as error:
        print(json.dumps([error.problem, error.where, error.fix]))  # noqa: T201
        sys.exit(_TOLD)
    print(json.dumps(asdict(cost)))  # noqa: T201
