"""References: what each form means, and the errors of those that mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_adapter, tiny_model

from tilth.errors import ModelError
from tilth.models import digest, reference, resolve


def folder(path: Path, **files: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.fixture
def seedlings(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "almanac" / "seedlings"
    folder(root / "small", config={"model_type": "llama"})
    folder(root / "teacher", config={"model_type": "llama"})
    monkeypatch.setattr(reference, "SEEDLINGS", root)
    return root


def test_forms(tmp_path, seedlings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = folder(tmp_path / "plain", config={"model_type": "llama"})
    artefact = folder(tmp_path / "art" / "model", config={"model_type": "llama"}).parent
    assert resolve("seedling:small").folder == seedlings / "small"
    assert resolve(str(plain)).folder == plain
    assert resolve("plain").folder == plain
    assert resolve("plain", relative_to=tmp_path).folder == plain
    assert resolve(str(artefact)).folder == artefact / "model"
    hub = resolve("owner/name-1.5B")
    assert (hub.kind, hub.base) == ("hub", "owner/name-1.5B")
    end = resolve("openai:org/m@x@https://host:8000/v1/")
    assert (end.kind, end.base, end.url) == ("endpoint", "org/m@x", "https://host:8000/v1")


def test_adapters(tmp_path, seedlings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = folder(tmp_path / "one", adapter_config={"base_model_name_or_path": "seedling:small"})
    two = folder(tmp_path / "two", adapter_config={"base_model_name_or_path": "one"})
    found = resolve("one")
    assert (found.base, found.adapters) == (str(seedlings / "small"), (one,))
    assert resolve("two").adapters == (one, two)
    assert resolve("seedling:teacher+one").adapters == (one,)
    assert resolve("one+two").adapters == (one, two)
    assert resolve(f"owner/name+{one}").kind == "hub"
    art = folder(
        tmp_path / "art" / "model", adapter_config={"base_model_name_or_path": "../../one"}
    )
    assert resolve("art").adapters == (one, art)
    there = "/another/machine/lib/almanac/seedlings/small"
    folder(tmp_path / "moved", adapter_config={"base_model_name_or_path": there})
    assert resolve("moved").base == str(seedlings / "small")


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("", "empty", "seedling:small"),
        ("seedling:smal", "no seedling", "seedling:small"),
        ("seedling:../x", "no seedling", ""),
        ("./plan", "no such model folder", "plain"),
        ("plain/nothing", "no such model folder", ""),
        ("plain+", "malformed", "REF+"),
        ("plain+plain", "not a PEFT adapter", "adapter_config"),
        ("openai:m", "malformed endpoint", "openai:MODEL@"),
        ("openai:@http://h/v1", "malformed endpoint", ""),
        ("openai:m@http://me:secret@h/v1", "key or password", "TILTH_API_KEY"),
        ("openai:m@http://h/v1?key=secret", "key or password", "TILTH_API_KEY"),
        ("circle", "circle", ""),
        ("nameless", "does not name its base", "BASE+"),
        ("broken", "not a JSON object", ""),
    ],
)
def test_errors_say_what_and_how(tmp_path, seedlings, monkeypatch, text, problem, fix):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "plain", config={"model_type": "llama"})
    folder(tmp_path / "circle", adapter_config={"base_model_name_or_path": "../circle"})
    folder(tmp_path / "nameless", adapter_config={})
    folder(tmp_path / "broken", adapter_config=[1])
    with pytest.raises(ModelError) as caught:
        resolve(text)
    assert problem in caught.value.problem
    assert fix in caught.value.fix
    assert "secret" not in str(caught.value)


def test_digest_follows_the_content(tmp_path, tiny):
    adapter = tiny_adapter(tmp_path / "adapter", tiny)
    alone, adapted = digest(str(tiny)), digest(str(adapter))
    assert alone == digest(str(tiny)) != adapted
    (adapter / "more.json").write_text("{}")
    assert digest(str(adapter)) != adapted
    assert digest("openai:a@http://h/v1") != digest("openai:b@http://h/v1")
    assert digest("owner/name") == digest(resolve("owner/name"))


def test_names_need_no_torch():
    code = (
        "import sys, tilth.models; tilth.models.resolve('openai:m@http://h/v1');"
        "bad = {'torch', 'transformers', 'peft', 'datasets', 'scipy'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_new_model_card_is_not_a_new_model(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    before = digest(str(folder))
    (folder / "README.md").write_text("about the model")
    assert digest(str(folder)) == before
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert digest(str(folder)) != before
