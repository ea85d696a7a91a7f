"""The local engine: an answer is a function of the row alone, on every architecture."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, TEXT, tiny_adapter, tiny_model

from tilth.cost import Ledger
from tilth.errors import DataError, EngineError
from tilth.models import Completion, Sampling, encode_chat, engine, load, require

TEXTS = [t[: 3 + 5 * i] for i, t in enumerate(TEXT * 2)] + ["Sow", "x"]
CHATS = [[{"role": "user", "content": t}] for t in TEXTS]
GREEDY = Sampling(max_new_tokens=16)
RULES = [
    GREEDY,
    Sampling(max_new_tokens=12, temperature=0.7),
    Sampling(max_new_tokens=12, temperature=1.3, top_k=7, top_p=0.9),
]


@pytest.fixture(scope="module")
def engines(models):
    """Each architecture at batch sizes 1, 3 and 32."""
    return {a: [engine(str(f), batch_size=b) for b in (1, 3, 32)] for a, f in models.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"t{r.temperature}")
def test_answers_do_not_depend_on_the_batch(engines, architecture, rule):
    alone, three, all_at_once = (e.complete(TEXTS, rule) for e in engines[architecture])
    assert alone == three == all_at_once
    assert len({c.text for c in alone}) > len(TEXTS) // 2
    if rule is not GREEDY:
        seeds = [100 + i for i in range(len(TEXTS))]
        again = engines[architecture][2].complete(TEXTS, rule, seeds=seeds)
        assert again != alone
        turned = engines[architecture][1].complete(TEXTS[::-1], rule, seeds=seeds[::-1])
        assert turned[::-1] == again


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_agrees_with_transformers(engines, models, architecture):
    model, tokenizer = load(str(models[architecture]), "cpu")
    answers = engines[architecture][2].complete(TEXTS[:6], GREEDY)
    for text, mine in zip(TEXTS[:6], answers, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
        new = whole[0, ids.shape[1] :]
        assert mine.text == tokenizer.decode(new, skip_special_tokens=True)
        assert (mine.prompt_tokens, mine.new_tokens) == (ids.shape[1], len(new))
        assert mine.finish == ("stop" if new[-1] == tokenizer.eos_token_id else "length")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("own", [True, False], ids=["template", "no-template"])
def test_chats_answer_with_and_without_a_template(tmp_path, architecture, own):
    folder = tiny_model(tmp_path / "model", architecture, chat_template=own, tied=True)
    one, many = (engine(str(folder), batch_size=b).chat(CHATS, GREEDY) for b in (1, 32))
    assert one == many
    assert not any("<|" in c.text for c in one)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_log_probabilities_and_do_not_depend_on_the_batch(engines, models, architecture):
    pairs = [(t, " " + u[:12]) for t, u in zip(TEXTS[:16], TEXT[::-1] * 2, strict=True)] + [
        ("Sow", "")
    ]
    alone, three, all_at_once = (e.score(pairs) for e in engines[architecture])
    for a, b, c in zip(alone, three, all_at_once, strict=True):
        assert a.tokens == b.tokens == c.tokens
        assert abs(a.logprob - b.logprob) < 1e-5 * max(1, a.tokens)
        assert abs(a.logprob - c.logprob) < 1e-5 * max(1, a.tokens)
    assert (alone[-1].logprob, alone[-1].tokens, alone[-1].mean) == (0.0, 0, 0.0)
    model, tokenizer = load(str(models[architecture]), "cpu")
    for (prompt, text), score in zip(pairs[:5], alone[:5], strict=True):
        head = tokenizer(prompt.rstrip()).input_ids
        ids = head + tokenizer(prompt + text).input_ids[len(head) :]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = sum(float(logs[i - 1, ids[i]]) for i in range(len(head), len(ids)))
        assert score.logprob == pytest.approx(expected, abs=1e-3)


def test_white_space_at_the_boundary_belongs_to_the_continuation(engines):
    for each in engines.values():
        one, other = each[0].score([("Answer: ", "5"), ("Answer:", " 5")])
        assert one == other
        (empty,) = each[0].score([("", "The answer")])
        assert empty.tokens > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chat_scores_cover_the_last_answer_and_its_end(engines, architecture):
    answered = [[*c, {"role": "assistant", "content": "The answer is 5."}] for c in CHATS]
    scores = engines[architecture][2].score_chat(answered)
    assert scores[0].tokens == scores[1].tokens > 3
    with pytest.raises(DataError, match="does not end with an assistant turn"):
        engines[architecture][2].score_chat(CHATS)
    # Greedy decoding reads the same prompt: the likeliest first token scores at least as well.
    first = engines[architecture][2].chat(CHATS[:1], Sampling(max_new_tokens=1))
    assert first[0].prompt_tokens > len(["Question"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_are_unit_means_of_the_last_states(engines, models, architecture):
    alone, three, all_at_once = (e.embed([*TEXTS, ""]) for e in engines[architecture])
    np.testing.assert_allclose(alone, three, atol=2e-6)
    np.testing.assert_allclose(alone, all_at_once, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
    assert alone.dtype == np.float32
    model, tokenizer = load(str(models[architecture]), "cpu")
    with torch.no_grad():
        states = model.base_model(**tokenizer(TEXTS[5], return_tensors="pt")).last_hidden_state
    mean = states[0].mean(0)
    np.testing.assert_allclose(alone[5], mean / mean.norm(), atol=1e-5)


def test_near_ties_are_decided_on_the_row_alone(tmp_path, tiny):
    """With all logits equal, only the rule for near ties can make batches agree."""
    model, tokenizer = load(str(tiny), "cpu")
    model.lm_head.weight.data *= 1e-6
    model.save_pretrained(tmp_path / "flat")
    tokenizer.save_pretrained(tmp_path / "flat")
    one, many = (engine(str(tmp_path / "flat"), batch_size=b) for b in (1, 32))
    for rule in (Sampling(max_new_tokens=5), Sampling(5, temperature=1.0, top_k=7, top_p=0.8)):
        assert one.complete(TEXTS[:6], rule) == many.complete(TEXTS[:6], rule)


def first_words(models, architecture, rule=GREEDY) -> tuple[list[Completion], object]:
    made = engine(str(models[architecture]), batch_size=8)
    return made.complete(TEXTS, rule), made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stop_texts_end_the_answer_and_are_left_out(models, architecture):
    free, made = first_words(models, architecture)
    stop = next(c.text[3:5] for c in free if len(c.text) > 8)
    stopped = made.complete(TEXTS, Sampling(max_new_tokens=16, stop=(stop, "never comes")))
    assert any(c.finish == "stop" and c.text != f.text for c, f in zip(stopped, free, strict=True))
    for cut, whole in zip(stopped, free, strict=True):
        assert stop not in cut.text
        assert cut.text == whole.text.split(stop)[0]


def test_every_end_token_of_the_generation_settings_stops(tmp_path, models):
    model, tokenizer = load(str(models["qwen2"]), "cpu")
    prompt = tokenizer(TEXTS[:1], return_tensors="pt")
    whole = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0].tolist()
    ids = whole[prompt.input_ids.shape[1] :]
    folder = tiny_model(tmp_path / "model", "qwen2")
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["eos_token_id"] = [tokenizer.eos_token_id, ids[2]]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    stopped = engine(str(folder)).complete(TEXTS[:1], GREEDY)[0]
    assert stopped.finish == "stop"
    assert stopped.new_tokens == 1 + ids.index(ids[2])
    assert stopped.text == tokenizer.decode(ids[: ids.index(ids[2])])


def test_the_end_mark_of_the_chat_stops(models):
    made = engine(str(models["llama"]))
    end = made.tokenizer.convert_tokens_to_ids("<|end|>")
    ids = torch.tensor([encode_chat(made.tokenizer, CHATS[0], True).input_ids])
    with torch.no_grad():
        state = made.model.base_model(ids).last_hidden_state[0, -1]
        made.model.lm_head.weight[:] = 0
        made.model.lm_head.weight[end] = state  # the end mark is now the likeliest first token
    answer = made.chat(CHATS[:1], Sampling(max_new_tokens=4))[0]
    assert (answer.text, answer.finish, answer.new_tokens) == ("", "stop", 1)


def test_prompts_beyond_the_window(tmp_path):
    folder = tiny_model(tmp_path / "model", "gpt2", context=32)
    strict = engine(str(folder))
    with pytest.raises(EngineError, match="has 42 tokens, the model reads at most 32") as caught:
        strict.complete(["Sow", "x " * 40], Sampling(max_new_tokens=4))
    assert "row 1" in caught.value.where
    with pytest.raises(EngineError, match="at most 32"):
        strict.score([("x " * 20, "y " * 20)])
    with pytest.raises(EngineError, match="at most 32"):
        strict.embed(["x " * 40])
    # A prompt that fits leaves what room there is.
    last = strict.complete(["x " * 14], Sampling(max_new_tokens=64))[0]
    assert last.prompt_tokens + last.new_tokens <= 33
    cut = engine(str(folder), long_prompts="cut")
    done = cut.complete(["x " * 40], Sampling(max_new_tokens=8))[0]
    assert done.prompt_tokens == 24
    assert cut.score([("x " * 40, " Sow")])[0].tokens > 0
    assert cut.embed(["x " * 40]).shape == (1, 32)


def test_an_adapter_answers_otherwise_than_its_base(tmp_path, tiny):
    folder = tiny_adapter(tmp_path / "adapter", tiny)
    base, adapted = engine(str(tiny)), engine(f"{tiny}+{folder}")
    assert base.complete(TEXTS, GREEDY) != adapted.complete(TEXTS, GREEDY)
    assert adapted.complete(TEXTS, GREEDY) == engine(str(folder)).complete(TEXTS, GREEDY)


def test_the_ledger_counts_tokens_and_operations(tiny):
    ledger = Ledger()
    made = engine(str(tiny), ledger=ledger)
    done = made.complete(TEXTS, GREEDY)
    assert ledger.tokens_generated == sum(c.new_tokens for c in done)
    assert ledger.tokens_read == sum(c.prompt_tokens + c.new_tokens - 1 for c in done)
    embedding = made.model.get_input_embeddings().weight.numel()
    matrices = sum(p.numel() for p in made.model.parameters()) - embedding
    assert ledger.flops > 2 * matrices * ledger.tokens_read
    assert ledger.flops < 2 * matrices * ledger.tokens_read * 2
    before = ledger.tokens_read
    made.score([("Sow", " barley")])
    made.embed(["Sow"])
    assert ledger.tokens_read > before


def test_empty_input_and_bad_settings(tiny):
    made = engine(str(tiny))
    assert made.complete([]) == made.chat([]) == made.score([]) == []
    assert made.embed([]).shape == (0, 32)
    assert made.complete([""], GREEDY)[0].new_tokens > 0
    with pytest.raises(EngineError, match="2 seeds for 1 rows"):
        made.complete(["x"], GREEDY, seeds=[1, 2])
    with pytest.raises(EngineError, match="unknown engine option 'batchsize'"):
        engine(str(tiny), batchsize=3)
    with pytest.raises(EngineError, match="batch_size is 0"):
        engine(str(tiny), batch_size=0)
    for bad in ({"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"stop": ("",)}):
        with pytest.raises(EngineError, match=next(iter(bad))):
            Sampling(**bad)
    require(made, "chat", "complete", "score", "score_chat", "embed")


def test_threads_are_given_back(tiny):
    before = torch.get_num_threads()
    engine(str(tiny), threads=2).complete(["x"], Sampling(max_new_tokens=1))
    assert torch.get_num_threads() == before


def test_a_killed_run_asks_only_for_the_rest(tmp_path, tiny):
    cache = tmp_path / "answers.jsonl"
    code = textwrap.dedent(f"""
        import os
        from tilth.models import Sampling, engine
        from tilth.models.answers import AnswerCache
        put = AnswerCache.put
        def put_and_die(self, key, answer):
            put(self, key, answer)
            if len(self) == 5:
                os.write(self._file, b'{{"key": "torn off in the mid')
                os.kill(os.getpid(), 9)
        AnswerCache.put = put_and_die
        made = engine({str(tiny)!r}, cache={str(cache)!r}, batch_size=2)
        made.complete({TEXTS!r}, Sampling(max_new_tokens=12, temperature=0.7))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    resumed = engine(str(tiny), cache=cache, batch_size=4)
    answers = resumed.complete(TEXTS, RULES[1])
    assert answers == engine(str(tiny)).complete(TEXTS, RULES[1])
    assert resumed.ledger.tokens_generated == sum(c.new_tokens for c in answers) - sum(
        json.loads(line)["answer"]["new_tokens"] for line in cache.read_text().splitlines()[:5]
    )
    third = engine(str(tiny), cache=cache)
    assert third.complete(TEXTS, RULES[1]) == answers
    assert third.ledger.tokens_generated == 0


def test_another_model_does_not_see_the_answers(tmp_path, tiny):
    cache = tmp_path / "deep" / "answers.jsonl"
    engine(str(tiny), cache=cache).complete(["Sow"], GREEDY)
    other = tiny_model(tmp_path / "other", "llama", seed=1)
    made = engine(str(other), cache=cache)
    assert made.complete(["Sow"], GREEDY) == engine(str(other)).complete(["Sow"], GREEDY)
    assert made.ledger.tokens_generated > 0
    with pytest.raises(EngineError, match="cannot be written"):
        engine(str(tiny), cache=Path("/proc/nothing/answers.jsonl"))
