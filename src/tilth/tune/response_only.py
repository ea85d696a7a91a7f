"""Response tuning: training on answers alone, without the instructions that they answer."""

from __future__ import annotations

from typing import Any, ClassVar

from tilth.data.transforms import response_only
from tilth.method import Outcome, Work
from tilth.tune._implicit import Implicit

__all__ = ["ResponseOnly"]


class ResponseOnly(Implicit):
    """Tunes a model on responses whose instructions are blank; instructions return at test time.

    The content of every user turn is replaced by the empty text, the tags stay, and the model is
    trained as usual: it minimises ``-(1/k) sum_i log p(response_i | tags, blank instruction)``.
    What it gains in following instructions cannot come from pairs of instruction and response.
    Compare it with :class:`~tilth.tune.sft.SFT` on the same rows, and with the base in the same
    tags (:class:`~tilth.tune.tags.Tags`).

    Hewitt et al. 2024, "Instruction Following without Instruction Tuning" (arXiv:2409.14254),
    section 4; code john-hewitt/implicit-ins. Defaults are those of the released commands for
    Llama-2-7B: all weights, 5 epochs, learning rate 1e-5, batches of 64, linear schedule after 3 %
    warm-up, 2,048 tokens; ``constants`` names the others (see :mod:`tilth.tune._implicit`).
    Clipping at 1 and setting long rows aside instead of cutting them are our choice.

    Example:
        >>> ResponseOnly(model="seedling:small", data="rows.jsonl",      # doctest: +SKIP
        ...              learning_rate=3e-4, batch_size=8).to("tuned")
    """

    name: ClassVar[str] = "response_only"
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "max_steps": 4,
        "batch_size": 4,
        "save_every": 2,
    }

    def run(self, work: Work) -> Outcome:
        """Trains, and writes ``model/``, ``metrics.jsonl`` and ``rejected.jsonl``.

        The tags become the saved model's chat template.

        Raises:
            DataError: No row can be trained on, or too many cannot.
            ModelError: The template has no assistant tag or no end token as a target.
            TrainingError: Training diverged.
        """
        return self._tune(work, response_only)
