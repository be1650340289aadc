"""nanoda, a kernel in Rust: ``nanoda_bin CONFIG`` of ammkrn/nanoda_lib.

Written from its public sources for export format 3.1.0, which it reads from 3.1.0 up to but not including 3.2.0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lean_env.program import Ended

EXECUTABLE = "nanoda_bin"
REFUSALS = (1, 101)
"""How it exits with an error that it returns, such as for an axiom that is not permitted, and with a panic, which is
how it finds a term ill typed."""
DECLINED = 2
"""How it exits where it does not judge."""


def version(helped: Ended) -> str:
    """The version that ``--help`` begins with, as ``nanoda_bin 0.4.0``; empty where it does not."""
    said = helped.said.split()
    return said[1] if helped.code == 0 and len(said) > 1 and said[0] == EXECUTABLE else ""


def config(export: Path, permitted: Sequence[str]) -> dict[str, Any]:
    """For ``nanoda_bin``: literals of numbers and strings are computed with, as Lean's kernel does; any axiom but the
    permitted ones is an error. One thread, which has the whole stack."""
    return {
        "export_file_path": str(export),
        "use_stdin": False,
        "permitted_axioms": list(dict.fromkeys(permitted)),
        "unpermitted_axiom_hard_error": True,
        "unsafe_permit_all_axioms": False,
        "nat_extension": True,
        "string_extension": True,
        "num_threads": 1,
        "pp_to_stdout": False,
        "print_success_message": True,
    }


def words(ended: Ended) -> str:
    """In one line what a checker said for its end."""
    lines = [line.strip() for line in ended.said.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if "panicked at" in line:
            return " ".join(lines[number : number + 2])[:300]
    telling = [line for line in lines if line.startswith("Error")]
    how = f"exit code {ended.code}" if ended.code >= 0 else f"signal {-ended.code}"
    return (telling or lines[:1] or [how])[0][:300]


_META = (
    '{"meta":{"exporter":{"name":"prover","version":"1"},"lean":{"githash":"","version":"4.28.0"},'
    '"format":{"version":"3.1.0"}}}'
)


def _known(*lines: str) -> str:
    """``∀ p : Prop, p → p`` is expression 4, its proof 6, ``∀ p : Prop, p`` is 7, and 8 the constant ``bad``, name 3;
    name 2 is ``known``."""
    binder = '"name":1,"type":{},"body":{},"binderInfo":"default"'
    made = [
        *(f'{{"in":{i},"str":{{"pre":0,"str":"{name}"}}}}' for i, name in enumerate(("x", "known", "bad"), 1)),
        '{"ie":0,"sort":0}',
        '{"ie":1,"bvar":0}',
        '{"ie":2,"bvar":1}',
        *(
            f'{{"ie":{i},"{kind}":{{{binder.format(t, b)}}}}}'
            for i, kind, t, b in ((3, "forallE", 1, 2), (4, "forallE", 0, 3), (5, "lam", 1, 1), (6, "lam", 0, 5))
        ),
        f'{{"ie":7,"forallE":{{{binder.format(0, 1)}}}}}',
        '{"ie":8,"const":{"name":3,"us":[]}}',
    ]
    return "\n".join([_META, *made, *lines]) + "\n"


def _theorem(type_: int, value: int) -> str:
    return f'{{"thm":{{"name":2,"levelParams":[],"type":{type_},"value":{value},"all":[2]}}}}'


KNOWN = (
    ("a true proof in export format 3.1.0", _known(_theorem(4, 6)), True),
    ("an ill-typed proof", _known(_theorem(4, 5)), False),
    (
        "a proof by an axiom that it was not permitted",
        _known('{"axiom":{"name":3,"levelParams":[],"type":7,"isUnsafe":false}}', _theorem(7, 8)),
        False,
    ),
)
"""What a checker is asked before it is relied on: what it is, the file, and whether it is to be accepted."""
