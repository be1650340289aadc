module
public meta import Rows

/-!
A theorem with all that it rests on, the library's part too, in the format of lean4export (NDJSON, version 3.1.0), which
kernels other than Lean's read.

The theorem is one that came as text and that this worker has certified for itself. Whatever a line refers to is in a line
before it: names, levels and expressions by number, constants by their declarations. Metadata is left out, variables are all
named `x` with explicit binders, and `have` is written as `let`: no kernel looks at these. What this Lean's library holds
without a value, as the embedded one holds theorems, is written as an axiom, and named.

Closures can be larger than memory should be: they are written page by page, and only what tells whether something was written
already is kept.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Closure

/-- A page ends with the first declaration, or expression of one, after so many bytes. -/
def pageBytes : Nat := 1024 * 1024

/-! ### Declarations -/

def visits (seen : NameSet) : List Name → List Step → List Step
  | [], r => r
  | n :: ns, r => if seen.contains n then visits seen ns r else .visit n :: visits seen ns r

/-- What has to come first, literals' constants before all else, then the declaration itself. -/
def later (s : State) (needed : List Name) (line : String) : State :=
  { s with steps := visits s.seen s.literals (visits s.seen needed (.write line :: s.steps)), literals := [] }

/-- `"name":…,"levelParams":…,"type":…` -/
def signature (s : State) (c : ConstantVal) : Part :=
  let n := name s c.name
  let us := parameters n.state c.levelParams
  let t := expr us.state c.type
  { text := "\"name\":" ++ toString n.index ++ ",\"levelParams\":" ++ us.text ++ ",\"type\":" ++ toString t.index, state := t.state }

def valued (s : State) (kind extra : String) (c : ConstantVal) (value : Expr) (all : List Name) : State :=
  let r := signature s c
  let v := expr r.state value
  let all := names v.state all
  let needed := Wire.append c.type.getUsedConstants.toList value.getUsedConstants.toList
  later all.state needed
    ("{\"" ++ kind ++ "\":{" ++ r.text ++ ",\"value\":" ++ toString v.index ++ extra ++ ",\"all\":" ++ all.text ++ "}}")

def hints : ReducibilityHints → String
  | .opaque => "\"opaque\""
  | .abbrev => "\"abbrev\""
  | .regular height => "{\"regular\":" ++ toString height.toNat ++ "}"

def isAxiom (s : State) (n : Name) : Bool :=
  if (s.base.checked.get.find? n).isNone then true else
  match getOriginalConstKind? s.base n with
  | some .axiom => true
  | some _ => false
  | none => true

def assume (s : State) (c : ConstantVal) : State :=
  let s := if isAxiom s c.name then { s with axioms := c.name :: s.axioms } else { s with assumed := c.name :: s.assumed }
  let r := signature s c
  later r.state c.type.getUsedConstants.toList ("{\"axiom\":{" ++ r.text ++ ",\"isUnsafe\":false}}")

