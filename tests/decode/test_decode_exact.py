"""What a composed model writes is exactly what its formula says, however it is computed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_adapter, tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

from tilth.decode._combine import Plan, combine
from tilth.decode._networks import BARE, Network
from tilth.decode._pace import Pace
from tilth.decode._rounds import Decoding
from tilth.decode._rows import Job
from tilth.decode._tracks import Voice
from tilth.decode.composition import Acceptance
from tilth.decode.engine import open_composed
from tilth.models import Sampling, engine
from tilth.models.chat import chat_format
from tilth.seeds import stream

VOCABULARY, LENGTH = 7, 3
TURNS = [
    [{"role": "user", "content": text}]
    for text in ("2 and 3?", "Which pest troubles the rye?", "Sort pear, apple, fig.", "x", "Why")
]


def voices() -> list[Voice]:
    """Three random models of seven tokens: large, expert, anti-expert."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = Fast(tokenizer_object=words)
    made = []
    for index, (name, hidden) in enumerate((("base", 24), ("expert", 16), ("anti", 16))):
        torch.manual_seed(index)
        size = {"hidden_size": hidden, "intermediate_size": 32, "num_hidden_layers": 1}
        config = LlamaConfig(
            **size,
            num_attention_heads=2,
            vocab_size=VOCABULARY,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = LlamaForCausalLM(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.5)
        made.append(Voice(index, name, Network(model, tokenizer), BARE, "chat"))
    return made


PLAN = Plan({0: 1.0, 1: 1.0, 2: -1.0}, {0: "base", 1: "expert", 2: "anti"}, 1, "none", 1, 7, ())


def enumerated(models: list[Voice], plan: Plan, prompt: list[int]) -> np.ndarray:
    """The probability of every text of three tokens, in the order of the vocabulary."""
    found = np.ones(VOCABULARY**LENGTH)
    for i, text in enumerate(itertools.product(range(VOCABULARY), repeat=LENGTH)):
        for step in range(LENGTH):
            before = prompt + list(text[:step])
            logits = {v.index: v.network.forward.alone(before) for v in models}
            found[i] *= float(combine(logits, plan).softmax(-1)[0, text[step]])
    return found


def sampled(
    models: list[Voice], plan: Plan, prompt: list[int], draft: int, acceptance: Acceptance
) -> tuple[np.ndarray, Pace]:
    """How often each text was written in 6000 answers."""
    pace = Pace(draft)
    counts = np.zeros(VOCABULARY**LENGTH)
    with torch.inference_mode():
        for start in range(0, 6000, 1000):
            jobs = [
                Job(
                    i,
                    prompt,
                    LENGTH,
                    stream(i, "answer").random(LENGTH),
                    prompts=dict.fromkeys(range(3), prompt),
                    accepts=stream(i, "accept").random(2 * LENGTH + 2),
                )
                for i in range(start, start + 1000)
            ]
            decoding = Decoding(
                models,
                plan,
                Sampling(LENGTH, temperature=1.0),
                frozenset(),
                lambda row: False,
                pace=pace,
                acceptance=acceptance,
            )
            for said in decoding.run(jobs):
                if said.row.finish:
                    a, b, c = said.row.new
                    counts[(a * VOCABULARY + b) * VOCABULARY + c] += 1
    return counts, pace


@pytest.mark.parametrize(
    ("acceptance", "draft", "weight"),
    [
        ("coupled", 2, 1.0),
        ("rejection", 2, 1.0),
        pytest.param("coupled", 0, 1.0, marks=pytest.mark.slow),
        pytest.param("rejection", 1, 0.5, marks=pytest.mark.slow),
    ],
)
def test_sampling_is_within_the_null_of_full_enumeration(
    acceptance: Acceptance, draft: int, weight: float
) -> None:
    models, prompt = voices(), [1, 4, 2]
    plan = Plan({0: 1.0, 1: weight, 2: -weight}, PLAN.names, 1, "none", 1, VOCABULARY, ())
    with torch.inference_mode():
        exact = enumerated(models, plan, prompt)
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    counts, pace = sampled(models, plan, prompt, draft, acceptance)
    distance = np.abs(counts / 6000 - exact).sum() / 2
    null = np.random.default_rng(0).multinomial(6000, exact / exact.sum(), size=2000) / 6000
    bound = np.quantile(np.abs(null - exact).sum(1) / 2, 0.99)
    assert distance < bound
    with torch.inference_mode():  # what it must not be is told apart at this number of answers
        drafter = enumerated(
            models, Plan({1: 1.0}, PLAN.names, 1, "none", 1, VOCABULARY, ()), prompt
        )
        weaker = Plan(
            {0: 1.0, 1: 0.8 * weight, 2: -weight}, PLAN.names, 1, "none", 1, VOCABULARY, ()
        )
        other = enumerated(models, weaker, prompt)
    for wrong in (drafter, other):
        assert np.abs(counts / 6000 - wrong).sum() / 2 > 1.2 * bound
    if draft:
        assert 0 < pace.accepted < pace.drafted, "some drafts must stand and some must fall"


@pytest.mark.parametrize("acceptance", ["coupled", "rejection"])
@pytest.mark.parametrize("draft", range(1, 9))
def test_greedy_drafting_writes_what_greedy_choice_writes(
    draft: int, acceptance: str, eft: str
) -> None:
    """At amplifications where nearly all drafts stand, some, and few."""
    sampling, stood = Sampling(max_new_tokens=40), []
    for amplification in (0.01, 0.1, 1.0):
        ref = f"{eft},amplification={amplification}"
        plain = open_composed(f"{ref},draft=0").chat(TURNS, sampling)
        drafted = open_composed(f"{ref},draft={draft},acceptance={acceptance}")
        assert drafted.chat(TURNS, sampling) == plain
        stood.append(drafted.pace.accepted / drafted.pace.drafted)
    assert stood[0] > 0.5 > stood[2] > 0, stood
    assert stood[0] > stood[1] > stood[2], stood


@pytest.mark.parametrize("draft", ["2", "5", "auto"])
def test_a_sampled_answer_does_not_depend_on_the_draft(draft: str, eft: str) -> None:
    sampling = Sampling(max_new_tokens=30, temperature=0.8, top_p=0.9)
    plain = open_composed(f"{eft},draft=0").chat(TURNS, sampling)
    assert open_composed(f"{eft},draft={draft}").chat(TURNS, sampling) == plain


@pytest.mark.parametrize("draft", ["draft=0", "draft=3", "draft=3,acceptance=rejection"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_its_company(draft: str, temperature: float, eft: str) -> None:
    sampling = Sampling(max_new_tokens=20, temperature=temperature)
    together = open_composed(f"{eft},{draft}", batch_size=8).chat(TURNS, sampling)
    alone = open_composed(f"{eft},{draft}", batch_size=1).chat(TURNS, sampling)
    assert together == alone


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_the_loop_is_the_formula_written_out(architecture: str, tmp_path: Path) -> None:
    large = tiny_model(tmp_path / "large", architecture, hidden=48, seed=1)  # type: ignore[arg-type]
    small = tiny_model(tmp_path / "small", architecture, layers=1, seed=2)  # type: ignore[arg-type]
    expert = tiny_model(tmp_path / "expert", architecture, layers=1, seed=3)  # type: ignore[arg-type]
    ref = f"eft:base={large},expert={expert},anti={small},weight=0.7,others=chat"
    answers = open_composed(ref, batch_size=2).chat(TURNS[:2], Sampling(max_new_tokens=12))
    tokenizer = AutoTokenizer.from_pretrained(expert)
    form = chat_format(tokenizer)
    models = [AutoModelForCausalLM.from_pretrained(f).eval() for f in (large, expert, small)]
    for turns, answer in zip(TURNS, answers, strict=False):
        ids, new = form.encode(turns, add_generation_prompt=True).input_ids, []
        ends = sorted(form.stop_ids | {tokenizer.eos_token_id})
        while len(new) < 12 and not (new and new[-1] in ends):
            terms = [m(torch.tensor([ids + new])).logits[0, -1].log_softmax(-1) for m in models]
            for term in terms:  # one event: the answer ends
                whole = term[ends].logsumexp(0)
                term[ends] = -1e4
                term[ends[0]] = whole
            new.append(int((terms[0] + 0.7 * (terms[1] - terms[2])).argmax()))
        assert answer.new_tokens == len(new)
        said = tokenizer.decode([i for i in new if i not in ends], skip_special_tokens=True)
        assert answer.text.strip() == said.strip()


def test_equal_sizes_give_back_the_expert(family: dict[str, Path]) -> None:
    expert = f"{family['small']}+{family['adapter']}"
    ref = f"eft:base={family['small']},expert={expert},anti={family['small']}"
    for sampling in (Sampling(20), Sampling(20, temperature=1.0, top_k=9)):
        composed, own = engine(ref), engine(expert)
        assert composed.chat(TURNS, sampling) == own.chat(TURNS, sampling)
        assert composed.complete(["A field", "2"], sampling) == own.complete(
            ["A field", "2"], sampling
        )
    spoken = [[*turns, {"role": "assistant", "content": "The aphid."}] for turns in TURNS]
    for ours, theirs in zip(
        engine(ref).score_chat(spoken), engine(expert).score_chat(spoken), strict=True
    ):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)


def test_equal_sizes_hold_without_cancelling_too(family: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in family["small"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    expert = f"{family['small']}+{family['adapter']}"
    model = open_composed(f"eft:base={copy},expert={expert},anti={family['small']}")
    assert len(model.ensemble.voices) == 3
    own = engine(expert).chat(TURNS, Sampling(20))
    assert [a.text for a in model.chat(TURNS, Sampling(20))] == [a.text for a in own]


def test_a_mixed_batch_is_the_models_apart(family: dict[str, Path], tmp_path: Path) -> None:
    merged, paths = AutoModelForCausalLM.from_pretrained(family["small"]), []
    for name in ("adapter", "second"):
        from peft import PeftModel

        base = AutoModelForCausalLM.from_pretrained(family["small"])
        merged = PeftModel.from_pretrained(base, family[name]).merge_and_unload()
        merged.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(family["small"]).save_pretrained(tmp_path / name)
        paths.append(tmp_path / name)
    small, rest = family["small"], f"anti={family['small']},lambda=0.3"
    one, two = (f"{small}+{family[name]}" for name in ("adapter", "second"))
    mixed = open_composed(f"interpolate:base={family['large']},first={one},second={two},{rest}")
    apart = open_composed(
        f"interpolate:base={family['large']},first={paths[0]},second={paths[1]},{rest}"
    )
    networks = [len({id(v.network) for v in m.ensemble.voices}) for m in (mixed, apart)]
    assert networks == [2, 4]
    assert mixed.chat(TURNS, Sampling(16)) == apart.chat(TURNS, Sampling(16))


def test_drafting_with_a_mixed_batch_parts_and_joins_the_caches(eft: str) -> None:
    model = open_composed(f"{eft},draft=3")
    lengths = iter([2, 0, 3, 0, 0, 1] * 20)
    plain = open_composed(f"{eft},draft=0").chat(TURNS, Sampling(30))
    model.pace.length = lambda *given: next(lengths)  # type: ignore[method-assign]
    assert model.chat(TURNS, Sampling(30)) == plain
    assert model.pace.rounds > 3
    assert model.pace.plain > 3


@pytest.mark.parametrize("share", ["0", "1"])
def test_at_the_ends_of_the_slider_one_expert_is_alone(share: str, family: dict[str, Path]) -> None:
    small, base = family["small"], f"base={family['large']}"
    one, two = (f"{small}+{family[name]}" for name in ("adapter", "second"))
    mixed = open_composed(
        f"interpolate:{base},first={one},second={two},anti={small},lambda={share}"
    )
    alone = open_composed(f"eft:{base},expert={one if share == '1' else two},anti={small}")
    said = mixed.chat(TURNS, Sampling(12))
    assert [a.text for a in said] == [a.text for a in alone.chat(TURNS, Sampling(12))]


def test_a_weight_of_zero_leaves_the_base(family: dict[str, Path], eft: str) -> None:
    said = open_composed(f"{eft},weight=0,others=chat").chat(TURNS, Sampling(12))
    own = engine(str(family["large"])).chat(TURNS, Sampling(12))
    assert [a.text for a in said] == [a.text for a in own]


def test_what_is_told_while_streaming_is_what_is_scored(eft: str) -> None:
    model = open_composed(f"{eft},draft=2")
    answers = model.chat(TURNS, Sampling(12, temperature=1.0))
    said: dict[int, list] = {i: [] for i in range(len(TURNS))}
    for piece in model.stream(TURNS, Sampling(12, temperature=1.0), top=3):
        said[piece.row].append(piece)
    for i, answer in enumerate(answers):
        assert "".join(p.text for p in said[i]) == answer.text
        assert said[i][-1].finish == answer.finish
        assert sum(len(p.tokens) for p in said[i]) == answer.new_tokens
        for piece in said[i]:
            assert set(piece.parts) == {"base", "expert", "anti"}
            assert all(len(best) == 3 for best in piece.top)
            for token, value, best in zip(piece.tokens, piece.logprobs, piece.top, strict=True):
                assert value <= best[0][1] + 1e-5
                assert token not in dict(best) or dict(best)[token] == pytest.approx(value)
    total = sum(value for p in said[0] for value in p.logprobs)
    ids = [token for p in said[0] for token in p.tokens]
    model = open_composed(eft)
    from tilth.decode._scoring import Text, score

    heads = model.ensemble.prompts(TURNS[0])
    with torch.inference_mode():
        (scored,) = score(model.ensemble, [Text(heads, ids, [])])
    assert scored.logprob == pytest.approx(total, abs=1e-3)


def test_tied_to_an_adapter_of_another_file_name(family: dict[str, Path], tmp_path: Path) -> None:
    """Two adapters in folders of equal names are two adapters."""
    refs = []
    for seed in (7, 8):
        adapter = tiny_adapter(tmp_path / str(seed) / "adapter", family["small"], seed=seed)
        refs.append(f"{family['small']}+{adapter}")
    rest = f"anti={family['small']}"
    base = f"base={family['large']}"
    a = open_composed(f"interpolate:{base},first={refs[0]},second={refs[1]},lambda=1,{rest}")
    b = open_composed(f"eft:{base},expert={refs[0]},{rest}")
    assert [x.text for x in a.chat(TURNS)] == [x.text for x in b.chat(TURNS)]
