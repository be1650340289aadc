"""The openai engine over a real socket: what it asks, what it makes of answers, and of servers that misbehave."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from prover.config import OpenAIEngine as OpenAIConfig
from prover.engines import Completion, GenerationRequest, Sampling
from prover.engines.openai import OpenAIEngine
from prover.errors import ConfigError, EngineError
from prover.records import ChatMessage
from tests.unit.engines.api_server import MODEL, Answer, answered, completed, serving

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=5, stop=("END",))
CHAT = GenerationRequest(id="c", messages=(ChatMessage(role="user", content="prove"),), seeds=(11, 12, 13))
TEXT = GenerationRequest(id="t", messages=(ChatMessage(role="text", content="theorem"),), seeds=(21,))


def config(url: str, **more: Any) -> OpenAIConfig:
    return OpenAIConfig(type="openai", base_url=url, model=MODEL, **more)


def run(
    answer: Callable[[dict[str, Any]], Answer], *requests: GenerationRequest, patience: float = 60, **more: Any
) -> list[Completion]:
    with serving(answer) as server, OpenAIEngine(config(server.url, **more), patience=patience) as engine:
        return list(engine.generate(requests, SAMPLING))


def test_each_completion_is_a_request_with_its_own_seed() -> None:
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> Answer:
        asked.append(body)
        return completed(body, f"by {body['seed']}", "length" if body["seed"] == 12 else "stop")

    made = sorted(run(answer, CHAT, TEXT, options={"top_k": 20}), key=lambda c: (c.request_id, c.index))
    assert [(c.request_id, c.index, c.text, c.finish_reason, c.logprob) for c in made] == [
        ("c", 0, "by 11", "stop", -1.0),
        ("c", 1, "by 12", "length", -1.0),
        ("c", 2, "by 13", "stop", -1.0),
        ("t", 0, "by 21", "stop", -2.5),
    ]
    assert all((c.prompt_tokens, c.completion_tokens) == (7, 2) for c in made)
    chat = next(body for body in asked if body["seed"] == 11)
    assert chat == {
        "model": MODEL, "messages": [{"role": "user", "content": "prove"}], "seed": 11,
        "temperature": 0.7, "top_p": 0.9,
        "max_completion_tokens": 5, "stop": ["END"], "logprobs": True, "top_k": 20,
    }  # fmt: skip
    assert next(body for body in asked if body["seed"] == 21)["prompt"] == "theorem"


def test_no_more_requests_are_under_way_than_allowed_and_answers_leave_at_once() -> None:
    lock, gate, four = threading.Lock(), threading.Event(), threading.Barrier(4)
    seen = {"now": 0, "most": 0}

    def answer(body: dict[str, Any]) -> Answer:
        with lock:
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
        if body["seed"] < 15:
            four.wait(60)
        if body["seed"] == 11:
            gate.wait(60)  # the first request stays until the others were given out
        with lock:
            seen["now"] -= 1
        return completed(body, "x")

    many = GenerationRequest(id="c", messages=CHAT.messages, seeds=tuple(range(11, 31)))
    with serving(answer) as server, OpenAIEngine(config(server.url, concurrency=4)) as engine:
        made = engine.generate([many], SAMPLING)
        assert 0 not in {next(made).index for _ in range(19)}
        gate.set()
        assert [c.index for c in made] == [0]
    assert seen["most"] == 4


def test_a_server_in_trouble_is_asked_again() -> None:
    trouble: list[Answer] = [
        answered({"error": {"message": "slow down"}}, 429, **{"retry-after": "0"}),
        answered({"error": {"message": "loading"}}, 503, **{"retry-after": "0"}),
        (502, {"content-type": "text/html", "retry-after": "0"}, b"<html>Bad Gateway</html>"),
        (0, {}, b""),
    ]
    asked = Counter[int]()

    def answer(body: dict[str, Any]) -> Answer:
        asked[body["seed"]] += 1
        return trouble.pop(0) if trouble and body["seed"] == 21 else completed(body, "x")

    (made,) = run(answer, TEXT)
    assert made.text == "x" and asked[21] == 5


def test_a_server_that_dies_and_comes_back_loses_nothing() -> None:
    """It dies with half of the answers given, and another takes its port once the engine has noticed."""
    many = GenerationRequest(id="c", messages=CHAT.messages, seeds=tuple(range(40)))
    first = serving(lambda body: completed(body, "old") if body["seed"] < 20 else (0, {}, b""))
    server = first.__enter__()
    with OpenAIEngine(config(server.url, concurrency=4), patience=60) as engine:
        made = engine.generate([many], SAMPLING)
        got = [next(made) for _ in range(20)]
        first.__exit__(None, None, None)
        with serving(lambda body: completed(body, "new"), server.server_port):
            got += list(made)
    assert sorted(c.index for c in got) == list(range(40))
    assert Counter(c.text for c in got) == {"old": 20, "new": 20}


def test_whoever_stops_does_not_wait_for_answers_under_way() -> None:
    begun, gate = threading.Event(), threading.Event()

    def answer(body: dict[str, Any]) -> Answer:
        if body["seed"] == 11:
            return completed(body, "x")
        begun.set()
        gate.wait(60)
        return completed(body, "late")

    with serving(answer) as server, OpenAIEngine(config(server.url, concurrency=2)) as engine:
        made = engine.generate([CHAT], SAMPLING)
        next(made)
        assert begun.wait(60)
        made.close()  # type: ignore[attr-defined]
        assert not gate.is_set()
        assert next(engine.generate([CHAT], SAMPLING)).index == 0, "and the engine is as good as before"
        gate.set()


def test_a_server_that_stays_away_ends_the_run_and_says_what_to_do() -> None:
    with serving(lambda body: (0, {}, b"")) as server, OpenAIEngine(config(server.url), patience=0.2) as engine:
        with pytest.raises(EngineError, match=r"no answer for 0.2 s .*run the same command again.* stays owed"):
            list(engine.generate([CHAT], SAMPLING))
        assert not [t for t in threading.enumerate() if t.name.startswith("openai")]
    with pytest.raises(EngineError, match=r"no answer for 0.1 s"), OpenAIEngine(config(server.url), patience=0.1):
        pass


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"content-type": "text/html"}, b"<html>Welcome</html>"), r"not JSON .*Welcome.*ends in /v1"),
        (answered({"hello": 1}), r"request t: the answer is none of OpenAI's API"),
        (answered({"error": {"message": "bad key"}}, 401), r"refuses the key .*bad key.*variable OPENAI_API_KEY"),
        (answered({"error": {"message": "no route"}}, 404), r"request t: status 404: no route"),
        (answered({"error": {"message": "paid up?", "code": "insufficient_quota"}}, 429), r"status 429: paid"),
        (answered({"error": {"message": "longer than the context"}}, 400), r"request t: status 400: longer than"),
    ],
    ids=["html", "json", "key", "route", "quota", "context"],
)
def test_what_no_second_try_mends_ends_the_run_at_once(answer: Answer, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        run(lambda _: answer, TEXT)


def test_a_server_without_logprobs_is_asked_without() -> None:
    together = threading.Barrier(3)

    def answer(body: dict[str, Any]) -> Answer:
        if "logprobs" in body:
            together.wait(60)  # all three find out at once
            return answered({"error": {"message": "logprobs are not supported"}}, 400)
        return completed(body, "x")

    made = run(answer, CHAT, concurrency=3)
    assert [(c.text, c.logprob) for c in made] == [("x", None)] * 3


def test_thinking_that_is_given_apart_is_put_back() -> None:
    made = run(lambda body: completed(body, "by simp", reasoning_content="hm"), CHAT)
    assert {c.text for c in made} == {"<think>hm</think>by simp"}


def test_the_key_goes_to_the_server_and_into_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", "secret-7")
    with serving(lambda body: completed(body, "x")) as server:
        mine = config(server.url, key_env="LAB_KEY")
        with OpenAIEngine(mine) as engine:
            list(engine.generate([TEXT], SAMPLING))
        assert server.keys == ["Bearer secret-7"]
        assert "secret-7" not in json.dumps(mine.model_dump(mode="json"))


def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    with serving(lambda body: completed(body, "x")) as server:
        wrong = OpenAIConfig(type="openai", base_url=server.url, model="other")
        with pytest.raises(ConfigError, match=rf"serves no 'other'; it has {MODEL}"), OpenAIEngine(wrong):
            pass


def test_the_servers_context_decides_what_fits() -> None:
    with serving(lambda body: completed(body, "x")) as server, OpenAIEngine(config(server.url)) as engine:
        assert engine.fits((ChatMessage(role="user", content="x" * 1_800),))
        assert not engine.fits((ChatMessage(role="user", content="x" * 1_900),))
