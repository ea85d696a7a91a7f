"""The server, asked by the official client: answers, streams, log-probabilities, bounds, end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

openai = pytest.importorskip("openai", reason="the client is not installed: pip install openai")
uvicorn = pytest.importorskip("uvicorn", reason="pip install 'tilth[serve]'")

from tilth.cli import main  # noqa: E402
from tilth.decode.engine import open_composed  # noqa: E402
from tilth.decode.serve import Limits  # noqa: E402
from tilth.decode.serve.app import application  # noqa: E402
from tilth.decode.serve.shelf import Shelf  # noqa: E402
from tilth.errors import EngineError  # noqa: E402
from tilth.models import Sampling  # noqa: E402

ASKED = [{"role": "user", "content": "How much is 2 and 3?"}]


class Client:
    """Asks a server; never through a proxy."""

    address: str

    def client(self, key: str = "none") -> openai.OpenAI:
        http = httpx.Client(trust_env=False)
        url = f"{self.address}/v1"
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0, http_client=http)

    def post(self, **body: object) -> httpx.Response:
        url = f"{self.address}/v1/chat/completions"
        return httpx.post(url, json=body, trust_env=False, timeout=60)

    def wait(self) -> None:
        for _ in range(400):
            try:
                httpx.get(f"{self.address}/health", trust_env=False)
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")


# Where tests run in a shell's background, Ctrl-C is switched off for whatever they start.
_COMMAND = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('tilth', run_name='__main__')"
)


class Process(Client):
    """``tilth serve`` in a process of its own, on a free port of loopback."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, "serve", *words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "400", "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"(http://\S+)/v1", line):
                self.address = found[1]
                break
        else:
            raise AssertionError(f"the server did not start: {said}")
        self.wait()


class Inside(Client):
    """The application in a thread of this process."""

    def __init__(self, *models: str, key: str = "", **limits: float) -> None:
        app = application(Shelf(models), Limits(**limits), key=key)  # type: ignore[arg-type]
        config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)
        listening = config.bind_socket()
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)

    def __enter__(self) -> Inside:
        self.thread.start()
        self.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def composed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_models import tiny_model

    # Tiny models of one family share their tokenizer; the expert has other weights.
    other = tiny_model(tmp_path_factory.mktemp("serve") / "expert", "llama", seed=5)
    return f"eft:base={tiny},expert={other},anti={tiny},others=chat,weight=0.5"


@pytest.fixture(scope="module")
def server(tiny: Path, composed: str) -> Iterator[Process]:
    running = Process(str(tiny), composed, "--new-tokens", "64")
    yield running
    running.process.kill()
    running.process.wait()


def test_it_lists_its_models(server: Process, tiny: Path, composed: str) -> None:
    offered = server.client().models.list().data
    assert [model.id for model in offered] == [str(tiny), composed]
    assert [model.weight for model in offered] == [None, 0.5]


def test_an_answer_is_the_engines_own(server: Process, tiny: Path) -> None:
    said = server.client().chat.completions.create(
        model=str(tiny), messages=ASKED, temperature=0, max_tokens=12
    )
    own = open_composed(str(tiny)).chat([ASKED], Sampling(12))[0]
    assert said.choices[0].message.content == own.text
    assert said.choices[0].finish_reason == own.finish
    assert said.usage.completion_tokens == own.new_tokens
    assert said.usage.prompt_tokens == own.prompt_tokens


def test_a_stream_says_the_same_as_the_whole(server: Process, composed: str) -> None:
    client = server.client()
    settings = {"model": composed, "messages": ASKED, "temperature": 0.9, "seed": 3, "n": 2}
    whole = client.chat.completions.create(**settings, max_tokens=10)
    texts = ["", ""]
    ends: list[str | None] = [None, None]
    usage = None
    for chunk in client.chat.completions.create(
        **settings, max_tokens=10, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    assert texts[0] != texts[1]


def test_log_probabilities_of_the_composed_model_and_its_roles(
    server: Process, composed: str
) -> None:
    said = server.client().chat.completions.create(
        model=composed,
        messages=ASKED,
        temperature=0,
        max_tokens=5,
        logprobs=True,
        top_logprobs=3,
    )
    told = said.choices[0].logprobs.content
    assert len(told) == said.usage.completion_tokens
    for token in told:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-4)  # greedy
        assert token.parts.keys() == {"base", "expert"}  # the anti-expert is the base itself
        assert bytes(token.bytes).decode("utf-8", "replace") == token.token


def test_the_weight_of_a_request_moves_the_composition(server: Process, composed: str) -> None:
    def told(weight: float | None) -> list[float]:
        extra = {} if weight is None else {"weight": weight}
        said = server.client().chat.completions.create(
            model=composed,
            messages=ASKED,
            temperature=0,
            max_tokens=1,
            logprobs=True,
            extra_body=extra,
        )
        token = said.choices[0].logprobs.content[0]
        return [token.logprob, *token.parts.values()]

    assert told(None) == told(0.5)
    base_alone = told(0.0)
    assert base_alone[0] == pytest.approx(base_alone[1], abs=1e-5)
    assert told(1.0)[0] != pytest.approx(base_alone[0], abs=1e-5)


