"""Next tokens: the mean digit by hand, the same logits as transformers, missing digits, kills."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TEXT, tiny_model, tiny_tokenizer

from tilth.errors import EngineError
from tilth.models import engine, load
from tilth.models.chat import chat_format
from tilth.models.digits import DIGITS, expected_digit, next_reader, option_ids

CHATS = [[{"role": "user", "content": t[: 5 + 7 * i]}] for i, t in enumerate(TEXT)]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has every digit as one token."""
    return tiny_model(tmp_path_factory.mktemp("digits") / "model", "qwen2")


def test_the_mean_digit_by_hand() -> None:
    # sum k e^(k-1) / sum e^(k-1) for k = 1..6, to five decimals
    found = expected_digit(np.array([[0.0] * 6, [0, 1, 2, 3, 4, 5]]))
    assert found.round(5).tolist() == [3.5, 5.43293]


@given(
    st.lists(st.floats(-30, 30), min_size=6, max_size=6),
    st.floats(-500, 500),
)
def test_a_constant_on_all_logits_changes_nothing(logits: list[float], constant: float) -> None:
    row = np.array([logits])
    found = expected_digit(row)
    assert 1 <= found[0] <= 6
    np.testing.assert_allclose(expected_digit(row + constant), found, atol=1e-9)


def test_other_tokens_do_not_count() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.5, -0.2])
    others = (torch.full((50,), -9.0), torch.full((50,), 12.0))
    found = [torch.log_softmax(torch.cat([logits, more]), 0)[:6] for more in others]
    assert not torch.allclose(found[0], found[1])
    alone, beside_likely_ones = (expected_digit(row[None].numpy()) for row in found)
    np.testing.assert_allclose(alone, beside_likely_ones, atol=1e-5)


def test_unknown_digits_are_left_out_and_a_row_without_any_is_no_number() -> None:
    nan = math.nan
    rows = np.array([[nan, 0.0, nan, 0.0, nan, nan], [nan] * 6, [nan] * 5 + [-90.0]])
    found = expected_digit(rows)
    assert found[0] == 3
    assert np.isnan(found[1])
    assert found[2] == 6


def test_other_values_than_one_to_k() -> None:
    assert expected_digit(np.zeros((1, 3)), values=[0, 5, 10]).tolist() == [5]


@pytest.mark.parametrize("own", [True, False], ids=["template", "no-template"])
def test_they_are_the_log_probabilities_that_transformers_gives(tmp_path: Path, own: bool) -> None:
    folder = str(tiny_model(tmp_path / "model", "qwen2", chat_template=own))
    found = next_reader(engine(folder, batch_size=3)).next_tokens(CHATS)
    model, tokenizer = load(folder, "cpu")
    form = chat_format(tokenizer)
    opening, ids = option_ids(form, DIGITS, "")
    assert [tokenizer.decode([i]) for i in ids] == list(DIGITS)
    assert tokenizer.decode(opening) == ("" if own else " "), "the space that training puts there"
    for chat, row in zip(CHATS, found, strict=True):
        prompt = form.encode(chat, add_generation_prompt=True).input_ids + opening
        logits = model(torch.tensor([prompt])).logits[0, -1].float()
        expected = torch.log_softmax(logits, -1)[ids]
        np.testing.assert_allclose(row, expected.detach().numpy(), atol=1e-4)


def test_the_batch_and_repeated_rows_change_nothing(qwen: Path) -> None:
    rows = [*CHATS, CHATS[2], CHATS[0]]
    alone, many = (next_reader(engine(str(qwen), batch_size=b)).next_tokens(rows) for b in (1, 32))
    np.testing.assert_allclose(alone, many, atol=1e-4)
    assert many[-1].tolist() == many[0].tolist()
    assert many[-2].tolist() == many[2].tolist()


def test_a_digit_that_is_not_one_token_is_refused() -> None:
    # The tiny Llama tokenizer has " 5" as one token, and " 1" as a space and a "1".
    llama, qwen2 = tiny_tokenizer("llama"), tiny_tokenizer("qwen2")
    with pytest.raises(EngineError, match="'1' is not one token of this tokenizer but 2"):
        option_ids(chat_format(llama), DIGITS, "here")
    with pytest.raises(EngineError, match="'10' is not one token"):
        option_ids(chat_format(qwen2), ("9", "10"), "here")


