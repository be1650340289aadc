"""Traced files for tests from marked text, without LeanDojo: commands are set apart by blank lines, ``‖`` stands where
a theorem's statement ends, ``†`` where what follows its proof's term begins."""

import re

from prover.projects.traced import ProofForm, TracedCommand, TracedFile, TracedTheorem

_MODIFIERS = re.compile(r"(?:/--.*?-/\s*|@\[[^\]]*\]\s*|(?:private|protected|nonrec|noncomputable)\s+)*", re.DOTALL)
_IN = re.compile(r"(?:open|set_option|variable|include|omit|attribute)\b[^\n]*? in\n")
_NAME = re.compile(r"(?:theorem|lemma)\s+([\w.«»']+)(?:\.\{[^}]*\})?\s*")


def traced(text: str, path: str = "Some/File.lean", header: str = "") -> TracedFile:
    """A file of the commands in ``text`` after the lines of ``header``."""
    source, commands, theorems = header + "\n\n" if header else "", list[TracedCommand](), list[TracedTheorem]()
    header_end = len(header)
    for block in re.split(r"\n\n+", text.strip("\n")):
        start = len(source)
        parts = re.split("‖", block)
        plain = block.replace("‖", "").replace("†", "")
        inner = 0
        while opened := _IN.match(plain, inner):
            inner = opened.end()
        after = _MODIFIERS.match(plain, inner)
        assert after is not None
        keyword = after.end()
        word = re.match(r"\w+", plain[keyword:])
        kind = {"def": "declaration", "lemma": "theorem"}.get(word[0] if word else "", "")
        kind = kind or (word[0] if word else "moduleDoc")
        if kind == "theorem" and len(parts) == 2:
            name = _NAME.match(plain, keyword)
            assert name is not None, plain
            value = len(parts[0].replace("†", ""))
            tail = block.replace("‖", "").find("†")
            forms: dict[str, ProofForm] = {":": "term", "|": "equations", "w": "structure"}
            theorems.append(
                TracedTheorem(
                    command=len(commands),
                    name=name[1],
                    keyword=start + keyword,
                    signature=start + name.end(),
                    value=start + value,
                    end=start + len(plain),
                    form=forms[plain[value]],
                    tail=start + tail if tail >= 0 else None,
                )
            )
        source += plain
        commands.append(TracedCommand(kind=kind, start=start, end=len(source), inner=start + inner))
        source += "\n\n"
    return TracedFile(path=path, text=source, header_end=header_end, commands=tuple(commands), theorems=tuple(theorems))
