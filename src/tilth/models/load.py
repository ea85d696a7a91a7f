"""Loading models safely: safetensors only, no code from a model's repository, no network asked.

A folder is checked before anything heavy starts, so that a missing tokenizer or a pickle is an
error of one sentence and not a stack trace of the library below.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilth.errors import ModelError
from tilth.models.reference import Reference, resolve
from tilth.models.weights import no_safetensors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "TOKENIZER_FILES",
    "base_name",
    "counted_parameters",
    "load",
    "load_tokenizer",
    "pick_device",
]

# peft 0.21 asks transformers 5.23 for a property by its old name; a user can do nothing about it.
warnings.filterwarnings(
    "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
)
# peft imports bitsandbytes where it is installed, which then speaks of kernels from the network.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Any one of these makes a tokenizer."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def load(
    ref: str | Reference,
    device: Device | str = "auto",
    dtype: Dtype = "auto",
    *,
    merge: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in evaluation mode and its tokenizer.

    Args:
        ref: A model reference; see :func:`tilth.models.resolve`.
        device: ``auto`` is the first accelerator, else the processor; or a torch device string.
        dtype: ``auto`` is float32 on a processor (its results do not depend on the batch) and the
            model's own type on an accelerator.
        merge: Give a plain transformers model, with adapters added to its weights where these can
            express them. False keeps the last adapter apart as a ``PeftModel``.

    Raises:
        ModelError: A file is missing, damaged, a pickle, or does not fit; it is named.
    """
    import torch

    reference = ref if isinstance(ref, Reference) else resolve(ref)
    if reference.kind == "endpoint":
        raise ModelError(
            "an endpoint cannot be loaded as a local model",
            where=str(reference),
            fix="this needs the weights: use a folder, a hub id or a seedling",
        )
    if reference.kind == "encoder":
        raise _only_embeds(reference)
    if reference.kind == "composed":
        raise ModelError(
            "a composed model has no weights of its own: it can answer, but not be tuned or loaded",
            where=str(reference),
            fix="use one of its models",
        )
    place = pick_device(device)
    tokenizer = load_tokenizer(reference)
    wanted = dtype if dtype != "auto" else ("float32" if place.type == "cpu" else "auto")
    model = _base(reference, wanted)
    if reference.adapters:
        model = _with_adapters(model, reference, merge)
    rows = next(model.get_input_embeddings().parameters()).shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds only {rows}",
            where=str(reference),
            fix="use the tokenizer that the model was trained with",
        )
    torch.nn.Module.to(model, place)
    return model.eval(), tokenizer


def load_tokenizer(ref: str | Reference) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: that of its last adapter which brings one, else the base model's.

    Raises:
        ModelError: There is none; the files looked for are named.
    """
    from transformers import AutoTokenizer

    reference = ref if isinstance(ref, Reference) else resolve(ref)
    if reference.kind == "endpoint":
        raise ModelError("an endpoint has no tokenizer here", where=str(reference))
    if reference.kind == "encoder":
        raise _only_embeds(reference)
    if reference.kind == "composed":
        return load_tokenizer(next(iter(reference.models.values())))  # they share a vocabulary
    with_one = [a for a in reference.adapters if _has_tokenizer(a)]
    name = str(with_one[-1]) if with_one else reference.base
    if not with_one and reference.kind == "folder":
        folder = reference.folder
        _check_config(folder)
        if not _has_tokenizer(folder):
            raise ModelError(
                f"there is no tokenizer beside the model; looked for {', '.join(TOKENIZER_FILES)}",
                where=str(folder),
                fix=f"save it there: AutoTokenizer.from_pretrained(...).save_pretrained({folder})",
            )
    with _quiet():
        try:
            return AutoTokenizer.from_pretrained(
                name, trust_remote_code=False, local_files_only=reference.kind == "folder"
            )
        except Exception as error:  # the libraries below raise bare Exception on a damaged file
            raise _explained(error, reference, "the tokenizer cannot be loaded") from error


def base_name(ref: str | Reference) -> str:
    """What an adapter's ``base_model_name_or_path`` must say so that plain PEFT loads it.

    The hub id, or the absolute path of the folder. A reference with adapters of its own has no such
    name: merge them and save the whole model.

    Raises:
        ModelError: The reference has adapters, or is an endpoint.
    """
    reference = ref if isinstance(ref, Reference) else resolve(ref)
    if reference.kind in ("endpoint", "composed") or reference.adapters:
        raise ModelError(
            "an adapter on top of this model cannot name its base",
            where=str(reference),
            fix="merge the adapter first and tune the merged model",
        )
    return reference.base


def counted_parameters(model: PreTrainedModel) -> int:
    """Parameters that take part in a matrix product: all but an untied input embedding."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    whole = sum(p.numel() for p in model.parameters())
    tied = head is not None and head.weight is embedding.weight
    return whole if tied else whole - sum(p.numel() for p in embedding.parameters())


