"""What the model is asked, and the form in which it answers: one Jinja template for each kind of model.

A template is a file of blocks. ``proof`` is the user's message that asks for a first proof, after ``system`` where
there is one; ``text`` in its place is the whole prompt of a base model, which continues it. ``revision`` is the message
after a failed answer, ``solution`` what a model would have answered to give a known proof. A comment ``{#- answer: text
-#}`` says how an answer holds its proof (:data:`prover.extraction.Form`).

Blocks may use ``header``, ``statement``, ``name``, ``informal``, ``file`` (all of it, with ``sorry``), ``brief``
(binders and goal alone) and ``premises`` (each with ``name``, ``statement``, ``pointer``); ``revision`` also ``errors``
(in place), ``error`` (the first, on one line), ``status``, ``reason``, ``code`` (the failed candidate) and ``turn``;
``solution`` also ``proof`` (what follows ``:=``, with pointers), ``whole`` (the file with the proof) and ``tactics``
(what follows ``:= by``).
"""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lean_env import source
from lean_env.protocol import Depth
from lean_env.source import candidate_text, target_name
from prover import extraction, feedback, pointers
from prover.config import PromptConfig
from prover.errors import ConfigError
from prover.extraction import Form, extract_proof
from prover.pointers import expand_pointers, pointer
from prover.records import Attempt, ChatMessage, Problem, Verdict

Messages = tuple[ChatMessage, ...]

_PROBLEM = frozenset({"header", "statement", "name", "informal", "file", "brief", "premises"})
_REVISION = _PROBLEM | {"errors", "error", "status", "reason", "code", "turn"}
_SOLUTION = _PROBLEM | {"proof", "whole", "tactics"}
_KNOWN = {
    "system": _PROBLEM,
    "proof": _PROBLEM,
    "text": _PROBLEM,
    "revision": _REVISION,
    "solution": _SOLUTION,
}
"""What each block may use."""

_FORM = re.compile(r"\{#-?\s*answer:\s*(\w+)\s*-?#\}")
_TYPE_BINDER = re.compile(r"\{[^{}]*: (?:Type|Sort)\b[^{}]*\} ?")
_THEOREM = re.compile(r"^\s*(?:theorem|lemma)\s+\S+\s*")


@cache
def _version() -> str:
    """Changes whenever code that shapes a prompt or reads an answer changes."""
    modules = (sys.modules[__name__], extraction, feedback, pointers, source)
    return sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:12]


