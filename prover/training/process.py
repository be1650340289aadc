"""``python -m prover.training.process JOB.json``: the process that a launcher starts, once or many times."""

import sys
from pathlib import Path

import msgspec

from prover.errors import ProverError
from prover.training.job import SftJob
from prover.training.loop import train


def main(argv: list[str]) -> int:
    """Run the job in the file that ``argv`` names; its progress goes to standard output, a JSON object a line."""
    if len(argv) != 1:
        print("usage: python -m prover.training.process JOB.json", file=sys.stderr)
        return 2
    try:
        job = SftJob.model_validate_json(Path(argv[0]).read_text(encoding="utf-8"))
        encoder = msgspec.json.Encoder()
        train(job, lambda progress: print(encoder.encode(progress).decode(), flush=True))
    except (ProverError, OSError, ValueError) as error:
        print(f"prover: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
