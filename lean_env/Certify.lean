module
public meta import Export
public meta import Judge
public meta import Init.Data.String.Legacy

/-!
Declarations that came as text (`Export` has the format) put to the kernel on the header's own environment, and what they
amount to: for a worker that never sees a candidate.

The text may come from a worker that the candidate has taken over, so it is read as strictly as can be: what is unknown,
not yet made, out of its bounds, left over or missing ends the reading. Nothing of it is parsed or elaborated as Lean.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Certify

def missing (env : Kernel.Environment) : List Name → Option Name
  | [] => none
  | n :: ns => if (env.find? n).isNone then some n else missing env ns

/-- Numbers of bound variables, of fields and of parameters lie below: beyond, `Expr` itself goes wrong. -/
def maxIndex : Nat := 1000000
/-- Digits of the longest literal: reading one takes time that grows with the square. -/
def maxDigits : Nat := 100000

structure Reading where
  names : Array Name
  levels : Array Level
  exprs : Array Expr
  declarations : Nat := 0
  env : Environment
  wrong : Option String := none
  ended : Bool := false

def refuse (r : Reading) (why : String) : Reading := { r with wrong := some why }

/-! ### Fields -/

/-- Decimal, without anything that need not be there. -/
def number (s : String) : Option Nat :=
  if s.utf8ByteSize > maxDigits then none else
  match s.toNat? with
  | some n => if toString n == s then some n else none
  | none => none

def isNumber (s : String) (n : Nat) : Bool :=
  match number s with | some m => m == n | none => false

def small (s : String) : Option Nat :=
  match number s with
  | some n => if n < maxIndex then some n else none
  | none => none

def nameAt (r : Reading) (s : String) : Option Name :=
  match number s with | some i => r.names[i]? | none => none

/-- A name that something can have. -/
def properName (r : Reading) (s : String) : Option Name :=
  match nameAt r s with
  | some .anonymous => none
  | n => n

def levelAt (r : Reading) (s : String) : Option Level :=
  match number s with | some i => r.levels[i]? | none => none

def exprAt (r : Reading) (s : String) : Option Expr :=
  match number s with | some i => r.exprs[i]? | none => none

/-- Last first. -/
def namesAt (r : Reading) : List String → List Name → Option (List Name)
  | [], ns => some ns
  | s :: ss, ns => match properName r s with | some n => namesAt r ss (n :: ns) | none => none

def levelsAt (r : Reading) : List String → List Level → Option (List Level)
  | [], ls => some ls
  | s :: ss, ls => match levelAt r s with | some l => levelsAt r ss (l :: ls) | none => none

def reversedNames : List Name → List Name → List Name
  | [], r => r
  | n :: ns, r => reversedNames ns (n :: r)

def reversedLevels : List Level → List Level → List Level
  | [], r => r
  | l :: ls, r => reversedLevels ls (l :: r)

def parameters (r : Reading) (ss : List String) : Option (List Name) :=
  match namesAt r ss [] with | some ns => some (reversedNames ns []) | none => none

/-- A string as it was before its newlines and backslashes were written as two characters. -/
def unescaped (r : String) : List Char → Option String
  | [] => some r
  | '\\' :: 'n' :: cs => unescaped (r ++ "\n") cs
  | '\\' :: '\\' :: cs => unescaped (r ++ "\\") cs
  | '\\' :: _ => none
  | c :: cs => unescaped (r.push c) cs

def stringAt (ss : List String) : Option String := unescaped "" (String.intercalate " " ss).toList

/-! ### Names, levels, expressions -/

def withName (r : Reading) (n : Name) : Reading := { r with names := r.names.push n }
def withLevel (r : Reading) (l : Level) : Reading := { r with levels := r.levels.push l }
def withExpr (r : Reading) (x : Expr) : Reading := { r with exprs := r.exprs.push x }

def unreadable (r : Reading) : Reading := refuse r "a line of the export cannot be read"

/-! ### Declarations -/

def isNew (r : Reading) (g : Audit.Ground) (n : Name) : Bool :=
  !Audit.inHeader g n && Names.isFree g.header n && (r.env.checked.get.find? n).isNone

