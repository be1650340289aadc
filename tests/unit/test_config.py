"""Configuration: the shipped files parse, and each mistake is one line that names file, key and what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prover.config import (
    IterateConfig,
    JsonlProblems,
    LinearAverage,
    NativeLean,
    PretrainedModel,
    ScriptedEngine,
    Section,
    TiesAverage,
    TransformersEngine,
)
from prover.config_file import load_config, load_stage_config, parse_override
from prover.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = '[train]\nsource = "core"\nsplit = "train"\n[model]\ntype = "init"\n'

VALIDATE = '[average.validate_on]\nsource = "core"\nsplit = "valid"\nlimit = 9\n'


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "c.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_shipped_configurations_parse(file: Path) -> None:
    config = load_config(file)
    assert config.evaluate_on, "a shipped configuration measures something"
    assert IterateConfig.model_validate_json(config.model_dump_json()) == config


SAME = {
    "seed",
    "template",
    "workers",
    "device",
    "type",
    "source",
    "split",
    "portfolio",
    "method",
    "limit",
    "header",
    "premises",
}
"""May be alike everywhere: what the machine or the user's model decides, members of unions, a baseline that is
off by default, and which problems are taken of a file, in what form."""


def settings(section: Section) -> Iterator[tuple[str, str]]:
    """Fields of a section and of those in it, by the class that has them, each with its value and with its default."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        owner = next(c for c in reversed(type(section).__mro__) if name in getattr(c, "model_fields", ()))
        if isinstance(value, Section):
            yield from settings(value)
        else:
            yield from ((f"{owner.__name__}.{name}", repr(v)) for v in (value, field.default))


def test_every_knob_is_turned_by_a_shipped_configuration() -> None:
    """A knob that all of them leave alone is a constant (law 3 of the architecture)."""
    seen: dict[str, set[str]] = {}
    for file in (ROOT / "configs").glob("*.toml"):
        for name, value in settings(load_config(file)):
            seen.setdefault(name, set()).add(value)
    alike = {name for name, values in seen.items() if len(values) == 1}
    sections = {"average", "cold", "cold_sft", "dpo", "lora", "validate_on"}  # None in one of them
    names = {name for name in alike if name.rpartition(".")[2] not in SAME | sections}
    assert names == set()


def test_the_quickstart_is_what_the_issue_asks_for() -> None:
    config = load_config(ROOT / "configs" / "quickstart.toml")
    assert config.rounds >= 3 and config.evaluate.portfolio and config.cold is not None
    assert set(config.evaluate.k) >= {1, 8}
    assert config.evaluate.control_n >= config.evaluate.n * (config.rounds + 1)
    assert config.model.type == "init" and config.engine.type == "transformers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rouns = 3\n" + MINIMAL, "unknown key 'rouns'; did you mean 'rounds'?"),
        (MINIMAL + "[sampling]\ntemprature = 1\n", "unknown key 'sampling.temprature'; did you mean 'temperature'?"),
        (MINIMAL.replace("split", "spilt"), "did you mean 'split'?"),
        (MINIMAL + '[evaluate_on.x]\nsource = "core"\nsplit = "test"\nlimt = 3\n', "did you mean 'limit'?"),
        (MINIMAL + "[sampling]\nzzz = 1\n", "known keys: budget, enough, max_tokens, n,"),
        ("rounds = 'three'\n" + MINIMAL, "rounds: Input should be a valid integer"),
        (MINIMAL + "[sampling]\nn = 0\n", "sampling.n: Input should be greater than or equal to 1"),
        (MINIMAL.replace('"core"', '"corex"'), "corex"),
        ('[train]\nsource = "core"\nsplit = "train"\n', "missing key 'model'"),
        (MINIMAL + "[evaluate]\nn = 2\n", "every k must lie between 1 and n = 2"),
        ("rounds = = 3\n", "is not valid TOML"),
        (
            MINIMAL + '[engine]\ntype = "transformers"\ndevice = "gpu"\n',
            "engine.device: Input should be 'auto', 'cpu' or",
        ),
        (
            MINIMAL + '[average]\nmethod = "ties"\ndensty = 0.1\n',
            "unknown key 'average.densty'; did you mean 'density'?",
        ),
        (MINIMAL + "[average]\ntuned_weight = 1.5\n", "average.tuned_weight: Input should be less than or equal to 1"),
        (
            MINIMAL + '[average]\nmethod = "slerp"\n',
            "method: Input should be 'linear', 'ties', 'dare' or 'breadcrumbs'",
        ),
        (
            MINIMAL + '[average]\nmethod = "breadcrumbs"\ndrop_largest = 0.2\n',
            "drop_smallest and drop_largest must leave something",
        ),
        (MINIMAL + "[average]\nsweep = [0.5, 0.9]\n", "average: Value error, sweep and validate_on need each other"),
        (MINIMAL + "[average]\nsweep = [0.5, 1.5]\n" + VALIDATE, "sweep: 1.5: Input should be less than or equal to 1"),
        (MINIMAL + "[average]\nsweep = [0.7, 0.70]\n" + VALIDATE, "sweep holds a weight twice: 0.7, 0.7"),
        (
            MINIMAL + "[average]\nsweep = [0.7]\n" + VALIDATE + "limt = 3\n",
            "unknown key 'average.validate_on.limt'; did you mean 'limit'?",
        ),
        (
            MINIMAL + '[evaluate_on.a]\nsource = "core"\nsplit = "valid"\n[average]\nsweep = [1]\n' + VALIDATE,
            "average.validate_on has the problems of evaluate_on.a, whose figures would be too good",
        ),
        (MINIMAL + '[evaluate_on.validate_on]\nsource = "core"\nsplit = "test"\n', "'validate_on' cannot name a set"),
        (MINIMAL + '[evaluate_on.train]\nsource = "core"\nsplit = "test"\n', "'train' cannot name a set"),
        (MINIMAL + '[evaluate_on."a/b"]\nsource = "core"\nsplit = "test"\n', "'a/b' cannot name a set"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ") and said in message and "\n" not in message.strip()


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    file = tmp_path / "latin.toml"
    file.write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(file)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, '[train]\nsource = "jsonl"\npath = "p.jsonl"\n[model]\ntype = "pretrained"\npath = "../m"\n')
    )
    assert isinstance(config.train, JsonlProblems) and config.train.path == tmp_path / "p.jsonl"
    assert isinstance(config.model, PretrainedModel) and config.model.path == tmp_path.parent / "m"


