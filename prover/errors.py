"""Errors that the user can act on. The CLI prints their text as one line and exits with code 2."""


class ProverError(Exception):
    """Base of every error that ``prover`` raises on purpose."""


class ConfigError(ProverError):
    """A configuration that cannot be used; names file and field."""


class InputError(ProverError):
    """A data file that cannot be used; names file, line and field."""


class ArtifactError(ProverError):
    """A run directory or artifact that cannot be used: another recipe, damaged, or incomplete."""


class RunLockedError(ArtifactError):
    """Another process works on the same run directory; names host and pid."""


class DiskError(ProverError):
    """No space or no permission while writing; what was finished is kept."""


class ModelError(ProverError):
    """A model directory that cannot be used."""


class EngineError(ProverError):
    """What generates completions does not answer, or not as it should; what was asked stays owed."""


class TrainingError(ProverError):
    """Training cannot go on (for example a loss that is not finite)."""


def first_line(error: BaseException) -> str:
    """What to quote of an error that a library raised: its kind, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
