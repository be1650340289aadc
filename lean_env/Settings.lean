module
public meta import Wire

/-!
The settings of tactics in plain form.

Lean evaluates a setting's value as code, and elaborates it with the candidate's own instances and names: `5` may be
any function of an `OfNat` instance, `true` where a number is wanted a coercion. So values are put in a form that leaves
no choice: `+x` and `-x`, which Lean takes for switches only, and raw literals for settings known to be numbers.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Settings

def nameSet (ns : List Name) : NameSet := Wire.insertAll ns {}

/-- Settings that are natural numbers in every configuration that has them. -/
def naturals : NameSet := nameSet [`maxSteps, `maxDischargeDepth, `splits, `ematch, `gen, `canonHeartbeats, `ringSteps, `acSteps,
  `timeout, `maxDepth]

def transparencies : NameSet := nameSet [`all, `default, `reducible, `instances, `none]

def settings : NameSet := nameSet [`Lean.Parser.Tactic.valConfigItem, `Lean.Parser.Tactic.config]

def identOf (s : Syntax) : Name :=
  match s with
  | .ident _ _ n _ => n
  | _ => .anonymous

def isWord (s : Syntax) (word : String) : Bool :=
  match s with
  | .atom _ v => v == word
  | _ => false

def isEmpty (s : Syntax) : Bool :=
  match s with
  | .node _ _ args => args.size == 0
  | _ => false

def atom (v : String) : Syntax := .atom .none v
def node (k : Name) (args : Array Syntax) : Syntax := .node .none k args

def switch (word : String) (kind : Name) (name : Syntax) : Syntax :=
  node `Lean.Parser.Tactic.configItem #[node kind #[atom word, name]]

def valued (name value : Syntax) : Syntax :=
  node `Lean.Parser.Tactic.configItem #[node `Lean.Parser.Tactic.valConfigItem #[atom "(", name, atom ":=", value, atom ")"]]

def rawNat (s : Syntax) : Syntax := node `rawNatLit #[atom "nat_lit", s]

def dotName (s : Syntax) : Name := if s.getKind == ``Parser.Term.dotIdent then identOf (s.getArg 1) else .anonymous

/-- The items of a list of numerals, with the commas. -/
def rawNats : List Syntax → Array Syntax → Option (Array Syntax)
  | [], r => some r
  | a :: as, r =>
    if a.getKind == `num then rawNats as (r.push (rawNat a)) else if isWord a "," then rawNats as (r.push a) else none

/-- `.all`, `.pos [1, 2]` -/
def occurrences (s : Syntax) : Option Syntax :=
  if dotName s == `all then some s
  else if s.getKind == `Lean.Parser.Term.app && (dotName (s.getArg 0) == `pos || dotName (s.getArg 0) == `neg) then
    let list := (s.getArg 1).getArg 0
    if (s.getArg 1).getNumArgs == 1 && list.getKind == `«term[_]» then
      match rawNats (list.getArg 1).getArgs.toList #[] with
      | some items => some (s.setArg 1 (node `null #[list.setArg 1 (node `null items)]))
      | none => none
    else none
  else none

def setting (name value : Syntax) : Option Syntax :=
  let v := identOf value
  if v == `true || v == `Bool.true then some (switch "+" `Lean.Parser.Tactic.posConfigItem name)
  else if v == `false || v == `Bool.false then some (switch "-" `Lean.Parser.Tactic.negConfigItem name)
  else if value.getKind == `num && naturals.contains (identOf name) then some (valued name (rawNat value))
  else if identOf name == `transparency && transparencies.contains (dotName value) then some (valued name value)
  else if identOf name == `occs then
    match occurrences value with
    | some value => some (valued name value)
    | none => none
  else none

def settingsOf : List Syntax → Array Syntax → Option (Array Syntax)
  | [], r => some r
  | a :: as, r =>
    if a.getKind == ``Parser.Term.structInstField then
      let target := a.getArg 0
      let value := (a.getArg 1).getArg 2
      if isEmpty (target.getArg 1) && isEmpty ((a.getArg 1).getArg 0) && isEmpty ((a.getArg 1).getArg 1)
          && value.getKind == ``Parser.Term.structInstFieldDef then
        match setting (target.getArg 0) (value.getArg 2) with
        | some item => settingsOf as (r.push item)
        | none => none
      else none
    else if isWord a "," then settingsOf as r else none

def structSettings (s : Syntax) (r : Array Syntax) : Option (Array Syntax) :=
  if s.getKind == ``Parser.Term.structInst && isEmpty (s.getArg 1) && isEmpty ((s.getArg 3).getArg 0) && isEmpty (s.getArg 4) then
    settingsOf ((s.getArg 2).getArg 0).getArgs.toList r
  else none

def plainItems : List Syntax → Array Syntax → Option (Array Syntax)
  | [], r => some r
  | a :: as, r =>
    let item := a.getArg 0
    if item.getKind == `Lean.Parser.Tactic.valConfigItem then
      if identOf (item.getArg 1) == `config then
        match structSettings (item.getArg 3) r with
        | some r => plainItems as r
        | none => none
      else match setting (item.getArg 1) (item.getArg 3) with
        | some item => plainItems as (r.push item)
        | none => none
    else plainItems as (r.push a)

mutual
/-- The command with every tactic configuration in plain form; none where one has no such form. -/
partial def plain (s : Syntax) : Option Syntax :=
  match s with
  | .node i k args =>
    if settings.contains k then none
    else if k == `Lean.Parser.Tactic.optConfig then
      match plainItems (s.getArg 0).getArgs.toList #[] with
      | some items => some (.node i k #[node `null items])
      | none => none
    else match plainAll args.toList #[] with
      | some args => some (.node i k args)
      | none => none
  | s => some s
partial def plainAll : List Syntax → Array Syntax → Option (Array Syntax)
  | [], r => some r
  | a :: as, r => match plain a with
    | some a => plainAll as (r.push a)
    | none => none
end

end Settings
