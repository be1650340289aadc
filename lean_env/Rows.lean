module
public meta import Certify

/-!
Names, levels and expressions as lines of lean4export's format, each before what refers to it: the part of `Closure` that
knows no declarations.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Closure

def nameTable : UInt64 := 4096
def exprTable : UInt64 := 65536

structure RowEntry where
  row : String
  index : Nat

inductive Step where
  | visit (n : Name)
  | write (line : String)

structure State where
  env : Kernel.Environment
  base : Environment
  /-- What is to be done, first things first. -/
  steps : List Step
  /-- Of this page, last first. -/
  lines : List String := []
  bytes : Nat := 0
  seen : NameSet := {}
  names : Array (List Export.NameEntry)
  nameCount : Nat := 0
  levels : Array (List Export.LevelEntry)
  levelCount : Nat := 0
  /-- Two expressions that differ in what is left out have the same line, which must not come twice. -/
  exprs : Array (List Export.ExprEntry)
  rows : Array (List RowEntry)
  exprCount : Nat := 0
  declarations : Nat := 0
  /-- Constants that the kernel needs for literals, to be declared before what comes next. -/
  literals : List Name := []
  /-- Last first: axioms, and what is written as an axiom for want of its value. -/
  axioms : List Name := []
  assumed : List Name := []
  wrong : Option String := none

def refuse (s : State) (why : String) : State := { s with wrong := some why }

def addLine (s : State) (line : String) : State :=
  { s with lines := line :: s.lines, bytes := s.bytes + line.utf8ByteSize + 1 }

structure Placed where
  index : Nat
  state : State

instance [Nonempty State] : Nonempty Placed := Nonempty.elim ‹Nonempty State› fun s => ⟨{ index := 0, state := s }⟩

/-- Part of a line, and all that is written by then. -/
structure Part where
  text : String
  state : State

/-! ### Strings as JSON, in ASCII -/

def hexDigit (n : Nat) : Char := if n < 10 then Char.ofNat (48 + n) else Char.ofNat (87 + n)

def addHex (r : String) (n : Nat) : String :=
  ((((r ++ "\\u").push (hexDigit (n / 4096 % 16))).push (hexDigit (n / 256 % 16))).push (hexDigit (n / 16 % 16))).push
    (hexDigit (n % 16))

/-- A string grows here instead of a list of characters, because a constant character in a list is one of those things that
this Lean cannot find when it runs. -/
def quotedTo (r : String) : List Char → String
  | [] => r.push '"'
  | c :: cs =>
    if c == '"' || c == '\\' then quotedTo ((r.push '\\').push c) cs else
    let n := c.toNat
    if n ≥ 65536 then quotedTo (addHex (addHex r (55296 + (n - 65536) / 1024)) (56320 + (n - 65536) % 1024)) cs
    else if n < 32 || n > 126 then quotedTo (addHex r n) cs
    else quotedTo (r.push c) cs

def quoted (s : String) : String := quotedTo "\"" s.toList

def truth (b : Bool) : String := if b then "true" else "false"

/-! ### Names and levels -/

def addName (s : State) (place : Nat) (n : Name) (row : String) : Placed :=
  let index := s.nameCount + 1
  let s := addLine s ("{\"in\":" ++ toString index ++ "," ++ row ++ "}")
  let entries := s.names.getD place []
  { index, state := { s with nameCount := index, names := s.names.setIfInBounds place ({ name := n, index } :: entries) } }

partial def name (s : State) (n : Name) : Placed :=
  match n with
  | .anonymous => { index := 0, state := s }
  | .str p c =>
    let place := (n.hash % nameTable).toNat
    match Export.findName n (s.names.getD place []) with
    | some index => { index, state := s }
    | none =>
      let r := name s p
      addName r.state place n ("\"str\":{\"pre\":" ++ toString r.index ++ ",\"str\":" ++ quoted c ++ "}")
  | .num p i =>
    let place := (n.hash % nameTable).toNat
    match Export.findName n (s.names.getD place []) with
    | some index => { index, state := s }
    | none =>
      let r := name s p
      addName r.state place n ("\"num\":{\"pre\":" ++ toString r.index ++ ",\"i\":" ++ toString i ++ "}")

def addLevel (s : State) (place : Nat) (l : Level) (row : String) : Placed :=
  let index := s.levelCount + 1
  let s := addLine s ("{\"il\":" ++ toString index ++ "," ++ row ++ "}")
  let entries := s.levels.getD place []
  { index, state := { s with levelCount := index, levels := s.levels.setIfInBounds place ({ level := l, index } :: entries) } }

def pair (a b : Nat) : String := "[" ++ toString a ++ "," ++ toString b ++ "]"

partial def level (s : State) (l : Level) : Placed :=
  let place := (l.hash % nameTable).toNat
  match Export.findLevel l (s.levels.getD place []) with
  | some index => { index, state := s }
  | none => match l with
    | .zero => { index := 0, state := s }
    | .succ a =>
      let a := level s a
      addLevel a.state place l ("\"succ\":" ++ toString a.index)
    | .max a b =>
      let a := level s a
      let b := level a.state b
      addLevel b.state place l ("\"max\":" ++ pair a.index b.index)
    | .imax a b =>
      let a := level s a
      let b := level a.state b
      addLevel b.state place l ("\"imax\":" ++ pair a.index b.index)
    | .param n =>
      let n := name s n
      addLevel n.state place l ("\"param\":" ++ toString n.index)
    | .mvar _ => { index := 0, state := refuse s "a level is not determined" }

