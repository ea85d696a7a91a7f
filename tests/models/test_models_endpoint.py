"""The endpoint engine against a real server on this machine that misbehaves on request."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tilth.cost import Ledger
from tilth.errors import EngineError
from tilth.models import Sampling, engine, require

KEY = "sk-very-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Answers a prompt by its first word: ``429`` is refused once, ``always500`` for ever."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: Counter[str] = Counter()
        self.payloads: list[dict] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the tests."""

    @property
    def reference(self) -> str:
        return f"openai:tiny@http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: object, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.payloads.append(payload)
            server.keys.append(self.headers.get("Authorization"))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self.respond(payload)
        finally:
            with server.lock:
                server.at_once -= 1

    def respond(self, payload: dict) -> None:
        if self.path == "/v1/embeddings":
            rows = [{"index": i, "embedding": [len(t), 1]} for i, t in enumerate(payload["input"])]
            return self.answer(200, {"data": rows[::-1]})
        chat = self.path == "/v1/chat/completions"
        prompt = payload["messages"][-1]["content"] if chat else payload["prompt"]
        with self.server.lock:
            self.server.seen[prompt] += 1
            first = self.server.seen[prompt] == 1
        word = prompt.split()[0]
        if word == "key":
            return self.answer(401, {"error": f"bad key {self.headers['Authorization']}"})
        if word == "model":
            return self.answer(404, {"error": "no such model"})
        if word == "refused":
            return self.answer(400, {"error": f"too long for {self.headers['Authorization']}"})
        if word == "always500":
            return self.answer(500, {"error": "oh"})
        if word == "429" and first:
            return self.answer(429, {"error": "slow down"}, Retry_After="0.3")
        if word == "500" and first:
            return self.answer(503, b"busy")
        if word == "malformed" and first:
            return self.answer(200, b'{"choices": [')
        if word == "list" and first:
            return self.answer(200, [])
        if word == "drop" and first:
            self.close_connection = True
            return self.connection.close()
        if word == "slow" and first:
            self.server.over.wait(30)
        if word == "hold":
            time.sleep(0.03)
        if payload.get("echo"):
            return self.echo(prompt)
        text = None if word == "null" else f"seen {prompt} seed {payload['seed']}"
        if word == "empty":
            return self.answer(200, {"choices": []})
        reason = {"long": "length", "filtered": "content_filter"}.get(word, "stop")
        said = {"message": {"content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        return self.answer(200, {"choices": [{**said, "finish_reason": reason}], "usage": usage})

    def echo(self, prompt: str) -> None:
        """A token is a word with the space before it; its log-probability is minus its place."""
        offsets = [0, *(i for i, c in enumerate(prompt) if c == " ")]
        values = [None, *(-float(i) for i in range(1, len(offsets)))]
        offsets, values = [*offsets, len(prompt)], [*values, -99.0]  # the one generated token
        self.answer(
            200, {"choices": [{"logprobs": {"token_logprobs": values, "text_offset": offsets}}]}
        )


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("TILTH_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def made(server: Server, **options):
    return engine(server.reference, **{"first_wait": 0.01, "retries": 2, **options})


def chats(*texts: str):
    return [[{"role": "user", "content": t}] for t in texts]


def test_answers_in_order_with_seeds_and_settings(server):
    rule = Sampling(max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=4, stop=("END",))
    texts = [f"row {i}" for i in range(20)]
    client = made(server)
    done = client.chat(chats(*texts), rule, seeds=range(100, 120))
    assert [c.text for c in done] == [f"seen row {i} seed {100 + i}" for i in range(20)]
    assert {(c.finish, c.prompt_tokens, c.new_tokens) for c in done} == {("stop", 7, 3)}
    wanted = {"model": "tiny", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 4}
    assert all(p.items() >= {**wanted, "stop": ["END"]}.items() for p in server.payloads)
    plain = client.complete(texts[:2], Sampling())
    assert [c.text for c in plain] == ["seen row 0 seed 0", "seen row 1 seed 1"]
    assert "top_k" not in server.payloads[-1]
    assert client.ledger.requests == 22
    assert (client.ledger.tokens_read, client.ledger.tokens_generated) == (22 * 7, 22 * 3)
    assert client.chat([]) == []


@pytest.mark.parametrize("word", ["429", "500", "malformed", "list", "drop", "slow"])
def test_what_passes_is_tried_again(server, word):
    client = made(server, timeout=1.5 if word == "slow" else 60.0)
    started = time.monotonic()
    done = client.chat(chats("fine", f"{word} now"))
    assert [c.finish for c in done] == ["stop", "stop"]
    # On a busy machine a short timeout may hit an innocent request too.
    assert server.seen[f"{word} now"] == 2 or word == "slow"
    assert client.ledger.requests == 3 or word == "slow"
    assert word != "429" or time.monotonic() - started >= 0.3  # Retry-After is a lower bound
    assert client.failed == 0


@pytest.mark.parametrize(
    ("word", "requests", "error"),
    [
        ("always500", 3, "status 500"),
        ("refused", 1, "status 400"),
        ("filtered", 1, "content_filter"),
        ("empty", 1, "choices[0]"),
    ],
)
def test_a_row_that_fails_says_so_and_the_others_go_on(server, caplog, word, requests, error):
    client = made(server)
    with caplog.at_level(logging.WARNING):
        good, bad, fine = client.chat(chats("good", f"{word} row", "fine"))
    assert good.finish == fine.finish == "stop"
    assert (bad.finish, bad.text) == ("error", "")
    assert error in bad.error
    assert server.seen[f"{word} row"] == requests
    assert client.failed == 1
    assert "1 of 3 rows" in caplog.text


def test_null_content_and_length(server):
    null, long = made(server).chat(chats("null", "long"))
    assert (null.text, null.finish) == ("", "stop")
    assert long.finish == "length"


def test_a_stop_text_is_cut_where_the_server_leaves_it_in(server):
    done = made(server).complete(["one two"], Sampling(stop=(" two",)))[0]
    assert (done.text, done.finish) == ("seen one", "stop")


def test_the_bound_on_requests_at_once_holds(server):
    made(server, concurrency=3).chat(chats(*(f"hold {i}" for i in range(15))))
    assert server.most_at_once == 3


def test_no_key_no_header(server):
    made(server).chat(chats("hello"))
    assert server.keys == [None]


@pytest.mark.parametrize("name", ["TILTH_API_KEY", "OPENAI_API_KEY"])
def test_the_key_is_sent_and_never_written(server, tmp_path, monkeypatch, caplog, capfd, name):
    monkeypatch.setenv(name, KEY)
    ledger = Ledger()
    client = made(server, cache=tmp_path / "answers.jsonl", ledger=ledger)
    with caplog.at_level(logging.DEBUG):
        done = client.chat(chats("hello", "refused row"))
        with pytest.raises(EngineError) as caught:
            client.chat(chats("key row"))
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert "TILTH_API_KEY or OPENAI_API_KEY" in caught.value.fix
    output = "".join(capfd.readouterr())
    cached = (tmp_path / "answers.jsonl").read_text()
    everything = [str(done), str(caught.value), repr(caught.value), caplog.text, output, cached]
    everything += [
        client.reference,
        str(ledger.as_dict()),
        repr(vars(client)),
        str(server.payloads),
    ]
    assert not any(KEY in text for text in everything)
    assert "[key]" in done[1].error


def test_what_no_row_can_survive_ends_the_work(server):
    with pytest.raises(EngineError, match=r"no chat/completions for this model \(404\)"):
        made(server).chat(chats(*(["model"] * 9)))
    assert sum(server.seen.values()) <= 8
    gone = engine("openai:tiny@http://127.0.0.1:9/v1", first_wait=0.01, retries=1)
    with pytest.raises(EngineError, match="does not answer") as caught:
        gone.chat(chats("hello"))
    assert "127.0.0.1:9" in caught.value.where


def test_answers_are_kept_and_failures_asked_again(server, tmp_path):
    cache = tmp_path / "answers.jsonl"
    rows = chats("one", "always500 two", "three")
    first = made(server, cache=cache).chat(rows)
    with cache.open("a") as file:
        file.write('{"key": "torn')
    again = made(server, cache=cache).chat(rows)
    assert again == first
    assert server.seen == {"one": 1, "three": 1, "always500 two": 6}
    warm = Sampling(temperature=1.0)
    client = made(server, cache=cache)
    client.chat(rows[:1], warm, seeds=[1])
    client.chat(rows[:1], warm, seeds=[2])
    client.chat(rows[:1], warm, seeds=[1])
    client.complete(["one"])
    assert server.seen["one"] == 4


def test_what_it_cannot_do_is_said_before_work_starts(server):
    client = made(server)
    with pytest.raises(EngineError, match="cannot score") as caught:
        require(client, "chat", "score")
    assert "chat, complete" in caught.value.fix
    for act in (client.score, client.score_chat, client.embed):
        with pytest.raises(EngineError, match="cannot"):
            act([("a", "b")])
    assert not server.payloads
    with pytest.raises(EngineError, match="concurrency"):
        made(server, concurrency=0)
    with pytest.raises(EngineError, match="1 seeds for 2 rows"):
        client.chat(chats("a", "b"), seeds=[1])


def test_scores_and_embeddings_where_the_server_offers_them(server):
    client = made(server, logprobs=True, embeddings=True, prices=(2.0, 4.0))
    score = client.score([("a b", " c d"), ("a b ", "c d")])
    assert [(s.logprob, s.tokens) for s in score] == [(-5.0, 2), (-5.0, 2)]
    with pytest.raises(EngineError, match="first token"):
        client.score([("", "a b")])
    with pytest.raises(EngineError, match="cannot score_chat"):
        client.score_chat([])
    rows = client.embed(["x" * n for n in range(1, 100)])
    assert rows.shape == (99, 2)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[:, 0] / rows[:, 1], range(1, 100), rtol=1e-5)
    assert client.embed([]).shape == (0, 0)
    client.chat(chats("x"))
    assert client.ledger.money == pytest.approx((7 * 2 + 3 * 4) / 1e6)


def test_it_works_inside_a_running_loop(server):
    import asyncio

    async def notebook():
        return made(server).chat(chats("hello"))

    assert asyncio.run(notebook())[0].finish == "stop"