def quotient (s : State) (n kind : String) : Part :=
  match s.env.find? (.str `Quot n) with
  | some (.quotInfo v) =>
    let r := signature s v.toConstantVal
    { r with text := "{\"quot\":{" ++ r.text ++ ",\"kind\":\"" ++ kind ++ "\"}}" }
  | _ => { text := "", state := refuse s "the quotients are not whole" }

def quotients (s : State) : State :=
  match s.env.find? ``Quot with
  | some (.quotInfo v) =>
    let t := signature s v.toConstantVal
    let c := quotient t.state "mk" "ctor"
    let l := quotient c.state "lift" "lift"
    let i := quotient l.state "ind" "ind"
    let s := { i.state with seen := Wire.insertAll [``Quot, ``Quot.mk, ``Quot.lift, ``Quot.ind] i.state.seen }
    { s with steps := .visit ``Eq :: .write ("{\"quot\":{" ++ t.text ++ ",\"kind\":\"type\"}}") :: .write c.text :: .write l.text
      :: .write i.text :: s.steps }
  | _ => refuse s "the quotients are not whole"

/-! Inductive types, with constructors and recursors, in one line -/

structure Block where
  state : State
  types : String := ""
  ctors : String := ""
  recs : String := ""
  /-- All that is declared, and all that it mentions. -/
  declared : List Name := []
  mentioned : List Name := []
  nested : Nat := 0

def item (items text : String) : String := if items.isEmpty then "{" ++ text ++ "}" else items ++ ",{" ++ text ++ "}"

def unknown (b : Block) (n : Name) : Block := { b with state := refuse b.state s!"{Wire.shown n} is unknown" }

def declare (b : Block) (state : State) (c : ConstantVal) : Block :=
  { b with state, declared := c.name :: b.declared, mentioned := Wire.append c.type.getUsedConstants.toList b.mentioned }

def constructors : List Name → Block → Block
  | [], b => b
  | n :: ns, b => match b.state.env.find? n with
    | some (.ctorInfo v) =>
      let r := signature b.state v.toConstantVal
      let i := name r.state v.induct
      let text := r.text ++ ",\"induct\":" ++ toString i.index ++ ",\"cidx\":" ++ toString v.cidx ++ ",\"numParams\":"
        ++ toString v.numParams ++ ",\"numFields\":" ++ toString v.numFields ++ ",\"isUnsafe\":" ++ truth v.isUnsafe
      let b := declare b i.state v.toConstantVal
      constructors ns { b with ctors := item b.ctors text }
    | _ => unknown b n

def types : List Name → Block → Block
  | [], b => b
  | n :: ns, b => match b.state.env.find? n with
    | some (.inductInfo v) =>
      let r := signature b.state v.toConstantVal
      let all := names r.state v.all
      let cs := names all.state v.ctors
      let text := r.text ++ ",\"numParams\":" ++ toString v.numParams ++ ",\"numIndices\":" ++ toString v.numIndices ++ ",\"all\":"
        ++ all.text ++ ",\"ctors\":" ++ cs.text ++ ",\"numNested\":" ++ toString v.numNested ++ ",\"isRec\":" ++ truth v.isRec
        ++ ",\"isUnsafe\":" ++ truth v.isUnsafe ++ ",\"isReflexive\":" ++ truth v.isReflexive
      let b := declare b cs.state v.toConstantVal
      types ns (constructors v.ctors { b with types := item b.types text, nested := v.numNested })
    | _ => unknown b n

structure Rules where
  part : Part
  mentioned : List Name

def rules : List RecursorRule → Rules → Rules
  | [], r => r
  | rule :: more, r =>
    let n := name r.part.state rule.ctor
    let x := expr n.state rule.rhs
    let text := item r.part.text ("\"ctor\":" ++ toString n.index ++ ",\"nfields\":" ++ toString rule.nfields ++ ",\"rhs\":"
      ++ toString x.index)
    rules more { part := { text, state := x.state }, mentioned := Wire.append rule.rhs.getUsedConstants.toList r.mentioned }

def recursors : List Name → Block → Block
  | [], b => b
  | n :: ns, b => match b.state.env.find? n with
    | some (.recInfo v) =>
      let r := signature b.state v.toConstantVal
      let all := names r.state v.all
      let rs := rules v.rules { part := { text := "", state := all.state }, mentioned := b.mentioned }
      let text := r.text ++ ",\"all\":" ++ all.text ++ ",\"numParams\":" ++ toString v.numParams ++ ",\"numIndices\":"
        ++ toString v.numIndices ++ ",\"numMotives\":" ++ toString v.numMotives ++ ",\"numMinors\":" ++ toString v.numMinors
        ++ ",\"rules\":[" ++ rs.part.text ++ "],\"k\":" ++ truth v.k ++ ",\"isUnsafe\":" ++ truth v.isUnsafe
      let b := declare { b with mentioned := rs.mentioned } rs.part.state v.toConstantVal
      recursors ns { b with recs := item b.recs text }
    | _ => unknown b n

def recursorNames : List Name → List Name
  | [] => []
  | n :: ns => .str n "rec" :: recursorNames ns

/-- The kernel's names for the recursors over what the types are nested in. -/
def nestedNames (first : Name) (count : Nat) : Nat → List Name
  | 0 => []
  | left + 1 => .str first s!"rec_{count - left}" :: nestedNames first count left

def without (declared : NameSet) : List Name → List Name → List Name
  | [], r => r
  | n :: ns, r => without declared ns (if declared.contains n then r else n :: r)

def inductive_ (s : State) (all : List Name) : State :=
  let b := types all { state := s }
  let b := recursors (recursorNames all) b
  let b := match all with
    | [] => b
    | first :: _ => recursors (nestedNames first b.nested b.nested) b
  let declared := Wire.insertAll b.declared {}
  let s := { b.state with seen := Wire.insertAll b.declared b.state.seen }
  later s (without declared b.mentioned [])
    ("{\"inductive\":{\"types\":[" ++ b.types ++ "],\"ctors\":[" ++ b.ctors ++ "],\"recs\":[" ++ b.recs ++ "]}}")

def visit (s : State) (n : Name) : State :=
  if s.seen.contains n then s else
  let s := { s with seen := s.seen.insert n }
  match s.env.find? n with
  | none => refuse s s!"{Wire.shown n} is unknown"
  | some info =>
    if info.isUnsafe || info.isPartial then refuse s s!"{Wire.shown n} is unsafe or partial" else
    match info with
    | .axiomInfo v => assume s v.toConstantVal
    | .thmInfo v => valued s "thm" "" v.toConstantVal v.value v.all
    | .defnInfo v => valued s "def" (",\"hints\":" ++ hints v.hints ++ ",\"safety\":\"safe\"") v.toConstantVal v.value v.all
    | .opaqueInfo v => valued s "opaque" ",\"isUnsafe\":false" v.toConstantVal v.value v.all
    | .quotInfo _ => quotients s
    | .inductInfo v => inductive_ s v.all
    | .ctorInfo v => { s with steps := .visit v.induct :: s.steps }
    | .recInfo v => { s with steps := visits s.seen v.all s.steps }

/-! ### Pages -/

def first : String :=
  "{\"meta\":{\"exporter\":{\"name\":\"prover\",\"version\":\"1\"},\"lean\":{\"githash\":" ++ quoted Lean.githash
    ++ ",\"version\":" ++ quoted Lean.versionString ++ "},\"format\":{\"version\":\"3.1.0\"}}}"

def start (g : Audit.Ground) (env : Kernel.Environment) (target : Name) : State :=
  let s : State :=
    { env, base := g.base, steps := [.visit target], names := Array.replicate nameTable.toNat [],
      levels := Array.replicate nameTable.toNat [], exprs := Array.replicate exprTable.toNat [],
      rows := Array.replicate exprTable.toNat [] }
  let s := addLine s first
  (name s `x).state