def addNumber (text : String) (i : Nat) : String := if text == "[" then text ++ toString i else text ++ "," ++ toString i

def levelsTo : List Level → Part → Part
  | [], r => { r with text := r.text ++ "]" }
  | l :: ls, r =>
    let p := level r.state l
    levelsTo ls { text := addNumber r.text p.index, state := p.state }

def namesTo : List Name → Part → Part
  | [], r => { r with text := r.text ++ "]" }
  | n :: ns, r =>
    let p := name r.state n
    namesTo ns { text := addNumber r.text p.index, state := p.state }

def names (s : State) (ns : List Name) : Part := namesTo ns { text := "[", state := s }

/-- Names of universe parameters. Their levels have to be there too. -/
def parametersTo : List Name → Part → Part
  | [], r => { r with text := r.text ++ "]" }
  | n :: ns, r =>
    let p := name r.state n
    let l := level p.state (.param n)
    parametersTo ns { text := addNumber r.text p.index, state := l.state }

def parameters (s : State) (ns : List Name) : Part := parametersTo ns { text := "[", state := s }

/-! ### Expressions -/

def findRow (row : String) : List RowEntry → Option Nat
  | [] => none
  | e :: es => if e.row == row then some e.index else findRow row es

def remember (s : State) (place : Nat) (x : Expr) (index : Nat) : Placed :=
  let entries := s.exprs.getD place []
  { index, state := { s with exprs := s.exprs.setIfInBounds place ({ expr := x, index } :: entries) } }

def addExpr (s : State) (place : Nat) (x : Expr) (row : String) : Placed :=
  let at_ := (row.hash % exprTable).toNat
  match findRow row (s.rows.getD at_ []) with
  | some index => remember s place x index
  | none =>
    let index := s.exprCount
    let s := addLine s ("{\"ie\":" ++ toString index ++ "," ++ row ++ "}")
    let entries := s.rows.getD at_ []
    remember { s with exprCount := index + 1, rows := s.rows.setIfInBounds at_ ({ row, index } :: entries) } place x index

/-- With the name of every bound variable, which has been written first of all. -/
def binder (kind : String) (type body : Nat) : String :=
  "\"" ++ kind ++ "\":{\"name\":1,\"type\":" ++ toString type ++ ",\"body\":" ++ toString body ++ ",\"binderInfo\":\"default\"}"

partial def expr (s : State) (x : Expr) : Placed :=
  match x with
  | .mdata _ y => expr s y
  | _ =>
    let place := (x.hash % exprTable).toNat
    match Export.findExpr x (s.exprs.getD place []) with
    | some index => { index, state := s }
    | none => match x with
      | .app f a =>
        let f := expr s f
        let a := expr f.state a
        addExpr a.state place x ("\"app\":{\"fn\":" ++ toString f.index ++ ",\"arg\":" ++ toString a.index ++ "}")
      | .const n ls =>
        let n := name s n
        let r := levelsTo ls { text := "[", state := n.state }
        addExpr r.state place x ("\"const\":{\"name\":" ++ toString n.index ++ ",\"us\":" ++ r.text ++ "}")
      | .bvar i => addExpr s place x ("\"bvar\":" ++ toString i)
      | .lam _ t b _ =>
        let t := expr s t
        let b := expr t.state b
        addExpr b.state place x (binder "lam" t.index b.index)
      | .forallE _ t b _ =>
        let t := expr s t
        let b := expr t.state b
        addExpr b.state place x (binder "forallE" t.index b.index)
      | .letE _ t v b _ =>
        let t := expr s t
        let v := expr t.state v
        let b := expr v.state b
        addExpr b.state place x ("\"letE\":{\"name\":1,\"type\":" ++ toString t.index ++ ",\"value\":" ++ toString v.index
          ++ ",\"body\":" ++ toString b.index ++ ",\"nondep\":false}")
      | .sort l =>
        let l := level s l
        addExpr l.state place x ("\"sort\":" ++ toString l.index)
      | .proj n i y =>
        let n := name s n
        let y := expr n.state y
        addExpr y.state place x ("\"proj\":{\"typeName\":" ++ toString n.index ++ ",\"idx\":" ++ toString i ++ ",\"struct\":"
          ++ toString y.index ++ "}")
      | .lit (.natVal n) =>
        addExpr { s with literals := ``Nat :: s.literals } place x ("\"natVal\":\"" ++ toString n ++ "\"")
      | .lit (.strVal t) =>
        addExpr { s with literals := ``Nat :: ``Char.ofNat :: ``String.ofList :: s.literals } place x ("\"strVal\":" ++ quoted t)
      | .mdata _ y => expr s y
      | .fvar _ => { index := 0, state := refuse s "an expression has a free variable" }
      | .mvar _ => { index := 0, state := refuse s "an expression has a hole" }

end Closure
