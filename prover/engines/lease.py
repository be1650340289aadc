"""One loaded engine at a time, kept between stages that sample from the same model."""

from types import TracebackType
from typing import Any, Self

from prover.artifacts import file_digest
from prover.config import EngineConfig, ScriptedEngine, without_placement
from prover.engines import Engine, Lasting
from prover.models import Model


class EngineLease:
    """Loads the engine of a model on first use and keeps it until another model is asked for, or ``release``.

    Nothing is loaded before :meth:`engine` is called, so a finished run never loads a model.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._open: tuple[str, Engine] | None = None
        self._resting = False

    @property
    def recipe(self) -> dict[str, Any]:
        """What of the engine decides the completions."""
        recipe = without_placement(self.config.model_dump(mode="json"))
        if isinstance(self.config, ScriptedEngine):
            recipe["script"] = file_digest(self.config.path)
        return recipe

    def engine(self, model: Model) -> Engine:
        if self._open is not None and self._open[0] == model.fingerprint and not self._resting:
            return self._open[1]
        if self._open is not None and isinstance(held := self._open[1], Lasting) and held.swap(model.path):
            self._open, self._resting = (model.fingerprint, held), False
            return held
        self._close()
        from prover.engines.opening import open_engine  # late: imports torch

        engine = open_engine(self.config, model.path).__enter__()
        self._open = (model.fingerprint, engine)
        return engine

    def release(self) -> None:
        """Free the model's memory, for training."""
        if self._open is not None and isinstance(held := self._open[1], Lasting):
            held.rest()
            self._resting = True
        else:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            held, self._open, self._resting = self._open, None, False
            held[1].__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._close()