def test_plain_text_is_continued(server: Process, tiny: Path) -> None:
    said = server.client().completions.create(
        model=str(tiny), prompt=["Sow barley", "Ask the"], temperature=0, max_tokens=6, logprobs=2
    )
    own = open_composed(str(tiny)).complete(["Sow barley", "Ask the"], Sampling(6))
    assert [choice.text for choice in said.choices] == [row.text for row in own]
    assert len(said.choices[0].logprobs.tokens) == own[0].new_tokens


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"model": "seedling:smal", "messages": ASKED}, 404, "there is no model"),
        ({"messages": ASKED}, 400, "model: Field required"),
        ({"model": "*", "messages": []}, 400, "messages"),
        ({"model": "*", "messages": [{"role": "assistant", "content": "x"}]}, 400, "last turn"),
        ({"model": "*", "messages": ASKED, "max_tokens": 65}, 400, "at most 64 tokens"),
        ({"model": "*", "messages": ASKED, "n": 9}, 400, "at most 8 answers"),
        ({"model": "*", "messages": ASKED, "temperature": -1}, 400, "temperature"),
        ({"model": "*", "messages": ASKED, "tools": [{}]}, 400, "tools are not offered"),
        ({"model": "*", "messages": ASKED, "presence_penalty": 1}, 400, "penalties"),
        ({"model": "*", "messages": ASKED, "weight": 0.5}, 400, "no weight to move"),
        ({"model": "*", "messages": [{"role": "user", "content": "so " * 9000}]}, 400, "tokens"),
    ],
)
def test_a_bad_request_is_told(
    server: Process, tiny: Path, body: dict[str, object], status: int, named: str
) -> None:
    if body.get("model") == "*":
        body = {**body, "model": str(tiny)}
    reply = server.post(**body)
    assert reply.status_code == status
    assert named in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"functions": [{"name": "f"}]}, "functions: this is not offered"),
        ({"modalities": ["text", "audio"]}, "modalities: only text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text is read"),
        ({"stream": "often"}, "stream"),
    ],
)
def test_what_is_not_offered_is_refused_in_words(
    server: Process, tiny: Path, more: dict[str, object], named: str
) -> None:
    reply = server.post(**{"model": str(tiny), "messages": ASKED, **more})
    assert reply.status_code == 400
    assert named in reply.json()["error"]["message"]
    assert "Value error" not in reply.json()["error"]["message"]


def test_the_older_form_refuses_too(server: Process, tiny: Path) -> None:
    for more in ({"best_of": 2}, {"suffix": "x"}, {"echo": True}):
        with pytest.raises(openai.BadRequestError, match="not offered"):
            server.client().completions.create(model=str(tiny), prompt="Sow", **more)


def test_a_body_that_is_no_request_is_told(server: Process) -> None:
    url = f"{server.address}/v1/chat/completions"
    for body in (b"{not json", b"[]", b"", b"\xff"):
        kind = {"Content-Type": "application/json"}
        reply = httpx.post(url, content=body, headers=kind, trust_env=False)
        assert reply.status_code == 400
        assert "body" in reply.json()["error"]["message"]


def test_one_model_can_be_looked_up(server: Process, composed: str) -> None:
    assert server.client().models.retrieve(composed).weight == 0.5
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        server.client().models.retrieve("gpt")