def test_a_stage_takes_its_sections_of_a_configuration_and_what_is_set_beside() -> None:
    file = ROOT / "configs" / "quickstart.toml"
    overrides = [parse_override(text) for text in ("sampling.n=32", "engine.batch_size=16", "prompt.template=chat")]
    config, whole = load_stage_config(file, overrides), load_config(file)
    assert (config.sampling.n, config.sampling.max_tokens) == (32, whole.sampling.max_tokens)
    assert isinstance(config.engine, TransformersEngine) and config.engine.batch_size == 16
    assert config.prompt.template == "chat" and config.sft == whole.sft


def test_an_average_is_linear_where_no_method_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "[average]\ntuned_weight = 0.4\n")
    assert load_stage_config(file).average == LinearAverage(tuned_weight=0.4)
    ties = load_stage_config(file, [("average.method", "ties"), ("average.density", 0.1)]).average
    assert ties == TiesAverage(method="ties", density=0.1, tuned_weight=0.4)
    assert load_stage_config(None).average is None


def test_setting_the_kind_of_a_section_keeps_what_the_new_kind_knows(tmp_path: Path) -> None:
    file = write(tmp_path, '[lean]\nworkers = 7\n[engine]\ntype = "transformers"\nbatch_size = 3\n')
    config = load_stage_config(file, [("lean.type", "native"), ("engine.type", "scripted"), ("engine.path", "x.jsonl")])
    assert isinstance(config.lean, NativeLean) and config.lean.workers == 7
    assert isinstance(config.engine, ScriptedEngine)


def test_relative_paths_that_are_set_start_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    file = write(tmp_path / "folder", '[engine]\ntype = "scripted"\npath = "own.jsonl"\n[lean]\ntype = "native"\n')
    monkeypatch.chdir(tmp_path)
    config = load_stage_config(Path("folder/c.toml"), [("lean.project", "beside")])
    assert isinstance(config.engine, ScriptedEngine) and config.engine.path == file.parent / "own.jsonl"
    assert isinstance(config.lean, NativeLean) and config.lean.project == tmp_path / "beside"


def test_a_fault_of_the_file_is_not_put_down_to_what_is_set(tmp_path: Path) -> None:
    file = write(tmp_path, "[sampling]\nn = 0\n")
    with pytest.raises(ConfigError, match=r"c.toml: sampling.n: "):
        load_stage_config(file, [("sampling.top_p", 0.5)])
    with pytest.raises(ConfigError, match=r"^--set: sampling.top_p: "):
        load_stage_config(None, [("sampling.top_p", 2)])
