module
public meta import Wire

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Guard

structure Rules where
  on : Bool
  limit : Nat
  target : Name

def off : Rules := { on := false, limit := 0, target := .anonymous }

/-- What becomes of a command: it runs (perhaps with options lowered), is left out, or ends the check. -/
inductive Ruling where
  | run (command : Syntax)
  | skip
  | refuse (why : String)

def command (rules : Rules) (scope : Command.Scope) (command : Syntax) : Ruling :=
  if rules.limit == 0 && rules.on && scope.currNamespace == rules.target then .skip else .run command
end Guard
