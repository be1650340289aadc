module
public meta import Guard

/-!
The ruling on a command or a tactic, with what the filter's lists cannot see: `termination_by`, `decreasing_by` and
`monotonicity` are elaborated when other constants of the same command exist already, before the table of constants can be
looked through. `termination_by f bad` would be a way around `declaresSyntax`.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Guard
open Settings (plain)

mutual
/-- The parts of all names in late terms. -/
partial def namesIn (s : Syntax) (r : List Name) : List Name :=
  match s with
  | .node _ _ args => namesInAll args.toList r
  | .ident _ _ n _ => partsOf n r
  | _ => r
partial def namesInAll : List Syntax → List Name → List Name
  | [], r => r
  | a :: as, r => namesInAll as (namesIn a r)
partial def partsOf : Name → List Name → List Name
  | .anonymous, r => r
  | .str p s, r => partsOf p (Name.mkSimple s :: r)
  | .num p _, r => partsOf p r
end

def lateKinds : NameSet := nameSet [``Parser.Termination.terminationBy, ``Parser.Termination.partialFixpoint,
  ``Parser.Termination.inductiveFixpoint, ``Parser.Termination.coinductiveFixpoint]

mutual
partial def lateTerms (s : Syntax) (r : List Syntax) : List Syntax :=
  if lateKinds.contains s.getKind then s :: r else lateTermsOf s.getArgs.toList r
partial def lateTermsOf : List Syntax → List Syntax → List Syntax
  | [], r => r
  | a :: as, r => lateTerms a (lateTermsOf as r)
end

mutual
/-- Names that a command declares, `let rec` and `where` included. -/
partial def declaredIn (s : Syntax) (r : List Name) : List Name :=
  let args := s.getArgs.toList
  let k := s.getKind
  if k == ``Parser.Command.declId || k == ``Parser.Term.letId || k == ``Parser.Term.letDecl then
    declaredInAll args (partsOf (firstWord s) r)
  else declaredInAll args r
partial def declaredInAll : List Syntax → List Name → List Name
  | [], r => r
  | a :: as, r => declaredInAll as (declaredIn a r)
end

mutual
partial def hasWord (word : String) : Syntax → Bool
  | .atom _ v => v == word
  | .node _ _ args => anyHasWord word args.toList
  | _ => false
partial def anyHasWord (word : String) : List Syntax → Bool
  | [] => false
  | a :: as => hasWord word a || anyHasWord word as
end

def firstIn (set : NameSet) : List Name → Bool
  | [] => false
  | n :: ns => set.contains (lastPart n) || firstIn set ns

mutual
/-- Whether some constant of a part of the table has one of these for the last part of its name. -/
partial def anyNamed (set : NameSet) (part : PersistentHashMap.Node Name ConstantInfo) : Bool :=
  match part with
  | .entries es => anyNamedIn set es.toList
  | .collision names _ _ => firstIn set names.toList
partial def anyNamedIn (set : NameSet) :
    List (PersistentHashMap.Entry Name ConstantInfo (PersistentHashMap.Node Name ConstantInfo)) → Bool
  | [] => false
  | e :: es => match e with
    | .entry n _ => set.contains (lastPart n) || anyNamedIn set es
    | .ref part => anyNamed set part || anyNamedIn set es
    | .null => anyNamedIn set es
end

/-- Late terms may be no more than terms of the library over local variables where the command declares several constants:
nothing in them may be named as a constant of the command, or of the candidate and the header. -/
def wrongLate (env : Environment) (s : Syntax) : Option String :=
  let several := hasKind ``Parser.Command.mutual s || hasKind ``Parser.Term.letrec s || hasKind ``Parser.Term.whereDecls s
  if !several then none
  else if hasKind ``Parser.Termination.decreasingBy s then
    some "`decreasing_by` beside other declarations of its command is not allowed"
  else
    let terms := lateTerms s []
    let names := namesInAll terms []
    match names with
    | [] => none
    | _ => if anyHasWord "by" terms then some "`by` in a termination hint beside other declarations of its command is not allowed"
    else if hasWord "instance" s then some "an instance in a command with termination hints and several declarations is not allowed"
    else
      let named := Wire.insertAll names {}
      if firstIn named (declaredIn s []) || anyNamed named env.checked.get.constants.map₂.root then
        some "a termination hint beside other declarations of its command may not mention the text's own constants"
      else none

/-- What becomes of any piece of a candidate, be it a command or a tactic by itself. -/
def filtered (rules : Rules) (env : Environment) (space : Name) (s : Syntax) : Ruling :=
  match wrong rules space s with
  | some why => .refuse why
  | none =>
    match wrongLate env s with
    | some why => .refuse why
    | none =>
    let s := if setsHeartbeats s then lower rules.limit s else s
    if hasKind `Lean.Parser.Tactic.valConfigItem s || hasKind `Lean.Parser.Tactic.config s then
      match plain s with
      | some s => .run s
      | none => .refuse "the value of a tactic's setting is not literal"
    else .run s

def command (rules : Rules) (env : Environment) (scope : Command.Scope) (s : Syntax) : Ruling :=
  if !rules.on then .run s
  else if prints s then .skip
  else match wrongCommand s with
    | some why => .refuse why
    | none => filtered rules env scope.currNamespace s

end Guard
