"""A reader of lean4export's NDJSON, format 3.1.0, written from its description alone: what a checker has to find in
order before it can type anything. Standard library only, because the stand-in for a checker uses it too."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Name = tuple[str | int, ...]


class Malformed(Exception):
    pass


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Malformed(what)


class Export:
    """Names, levels and expressions by number, and declarations by name, in order. Raises Malformed at the first line
    that refers to what is not there yet, repeats another, or does not fit what it refers to."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.names: list[Name] = [()]
        self.levels: list[tuple[Any, ...]] = [("zero",)]
        self.exprs: list[tuple[Any, ...]] = []
        self.loose: list[int] = []
        """By expression: how many variables it leaves unbound, counted from the innermost."""
        self.declared: dict[Name, dict[str, Any]] = {}
        self.order: list[Name] = []
        self.axioms: list[str] = []
        self._rows: set[tuple[Any, ...]] = {(), ("zero",)}
        text = iter(lines)
        meta = json.loads(next(text))["meta"]
        demand(set(meta) == {"exporter", "lean", "format"}, "the first line is no meta line")
        demand(meta["format"] == {"version": "3.1.0"}, "another format")
        for number, line in enumerate(text, 2):
            try:
                self._line(json.loads(line))
            except (Malformed, KeyError, IndexError, ValueError, TypeError) as error:
                raise Malformed(f"line {number}: {error!r}: {line[:300]}") from error

    def _line(self, row: dict[str, Any]) -> None:
        if "in" in row:
            demand(row.pop("in") == len(self.names), "names are numbered in order")
            self.names.append(self._new(self._name(row)))
        elif "il" in row:
            demand(row.pop("il") == len(self.levels), "levels are numbered in order")
            self.levels.append(self._new(self._level(row)))
        elif "ie" in row:
            demand(row.pop("ie") == len(self.exprs), "expressions are numbered in order")
            made, loose = self._expr(row)
            self.exprs.append(self._new(made))
            self.loose.append(loose)
        else:
            self._declaration(row)

    def _new(self, row: Any) -> Any:
        demand(row not in self._rows, f"{row} comes twice")
        self._rows.add(row)
        return row

    def _name(self, row: dict[str, Any]) -> Name:
        ((kind, part),) = row.items()
        demand(set(part) == {"pre", {"str": "str", "num": "i"}[kind]}, "fields of a name")
        last = part["str"] if kind == "str" else part["i"]
        demand(isinstance(last, str if kind == "str" else int), "the last part of a name")
        return (*self.names[part["pre"]], last)

    def _level(self, row: dict[str, Any]) -> tuple[Any, ...]:
        ((kind, part),) = row.items()
        if kind == "param":
            demand(self.names[part], "a parameter without a name")
            return ("param", part)
        parts = part if kind in ("max", "imax") else [part]
        demand(kind in ("max", "imax", "succ") and all(0 <= p < len(self.levels) for p in parts), "a level")
        return (kind, *parts)

    def _expr(self, row: dict[str, Any]) -> tuple[tuple[Any, ...], int]:
        ((kind, part),) = row.items()
        if kind == "bvar":
            return ("bvar", part), part + 1
        if kind == "sort":
            demand(0 <= part < len(self.levels), "a level that is not there")
            return ("sort", part), 0
        if kind in ("natVal", "strVal"):
            demand(isinstance(part, str) and (kind == "strVal" or str(int(part)) == part), "a literal")
            return (kind, part), 0
        if kind == "const":
            demand(all(0 <= u < len(self.levels) for u in part["us"]), "a level that is not there")
            return ("const", part["name"], *part["us"]), 0
        fields = {
            "app": ("fn", "arg"),
            "lam": ("type", "body"),
            "forallE": ("type", "body"),
            "letE": ("type", "value", "body"),
            "proj": ("struct",),
        }[kind]
        others = {"lam": {"name", "binderInfo"}, "forallE": {"name", "binderInfo"}, "letE": {"name", "nondep"}}
        others |= {"app": set(), "proj": {"typeName", "idx"}}
        demand(set(part) == {*fields, *others[kind]}, f"fields of {kind}")
        below = [part[f] for f in fields]
        demand(all(0 <= e < len(self.exprs) for e in below), "an expression that is not there")
        loose = [self.loose[e] for e in below]
        if "body" in fields:
            loose[-1] = max(0, loose[-1] - 1)
        rest = tuple(self.names[part[k]] if k in ("name", "typeName") else part[k] for k in sorted(others[kind]))
        return (kind, *below, *rest), max(loose)

    # Declarations

    def _declaration(self, row: dict[str, Any]) -> None:
        ((kind, d),) = row.items()
        demand(kind in ("axiom", "def", "opaque", "thm", "quot", "inductive"), f"a {kind}")
        if kind == "inductive":
            self._inductive(d)
            return
        self._checked(d, [d["type"], *([d["value"]] if "value" in d else [])], set())
        demand(d.get("isUnsafe", False) is False and d.get("safety", "safe") == "safe", "something unsafe")
        demand(("value" in d) == (kind in ("def", "opaque", "thm")), "a value")
        if kind == "axiom":
            self.axioms.append(dotted(self.names[d["name"]]))
        if kind == "quot":
            demand(("Eq",) in self.declared, "quotients before equality")
        self._declare(kind, d)

    def _inductive(self, d: dict[str, Any]) -> None:
        members = [*d["types"], *d["ctors"], *d["recs"]]
        names = {self.names[m["name"]]: len(m["levelParams"]) for m in members}
        for m in members:
            demand(m["isUnsafe"] is False, "something unsafe")
            self._checked(m, [m["type"], *(rule["rhs"] for rule in m.get("rules", []))], set(names), names)
        ctors = [self.names[c["name"]] for c in d["ctors"]]
        demand([self.names[c] for t in d["types"] for c in t["ctors"]] == ctors, "constructors of another type")
        demand(d["types"] and all(len(t["all"]) == len(d["types"]) for t in d["types"]), "types of a block")
        motives = len(d["types"]) + d["types"][0]["numNested"]
        demand(len(d["recs"]) == motives, f"{len(d['recs'])} recursors for {motives} motives")
        for r in d["recs"]:
            demand(r["numMotives"] == motives, "motives of a recursor")
        for m, kind in [*((t, "type") for t in d["types"]), *((c, "ctor") for c in d["ctors"])]:
            self._declare(kind, m)
        for r in d["recs"]:
            demand(all(self.names[rule["ctor"]] in self.declared for rule in r["rules"]), "a rule for no constructor")
            self._declare("rec", r)

    def _declare(self, kind: str, d: dict[str, Any]) -> None:
        name = self.names[d["name"]]
        demand(name and name not in self.declared, f"{dotted(name)} is declared twice")
        self.declared[name] = {**d, "kind": kind}
        self.order.append(name)

    def _checked(
        self, d: dict[str, Any], roots: list[int], own: set[Name], arity: "dict[Name, int] | None" = None
    ) -> None:
        """Closed, of known universe parameters, and of constants that are declared, with as many universes."""
        demand(all(self.loose[e] == 0 for e in roots), "a variable that nothing binds")
        parameters = set(d["levelParams"])
        for name in parameters:
            demand(("param", name) in self._rows, "a universe parameter without its level")
        levels: set[int] = set()
        for e in self.walk(roots):
            kind, *rest = self.exprs[e]
            if kind == "const":
                name, us = self.names[rest[0]], rest[1:]
                known = (arity or {}).get(name) if name in own else self._arity(name)
                demand(known == len(us), f"{dotted(name)} has {known} universe parameters, not {len(us)}")
                levels.update(us)
            elif kind == "sort":
                levels.add(rest[0])
            elif kind == "natVal":
                demand(("Nat",) in self.declared, "a number before Nat")
            elif kind == "strVal":
                for needed in (("Char", "ofNat"), ("String", "ofList")):
                    demand(needed in self.declared, f"a string before {dotted(needed)}")
            elif kind == "proj":
                _, index, structure = rest
                demand(self.declared[structure]["kind"] == "type", "a projection out of something else")
                (only,) = self.declared[structure]["ctors"]
                demand(index < self.declared[self.names[only]]["numFields"], "a field that is not there")
        while levels:
            kind, *rest = self.levels[levels.pop()]
            if kind == "param":
                demand(rest[0] in parameters, "a universe parameter of another declaration")
            else:
                levels.update(rest)

    def _arity(self, name: Name) -> int:
        demand(name in self.declared, f"{dotted(name)} is not declared yet")
        return len(self.declared[name]["levelParams"])

    def walk(self, roots: list[int]) -> Iterator[int]:
        """Expressions below some, each once."""
        seen: set[int] = set()
        left = list(roots)
        while left:
            e = left.pop()
            if e in seen:
                continue
            seen.add(e)
            yield e
            left += self.below(e)

    def below(self, e: int) -> list[int]:
        kind, *rest = self.exprs[e]
        return rest[: {"app": 2, "lam": 2, "forallE": 2, "letE": 3, "proj": 1}.get(kind, 0)]

    def shown(self, e: int, parameters: tuple[int, ...] = ()) -> str:
        """An expression as one string, universe parameters by their place."""
        kind, *rest = self.exprs[e]
        below = " ".join(f"({self.shown(x, parameters)})" for x in self.below(e))
        if kind == "const":
            us = ",".join(self._shown_level(u, parameters) for u in rest[1:])
            return dotted(self.names[rest[0]]) + (f".{{{us}}}" if us else "")
        if kind == "sort":
            return f"Sort {self._shown_level(rest[0], parameters)}"
        return f"{kind} {below}" if below else f"{kind} {rest[0]}"

    def _shown_level(self, u: int, parameters: tuple[int, ...]) -> str:
        kind, *rest = self.levels[u]
        if kind == "param":
            return f"u{parameters.index(rest[0])}"
        return " ".join([kind, *(f"({self._shown_level(x, parameters)})" for x in rest)])


def dotted(name: Name) -> str:
    return ".".join(map(str, name))


def read(path: Path) -> Export:
    with path.open(encoding="ascii") as file:
        return Export(file)
