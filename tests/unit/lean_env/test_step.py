"""What a step session does with a worker that grows, or is lost; the worker is a few lines in this process."""

from typing import Any

import pytest

from lean_env.errors import StepError
from lean_env.protocol import Limits
from lean_env.step import StepFailure, StepSession, StepState
from lean_env.worker import Loss, Usage, WorkerLost


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


class Faltering(Growing):
    """Takes no memory, and is lost at the steps whose tactic ``lost`` names, as often as it says."""

    def __init__(self, lost: dict[str, list[Loss]]) -> None:
        super().__init__(0.0)
        self._lost = lost

    def ask(
        self, request: dict[str, Any], limits: Limits, reply_bytes: int = 0, following: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if kinds := self._lost.get(str(request.get("tactic"))):
            raise WorkerLost(kinds.pop(), "the worker is gone")
        return super().ask(request, limits)


class StartingFaltering:
    version = "none"

    def __init__(self) -> None:
        self.lost: dict[str, list[Loss]] = {}

    def launch(self) -> "StartingFaltering":
        return self

    def start(self) -> Faltering:
        return Faltering(self.lost)


@pytest.mark.parametrize("kind", ["timeout", "stalled", "memory", "died", "protocol"])
def test_what_is_lost_on_the_way_to_a_lost_state_is_not_the_new_tactics_fault(kind: Loss) -> None:
    lean = StartingFaltering()
    with StepSession(lean) as session:
        first = session.start("", "theorem t : True")
        assert isinstance(first, StepState)
        second = session.apply(first, "slow")
        assert isinstance(second, StepState)

        lean.lost.update({"new": ["killed"], "slow": [kind]})
        third = session.apply(second, "new")
        assert isinstance(third, StepState) and third.tactics == ("slow", "new"), "tried again"

        lean.lost.update({"newer": ["killed"], "slow": [kind, kind]})
        with pytest.raises(StepError, match="a lost state cannot be made again: 'slow' now fails: the worker is gone"):
            session.apply(second, "newer")
        assert isinstance(session.apply(second, "newer"), StepState), "the state is still there to be gone on from"

        lean.lost.update({"newest": [kind, kind, kind]})
        failure = session.apply(second, "newest")
        assert isinstance(failure, StepFailure) and failure.kind == ("memory" if kind in _ENDED else "timeout")


_ENDED = ("memory", "died", "protocol")
