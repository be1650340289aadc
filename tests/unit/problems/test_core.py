from prover.config import CoreProblems
from prover.problems.core import assign_splits, core_problems, usable
from prover.problems.library import LibraryTheorem, twins


def theorem(
    name: str, type: str = "", *, module: str = "Init.Data.Nat.Basic", order: int = 0, **more: object
) -> LibraryTheorem:
    text = f" (n : Nat) : {name.rpartition('.')[2]} n = n"
    fields = {"text": text, "returns": True, "flipped": f"flip {type or name}", **more}
    return LibraryTheorem(name=name, module=module, order=order, type=type or name, **fields)  # type: ignore[arg-type]


def library(modules: int = 60) -> list[LibraryTheorem]:
    """Many small modules, each with theorems of its own and one with a name that all share."""
    return [
        theorem(f"{space}.{base}", module=f"Init.Data.{space}.M{m}", order=m)
        for m in range(modules)
        for space in ("Nat", "List", "Array")
        for base in (f"one_{m}", f"two_{m}'", "shared")
    ]


def test_base_names_and_sequence_modules_stay_in_one_split() -> None:
    splits = assign_splits(usable(library()))
    by_base: dict[str, set[str]] = {}
    for item, split in splits.items():
        by_base.setdefault(item.name.rpartition(".")[2].rstrip("'"), set()).add(split)
    assert all(len(found) == 1 for found in by_base.values())
    assert by_base["shared"] == {"train"}
    assert set(splits.values()) == {"train", "valid", "test"}


def test_splits_part_the_library_and_limits_are_prefixes() -> None:
    everything = library()
    parts = {
        s: [p.id for p in core_problems(CoreProblems(source="core", split=s), everything)]
        for s in ("train", "valid", "test")
    }
    together = [identifier for ids in parts.values() for identifier in ids]
    assert len(together) == len(set(together)) == len(usable(everything))
    few = [p.id for p in core_problems(CoreProblems(source="core", split="train", limit=20), everything)]
    assert few == parts["train"][:20]
    grown = [*everything, theorem("Nat.late", module="Init.Data.Nat.Late", order=99)]
    again = [p.id for p in core_problems(CoreProblems(source="core", split="train"), grown)]
    assert [i for i in again if i != "core/Nat.late"] == parts["train"]


def test_a_problem_forbids_itself_and_whatever_states_the_same() -> None:
    items = [
        theorem("Nat.a", "T", simp=True, grind=True),
        theorem("Nat.b", "T", simp=True),
        theorem("Nat.c", "U", flipped="T", text=" (n : Nat) : n = c n"),
        theorem("Nat.d", "V"),
    ]
    items[0] = LibraryTheorem(**{**{f: getattr(items[0], f) for f in items[0].__struct_fields__}, "flipped": "U"})
    assert {t.name for t in twins(items)["Nat.a"]} == {"Nat.b", "Nat.c"}
    found = {
        p.id: p for s in ("train", "valid", "test") for p in core_problems(CoreProblems(source="core", split=s), items)
    }
    assert set(found) == {"core/Nat.a", "core/Nat.d"}  # one problem for each statement
    problem = found["core/Nat.a"]
    assert problem.forbidden_constants == ("Nat.a", "Nat.a.*", "Nat.b", "Nat.b.*", "Nat.c", "Nat.c.*")
    assert problem.header.split("\n") == [
        "set_option autoImplicit false",
        "attribute [-simp] Nat.a",
        "attribute [-grind] Nat.a",
        "attribute [-simp] Nat.b",
    ]
    assert problem.formal_statement == "theorem target (n : Nat) : a n = n"


def test_what_cannot_be_stated_is_left_out() -> None:
    items = [
        theorem("Nat.good"),
        theorem("Nat.unreturned", returns=False),
        theorem("Nat.unprinted", text=None, returns=False),
        theorem("Nat.long", text=" : " + "x" * 300),
        theorem("Nat.instFoo", instance=True),
        theorem("Std.Foo.bar"),
        theorem("Int.Linear.norm", module="Init.Data.Int.Linear"),
    ]
    assert [t.name for t in usable(items)] == ["Nat.good"]


def test_premises_come_from_earlier_modules_and_never_state_the_same() -> None:
    items = [
        theorem("Nat.early", "E", order=0, text=" (n : Nat) : frob n = zork n"),
        theorem("Nat.twin", "T", order=0, text=" (n : Nat) : frob n = zork n"),
        theorem("Nat.x", "T", module="Init.Data.Nat.Later", order=1, text=" (n : Nat) : frob n = zork n"),
        theorem("Nat.beside", "B", module="Init.Data.Nat.Later", order=1, text=" (n : Nat) : frob n = zork n"),
        *(theorem(f"Nat.other_{i}", order=0, text=f" (n : Nat) : plain n = n{i}") for i in range(20)),
    ]
    config = {s: CoreProblems(source="core", split=s, premises=4) for s in ("train", "valid", "test")}
    found = {p.id: p for c in config.values() for p in core_problems(c, items)}
    beside = found["core/Nat.beside"].premises
    assert beside is not None
    assert {p.name for p in beside} == {"Nat.early", "Nat.twin"}
    same = found["core/Nat.twin"]
    assert "Nat.x" in same.forbidden_constants
    assert same.premises == ()  # its own module is not earlier than itself
