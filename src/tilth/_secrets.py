"""Keeps keys and passwords out of everything that is written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tilth.errors import ArtefactError

__all__ = ["refuse_secrets"]

# "token" alone is a secret and "max_new_tokens" is not; "api_key_env" names a variable, not a key.
_KEY = re.compile(
    r"(^|[_\-.])(api_?key|secret(_?key)?|access_?key|private_?key|password|passwd|passphrase"
    r"|credentials?|authorization|bearer)$"
    r"|^((hf|hub|huggingface|wandb|api|auth|access|bearer|refresh|session|secret)[_\-]?)?token$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\bsk-[A-Za-z0-9_\-]{16,}|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bBearer\s+[A-Za-z0-9_\-.]{16,}|://[^/\s:@]+:[^/\s@]+@"
    r"|[?&](api_?key|token|password|access_token)=[^&\s]+",
    re.IGNORECASE,
)


def refuse_secrets(value: Any, where: str) -> None:
    """Refuses a setting that is named like a secret, or whose text looks like one.

    The shapes are those of well-known providers: a home-made key under a harmless name passes.

    Args:
        value: Settings: mappings, sequences and plain values, nested at will.
        where: The path of `value`, for the message.

    Raises:
        ArtefactError: Names the setting, never its value.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            path = f"{where}.{name}"
            if inner and isinstance(inner, str | bytes) and _KEY.search(str(name)):
                raise _refusal(path)
            refuse_secrets(inner, path)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            refuse_secrets(inner, f"{where}[{index}]")
    elif isinstance(value, str) and _VALUE.search(value):
        raise _refusal(where)


def _refusal(where: str) -> ArtefactError:
    return ArtefactError(
        "a key or password would be written to disk",
        where=where,
        fix="take it out of the settings and set it in the environment (e.g. OPENAI_API_KEY)",
    )
