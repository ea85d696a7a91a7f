"""The model card of a tuned model: what it was made from, how, at what cost, with what result.

It holds nothing that a clock or a place on the disk says, so that the same run writes the same
bytes; seconds and memory are in the manifest beside the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Card"]


_HONEST = (
    "\n\nThe loss is that of training. Whether the model became better must be measured on held-"
    "out exams, which this step did not do."
)


_NEEDS_TILTH = ("bitfit", "adaptformer", "qlora")
"""Adapters that plain peft does not know, or would put on a base that was not rounded."""


@dataclass(frozen=True)
class Card:
    """What the card states.

    Attributes:
        method: Full name of the method, e.g. ``tune.sft``.
        base: Name of the base model: its reference, hub id, or the name of its folder.
        adapter: The kind of adapter that the folder holds; empty for a whole model.
        data: Name of the data and the digest of its content.
        rows: Rows read, trained on and rejected.
        settings: All settings of the method.
        seeds: Every seed that was used, by what it was used for.
        cost: Amounts: tokens, targets, FLOPs, steps.
        results: Measured numbers.
        versions: Versions of the libraries that matter for the numbers.
        learnt: Which tokens were targets.
    """

    method: str
    base: str
    adapter: str
    data: dict[str, str]
    rows: dict[str, int]
    settings: dict[str, Any]
    seeds: dict[str, str]
    cost: dict[str, float]
    results: dict[str, Any]
    versions: dict[str, str]
    learnt: str = "assistant turns only"

    def write(self, folder: Path) -> None:
        """Writes ``README.md`` into the model's folder."""
        (folder / "README.md").write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """The card as Markdown with the header that model hubs read."""
        kind = f"an adapter ({self.adapter})" if self.adapter else "a whole model"
        parts = [
            self._header(),
            f"# {self.base}, tuned with {self.method}",
            f"This folder holds {kind}, tuned from `{self.base}` on {self.learnt}.",
            "## Use\n\n" + self._use(),
            "## Data\n\n" + _table({**self.data, **self.rows}),
            "## Settings\n\n```json\n"
            + json.dumps(self.settings, indent=2, sort_keys=True)
            + "\n```",
            "## Seeds\n\n" + _table(self.seeds),
            "## Cost\n\n" + _table(self.cost) + "\n\nSeconds and memory are in `manifest.json`.",
            "## Results\n\n" + _table(self.results) + _HONEST,
            "## Versions\n\n" + _table(self.versions),
        ]
        return "\n\n".join(parts) + "\n"

    def _header(self) -> str:
        library = "peft" if self.adapter else "transformers"
        tags = ["sft", "tilth", *([self.adapter] if self.adapter else [])]
        lines = [f"base_model: {json.dumps(self.base)}", f"library_name: {library}"]
        lines += ["pipeline_tag: text-generation", f"tags: {json.dumps(tags)}"]
        return "\n".join(["---", *lines, "---"])

    def _use(self) -> str:
        if self.adapter in _NEEDS_TILTH:
            return (
                "```python\nfrom tilth.models import load\n\n"
                'model, tokenizer = load("path/to/this/folder")\n```'
            )
        name = "AutoPeftModelForCausalLM" if self.adapter else "AutoModelForCausalLM"
        library = "peft" if self.adapter else "transformers"
        return (
            "```python\n"
            + (f"from {library} import {name}\nfrom transformers import AutoTokenizer\n\n")
            + f'model = {name}.from_pretrained("path/to/this/folder")\n'
            + 'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```'
        )


def _table(values: dict[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _shown(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"
