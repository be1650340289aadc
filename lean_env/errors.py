"""Errors of the Lean side. A candidate that fails is a Verdict; these are faults of ours or of the machine."""


class LeanError(Exception):
    """Base of every error that ``lean_env`` raises on purpose; its text is one line meant for the user."""


class ToolchainError(LeanError):
    """Lean is missing, damaged or cannot be installed; the message names the command that mends it."""


class WorkerError(LeanError):
    """A Lean process could not be started, was lost, or answered out of protocol. The check is still owed."""


class CheckLostError(WorkerError):
    """One check cannot be had: whatever worker it is given is lost for outside reasons. Others are not concerned."""

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(f"{request_id}: {reason}")
        self.request_id = request_id


class CanaryError(LeanError):
    """A worker gave a wrong answer to a question whose answer is known. Nothing it said can be trusted."""


class CacheError(LeanError):
    """A file given as verdict cache is none, is damaged, or is of another version; nothing in it is used."""


class StatementError(LeanError):
    """The trusted header or statement itself does not elaborate; carries Lean's own message."""


class StepError(LeanError):
    """A proof state cannot be gone on from: it was released, or made again from its tactics it comes out otherwise."""


class ServerError(LeanError):
    """The server cannot serve: its address cannot be had, or others could reach it without a token."""


class SandboxError(LeanError):
    """Confinement was asked for that this machine does not give; names what is missing."""


class CheckerError(LeanError):
    """An external checker was asked for that is missing, does not run, or answers known questions wrongly."""