def take (r : Reading) (n : Name) (d : Declaration) : Reading :=
  match Audit.addRaw r.env d with
  | .ok env => { r with env, declarations := r.declarations + 1 }
  | .error _ => refuse r s!"the kernel rejects {Wire.shown n}"

/-- A declaration with a value, from the fields after its kind and hint. -/
def valued (r : Reading) (g : Audit.Ground) (kind : String) (hints : ReducibilityHints) (n t v : String) (us : List String) :
    Reading :=
  match properName r n, exprAt r t, exprAt r v, parameters r us with
  | some name, some type, some value, some levelParams =>
    if !isNew r g name then refuse r s!"{Wire.shown name} is declared already, or not the candidate's to declare" else
    match kind with
    | "theorem" => take r name (.thmDecl { name, levelParams, type, value, all := [name] })
    | "definition" => take r name (.defnDecl { name, levelParams, type, value, hints, safety := .safe, all := [name] })
    | _ => take r name (.opaqueDecl { name, levelParams, type, value, isUnsafe := false, all := [name] })
  | _, _, _, _ => unreadable r

def hints (s : String) : Option ReducibilityHints :=
  match s with
  | "o" => some .opaque
  | "a" => some .abbrev
  | s => match number s with
    | some height => if height < 4294967296 then some (.regular (UInt32.ofNat height)) else none
    | none => none

/-- What the fields of an inductive declaration hold, and the fields after it. -/
structure Constructors where
  made : List Constructor
  left : List String

structure Types where
  made : List InductiveType
  left : List String

def reversedConstructors : List Constructor → List Constructor → List Constructor
  | [], r => r
  | c :: cs, r => reversedConstructors cs (c :: r)

def reversedTypes : List InductiveType → List InductiveType → List InductiveType
  | [], r => r
  | t :: ts, r => reversedTypes ts (t :: r)

/-- Last first. -/
def constructors (r : Reading) (g : Audit.Ground) : Nat → List String → List Constructor → Option Constructors
  | 0, left, made => some { made, left }
  | count + 1, n :: t :: left, made => match properName r n, exprAt r t with
    | some name, some type =>
      if isNew r g name then constructors r g count left ({ name, type } :: made) else none
    | _, _ => none
  | _, _, _ => none

/-- Last first. -/
partial def types (r : Reading) (g : Audit.Ground) (fields : List String) (made : List InductiveType) : Option (List InductiveType) :=
  match fields with
  | [] => some made
  | n :: t :: count :: left => match properName r n, exprAt r t, small count with
    | some name, some type, some count =>
      if !isNew r g name then none else
      match constructors r g count left [] with
      | some cs => types r g cs.left ({ name, type, ctors := reversedConstructors cs.made [] } :: made)
      | none => none
    | _, _, _ => none
  | _ => none

structure Split where
  first : List String
  left : List String

/-- The first fields, last first. -/
def split : Nat → List String → List String → Option Split
  | 0, left, first => some { first, left }
  | count + 1, s :: left, first => split count left (s :: first)
  | _, [], _ => none

def inductives (r : Reading) (g : Audit.Ground) (fixed count : String) (fields : List String) : Reading :=
  match small fixed, small count with
  | some fixed, some count => match split count fields [] with
    | none => unreadable r
    | some s => match namesAt r s.first [], types r g s.left [] with
      | some params, some (t :: ts) =>
        let made := reversedTypes (t :: ts) []
        match Audit.addTypes r.env t.name params made (.inductDecl params fixed made false) with
        | .ok env => { r with env, declarations := r.declarations + 1 }
        | .error why => refuse r why
      | _, _ => unreadable r
  | _, _ => unreadable r

/-! ### Lines -/

