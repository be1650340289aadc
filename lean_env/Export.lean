module
public meta import Audit

/-!
Declarations as text, for a second worker that is to know nothing else of the candidate. `Certify` reads it.

Format 1, ASCII spaces between the fields of a line, one newline between lines:

    prover-export 1
    ...
    end NAMES LEVELS EXPRESSIONS DECLARATIONS       (how many lines there were of each kind)

Each line between makes one thing from things made before it. Names, levels and expressions are numbered by kind in the
order of their lines; name 0 is the anonymous one and level 0 is zero, so that their lines count from 1; expressions count
from 0. Numbers are decimal. A STRING is the rest of the line, with `\n` for a newline and `\\` for a backslash.

    names         s NAME STRING | n NAME NUMBER
    levels        S LEVEL | M LEVEL LEVEL | I LEVEL LEVEL | P NAME                     (successor, max, imax, parameter)
    expressions   a EXPR EXPR | c NAME LEVEL* | b INDEX | l TYPE BODY | p TYPE BODY    (application, constant, bound
                  | e TYPE VALUE BODY | t LEVEL | j NAME INDEX EXPR                     variable, lambda, pi, let, sort,
                  | N NUMBER | T STRING                                                 projection, literals)
    declarations  theorem NAME TYPE VALUE PARAMETER*
                  | definition NAME HINT TYPE VALUE PARAMETER*    (HINT: `o`paque, `a`bbreviation, or a height)
                  | opaque NAME TYPE VALUE PARAMETER*
                  | inductive FIXED #PARAMETERS PARAMETER* (NAME TYPE #CONSTRUCTORS (NAME TYPE)*)+

Everything is safe and total: there is no way to write an axiom, or something unsafe or partial. Recursors are not written,
since the kernel makes them. Names of bound variables, binder kinds and metadata, which the kernel does not look at, are
left out. Constants of the header and of its imports are known by name.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Export

/-- Longest export, in bytes. -/
def maxBytes : Nat := 16 * 1024 * 1024

/-! ### What was written already

Three hash tables, because the library's own are polymorphic. -/

structure NameEntry where
  name : Name
  index : Nat

structure LevelEntry where
  level : Level
  index : Nat

structure ExprEntry where
  expr : Expr
  index : Nat

structure Written where
  /-- Last first. -/
  lines : List String := []
  bytes : Nat := 0
  names : Array (List NameEntry)
  nameCount : Nat := 0
  levels : Array (List LevelEntry)
  levelCount : Nat := 0
  exprs : Array (List ExprEntry)
  exprCount : Nat := 0
  declarationCount : Nat := 0
  wrong : Option String := none

def smallTable : UInt64 := 256
def largeTable : UInt64 := 16384

def nothing : Written :=
  { names := Array.replicate smallTable.toNat [], levels := Array.replicate smallTable.toNat [],
    exprs := Array.replicate largeTable.toNat [] }

def findName (n : Name) : List NameEntry → Option Nat
  | [] => none
  | e :: es => if e.name == n then some e.index else findName n es

def findLevel (l : Level) : List LevelEntry → Option Nat
  | [] => none
  | e :: es => if e.level == l then some e.index else findLevel l es

def findExpr (x : Expr) : List ExprEntry → Option Nat
  | [] => none
  | e :: es => if e.expr == x then some e.index else findExpr x es

/-- What something is numbered as, and all that is written by then. -/
structure Placed where
  index : Nat
  written : Written

instance : Nonempty Placed := ⟨{ index := 0, written := nothing }⟩

def addLine (w : Written) (line : String) : Written :=
  let bytes := w.bytes + line.utf8ByteSize + 1
  if bytes > maxBytes then { w with wrong := some "its declarations are too long to export" }
  else { w with lines := line :: w.lines, bytes }

def addName (w : Written) (place : Nat) (n : Name) (line : String) : Placed :=
  let index := w.nameCount + 1
  let w := addLine w line
  let entries := w.names.getD place []
  { index, written := { w with nameCount := index, names := w.names.setIfInBounds place ({ name := n, index } :: entries) } }