def test_digits_that_the_vocabulary_lacks_are_refused() -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as forms
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "</s>": 1, "User:": 2, "Assistant:": 3, "x": 4}
    raw = Tokenizer(forms.WordLevel(words | {str(n): 4 + n for n in range(1, 6)}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    five = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    opening, ids = option_ids(chat_format(five), DIGITS[:5], "here")
    assert (opening, ids) == ([], [5, 6, 7, 8, 9])
    with pytest.raises(EngineError, match="is not one token"):  # both are the unknown token
        option_ids(chat_format(five), ("6", "7"), "here")


def test_options_must_be_different_texts(qwen: Path) -> None:
    reader = next_reader(engine(str(qwen)))
    for options in (["1"], ["1", "1"], ["1", ""]):
        with pytest.raises(EngineError, match="two or more different"):
            reader.next_tokens(CHATS, options)
    assert reader.next_tokens([]).shape == (0, 6)


def test_an_engine_that_cannot_is_told() -> None:
    class Mute:
        reference = "mute"

    with pytest.raises(EngineError, match="cannot say how probable"):
        next_reader(Mute())  # type: ignore[arg-type]


# --- endpoints ------------------------------------------------------------------------------


@contextmanager
def judge(listed: dict[str, float] | None) -> Iterator[tuple[str, list[dict]]]:
    """A server that lists `listed` as its likeliest tokens, whatever it is asked."""
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            refused = "refuse" in asked[-1]["messages"][-1]["content"]
            choice: dict = {"message": {"content": "4"}, "finish_reason": "length"}
            if listed is not None:
                top = [{"token": t, "logprob": p} for t, p in listed.items()]
                choice["logprobs"] = {"content": [{"token": "4", "top_logprobs": top}]}
            body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9}}).encode()
            self.send_response(400 if refused else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"openai:judge@http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def test_an_endpoint_is_asked_for_its_likeliest_tokens(tmp_path: Path) -> None:
    listed = {"4": math.log(0.5), " 4": math.log(0.1), "5": math.log(0.2), "the": math.log(0.1)}
    with judge(listed) as (ref, asked):
        reader = engine(ref, cache=tmp_path / "answers.jsonl", retries=0)
        refused = [{"role": "user", "content": "refuse this"}]
        found = next_reader(reader).next_tokens([CHATS[0], refused])
        assert found[0, 3] == pytest.approx(math.log(0.6))
        assert np.isnan(found[0, [0, 1, 2, 5]]).all()
        assert expected_digit(found)[0] == pytest.approx((4 * 0.6 + 5 * 0.2) / 0.8)
        assert np.isnan(found[1]).all(), "no answer is no score, and never a middle one"
        assert (asked[0]["max_tokens"], asked[0]["top_logprobs"]) == (1, 20)
        again = engine(ref, cache=tmp_path / "answers.jsonl", retries=0)
        before = len(asked)
        assert next_reader(again).next_tokens([CHATS[0]])[0, 3] == found[0, 3]
        assert len(asked) == before, "kept answers are not asked for again"


def test_an_endpoint_without_log_probabilities_is_told() -> None:
    with judge(None) as (ref, _), pytest.raises(EngineError, match="gives no top_logprobs"):
        next_reader(engine(ref)).next_tokens(CHATS[:1])


# --- kills ----------------------------------------------------------------------------------

_SCORE = """
import sys
import numpy as np
from tilth.models import engine
from tilth.models.digits import next_reader
model, cache, rows, out = sys.argv[1:]
asked = [[{"role": "user", "content": f"Row {n * 7919 % 100003} " + "x" * (n % 9)}]
         for n in range(int(rows))]
reader = engine(model, cache=cache, batch_size=64, progress=False)
found = next_reader(reader).next_tokens(asked)
np.save(out, found)
print(int(reader.ledger.tokens_read))
"""


def score(model: Path, cache: Path, rows: int, out: Path, stop_at: int | None = None) -> int:
    """Scores in a process of its own; kills it once `stop_at` answers are on disk."""
    arguments = [sys.executable, "-c", _SCORE, str(model), str(cache), str(rows), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        while stop_at is not None:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
            lines = cache.read_bytes().count(b"\n") if cache.exists() else 0
            if lines >= stop_at:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return lines
        said, _ = process.communicate()
        assert process.returncode == 0
    return int(said)


def killed(tmp_path: Path, rows: int, stops: list[int]) -> None:
    model = tiny_model(tmp_path / "model", "qwen2")
    tokens = score(model, tmp_path / "whole.jsonl", rows, tmp_path / "whole.npy")
    cache = tmp_path / "answers.jsonl"
    for stop in stops:
        score(model, cache, rows, tmp_path / "parts.npy", stop)
    kept = cache.read_bytes().count(b"\n")
    assert stops[-1] <= kept < rows
    rest = score(model, cache, rows, tmp_path / "parts.npy")
    assert 0 < rest < tokens
    keys = [json.loads(line)["key"] for line in cache.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == rows, "no row is scored twice"
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    killed(tmp_path, 1500, [200])


@pytest.mark.slow
def test_twenty_thousand_rows_survive_kills(tmp_path: Path) -> None:
    killed(tmp_path, 20_000, [1_000, 6_000, 15_000])