/-- Writes until the page is full or nothing is left. -/
partial def advance (s : State) : State :=
  if s.wrong.isSome || s.bytes ≥ pageBytes then s else
  match s.steps with
  | [] => s
  | .visit n :: steps => advance (visit { s with steps } n)
  | .write line :: steps =>
    let s := addLine { s with steps } line
    advance { s with declarations := s.declarations + 1 }

def strangers : List Name → List Name
  | [] => []
  | n :: ns => if Wire.hasName n Judge.axiomsAllowed then strangers ns else n :: strangers ns

def dottedAll : List Name → List String
  | [] => []
  | n :: ns => Wire.dotted n :: dottedAll ns

/-- A page as a reply's fields: `page`, its text; `done`, whether it is the last one, which has `axioms`, those among the three
that are allowed, and `assumed`, what else is written as an axiom. `unclosed` instead: why there is no closure. -/
def fields (s : State) : List (String × Json) :=
  match s.wrong with
  | some why => [("unclosed", Json.str why)]
  | none =>
    let page := String.intercalate "\n" (Export.reversedLines ("" :: s.lines) [])
    match s.steps with
    | _ :: _ => [("page", Json.str page), ("done", Json.bool false)]
    | [] => match strangers s.axioms with
      | n :: _ => [("unclosed", Json.str s!"the library's axiom {Wire.shown n} is below it")]
      | [] => [("page", Json.str page), ("done", Json.bool true), ("axioms", Wire.jsonStrings (dottedAll s.axioms)),
          ("assumed", Wire.jsonStrings (dottedAll s.assumed)), ("declarations", Json.num s.declarations)]

/-- Ready for the next page. -/
def turned (s : State) : State := { s with lines := [], bytes := 0 }

/-- The text judged as `Certify.judge` does; where it proves the statement, its closure up to the end of the first page. -/
structure Begun where
  finding : Judge.Finding
  state : Option State := none

def begin_ (g : Audit.Ground) (ref : Judge.Reference) (text : String) (forbidden : List String) : Begun :=
  let r := Certify.read g text
  match r.wrong with
  | some why => { finding := { status := "failed", reason := "export: " ++ why } }
  | none =>
    let c := Judge.claim g ref r.env forbidden
    if c.finding.status != "proved" then { finding := c.finding } else
    { finding := c.finding, state := some (advance (start g r.env.checked.get c.name)) }

/-! ### The two operations -/

@[noinline] def getState (ref : IO.Ref (Option State)) : BaseIO (Option State) := ref.get
@[noinline] def setState (ref : IO.Ref (Option State)) (s : Option State) : BaseIO Unit := ref.set s

/-- What is left to write is kept until the last page is out. -/
def keep (ref : IO.Ref (Option State)) (s : State) : BaseIO Unit :=
  match s.wrong, s.steps with
  | none, _ :: _ => setState ref (some (turned s))
  | _, _ => setState ref none

/-- `closure`: certifies as `certify` does, and answers with the first page. -/
def beginOp (ref : IO.Ref (Option State)) (g : Audit.Ground) (r : Judge.Reference) (j : Json) : BaseIO Json := do
  let b := begin_ g r (Wire.field j "export") (Wire.listField j "forbidden")
  let more := match b.state with
    | none => []
    | some s => fields s
  match b.state with
  | none => setState ref none
  | some s => keep ref s
  return Json.mkObj (("nonce", Json.str (Wire.field j "nonce")) :: ("status", Json.str b.finding.status)
    :: ("reason", Json.str b.finding.reason) :: more)

/-- `closure.next`: the next page of the closure that was begun last. -/
def nextOp (ref : IO.Ref (Option State)) (j : Json) : BaseIO Json := do
  let nonce := ("nonce", Json.str (Wire.field j "nonce"))
  match ← getState ref with
  | none => return Json.mkObj [nonce, ("error", Json.str "no closure is being written")]
  | some s =>
    setState ref none  -- nobody else may hold it, or its tables are copied
    let s := advance s
    let reply := Json.mkObj (nonce :: fields s)
    keep ref s
    return reply

end Closure
