"""``many.py PLAN.json`` under torch's launcher: run jobs one after the other in the processes of one launch.

The plan is a list of objects: ``job``; ``keep``, where to leave a copy of the job's folder as it was after a step.
"""

import gc
import json
import os
import shutil
import sys
from pathlib import Path

from pydantic import TypeAdapter

from prover.training.job import Job, TrainingProgress
from prover.training.loop import train

COPIED_AT = 10
"""Between the states after steps 8 and 16 of the jobs in these tests."""


def main() -> None:
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        job = TypeAdapter[Job](Job).validate_python(entry["job"])
        losses: list[float] = []

        def seen(progress: TrainingProgress, job: Job = job, keep: str | None = entry.get("keep")) -> None:
            if progress.steps == 1:  # no report of where it goes on from
                losses.append(progress.loss)  # noqa: B023 - called while this list is the one
            if keep and progress.step == COPIED_AT and os.environ["RANK"] == "0":
                shutil.copytree(job.work.parent, keep)

        train(job, seen)
        if os.environ["RANK"] == "0":
            (job.output / "losses.json").write_text(json.dumps(losses))
        gc.collect()


if __name__ == "__main__":
    main()
