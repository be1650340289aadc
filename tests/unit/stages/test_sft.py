"""The fine-tuning stage around the training: what ``clean`` leaves."""

from pathlib import Path

import pytest

from prover.artifacts import ArtifactWriter
from prover.config import SftConfig
from prover.errors import InputError
from prover.models import Model
from prover.progress import Silent
from prover.stages import sft


def test_clean_forgets_the_state_of_another_training(tmp_path: Path) -> None:
    """It would be refused: it belongs to other examples."""
    (tmp_path / "sft" / "work").mkdir(parents=True)
    (tmp_path / "sft" / "work" / "step-00000020.safetensors").write_bytes(b"of another job")
    none = ArtifactWriter(tmp_path / "select", {"stage": "select"}, 0).finish({"examples": 0})
    with pytest.raises(InputError, match="nothing was proved"):
        sft.run(
            tmp_path / "sft",
            base=Model(tmp_path, "x", "m"),
            examples=[none],
            config=SftConfig(),
            series="s",
            seed=0,
            progress=Silent(),
            clean=True,
        )
    assert not (tmp_path / "sft" / "work").exists()