def test_a_stop_text_ends_an_answer(server: Process, tiny: Path) -> None:
    client, settings = server.client(), {"model": str(tiny), "messages": ASKED, "temperature": 0}
    whole = client.chat.completions.create(**settings, max_tokens=30).choices[0].message.content
    stop = whole[len(whole) // 2 :][:2]
    cut = client.chat.completions.create(**settings, max_tokens=30, stop=[stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"
    streamed = client.chat.completions.create(**settings, max_tokens=30, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == cut.message.content


def test_requests_at_the_same_time_get_their_own_answers(
    server: Process, tiny: Path, composed: str
) -> None:
    asked = [(ref, f"{i} and 3?") for i in range(3) for ref in (str(tiny), composed)]
    said: dict[tuple[str, str], str] = {}

    def ask(ref: str, text: str) -> None:
        turns = [{"role": "user", "content": text}]
        reply = server.post(model=ref, messages=turns, temperature=0, max_tokens=12)
        said[ref, text] = reply.json()["choices"][0]["message"]["content"]

    together = [threading.Thread(target=ask, args=one) for one in asked]
    for one in together:
        one.start()
    for one in together:
        one.join()
    for ref in (str(tiny), composed):
        engine = open_composed(ref)
        for text in (text for other, text in asked if other == ref):
            (own,) = engine.chat([[{"role": "user", "content": text}]], Sampling(12))
            assert said[ref, text] == own.text


def test_a_weight_out_of_range_is_told(server: Process, composed: str) -> None:
    reply = server.post(model=composed, messages=ASKED, weight=3)
    assert reply.status_code == 400
    assert "'weight' is 3" in reply.json()["error"]["message"]


def test_foreign_pages_and_large_bodies_are_refused(server: Process) -> None:
    url = f"{server.address}/v1/chat/completions"
    form = httpx.post(url, content="{}", headers={"Content-Type": "text/plain"}, trust_env=False)
    assert form.status_code == 415
    rebound = httpx.post(url, json={}, headers={"Host": "evil.example"}, trust_env=False)
    assert rebound.status_code == 400
    large = httpx.post(url, json={"x": "y" * 1_000_001}, trust_env=False)
    assert large.status_code == 413
    reply = httpx.get(f"{server.address}/v1/nothing", trust_env=False)
    assert reply.status_code == 404
    assert "not offered" in reply.json()["error"]["message"]


def test_more_requests_than_may_wait_are_refused_and_none_is_lost(tiny: Path) -> None:
    replies: list[int] = []
    with Inside(str(tiny), waiting=1) as server:

        def ask() -> None:
            body = {"model": str(tiny), "messages": ASKED, "max_tokens": 100, "n": 8, "seed": 1}
            reply = server.post(**body)
            if reply.status_code == 429:
                assert reply.headers["Retry-After"] == "1"
            replies.append(reply.status_code)

        crowd = [threading.Thread(target=ask) for _ in range(12)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    assert len(replies) == 12
    assert set(replies) == {200, 429}


def test_hanging_up_frees_the_desk(tiny: Path) -> None:
    with Inside(str(tiny), new_tokens=240) as server:
        stream = server.client().chat.completions.create(
            model=str(tiny), messages=ASKED, n=8, max_tokens=200, temperature=1, stream=True
        )
        next(iter(stream))
        stream.close()
        said = server.client().chat.completions.create(
            model=str(tiny), messages=ASKED, temperature=0, max_tokens=4
        )
        assert said.usage.completion_tokens > 0


def test_a_stop_lets_an_answer_end(tiny: Path) -> None:
    server = Process(str(tiny), "--new-tokens", "400")
    try:
        stream = server.client().chat.completions.create(
            model=str(tiny), messages=ASKED, max_tokens=100, temperature=1, seed=2, stream=True
        )
        chunks = iter(stream)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        rest = list(chunks)
        assert rest[-1].choices[0].finish_reason in ("stop", "length")
        assert server.process.wait(timeout=30) == 0
    finally:
        server.process.kill()


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_with_an_answer_under_way_ends_in_order(tiny: Path, presses: int) -> None:
    server = Process(str(tiny), "--new-tokens", "240")
    try:
        body = {"model": str(tiny), "messages": ASKED, "n": 8, "max_tokens": 200, "seed": 1}
        url = f"{server.address}/v1/chat/completions"
        with httpx.stream("POST", url, json={**body, "stream": True}, trust_env=False) as reply:
            parts = reply.iter_text()
            next(parts)
            for _ in range(presses):
                server.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            try:
                rest = "".join(parts)
            except httpx.RemoteProtocolError:
                assert presses == 2, "the first Ctrl-C lets an answer end"
            else:
                assert rest.endswith("data: [DONE]\n\n")
        assert server.process.wait(timeout=30) == 130
        assert server.process.stdout is not None
        said = server.process.stdout.read()
        assert "Traceback" not in said
        assert "Error" not in said
    finally:
        server.process.kill()


def test_a_taken_port_is_told_before_models_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", "seedling:small", "--port", port]) == 1
    said = capsys.readouterr().err
    assert "already in use" in said
    assert f"--port {port}" in said
    assert "--port 0" in said
    assert main(["serve", "seedling:small", "--port", "99999"]) == 2
    assert main(["serve", f"{tmp_path}/nowhere", "--port", "0"]) == 1
    assert "no such model folder" in capsys.readouterr().err


def test_a_key_is_asked_for_where_there_is_one(tiny: Path) -> None:
    with Inside(str(tiny), key="open sesame") as server:
        with pytest.raises(openai.AuthenticationError):
            server.client("wrong").models.list()
        assert server.client("open sesame").models.list().data
        assert httpx.get(server.address, trust_env=False).status_code == 200  # the page asks for it


def test_another_address_wants_a_key(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TILTH_SERVE_KEY", raising=False)
    assert main(["serve", str(tiny), "--host", "0.0.0.0"]) == 1
    said = capsys.readouterr()
    assert "there is no key" in said.out + said.err


def test_an_answer_ends_at_the_limit_of_time(tiny: Path) -> None:
    with Inside(str(tiny), seconds=1e-6) as server:
        body = server.post(model=str(tiny), messages=ASKED, max_tokens=100, seed=1).json()
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] < 100
        ends = [
            chunk.choices[0].finish_reason
            for chunk in server.client().chat.completions.create(
                model=str(tiny), messages=ASKED, max_tokens=100, seed=1, stream=True
            )
        ]
        assert ends[-1] == "length"


def test_a_limit_of_nothing_is_an_error() -> None:
    with pytest.raises(EngineError, match="waiting is 0"):
        Limits(waiting=0)
