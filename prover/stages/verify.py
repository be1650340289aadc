"""Let Lean judge attempts. Runs beside sampling: it takes each shard as soon as it is on disk."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import get_args

import msgspec

from lean_env.answers import CERTIFICATION
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Depth, Limits, StatementFailure
from prover.artifacts import Artifact, ArtifactWriter, OnShard, owed_problems, read_manifest
from prover.progress import Meter, Progress
from prover.records import Attempt, Problem, Verdict

PROBLEMS_PER_WORKER = 32
"""Where attempts are tried in turn: how many problems are under way at least, so that no worker waits."""

_DEPTHS: tuple[Depth, ...] = get_args(Depth)
"""Each tells what those before it tell."""
_TOLD = frozenset({"proved", "timeout", "memory"})
"""Verdicts that nothing is corrected by, however much they tell."""

Judged = tuple[Artifact, Artifact]
"""Attempts and the verdicts on them."""


def fingerprints(judged: Sequence[Judged]) -> str | list[str]:
    """Of the verdicts, for the recipe of a stage that reads them: those of several waves as a list."""
    found = [verdicts.fingerprint for _, verdicts in judged]
    return found[0] if len(found) == 1 else found


def run(
    out: Path,
    *,
    problems: Artifact,
    attempts: Artifact,
    pool: LeanPool,
    limits: Limits,
    series: str,
    progress: Progress,
    earlier: Sequence[Judged] = (),
    ready: Iterable[int] | None = None,
    until_proved: bool = False,
    certify: bool = True,
    feedback: Depth = "messages",
    on_shard: OnShard = lambda _artifact, _index: None,
    clean: bool = False,
) -> Artifact:
    """A verdict per attempt, in the order of the attempts. Proofs are certified, or only audited without ``certify``.

    Equal proofs of a problem are checked once. ``earlier`` are finished stages of the same run whose verdicts on the
    same text are taken over, those about time and memory too: they are the dearest to have again, and say nothing of
    the host's load. (The pool's cache has none of these, for it outlives the run and its machine; so it is not enough
    here.) ``ready`` yields the shards of ``attempts`` as they appear on disk; None takes all of them as
    present. An attempt whose problem does not elaborate gets no verdict; how many is counted under ``unjudged``. With
    ``until_proved`` the attempts of a problem are tried one after another, and those after the first proof get no
    verdict: for lists whose order is the point. ``feedback`` is how much the verdicts tell.
    ``on_shard`` is told of each shard once it is on disk, finished ones included, from any thread.
    """
    writer = ArtifactWriter(
        out,
        {
            "stage": "verify",
            "attempts": attempts.fingerprint,
            "limits": msgspec.to_builtins(limits),
            "toolchain": pool.toolchain.version,
            **({"until_proved": True} if until_proved else {}),
            **({} if certify else {"certify": False}),
            **({} if feedback == "messages" else {"feedback": feedback}),
        },
        problems.shards,
        clean=clean,
    )
    owed = set() if writer.finished else set(writer.missing())
    for index in range(problems.shards):
        if index not in owed:
            on_shard(writer.artifact, index)
    if writer.finished:
        return writer.finished
    before = pool.stats.cached
    shards = range(problems.shards) if ready is None else ready
    with progress.stage(f"{series} verify", 0, "attempts") as meter:
        board = _Board(writer, meter, owed_problems(problems, owed), until_proved, on_shard)
        wanted = (i for i in shards if i in owed)
        turns = _turns(wanted, problems, attempts, earlier, limits, certify, feedback, board)
        few = pool.workers * PROBLEMS_PER_WORKER
        requests = _first_proof(turns, board, few) if until_proved else (r for turn in turns for r in turn)
        try:
            for result in pool.check(requests, certify=certify):
                board.settle(result)
        finally:
            board.settled.put(None)  # whoever waits there for results waits in vain now
    tell_cached(pool.stats.cached - before, series, progress)
    counts = _counts(attempts, writer.artifact)
    if counts["unjudged"]:
        progress.note(
            f"{series}: {counts['unjudged']} attempts have no verdict: their problem does not elaborate in Lean"
        )
    tell_disagreements(counts, series, progress)
    return writer.finish(counts, toolchain=pool.toolchain.version)


def tell_cached(number: int, series: str, progress: Progress) -> None:
    """What cost no check, so that the paces that were shown mislead nobody."""
    if number:
        progress.note(f"{series}: {number:,} verdicts came from the cache")


def tell_disagreements(counts: dict[str, int], series: str, progress: Progress) -> None:
    """Proofs that one worker accepts and the other refuses are nothing to pass over."""
    if number := counts.get("disagreements"):
        progress.note(
            f"{series}: {number} proofs were accepted where they were elaborated and refused in certification: an "
            f"attack on Lean, or a bug of ours (the verdicts whose reason begins with '{CERTIFICATION.strip()}')"
        )


def _counts(attempts: Artifact, verdicts: Artifact) -> dict[str, int]:
    """From what is on disk, so that a resumed stage counts like an undisturbed one.

    Unjudged are attempts without verdict, unless their problem is proved: those were left out on purpose.
    """
    counts = {"verdicts": 0, "proved": 0, "unjudged": 0}
    for index in range(verdicts.shards):
        judged = {verdict.attempt_id: verdict for verdict in verdicts.read_shard(index, Verdict)}
        for verdict in judged.values():
            counts["verdicts"] += 1
            counts[verdict.status] = counts.get(verdict.status, 0) + 1
            if is_disagreement(verdict):
                counts["disagreements"] = counts.get("disagreements", 0) + 1
        tried = attempts.read_shard(index, Attempt)
        solved = {a.problem_id for a in tried if a.id in judged and judged[a.id].proved}
        counts["unjudged"] += sum(a.id not in judged and a.problem_id not in solved for a in tried)
    return counts


def is_disagreement(verdict: Verdict) -> bool:
    return verdict.status == "failed" and verdict.reason.startswith(CERTIFICATION)


Key = tuple[str, str]
"""Of a candidate: its problem and its text."""


class _Shard:
    """Attempts of one shard, and what is known of each distinct candidate."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self.attempts = attempts
        self.times = Counter((a.problem_id, a.proof) for a in attempts if a.proof is not None)
        self.known: dict[Key, Verdict | None] = {}
        self.asked: dict[str, Key] = {}
        self.skipped: set[Key] = set()