def addLevel (w : Written) (place : Nat) (l : Level) (line : String) : Placed :=
  let index := w.levelCount + 1
  let w := addLine w line
  let entries := w.levels.getD place []
  { index, written := { w with levelCount := index, levels := w.levels.setIfInBounds place ({ level := l, index } :: entries) } }

def addExpr (w : Written) (place : Nat) (x : Expr) (line : String) : Placed :=
  let index := w.exprCount
  let w := addLine w line
  let entries := w.exprs.getD place []
  { index, written := { w with exprCount := index + 1, exprs := w.exprs.setIfInBounds place ({ expr := x, index } :: entries) } }

/-! ### Names, levels, expressions -/

/-- A string that grows, for a constant character in a list is a boxed constant, which this Lean cannot find when it runs. -/
def escapedTo (r : String) : List Char → String
  | [] => r
  | '\n' :: cs => escapedTo (r ++ "\\n") cs
  | '\\' :: cs => escapedTo (r ++ "\\\\") cs
  | c :: cs => escapedTo (r.push c) cs

def escaped (s : String) : String := escapedTo "" s.toList

partial def name (w : Written) (n : Name) : Placed :=
  match n with
  | .anonymous => { index := 0, written := w }
  | .str p s =>
    let place := (n.hash % smallTable).toNat
    match findName n (w.names.getD place []) with
    | some index => { index, written := w }
    | none =>
      let r := name w p
      addName r.written place n s!"s {r.index} {escaped s}"
  | .num p i =>
    let place := (n.hash % smallTable).toNat
    match findName n (w.names.getD place []) with
    | some index => { index, written := w }
    | none =>
      let r := name w p
      addName r.written place n s!"n {r.index} {i}"

partial def level (w : Written) (l : Level) : Placed :=
  let place := (l.hash % smallTable).toNat
  match findLevel l (w.levels.getD place []) with
  | some index => { index, written := w }
  | none => match l with
    | .zero => { index := 0, written := w }
    | .succ a =>
      let a := level w a
      addLevel a.written place l s!"S {a.index}"
    | .max a b =>
      let a := level w a
      let b := level a.written b
      addLevel b.written place l s!"M {a.index} {b.index}"
    | .imax a b =>
      let a := level w a
      let b := level a.written b
      addLevel b.written place l s!"I {a.index} {b.index}"
    | .param n =>
      let n := name w n
      addLevel n.written place l s!"P {n.index}"
    | .mvar _ => { index := 0, written := { w with wrong := some "a level is not determined" } }

/-- Fields of a line, and all that is written by then. -/
structure Fields where
  text : String
  written : Written

def levelFields : List Level → Fields → Fields
  | [], r => r
  | l :: ls, r =>
    let p := level r.written l
    levelFields ls { text := s!"{r.text} {p.index}", written := p.written }

def nameFields : List Name → Fields → Fields
  | [], r => r
  | n :: ns, r =>
    let p := name r.written n
    nameFields ns { text := s!"{r.text} {p.index}", written := p.written }

partial def expr (w : Written) (x : Expr) : Placed :=
  if w.wrong.isSome then { index := 0, written := w } else
  match x with
  | .mdata _ y => expr w y
  | _ =>
    let place := (x.hash % largeTable).toNat
    match findExpr x (w.exprs.getD place []) with
    | some index => { index, written := w }
    | none => match x with
      | .app f a =>
        let f := expr w f
        let a := expr f.written a
        addExpr a.written place x s!"a {f.index} {a.index}"
      | .const n ls =>
        let n := name w n
        let r := levelFields ls { text := s!"c {n.index}", written := n.written }
        addExpr r.written place x r.text
      | .bvar i => addExpr w place x s!"b {i}"
      | .lam _ t b _ =>
        let t := expr w t
        let b := expr t.written b
        addExpr b.written place x s!"l {t.index} {b.index}"
      | .forallE _ t b _ =>
        let t := expr w t
        let b := expr t.written b
        addExpr b.written place x s!"p {t.index} {b.index}"
      | .letE _ t v b _ =>
        let t := expr w t
        let v := expr t.written v
        let b := expr v.written b
        addExpr b.written place x s!"e {t.index} {v.index} {b.index}"
      | .sort l =>
        let l := level w l
        addExpr l.written place x s!"t {l.index}"
      | .proj n i y =>
        let n := name w n
        let y := expr n.written y
        addExpr y.written place x s!"j {n.index} {i} {y.index}"
      | .lit (.natVal n) => addExpr w place x s!"N {n}"
      | .lit (.strVal s) => addExpr w place x s!"T {escaped s}"
      | .mdata _ y => expr w y
      | .fvar _ => { index := 0, written := { w with wrong := some "an expression has a free variable" } }
      | .mvar _ => { index := 0, written := { w with wrong := some "an expression has a hole" } }