def line (g : Audit.Ground) (r : Reading) (fields : List String) : Reading :=
  match fields with
  | ["a", f, x] => match exprAt r f, exprAt r x with
    | some f, some x => withExpr r (.app f x)
    | _, _ => unreadable r
  | "c" :: n :: ls => match properName r n, levelsAt r ls [] with
    | some n, some ls => withExpr r (.const n (reversedLevels ls []))
    | _, _ => unreadable r
  | ["b", i] => match small i with
    | some i => withExpr r (.bvar i)
    | none => unreadable r
  | ["l", t, b] => match exprAt r t, exprAt r b with
    | some t, some b => withExpr r (.lam `x t b .default)
    | _, _ => unreadable r
  | ["p", t, b] => match exprAt r t, exprAt r b with
    | some t, some b => withExpr r (.forallE `x t b .default)
    | _, _ => unreadable r
  | ["e", t, v, b] => match exprAt r t, exprAt r v, exprAt r b with
    | some t, some v, some b => withExpr r (.letE `x t v b false)
    | _, _, _ => unreadable r
  | ["t", l] => match levelAt r l with
    | some l => withExpr r (.sort l)
    | none => unreadable r
  | ["j", n, i, x] => match properName r n, small i, exprAt r x with
    | some n, some i, some x => withExpr r (.proj n i x)
    | _, _, _ => unreadable r
  | ["N", n] => match number n with
    | some n => withExpr r (.lit (.natVal n))
    | none => unreadable r
  | "T" :: s => match stringAt s with
    | some s => withExpr r (.lit (.strVal s))
    | none => unreadable r
  | "s" :: p :: s => match nameAt r p, stringAt s with
    | some p, some s => withName r (.str p s)
    | _, _ => unreadable r
  | ["n", p, i] => match nameAt r p, number i with
    | some p, some i => withName r (.num p i)
    | _, _ => unreadable r
  | ["S", a] => match levelAt r a with
    | some a => withLevel r (.succ a)
    | none => unreadable r
  | ["M", a, b] => match levelAt r a, levelAt r b with
    | some a, some b => withLevel r (.max a b)
    | _, _ => unreadable r
  | ["I", a, b] => match levelAt r a, levelAt r b with
    | some a, some b => withLevel r (.imax a b)
    | _, _ => unreadable r
  | ["P", n] => match properName r n with
    | some n => withLevel r (.param n)
    | none => unreadable r
  | "theorem" :: n :: t :: v :: us => valued r g "theorem" .opaque n t v us
  | "definition" :: n :: h :: t :: v :: us => match hints h with
    | some h => valued r g "definition" h n t v us
    | none => unreadable r
  | "opaque" :: n :: t :: v :: us => valued r g "opaque" .opaque n t v us
  | "inductive" :: fixed :: count :: fields => inductives r g fixed count fields
  | ["end", names, levels, exprs, declarations] =>
    -- Name 0 and level 0 have no lines.
    if isNumber names (r.names.size - 1) && isNumber levels (r.levels.size - 1)
      && isNumber exprs r.exprs.size && isNumber declarations r.declarations
    then { r with ended := true } else unreadable r
  | _ => unreadable r

partial def lines (g : Audit.Ground) (r : Reading) : List String → Reading
  | [] => if r.ended then r else refuse r "the export is not whole"
  | l :: ls =>
    if r.ended then refuse r "the export goes on after its end" else
    let r := line g r (l.splitOn " ")
    if r.wrong.isSome then r else lines g r ls

def read (g : Audit.Ground) (text : String) : Reading :=
  let r : Reading := { names := #[.anonymous], levels := #[.zero], exprs := #[], env := g.header }
  if text.utf8ByteSize > Export.maxBytes then refuse r "the export is too long" else
  match missing g.header.checked.get Names.kernel with
  | some n => refuse r s!"the header's imports lack {Wire.shown n}, which the kernel knows by name"
  | none => match text.splitOn "\n" with
    | "prover-export 1" :: ls => lines g r ls
    | _ => refuse r "the export is of another format"

/-- What the text proves: `proved`, or what is wrong with it. -/
def judge (g : Audit.Ground) (ref : Judge.Reference) (text : String) (forbidden : List String) : Judge.Finding :=
  let r := read g text
  match r.wrong with
  | some why => { status := "failed", reason := "export: " ++ why }
  | none => (Judge.claim g ref r.env forbidden).finding

end Certify
