"""LeanDojo's Lean program, made to compile with a Lean that has other names."""

from prover.projects.tracer import adapted

PROGRAM = """instance : ToJson Substring where
  toJson s := toJson s.toString
structure A where
  pos: String.Pos
  text: MySubstring
    defPath := defPath.drop 2
    defPath := ".lake/" ++ (defPath.drop 6)
"""


def test_a_lean_that_it_was_written_for_gets_it_as_it_is() -> None:
    assert adapted(PROGRAM, lambda name: False) == PROGRAM


def test_new_names_are_used_where_they_are_known() -> None:
    assert adapted(PROGRAM, lambda name: True).splitlines() == [
        "instance : ToJson Substring.Raw where",
        "  toJson s := toJson s.toString",
        "structure A where",
        "  pos: String.Pos.Raw",
        "  text: MySubstring",
        "    defPath := (toString (defPath.drop 2))",
        '    defPath := ".lake/" ++ (toString (defPath.drop 6))',
    ]
    assert "ToJson Substring where" in adapted(PROGRAM, lambda name: name == "String.Pos.Raw")