class _Board:
    """Open shards; a shard is written once its last verdict is in. Shared by the feeding and the reading thread."""

    def __init__(self, writer: ArtifactWriter, meter: Meter, problems: int, in_turn: bool, on_shard: OnShard) -> None:
        """``problems`` are those of the shards that are owed."""
        self._in_turn = in_turn
        self._on_shard = on_shard
        self._writer = writer
        self._meter = meter
        self._problems = problems
        self._seen_problems = 0
        self._seen_attempts = 0
        self._open: dict[int, _Shard] = {}
        self._lock = threading.Lock()
        self.settled: SimpleQueue[tuple[str, bool] | None] = SimpleQueue()
        """Where attempts are tried in turn: what became of each request, its id and whether it was proved; None when
        no more will come."""

    def put(self, index: int, shard: _Shard, problems: int) -> None:
        with self._lock:
            self._open[index] = shard
        self._seen_problems += problems
        self._seen_attempts += len(shard.attempts)
        # How many there will be is known only once sampling has ended; until then as many a problem as so far.
        self._meter.expect(round(self._seen_attempts * self._problems / max(self._seen_problems, 1)))
        self._meter.add(len(shard.attempts) - sum(shard.times[key] for key in shard.asked.values()))
        if not shard.asked:
            self._write(index)

    def settle(self, result: Verdict | StatementFailure) -> None:
        verdict = result if isinstance(result, Verdict) else None
        proved = verdict is not None and verdict.proved
        self._meter.add(checks=1, proved=int(proved))
        self._close(result.attempt_id, lambda shard, key: shard.known.update({key: verdict}))
        if self._in_turn:
            self.settled.put((result.attempt_id, proved))

    def skip(self, requests: Iterable[CheckRequest]) -> None:
        """These will not be checked: their problem is solved."""
        for request in requests:
            self._close(request.id, lambda shard, key: shard.skipped.add(key))

    def _close(self, ident: str, note: Callable[[_Shard, Key], None]) -> None:
        index = int(ident.partition(":")[0])
        with self._lock:
            shard = self._open[index]
            key = shard.asked.pop(ident)
            note(shard, key)
            last = not shard.asked
        self._meter.add(shard.times[key])
        if last:
            self._write(index)

    def _write(self, index: int) -> None:
        with self._lock:
            shard = self._open.pop(index)
        self._writer.write(index, self._verdicts(shard))
        self._on_shard(self._writer.artifact, index)

    def _verdicts(self, shard: _Shard) -> Iterator[Verdict]:
        for attempt in shard.attempts:
            if attempt.proof is None:
                yield Verdict(attempt_id=attempt.id, status="no_proof", reason="text: the answer holds no proof")
                continue
            if (attempt.problem_id, attempt.proof) in shard.skipped:
                continue
            verdict = shard.known[attempt.problem_id, attempt.proof]
            if verdict is not None:
                yield msgspec.structs.replace(verdict, attempt_id=attempt.id)


