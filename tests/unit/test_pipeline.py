"""What the loop makes of the run directory that it is given, before anything runs."""

from pathlib import Path

import pytest

from prover.claim import claim
from prover.config_file import load_config
from prover.errors import ArtifactError
from prover.pipeline import iterate

CONFIG = load_config(Path(__file__).resolve().parents[2] / "configs" / "smoke.toml")


@pytest.mark.parametrize(("text", "said"), [("{", "top level: "), ('{"rouns": 3}', "train: Field required")])
def test_a_configuration_that_is_not_ours_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ArtifactError) as raised:
        iterate(CONFIG, tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{file}: ") and said in message and "--clean" in message
    assert file.read_text() == text


@pytest.mark.parametrize("clean", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path, clean: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"no run directory \(no config\.json\)"):
        iterate(CONFIG, tmp_path, clean=clean)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_a_kill_left_of_the_configuration_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Claimed anew, then by another configuration, which is refused: the first was written."""
    (tmp_path / ".config.json.tmp").write_text('{"ro')
    (tmp_path / ".lock").touch()
    claim(CONFIG, tmp_path, clean=False)
    with pytest.raises(ArtifactError, match=r"made by another configuration \(seed: 0 -> 1\)"):
        claim(CONFIG.model_copy(update={"seed": 1}), tmp_path, clean=False)
