"""The fine-tuning stage around the training: a selection of nothing, and what ``clean`` leaves."""

from pathlib import Path

import pytest

from prover.artifacts import ArtifactWriter
from prover.config import SftConfig, SingleLaunch
from prover.errors import InputError
from prover.models import Model
from prover.progress import Silent
from prover.stages import sft


def tune_on_nothing(folder: Path, *, clean: bool = False) -> None:
    none = ArtifactWriter(folder / "select", {"stage": "select"}, 0).finish({"examples": 0})
    sft.run(
        folder / "sft",
        base=Model(folder, "x", "m"),
        examples=[none],
        config=SftConfig(),
        launch=SingleLaunch(),
        series="s",
        seed=0,
        progress=Silent(),
        clean=clean,
    )


def test_an_empty_selection_stops_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was proved"):
        tune_on_nothing(tmp_path)


def test_clean_forgets_the_state_of_another_training(tmp_path: Path) -> None:
    """It would be refused: it belongs to other examples."""
    (tmp_path / "sft" / "work").mkdir(parents=True)
    (tmp_path / "sft" / "work" / "step-00000020.safetensors").write_bytes(b"of another job")
    with pytest.raises(InputError, match="nothing was proved"):
        tune_on_nothing(tmp_path, clean=True)
    assert not (tmp_path / "sft" / "work").exists()
