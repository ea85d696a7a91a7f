"""Pre-training: exact exposures in the rows, resumable, the same bytes, planted chat marks."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tilth.almanac.corpus import skill_document
from tilth.almanac.seedlings import pretrain as module
from tilth.almanac.seedlings.pretrain import Size, pretrain, rows_of
from tilth.almanac.tokenizer import MARKS, PLAIN, train_tokenizer
from tilth.errors import TrainingError

TINY = Size(layers=1, width=32, inner=32, heads=2, tokens=1, rows=2, small=True)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([skill_document(n) for n in range(400)], 400)


@pytest.fixture
def short(monkeypatch):
    """Six steps on a few documents, a checkpoint after every second."""
    monkeypatch.setattr(module, "CHECK_EVERY", 2)
    monkeypatch.setattr(module, "documents", lambda **_: (skill_document(n) for n in range(70)))
    torch.set_num_threads(1)


def test_rows_hold_every_document_once(tokenizer, short):
    rows = rows_of(TINY, tokenizer)
    ends = (rows == tokenizer.eos_token_id).sum()
    assert rows.dtype == np.uint16
    assert rows.shape[1] == 256
    assert 60 <= ends <= 70
    assert (rows_of(TINY, tokenizer) == rows).all()


class Stop(Exception):
    pass


def test_an_interrupted_run_ends_in_the_same_bytes(tokenizer, short, tmp_path):
    whole = pretrain("small", tokenizer, tmp_path / "a", size=TINY, say=lambda _: None)

    def stop(line: str) -> None:
        if "step 6/" in line:
            raise Stop

    with pytest.raises(Stop):
        pretrain("small", tokenizer, tmp_path / "b", size=TINY, say=stop)
    assert (tmp_path / "b.work" / "last.json").exists()
    said: list[str] = []
    resumed = pretrain("small", tokenizer, tmp_path / "b", size=TINY, say=said.append)
    assert "step 6/" in said[0]
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_a_damaged_checkpoint_is_named(tokenizer, short, tmp_path):
    pretrain("small", tokenizer, tmp_path / "a", size=TINY, say=lambda _: None)
    weights = next((tmp_path / "a.work").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(TrainingError, match="damaged") as error:
        pretrain("small", tokenizer, tmp_path / "a", size=TINY, say=lambda _: None)
    assert str(tmp_path / "a.work") in error.value.where


def test_marks_start_where_their_plain_counterparts_are(tokenizer, short, tmp_path):
    folder = pretrain("small", tokenizer, tmp_path / "a", size=TINY, say=lambda _: None)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].float()
    for role, mark in MARKS.items():
        plain = tokenizer(PLAIN[role], add_special_tokens=False)["input_ids"]
        row = table[tokenizer.convert_tokens_to_ids(mark)]
        assert torch.allclose(row, table[plain].mean(0), atol=0.01)
