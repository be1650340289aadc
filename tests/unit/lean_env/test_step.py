"""What a step session does with a worker that grows; the worker is a few lines in this process."""

from typing import Any

from lean_env.protocol import Limits
from lean_env.step import StepSession, StepState
from lean_env.worker import Usage


class Growing:
    """Answers every step, and takes more memory with each."""

    version = "none"
    pid = 0
    busy = False

    def __init__(self, megabytes: float) -> None:
        self.asked = 0
        self.memory_mb = self.peak_mb = 0.0
        self._megabytes = megabytes
        self._held: set[int] = set()

    def wait_ready(self) -> None: ...

    def ask(
        self, request: dict[str, Any], limits: Limits, reply_bytes: int = 0, following: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        assert request["op"] == "step.start" or request["from"] in self._held
        self.asked += 1
        self._held.add(request["to"])
        return {"open": 1}

    def usage(self) -> Usage:
        return Usage(0.0, self._megabytes * self.asked)

    def kill(self) -> None: ...

    def close(self) -> None: ...


class Starting:
    """Such a Lean: a toolchain and its own launch."""

    version = "none"

    def launch(self) -> "Starting":
        return self

    def start(self) -> Growing:
        return Growing(30.0)


def test_a_worker_that_grows_too_large_on_the_way_to_a_lost_state_is_replaced_at_its_end() -> None:
    with StepSession(Starting(), Limits(memory_mb=100)) as session:
        state = session.start("", "theorem t : True")
        for number in range(6):  # from the third on, each costs the worker and starts from nothing
            assert isinstance(state, StepState)
            state = session.apply(state, f"skip {number}")
        assert isinstance(state, StepState) and len(state.tactics) == 6
        assert session.stats.started > 2 and session.stats.replayed > 6