/-! ### Declarations -/

def addDeclaration (r : Fields) : Written :=
  let w := addLine r.written r.text
  { w with declarationCount := w.declarationCount + 1 }

def valued (w : Written) (kind hint : String) (c : ConstantVal) (value : Expr) : Written :=
  let n := name w c.name
  let t := expr n.written c.type
  let v := expr t.written value
  addDeclaration (nameFields c.levelParams { text := s!"{kind} {n.index}{hint} {t.index} {v.index}", written := v.written })

def hint : ReducibilityHints → String
  | .opaque => "o"
  | .abbrev => "a"
  | .regular height => toString height.toNat

def countNames : List Name → Nat
  | [] => 0
  | _ :: ns => countNames ns + 1

def countConstructors : List Constructor → Nat
  | [] => 0
  | _ :: cs => countConstructors cs + 1

def constructorFields : List Constructor → Fields → Fields
  | [], r => r
  | c :: cs, r =>
    let n := name r.written c.name
    let t := expr n.written c.type
    constructorFields cs { text := s!"{r.text} {n.index} {t.index}", written := t.written }

def typeFields : List InductiveType → Fields → Fields
  | [], r => r
  | i :: is, r =>
    let n := name r.written i.name
    let t := expr n.written i.type
    typeFields is (constructorFields i.ctors { text := s!"{r.text} {n.index} {t.index} {countConstructors i.ctors}", written := t.written })

def refuse (w : Written) (why : String) : Written := { w with wrong := some why }

def declaration (w : Written) : Declaration → Written
  | .thmDecl v => valued w "theorem" "" v.toConstantVal v.value
  | .defnDecl v => match v.safety with
    | .safe => valued w "definition" (" " ++ hint v.hints) v.toConstantVal v.value
    | _ => refuse w "a definition is unsafe or partial"
  | .opaqueDecl v => if v.isUnsafe then refuse w "a constant is unsafe" else valued w "opaque" "" v.toConstantVal v.value
  | .inductDecl params fixed types isUnsafe =>
    if isUnsafe then refuse w "a type is unsafe" else
    let r := nameFields params { text := s!"inductive {fixed} {countNames params}", written := w }
    addDeclaration (typeFields types r)
  | _ => refuse w "a declaration is an axiom, a quotient or not total"

def declarations : List Declaration → Written → Written
  | [], w => w
  | d :: ds, w => if w.wrong.isSome then w else declarations ds (declaration w d)

def reversed : List Declaration → List Declaration → List Declaration
  | [], r => r
  | d :: ds, r => reversed ds (d :: r)

def reversedLines : List String → List String → List String
  | [], r => r
  | l :: ls, r => reversedLines ls (l :: r)

/-- The text of declarations, given last first, or why there is none. -/
def text (ds : List Declaration) : Except String String :=
  let w := declarations (reversed ds []) nothing
  match w.wrong with
  | some why => .error why
  | none =>
    let last := s!"end {w.nameCount} {w.levelCount} {w.exprCount} {w.declarationCount}"
    .ok (String.intercalate "\n" ("prover-export 1" :: reversedLines (last :: w.lines) []))

end Export
