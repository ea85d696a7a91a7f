"""The training engine: `transformers.Trainer` with our loss, our batches and our checkpoints.

Axes: B rows of a batch, T positions, N target positions of the batch, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from peft import PeftModel, PeftType
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from tilth.errors import TrainingError
from tilth.tune._batches import Collator, Order
from tilth.tune._checkpoint import (
    Checkpoints,
    State,
    optimizer_state,
    restore_optimizer,
    rng_state,
    set_rng,
)
from tilth.tune._corpus import IGNORED

__all__ = ["Engine", "target_loss"]


def target_loss(
    logits_NV: torch.Tensor, labels_N: torch.Tensor, targets: float | torch.Tensor
) -> torch.Tensor:
    """Summed cross-entropy of the target tokens, divided by `targets`.

    With `targets` counted over the whole window of accumulated batches, the gradients of the
    window's batches add up to the gradient of one large batch, whatever the lengths of the rows.
    """
    return functional.cross_entropy(logits_NV.float(), labels_N, reduction="sum") / targets


class Engine(Trainer):
    """A `Trainer` that computes logits at target positions only and stops when it diverges.

    Args:
        model: The model, already with its adapter where it has one.
        args: Everything that `transformers` is to know.
        order: The batches of each epoch.
        collator: Makes tensors of them.
        checkpoints: Where to keep checkpoints; None where the engine cannot (sharded training).
        on_row: Called with each log row as it is made.

    Attributes:
        rows: The log.
        tokens: Tokens that went through a step, padding not counted.
        targets: Target tokens among them.
        trainable: Weights that are trained.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: TrainingArguments,
        *,
        order: Order,
        collator: Collator,
        checkpoints: Checkpoints | None = None,
        on_row: Callable[[dict[str, float]], None] = lambda row: None,
    ) -> None:
        super().__init__(
            model=model, args=args, train_dataset=range(len(order.items)), data_collator=collator
        )
        self.remove_callback(PrinterCallback)
        self.order = order
        self.checkpoints = checkpoints
        self.on_row = on_row
        self.rows: list[dict[str, float]] = []
        self.tokens = 0
        self.targets = 0
        self.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._resumed: State | None = None
        self._window_restored = False
        self._window_loss: torch.Tensor | None = None
        self._names = {p: n for n, p in model.named_parameters() if p.requires_grad}
        bare = model.get_base_model() if isinstance(model, PeftModel) else model
        self._prompt = _prompt_length(model)
        self._slices = "logits_to_keep" in inspect.signature(bare.forward).parameters

    # ---- batches and loss ----

    def get_train_dataloader(self) -> DataLoader:
        """The batches of :class:`Order`; `accelerate` shards them where there are processes."""
        loader: DataLoader = DataLoader(
            range(len(self.order.items)),  # type: ignore[arg-type]
            batch_sampler=self.order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            generator=torch.Generator(),  # its own, so that loading draws nothing from dropout's
        )
        return self.accelerator.prepare(loader)

    def _run_epoch(self, *, epoch: int, **rest: Any) -> None:  # type: ignore[override]
        self.order.set_epoch(epoch)
        if self._resumed is not None and not self._window_restored:
            window = self._resumed.values["state"]["window"]
            self._tr_loss += window["loss"]
            self._globalstep_last_logged = window["since"]
            self._total_loss_scalar = window["total"]
            self._window_restored = True
        super()._run_epoch(epoch=epoch, **rest)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor | int:
        """Target tokens of the whole window: all its batches, on all processes."""
        tokens = sum(batch.pop("tokens") for batch in batch_samples)
        targets = sum(int((batch["labels"] != IGNORED).sum()) for batch in batch_samples)
        if self.args.world_size > 1:
            both = torch.tensor([[tokens, targets]], device=device)
            tokens, targets = self.accelerator.gather(both).sum(0).tolist()
        self.tokens += tokens
        self.targets += targets
        return targets

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Forward and backward of one batch."""
        if not model.training:
            model.train()
        loss = self.compute_loss(
            model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch
        )
        scaling = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
        self.accelerator.backward(loss, **scaling)
        loss = loss.detach()
        self._window_loss = loss if self._window_loss is None else self._window_loss + loss
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy at the target positions, the only ones whose logits are computed."""
        labels_BT = inputs["labels"]
        keep_BT = labels_BT != IGNORED
        logits_at_BT = functional.pad(keep_BT, (self._prompt, 0))
        extra = {"logits_to_keep": logits_at_BT} if self._slices else {}
        if "position_ids" in inputs:
            extra["position_ids"] = inputs["position_ids"]
        # Packed rows are only kept apart by their positions when there is no cache.
        outputs = model(input_ids=inputs["input_ids"], use_cache=False, **extra)
        logits_NV = outputs.logits if self._slices else outputs.logits[logits_at_BT]
        labels_N = labels_BT[keep_BT]
        targets = len(labels_N) if num_items_in_batch is None else num_items_in_batch
        # Data parallelism averages gradients over processes; `targets` counts all of them.
        loss = target_loss(logits_NV, labels_N, targets) * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, torch.Tensor | Any]) -> int:
        """Nothing: FLOPs are booked once, from the sizes, and not at every step."""
        return 0

    # ---- divergence and log ----

    def _get_grad_norm(
        self, model: nn.Module, grad_norm: torch.Tensor | float | None = None
    ) -> torch.Tensor | float | None:
        """The gradient norm; asked for just before a step, so the last place to stop it."""
        norm = super()._get_grad_norm(model, grad_norm)
        loss, self._window_loss = self._window_loss, None
        if norm is not None and not math.isfinite(norm + (0.0 if loss is None else loss)):
            step, lr = self.state.global_step + 1, self._get_learning_rate()
            loss_text = "unknown" if loss is None else f"{float(loss):.4g}"
            raise TrainingError(
                f"training diverged at step {step} with learning rate {lr:.3g}: "
                f"loss {loss_text}, gradient norm {float(norm):.4g}",
                where=f"step {step} of {self.state.max_steps}",
                fix="lower learning_rate, lengthen the warm-up or lower trainer.max_grad_norm",
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the log line to the rows of ``metrics.jsonl``, without what a clock says."""
        super().log(logs, start_time)
        if "loss" in logs:
            row = {
                "step": self.state.global_step,
                "loss": logs["loss"],
                "lr": logs["learning_rate"],
                "grad_norm": logs.get("grad_norm", math.nan),
                "tokens": self.tokens,
            }
            self.rows.append(row)
            self.on_row(row)

    # ---- checkpoints ----

    def state_now(self) -> State:
        """Everything that the rest of the run depends on."""
        tensors, optimizer = optimizer_state(self._bare_optimizer(), self._names)
        rng_tensors, rng = rng_state()
        model = {n: p.detach().cpu().contiguous() for p, n in self._names.items()}
        values = {
            "optimizer": optimizer,
            "scheduler": self._scheduler().state_dict(),
            "random": rng,
            "sampler": self.order.fingerprint,
            "window": {
                "loss": float(self._tr_loss),
                "since": self._globalstep_last_logged,
                "total": self._total_loss_scalar,
            },
            "rows": self.rows,
            "tokens": self.tokens,
            "targets": self.targets,
        }
        return State(
            self.state.global_step,
            {"model": model, "optimizer": tensors, "random": rng_tensors},
            {"state": values, "trainer_state": dataclasses.asdict(self.state)},
        )

    def train_from(self, state: State | None) -> None:
        """Trains to the end, continuing from `state` where there is one.

        Raises:
            TrainingError: Loss or gradient is no longer finite; the weights are those before it.
        """
        if state is None:
            self.train()
            return
        values = state.values["state"]
        if values["sampler"] != self.order.fingerprint:
            raise TrainingError(
                f"the checkpoint of step {state.step} has another order of batches",
                where=str(state.folder),
                fix="remove the checkpoint folder to begin anew",
            )
        self._resumed = state
        self.rows = list(values["rows"])
        for row in self.rows:
            self.on_row(row)
        self.tokens, self.targets = values["tokens"], values["targets"]
        if state.step < self.args.max_steps:
            self.train(resume_from_checkpoint=str(state.folder))
        else:  # killed after the last step: only the weights are wanted
            self._load_from_checkpoint(str(state.folder))
            self.state.global_step = state.step

    def bare_model(self) -> PreTrainedModel | PeftModel:
        """The model without the wrappers of `accelerate`."""
        return self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False)

    def _bare_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser without the wrapper of `accelerate`."""
        wrapped = self.optimizer
        bare = wrapped.optimizer if isinstance(wrapped, AcceleratedOptimizer) else wrapped
        assert bare is not None
        return bare

    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        assert self.lr_scheduler is not None
        return self.lr_scheduler

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.checkpoints is not None and self.args.should_save:
            self.checkpoints.save(self.state_now())

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        saved = self._state_to_resume().tensors["model"]
        with torch.no_grad():
            for parameter, name in self._names.items():
                parameter.copy_(saved[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = self._state_to_resume()
        values = state.values["state"]
        restore_optimizer(
            self._bare_optimizer(), self._names, state.tensors["optimizer"], values["optimizer"]
        )
        self._scheduler().load_state_dict(values["scheduler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = self._state_to_resume()
            set_rng(state.tensors["random"], state.values["state"]["random"])

    def _state_to_resume(self) -> State:
        if self._resumed is None:
            raise TrainingError(
                "there is no checkpoint to resume from", fix="use train_from(state)"
            )
        return self._resumed


def _prompt_length(model: PreTrainedModel | PeftModel) -> int:
    """Positions that the model puts before a row and answers with logits too."""
    if not isinstance(model, PeftModel):
        return 0
    config = model.active_peft_config
    return config.num_virtual_tokens if config.peft_type == PeftType.PROMPT_TUNING else 0
