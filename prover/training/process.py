"""``python -m prover.training.process JOB.json``: the process that a launcher starts, once or many times."""

import json
import os
import sys
import traceback
from pathlib import Path

import msgspec

from prover.config import SingleLaunch
from prover.errors import ProverError
from prover.training.job import Job, TrainingProgress, read_job
from prover.training.launch import ALIVE, PIPE, PROGRESS, at_work, tell_failure
from prover.training.watched import end_with_file, end_with_pipe


def main(argv: list[str]) -> int:
    """Run the job in the file that ``argv`` names; its progress goes to standard output, a JSON object a line, or with
    many processes to a file beside the job's."""
    if os.environ.get(PIPE):
        end_with_pipe()  # before torch is imported, which takes seconds
    argv = [argument for argument in argv if not argument.startswith("--local_rank")]  # DeepSpeed's launcher adds it
    if len(argv) != 1:
        print("usage: python -m prover.training.process JOB.json", file=sys.stderr)
        return 2
    try:
        job = read_job(Path(argv[0]))
        if not isinstance(job.launch, SingleLaunch):
            return _one_of_many(job, Path(argv[0]).parent)
        from prover.training.loop import train

        encoder = msgspec.json.Encoder()
        train(job, lambda progress: print(encoder.encode(progress).decode(), flush=True))
    except (ProverError, OSError, ValueError) as error:
        print(f"prover: {error}", file=sys.stderr)
        return 2
    return 0


def _one_of_many(job: Job, folder: Path) -> int:
    """Take part in a launch. What fails is left in its folder, for the launching process to read."""
    if not os.environ.get(PIPE):
        end_with_file(folder / ALIVE)
    from prover.training.loop import train

    rank = int(os.environ["RANK"])
    with at_work(folder), (folder / PROGRESS).open("ab", buffering=0) as told:

        def tell(progress: TrainingProgress) -> None:
            if rank == 0:
                told.write(json.dumps(msgspec.to_builtins(progress)).encode() + b"\n")  # a loss may be NaN

        try:
            train(job, tell)
        except Exception as error:
            try:
                traceback.print_exc()
                tell_failure(folder, rank, error)
            finally:  # on a full disk neither may be possible
                os._exit(2)  # the others wait for this one: its own clearing up would wait for them
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
