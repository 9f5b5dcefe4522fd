"""The reasoner ``openai`` against a real server on this machine that can fail, hang and be busy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pixelvla_reason.answers import Answers
from pixelvla_reason.config import OpenAIConfig
from pixelvla_reason.server import Server

from pixelvla_core.annotate.models import Reasoner, Target
from pixelvla_core.api import UserError
from pixelvla_core.plugins import PluginManager

Answer = Callable[[str, int], tuple[int, object]]


class Fake(ThreadingHTTPServer):
    """An OpenAI-compatible server; ``answer(instruction, number of the request)`` gives status and answer."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked, self.headers_seen = answer, [], []  # type: ignore[var-annotated]
        self.busy = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        instruction = text.rpartition("Instruction: ")[2].partition("\n")[0]
        with self.server.lock:
            self.server.asked.append(text)
            self.server.headers_seen.append(dict(self.headers))
            number = len(self.server.asked)
            self.server.busy += 1
            self.server.most = max(self.server.most, self.server.busy)
        status, answer = self.server.answer(instruction, number)
        with self.server.lock:
            self.server.busy -= 1
        if isinstance(answer, str) and status == 200:
            message = {"role": "assistant", "content": answer}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
            answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        self._send(status, answer)

    def _send(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "10")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the client has hung up, as it should when it has waited too long

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Fake]]:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running: list[Fake] = []

    def start(answer: Answer) -> Fake:
        running.append(Fake(answer))
        threading.Thread(target=running[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def options(server: Fake, **more: object) -> OpenAIConfig:
    return OpenAIConfig(**{"base_url": server.url, "model": "tiny", "retries": 2, "timeout": 5.0, **more})  # type: ignore[arg-type]


def last_word(instruction: str, number: int) -> tuple[int, object]:
    return 200, f'"The {instruction.split()[-1]}."'


MANY = [f"pick up the block{number}" for number in range(20)]
WANTED = [Target(f"block{number}") for number in range(20)]


def test_answers_come_in_order_several_at_once(serve: Callable[[Answer], Fake]) -> None:
    server = serve(lambda text, number: (time.sleep(0.02), last_word(text, number))[1])
    component = PluginManager.load().registry.get("reasoner", "openai")
    made = component.build(options(server, concurrency=4))
    assert isinstance(made, Reasoner)
    assert made.identity() == {"model": "tiny", "server": server.url}
    assert made.targets(MANY) == WANTED
    assert 2 <= server.most <= 4


def test_nothing_is_asked_twice(serve: Callable[[Answer], Fake]) -> None:
    server = serve(last_word)
    assert Server(options(server)).targets(MANY) == WANTED
    assert Server(options(server)).targets(MANY) == WANTED
    assert len(server.asked) == len(MANY)
    Server(options(server, model="other")).targets(MANY[:1])
    assert len(server.asked) == len(MANY) + 1


def test_a_busy_or_failing_server_is_asked_again(serve: Callable[[Answer], Fake]) -> None:
    states = [(429, {"error": {"message": "busy"}}), (503, {"error": {"message": "starting"}})]
    server = serve(lambda text, number: states[number - 1] if number <= 2 else last_word(text, number))
    assert Server(options(server)).targets(["grab the apple"]) == [Target("apple")]
    assert len(server.asked) == 3


def test_a_server_that_hangs_is_given_up_in_time(serve: Callable[[Answer], Fake]) -> None:
    server = serve(lambda text, number: (time.sleep(2), last_word(text, number))[1])
    before = time.monotonic()
    with pytest.raises(UserError, match=f"{server.url} did not answer: 2 times 0.2 s"):
        Server(options(server, timeout=0.2, retries=1)).targets(["grab the apple"])
    assert time.monotonic() - before < 4
    assert len(server.asked) == 2


def test_what_a_dying_server_said_is_kept(serve: Callable[[Answer], Fake], tmp_path: Path) -> None:
    dying = serve(lambda text, number: last_word(text, number) if number <= 7 else (500, {"error": {"message": "out"}}))
    with pytest.raises(UserError, match=r"out.*goes on from there"):
        Server(options(dying, retries=0, concurrency=1)).targets(MANY)
    healthy = serve(last_word)
    assert Server(options(healthy)).targets(MANY) == WANTED
    assert len(healthy.asked) == len(MANY) - 7


def test_no_server_says_where_and_what_to_do(serve: Callable[[Answer], Fake]) -> None:
    server = serve(last_word)
    server.shutdown()
    server.server_close()
    for call in (lambda made: made.identity(), lambda made: made.targets(["grab the apple"])):
        with pytest.raises(UserError, match=f"{server.url} cannot be reached.*vllm serve tiny.*base_url"):
            call(Server(options(server, retries=0)))


@pytest.mark.parametrize(
    ("status", "says"), [(401, "refuses the key in .OPENAI_API_KEY"), (404, "ollama pull tiny"), (400, "with an error")]
)
def test_a_refusal_is_explained_at_once(serve: Callable[[Answer], Fake], status: int, says: str) -> None:
    server = serve(lambda text, number: (status, {"error": {"message": "no"}}))
    with pytest.raises(UserError, match=says):
        Server(options(server)).targets(["grab the apple"])
    assert len(server.asked) == 1


def test_another_kind_of_server_is_recognised(serve: Callable[[Answer], Fake]) -> None:
    server = serve(lambda text, number: (200, {"hello": "world"}))
    with pytest.raises(UserError, match="does not speak OpenAI's chat API"):
        Server(options(server)).targets(["grab the apple"])


def test_the_key_comes_from_the_environment(serve: Callable[[Answer], Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    server = serve(last_word)
    Server(options(server, api_key_env="MY_KEY")).targets(["grab the apple"])
    assert server.headers_seen[0]["Authorization"] == "Bearer secret"


def test_an_answer_outside_the_instruction_is_asked_for_again_once(serve: Callable[[Answer], Fake]) -> None:
    server = serve(
        lambda text, number: (200, "Red Apple" if number == 1 else "Sure! It is: apple"[10 * (number - 2) :])
    )
    second = serve(lambda text, number: (200, "pear" if number == 1 else "The apple"))
    target = Server(options(server)).targets(["grab the apple"])[0]
    assert target.text == ""
    assert "no part of" in target.reason
    assert len(server.asked) == 2
    assert Server(options(second, model="b")).targets(["grab the apple"]) == [Target("apple")]
    assert "letter by letter" in second.asked[1]


def test_the_model_may_find_nothing(serve: Callable[[Answer], Fake]) -> None:
    server = serve(lambda text, number: (200, "none"))
    target = Server(options(server)).targets(["go home"])[0]
    assert target.text == ""
    assert "no object" in target.reason
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Black Bowl",
        "the black bowl",
        "Object: black bowl.",
        "The target object is: 'black bowl'",
        "\n\nblack bowl\nIt is on",
        "<think>the plate?\nno</think>\nblack bowl",
        "**black bowl**",
    ],
)
def test_what_models_write_around_an_answer_is_taken_off(serve: Callable[[Answer], Fake], said: str) -> None:
    server = serve(lambda text, number: (200, said))
    instruction = "Put the Black  Bowl on the plate"
    assert Server(options(server)).targets([instruction]) == [Target("black bowl")]


def test_a_damaged_cache_loses_no_more_than_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "answers.jsonl"
    Answers(path).put("apple", "m", "p", "i")
    Answers(path).put("pear\nplum", "m", "p", "j")
    path.write_bytes(path.read_bytes()[:-7])
    damaged = Answers(path)
    assert damaged.get("m", "p", "i") == "apple"
    assert damaged.get("m", "p", "j") is None
    damaged.put("fig", "m", "p", "j")
    assert Answers(path).get("m", "p", "j") == "fig"
    assert Answers(path).get("m", "p", "i") == "apple"


def test_many_write_to_one_cache(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first, second = Answers(path), Answers(path)
    threads = [
        threading.Thread(target=answers.put, args=(str(number), str(number)))
        for number in range(20)
        for answers in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Answers(path).get(str(number)) for number in range(20)] == [str(number) for number in range(20)]