def pick_device(device: Device | str = "auto") -> torch.device:
    """The torch device for a setting.

    Raises:
        ModelError: There is no such device.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"the device {device!r} cannot be used: {str(error).splitlines()[0]}",
            where="device",
            fix="use auto or cpu",
        ) from error
    return place


def _base(reference: Reference, dtype: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    if reference.kind == "folder":
        _check_weights(reference.folder)
    with _quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                reference.base,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=reference.kind == "folder",
                output_loading_info=True,
            )
        except Exception as error:  # OSError, ValueError, RuntimeError, SafetensorError, ...
            raise _explained(error, reference, "the model cannot be loaded") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{len(missing)} tensors of {type(model).__name__} are not in the file, "
            f"the first is {missing[0]!r}",
            where=reference.base,
            fix="config.json and the weights belong to different models",
        )
    return model


def _check_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            "this folder holds no model: config.json is missing",
            where=str(path),
            fix="name a folder that save_pretrained wrote",
        ) from None
    except ValueError as error:
        raise ModelError(f"not valid JSON: {error}", where=str(path)) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError("config.json does not name a model_type", where=str(path))
    return config


def _check_weights(folder: Path) -> None:
    config = _check_config(folder)
    names = config.get("architectures") or []
    if names and not any(n.endswith(("ForCausalLM", "LMHeadModel")) for n in names):
        raise ModelError(
            f"{', '.join(names)} does not write text from left to right",
            where=f"{folder / 'config.json'}: architectures",
            fix="use a causal language model (an architecture named ...ForCausalLM)",
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        gone = [s for s in shards if not (folder / s).is_file()]
        if gone:
            raise ModelError(f"{len(gone)} weight files are missing", where=str(folder / gone[0]))
    elif not (folder / "model.safetensors").is_file():
        raise no_safetensors(folder, "model.safetensors")


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _with_adapters(model: PreTrainedModel, reference: Reference, merge: bool) -> Any:
    """`model` with the adapters of `reference`; `merge` as in :func:`load`."""
    from tilth.models.adapters.attach import attach, in_place, merges

    *earlier, last = reference.adapters
    for adapter in earlier:
        if not merges(adapter):
            raise ModelError(
                "this adapter cannot be added to the weights, so that another can stand on it",
                where=str(adapter),
                fix="name it last",
            )
        with _quiet():
            model = in_place(attach(model, adapter))
    with _quiet():
        adapted = attach(model, last)
    return in_place(adapted) if merge else adapted


def _only_embeds(reference: Reference) -> ModelError:
    return ModelError(
        "an encoder gives embeddings and writes no text",
        where=str(reference),
        fix="use it in select.embedding; this needs a causal language model",
    )


def _explained(error: Exception, reference: Reference, problem: str) -> ModelError:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if "trust_remote_code" in text or "custom code" in text:
        return ModelError(
            f"{problem}: it needs code from its own repository, which tilth does not run",
            where=str(reference),
            fix="use a model whose architecture transformers knows",
        )
    fix = ""
    if reference.kind == "hub":
        fix = (
            f"there is no folder {reference.base!r} here; as a hub id it must be in the cache or "
            "reachable (HF_HUB_OFFLINE=0)"
        )
    return ModelError(f"{problem}: {text}", where=str(reference), fix=fix)


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading without the library's own progress bars and notices."""
    from transformers.utils import logging as library

    bars, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
