"""The scripted engine answers from its file, or says what is missing there."""

import json
from pathlib import Path

import pytest

from prover.config import ScriptedEngine as ScriptedConfig
from prover.engines import GenerationRequest, Sampling
from prover.engines.opening import open_engine
from prover.errors import InputError
from prover.records import ChatMessage

ASKED = GenerationRequest(id="a", messages=(ChatMessage(role="user", content="x y"),), seeds=(1, 2))
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)


def script(path: Path, *lines: object) -> ScriptedConfig:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ScriptedConfig(type="scripted", path=path)


def test_it_answers_by_request_and_index(tmp_path: Path) -> None:
    config = script(
        tmp_path / "s.jsonl",
        {"request_id": "b", "completions": ["no"]},
        {"request_id": "a", "completions": ["by simp", "by omega -- stop", "third"]},
    )
    with open_engine(config, tmp_path / "unused") as engine:
        assert engine.fits(ASKED.messages)
        made = list(engine.generate([ASKED], Sampling(temperature=1.0, top_p=1.0, max_tokens=4, stop=(" --",))))
    assert [(c.request_id, c.index, c.text, c.finish_reason) for c in made] == [
        ("a", 0, "by simp", "stop"),
        ("a", 1, "by omega", "stop"),
    ]
    assert [(c.prompt_tokens, c.completion_tokens, c.logprob) for c in made] == [(2, 2, None), (2, 2, None)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"request_id": "b", "completions": []}], "holds no line with request_id 'a'"),
        ([{"request_id": "a", "completions": ["x"]}], "1 are there, 2 are asked for"),
        ([{"request_id": "a", "completions": []}] * 2, r"s\.jsonl:2: request_id: 'a' stands in line 1 too"),
        (
            [{"request_id": "a", "completion": []}],
            r"s\.jsonl:1: unknown field 'completion'; did you mean 'completions'",
        ),
        ([], "is empty"),
    ],
)
def test_a_bad_script_is_one_line(tmp_path: Path, lines: list[object], said: str) -> None:
    config = script(tmp_path / "s.jsonl", *lines)
    with pytest.raises(InputError, match=said), open_engine(config, tmp_path) as engine:
        list(engine.generate([ASKED], SAMPLING))