class Prompt:
    """A template, ready for use. Raises ConfigError for a file that is no template, naming file and line."""

    def __init__(self, config: PromptConfig) -> None:
        self._place, text = _read(config.template)
        self.cuts = config.overflow == "cut"
        """Whether there are shorter variants; else the first is the only one."""
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        try:
            parsed = environment.parse(text)
            _check(parsed, self._place)
            self._template = environment.from_string(text)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise ConfigError(f"{self._place}{f':{line}' if line else ''}: is no Jinja template ({error})") from error
        self._form: Form = self._declared_form(text)
        self.recipe: dict[str, str] = {
            "template": sha256(text.encode()).hexdigest()[:12],
            "overflow": config.overflow,
            "version": _version(),
        }
        """What decides prompts and what is taken from answers: part of fingerprints."""
        uses = {name.name for block in parsed.find_all(nodes.Block) for name in block.find_all(nodes.Name)}
        self.wanted: Depth = "goals" if "errors" in uses else "messages"
        """What verdicts must tell for :meth:`revisions`. Small models have no room for goals."""

    def first(self, problem: Problem) -> Messages:
        """The conversation that asks for a first proof."""
        return next(self.firsts(problem))

    def firsts(self, problem: Problem) -> Iterator[Messages]:
        """That conversation; then, where overflow is cut, ever shorter ones: fewer premises, no informal statement."""
        values = _values(problem)
        yield self._asked(values)
        if not self.cuts:
            return
        while values["premises"]:
            values = {**values, "premises": values["premises"][: len(values["premises"]) // 2]}
            yield self._asked(values)
        if problem.informal_statement:
            yield self._asked({**_values(problem, informal=False), "premises": []})

    def revisions(self, problem: Problem, attempt: Attempt, verdict: Verdict) -> Iterator[Messages]:
        """The conversation so far, the failed answer, and Lean's errors. Where overflow is cut, then ever shorter ones:
        without the answer's thinking, with its code alone, with the first error alone."""
        code = candidate_text(problem.formal_statement, attempt.proof or "", problem.header)

        def asked(completion: str, most: int) -> Messages:
            values = {
                **_values(problem),
                "errors": feedback.errors_in_place(code, verdict, most),
                "error": feedback.first_error(verdict),
                "status": verdict.status,
                "reason": verdict.reason,
                "code": code,
                "turn": attempt.turn + 1,
            }
            said = self._render("revision", values)
            if attempt.messages[0].role == "text":
                return (ChatMessage(role="text", content=f"{attempt.messages[0].content}{completion}{said}"),)
            answer = ChatMessage(role="assistant", content=completion)
            return (*attempt.messages, answer, ChatMessage(role="user", content=said))

        yield asked(attempt.completion, feedback.MAX_ERRORS)
        if not self.cuts:
            return
        thoughtless = extraction.without_thoughts(attempt.completion)
        if thoughtless is not None and thoughtless != attempt.completion:
            yield asked(thoughtless, feedback.MAX_ERRORS)
        if self._form == "text":
            yield asked(f"```lean4\n{code}\n```", feedback.MAX_ERRORS)
            yield asked(f"```lean4\n{code}\n```", 1)

    def solution(self, problem: Problem, proof: str) -> str:
        """What a model would answer to give ``proof`` (the text that follows ``:=``, pointers allowed)."""
        expanded = expand_pointers(proof, problem)
        tactics = re.sub(r"^\s*by\b", "", expanded) if re.match(r"\s*by\b", expanded) else f"\n  exact ({expanded})"
        whole = f"{problem.header}\n\n{problem.formal_statement} := {expanded}".strip()
        return self._render("solution", {**_values(problem), "proof": proof, "whole": whole, "tactics": tactics})

    def extract(self, completion: str, problem: Problem, finish_reason: str) -> str | None:
        """The candidate in an answer, or None where there is none. Pointers to premises become the lemmas' names."""
        cut = finish_reason == "length"
        proof = extract_proof(completion, problem.formal_statement, self._form, cut=cut)
        return None if proof is None else expand_pointers(proof, problem)

    def _asked(self, values: dict[str, Any]) -> Messages:
        if "text" in self._template.blocks:
            return (ChatMessage(role="text", content=self._render("text", values)),)
        user = ChatMessage(role="user", content=self._render("proof", values))
        if "system" not in self._template.blocks:
            return (user,)
        return ChatMessage(role="system", content=self._render("system", values)), user

    def _render(self, block: str, values: dict[str, Any]) -> str:
        if block not in self._template.blocks:
            raise ConfigError(f"{self._place}: has no block {block!r}, which is needed here; add one")
        try:
            return "".join(self._template.blocks[block](self._template.new_context(values)))
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ConfigError(f"{self._place}: block {block!r}: {error}") from error

    def _declared_form(self, text: str) -> Form:
        declared = _FORM.search(text)
        word = declared[1] if declared else "continuation" if "text" in self._template.blocks else "text"
        if word not in get_args(Form):
            forms = ", ".join(get_args(Form))
            raise ConfigError(f"{self._place}: answer: {word!r} is no form of an answer; take one of {forms}")
        return cast(Form, word)


def _read(template: str | Path) -> tuple[str, str]:
    """Where a template comes from, and its text."""
    if isinstance(template, str):
        return template, files("prover").joinpath("templates", f"{template}.jinja").read_text(encoding="utf-8")
    try:
        return str(template), template.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted(file.name.removesuffix(".jinja") for file in files("prover.templates").iterdir()))
        raise ConfigError(
            f"prompt.template: {template}: cannot be read ({error.strerror}); give a Jinja file, or one of {names}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{template}: is not UTF-8 text (byte {error.start})") from error


def _check(parsed: nodes.Template, place: str) -> None:
    """Refuses names that nothing is known of, and templates that ask for nothing, before any problem is read."""
    blocks = {block.name: block for block in parsed.find_all(nodes.Block)}
    if not blocks.keys() & {"proof", "text"}:
        raise ConfigError(f"{place}: has no block 'proof' (a message) or 'text' (a base model's prompt); add one")
    for name, block in blocks.items():
        if name not in _KNOWN:
            raise ConfigError(f"{place}:{block.lineno}: unknown block {name!r}; blocks are {', '.join(_KNOWN)}")
        own = {n.name for n in block.find_all(nodes.Name) if n.ctx in ("store", "param")}
        for used in block.find_all(nodes.Name):
            if used.ctx == "load" and used.name not in _KNOWN[name] | own | {"loop"}:
                known = ", ".join(sorted(_KNOWN[name]))
                raise ConfigError(
                    f"{place}:{used.lineno}: unknown variable {used.name!r} in block {name!r}; it knows {known}"
                )


def _values(problem: Problem, *, informal: bool = True) -> dict[str, Any]:
    said = (problem.informal_statement or "") if informal else ""
    doc = f"/-- {said} -/\n" if said else ""
    premises = [
        {"name": premise.name, "statement": premise.statement, "pointer": pointer(i)}
        for i, premise in enumerate(problem.premises or (), 1)
    ]
    return {
        "header": problem.header,
        "statement": problem.formal_statement,
        "name": target_name(problem.formal_statement),
        "informal": said,
        "file": f"{problem.header}\n\n{doc}{problem.formal_statement} := by\n  sorry".strip(),
        "brief": _TYPE_BINDER.sub("", _THEOREM.sub("", problem.formal_statement)).strip(),
        "premises": premises,
    }
