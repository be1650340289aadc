"""From an engine's configuration to the engine."""

from pathlib import Path

from prover.config import EngineConfig, TransformersEngine
from prover.engines import Engine


def open_engine(config: EngineConfig, model: Path) -> Engine:
    """The engine that ``config`` describes, for the model in directory ``model``; enter it to load it."""
    if isinstance(config, TransformersEngine):
        from prover.engines.hf import HfEngine  # late: imports torch

        return HfEngine(model, batch_size=config.batch_size, device=config.device)
    from prover.engines.scripted import ScriptedEngine

    return ScriptedEngine(config.path)
