"""Results that are not to be relied on yet."""

import time
from dataclasses import dataclass, field

from lean_env.certify import Exported
from lean_env.schedule import Answer, Job, Task


@dataclass
class Held:
    """Results of a worker since its last right answers to the canaries. They are not given out before the next ones."""

    items: list[tuple[Task, Answer]] = field(default_factory=list)
    jobs: set[Job] = field(default_factory=set)
    since: float = 0.0
    size: int = 0
    """Bytes of exports among them."""

    def add(self, task: Task, answer: Answer) -> None:
        if not self.items:
            self.since = time.monotonic()
        self.items.append((task, answer))
        self.jobs.add(task.job)
        self.size += len(answer.export) if isinstance(answer, Exported) else 0

    def age(self) -> float:
        """Seconds that the oldest has waited; 0 where there is none."""
        return time.monotonic() - self.since if self.items else 0.0