def _turns(
    shards: Iterable[int],
    problems: Artifact,
    attempts: Artifact,
    earlier: Sequence[Judged],
    limits: Limits,
    certify: bool,
    feedback: Depth,
    board: _Board,
) -> Iterator[deque[CheckRequest]]:
    """What is to be asked about each problem, in the order of its attempts."""
    for index in shards:
        by_id = {p.id: p for p in problems.read_shard(index, Problem)}
        shard = _Shard(attempts.read_shard(index, Attempt))
        before = _known(index, earlier, certify, feedback)
        turns: dict[str, deque[CheckRequest]] = {}
        for attempt in shard.attempts:
            key = (attempt.problem_id, attempt.proof or "")
            if attempt.proof is None or key in shard.known:
                continue
            shard.known[key] = before.get(key)
            if shard.known[key] is not None:
                continue
            problem = by_id[attempt.problem_id]
            ident = f"{index}:{len(shard.asked)}"
            shard.asked[ident] = key
            turns.setdefault(problem.id, deque()).append(
                CheckRequest(
                    id=ident,
                    header=problem.header,
                    formal_statement=problem.formal_statement,
                    proof=attempt.proof,
                    forbidden_constants=problem.forbidden_constants,
                    limits=limits,
                    feedback=feedback,
                )
            )
        board.put(index, shard, len(by_id))
        yield from turns.values()


def _first_proof(turns: Iterator[deque[CheckRequest]], board: _Board, few: int) -> Iterator[CheckRequest]:
    """The first request of each problem; each next one when the one before it has failed. Problems are taken up as
    others come to their end, so that ``few`` are under way and not all in memory."""
    under_way: dict[str, deque[CheckRequest]] = {}
    while True:
        while len(under_way) < few and (turn := next(turns, None)) is not None:
            request = turn.popleft()
            under_way[request.id] = turn
            yield request
        if not under_way or (settled := board.settled.get()) is None:
            return
        ident, proved = settled
        turn = under_way.pop(ident)
        if turn and not proved:
            request = turn.popleft()
            under_way[request.id] = turn
            yield request
        else:
            board.skip(turn)


def _known(index: int, earlier: Sequence[Judged], certify: bool, feedback: Depth) -> dict[Key, Verdict]:
    """Verdicts of finished stages on candidates of this shard's problems; they cost no second check. One that tells
    less than is wanted now is left out, unless there is no more to tell."""
    found: dict[Key, Verdict] = {}
    for attempts, verdicts in earlier:
        told = read_manifest(verdicts.path).recipe.get("feedback", "messages")
        deep = _DEPTHS.index(told) >= _DEPTHS.index(feedback)
        proofs = {a.id: (a.problem_id, a.proof) for a in attempts.read_shard(index, Attempt) if a.proof is not None}
        for verdict in verdicts.read_shard(index, Verdict):
            place = proofs.get(verdict.attempt_id)
            enough = not certify or not verdict.proved or verdict.level == "certified"
            if place is not None and enough and (deep or verdict.status in _TOLD):
                found[place] = msgspec.structs.replace(verdict, seconds=0.0, heartbeats=0)
    return found
