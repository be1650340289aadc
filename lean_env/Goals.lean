module
public meta import Judge
public meta import Lean.PrettyPrinter

/-!
Goals as records, and as statements of their own: what feedback and step mode show. Nothing here takes part in a decision on
a proof. All is bounded, by sizes and by heartbeats: a goal may be as large as a candidate likes.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Goals

def maxGoals : Nat := 16
def maxHypotheses : Nat := 64
/-- Of one type or target. -/
def maxTermBytes : Nat := 2048
/-- Of one closed statement. -/
def maxStatementBytes : Nat := 16384
/-- Most nodes, as a tree, of a goal that is closed and printed in full. -/
def maxNodes : Nat := 20000
def printHeartbeats : Nat := 20000

/-- All that a term is to be printed in. -/
structure Scene where
  env : Environment
  mctx : MetavarContext
  options : Options
  namespace_ : Name
  opens : List OpenDecl
  ngen : NameGenerator := {}

def ofInfo (c : ContextInfo) (mctx : MetavarContext) : Scene :=
  { env := c.env, mctx, options := c.options, namespace_ := c.currNamespace, opens := c.openDecls, ngen := c.ngen }

def ofScope (env : Environment) (scope : Command.Scope) : Scene :=
  { env, mctx := {}, options := scope.opts, namespace_ := scope.currNamespace, opens := scope.openDecls }

/-! ### Lists -/

def reversedJson : List Json → List Json → List Json
  | [], r => r
  | a :: as, r => reversedJson as (a :: r)

/-! ### Printing -/

@[noinline] def printRaw (e : Expr) (meta_ : Meta.Context) (m : IO.Ref Meta.State) (core : Core.Context)
    (c : IO.Ref Core.State) : BaseIO (Except Exception Format) :=
  (Meta.ppExpr e meta_ m core c).toBaseIO

def coreContext (s : Scene) (options : Options) (heartbeats : Nat) : BaseIO Core.Context := do
  let now ← IO.getNumHeartbeats
  return { fileName := "<goal>", fileMap := FileMap.ofString "", options, currNamespace := s.namespace_, openDecls := s.opens,
           maxHeartbeats := heartbeats * 1000, initHeartbeats := now, maxRecDepth := 512 }

/-- A term as Lean prints it; none where printing fails or comes to its limit. -/
def print (s : Scene) (options : Options) (lctx : LocalContext) (insts : LocalInstances) (e : Expr) (bytes : Nat) :
    BaseIO (Option String) := do
  let c ← IO.mkRef ({ env := s.env, ngen := s.ngen } : Core.State)
  let m ← IO.mkRef ({ mctx := s.mctx } : Meta.State)
  match ← printRaw e { lctx, localInstances := insts } m (← coreContext s options printHeartbeats) c with
  | .ok f =>
    let text := f.pretty 100
    return some (if text.utf8ByteSize ≤ bytes then text else Wire.cut text bytes)
  | .error _ => return none

def printed (s : Scene) (lctx : LocalContext) (insts : LocalInstances) (e : Expr) : BaseIO String := do
  return (← print s s.options lctx insts e maxTermBytes).getD "⋯"

/-! ### One goal -/

structure Hypothesis where
  name : String
  type : String
  value : Option String

def hypothesisJson (h : Hypothesis) : Json :=
  match h.value with
  | none => Json.arr #[Json.str h.name, Json.str h.type]
  | some v => Json.arr #[Json.str h.name, Json.str h.type, Json.str v]

def hypothesesJson : List Hypothesis → Array Json → Array Json
  | [], r => r
  | h :: hs, r => hypothesesJson hs (r.push (hypothesisJson h))

def allRest : List Char → Bool
  | [] => true
  | c :: cs => isIdRest c && allRest cs

/-- A part of a name, with «» where it needs them. -/
def escaped (s : String) : String :=
  match s.toList with
  | c :: cs => if isIdFirst c && allRest cs then s else "«" ++ s ++ "»"
  | [] => "«»"

def written : Name → String
  | .anonymous => ""
  | .str .anonymous s => escaped s
  | .num .anonymous n => toString n
  | .str p s => written p ++ "." ++ escaped s
  | .num p n => written p ++ "." ++ toString n

def nameOf (n : Name) : String := Wire.dotted n.simpMacroScopes

def hypothesis (s : Scene) (lctx : LocalContext) (insts : LocalInstances) (d : LocalDecl) : BaseIO Hypothesis := do
  let type ← printed s lctx insts d.type
  let value ← match d.value? with
    | some v => pure (some (← printed s lctx insts v))
    | none => pure none
  return { name := nameOf d.userName, type, value }

/-- What is shown of a local context, first to last. -/
def visible (lctx : LocalContext) : List FVarId → List LocalDecl
  | [] => []
  | f :: fs => match lctx.find? f with
    | some d => if d.isImplementationDetail then visible lctx fs else d :: visible lctx fs
    | none => visible lctx fs

def hypotheses (s : Scene) (lctx : LocalContext) (insts : LocalInstances) : List LocalDecl → Nat → BaseIO (List Hypothesis)
  | [], _ => return []
  | _, 0 => return []
  | d :: ds, left + 1 => do
    let h ← hypothesis s lctx insts d
    return h :: (← hypotheses s lctx insts ds left)

def rest (h : Hypothesis) : String :=
  match h.value with
  | none => " : " ++ h.type ++ "\n"
  | some v => " : " ++ h.type ++ " := " ++ v ++ "\n"

/-- Hypotheses one a line, those of the same type together. -/
def lines : List Hypothesis → String
  | [] => ""
  | [h] => h.name ++ rest h
  | a :: b :: hs =>
    if a.value.isNone && b.value.isNone && a.type == b.type then a.name ++ " " ++ lines (b :: hs)
    else a.name ++ rest a ++ lines (b :: hs)
def countDecls : List LocalDecl → Nat
  | [] => 0
  | _ :: ds => countDecls ds + 1

/-- A goal as a record. `closed` is its closed statement, where one was asked for and found. -/
def goalJson (s : Scene) (g : MVarId) (closed : Option String) : BaseIO Json := do
  match s.mctx.findDecl? g with
  | none => return Json.mkObj [("text", Json.str "⋯")]
  | some decl =>
    let lctx := (decl.lctx.sanitizeNames { options := s.options }).1
    let insts := decl.localInstances
    let shown := visible lctx lctx.getFVarIds.toList
    let hs ← hypotheses s lctx insts shown maxHypotheses
    let target ← printed s lctx insts decl.type
    let case_ := nameOf decl.userName.eraseMacroScopes
    let case_ := if decl.userName.isAnonymous then "" else case_
    let head := if case_.isEmpty then "" else "case " ++ case_ ++ "\n"
    let left := countDecls shown - maxHypotheses
    let more := if left == 0 then "" else s!"[cut: {left} more hypotheses]\n"
    return Json.mkObj [
      ("text", Json.str (head ++ lines hs ++ more ++ "⊢ " ++ target)), ("case", Json.str case_),
      ("hypotheses", Json.arr (hypothesesJson hs #[])), ("target", Json.str target),
      ("statement", match closed with | some t => Json.str t | none => Json.null)]

/-- At most `left` goals. -/
def goalsJson (s : Scene) : List MVarId → Nat → BaseIO (List Json)
  | [], _ => return []
  | _, 0 => return []
  | g :: gs, left + 1 => do
    let j ← goalJson s g none
    return j :: (← goalsJson s gs left)

/-! ### Closed statements

A goal with its hypotheses as a statement of its own, `theorem prover_goal_1.{u_1} (n : Nat) (h : 0 < n) : n ≠ 0`, that
elaborates after the problem's header to the very same type. Lean's printer does not promise that. So the text is put
through the elaborator, behind the filter for candidates, and compared; where no way of printing brings the type back
there is no statement. -/

/-- How many nodes are left of `fuel` after counting those of the tree. -/
partial def spend (e : Expr) (fuel : Nat) : Nat :=
  if fuel == 0 then 0 else
  match e with
  | .app f a => spend a (spend f (fuel - 1))
  | .lam _ t b _ => spend b (spend t (fuel - 1))
  | .forallE _ t b _ => spend b (spend t (fuel - 1))
  | .letE _ t v b _ => spend b (spend v (spend t (fuel - 1)))
  | .mdata _ b => spend b (fuel - 1)
  | .proj _ _ b => spend b (fuel - 1)
  | _ => fuel - 1

def plainName (n : Name) : Name :=
  let n := n.eraseMacroScopes
  match n with
  | .str .anonymous s => if s.isEmpty then `x else n
  | _ => `x

/-- Without annotations, and with names of bound variables that can be written. Lean makes `have` of `let` in a theorem's type
where it can, so that is no difference. -/
partial def plain : Expr → Expr
  | .app f a => .app (plain f) (plain a)
  | .lam n t b i => .lam (plainName n) (plain t) (plain b) i
  | .forallE n t b i => .forallE (plainName n) (plain t) (plain b) i
  | .letE n t v b _ => .letE (plainName n) (plain t) (plain v) (plain b) false
  | .mdata _ b => plain b
  | .proj s i b => .proj s i (plain b)
  | e => e

/-- All constants of a type must be the header's. -/
def known (g : Audit.Ground) : List Name → Bool
  | [] => true
  | n :: ns => n != ``sorryAx && Audit.inHeader g n && known g ns

def paramNames : List Name → Nat → List Name
  | [], _ => []
  | _ :: ns, i => Name.mkSimple s!"u_{i}" :: paramNames ns (i + 1)

def params : List Name → List Level
  | [] => []
  | n :: ns => .param n :: params ns

def universes : List Name → String
  | [] => ""
  | [n] => Wire.dotted n
  | n :: ns => Wire.dotted n ++ ", " ++ universes ns

def closeM (fvars : Array Expr) (type : Expr) : MetaM Expr := Meta.mkForallFVars fvars type

@[noinline] def closeRaw (fvars : Array Expr) (type : Expr) (meta_ : Meta.Context) (m : IO.Ref Meta.State)
    (core : Core.Context) (c : IO.Ref Core.State) : BaseIO (Except Exception Expr) :=
  (closeM fvars type meta_ m core c).toBaseIO

def instantiated (mctx : MetavarContext) (e : Expr) : Expr := (instantiateMVarsCore mctx e).1

@[noinline] def readMeta (m : IO.Ref Meta.State) : BaseIO Meta.State := m.get

def fvarsOf : List LocalDecl → Array Expr → Array Expr
  | [], r => r
  | d :: ds, r => fvarsOf ds (r.push (.fvar d.fvarId))

/-- The goal's type over all its hypotheses; none where it hangs on what is not yet known. -/
def close (s : Scene) (g : MVarId) : BaseIO (Option (Expr × Nat)) := do
  match s.mctx.findDecl? g with
  | none => return none
  | some decl =>
    let shown := visible decl.lctx decl.lctx.getFVarIds.toList
    if countDecls shown > maxHypotheses then return none else
    let c ← IO.mkRef ({ env := s.env, ngen := s.ngen } : Core.State)
    let m ← IO.mkRef ({ mctx := s.mctx } : Meta.State)
    let core ← coreContext s s.options printHeartbeats
    let meta_ : Meta.Context := { lctx := decl.lctx, localInstances := decl.localInstances }
    match ← closeRaw (fvarsOf shown #[]) (instantiated s.mctx decl.type) meta_ m core c with
    | .error _ => return none
    | .ok e =>
      let e := instantiated (← readMeta m).mctx e
      return if e.hasMVar || e.hasFVar || spend e maxNodes == 0 then none else some (plain e, countDecls shown)

def freshName (n : Name) (used : NameSet) : Nat → Nat → Name
  | 0, _ => n
  | left + 1, i =>
    let m := if i == 0 then n else Name.mkSimple s!"{Wire.dotted n}_{i}"
    if used.contains m then freshName n used left (i + 1) else m

def opening (i : BinderInfo) : String :=
  match i with
  | .default => " ("
  | .implicit => " {"
  | .strictImplicit => " ⦃"
  | .instImplicit => " ["

def closing (i : BinderInfo) : String :=
  match i with
  | .default => ")"
  | .implicit => "}"
  | .strictImplicit => "⦄"
  | .instImplicit => "]"

/-- ` (n : Nat) (h : 0 < n) : n ≠ 0` for a type of which the first `binders` are hypotheses. -/
partial def signature (s : Scene) (options : Options) (e : Expr) (binders : Nat) (lctx : LocalContext) (used : NameSet)
    (text : String) : BaseIO (Option String) := do
  if text.utf8ByteSize > maxStatementBytes then return none else
  match binders, e with
  | left + 1, .forallE n t b i =>
    match ← print s options lctx #[] t maxStatementBytes with
    | none => return none
    | some type =>
      let n := freshName n used 100 0
      let f : FVarId := ⟨.num `prover_binder left⟩
      let text := text ++ opening i ++ written n ++ " : " ++ type ++ closing i
      signature s options (b.instantiate1 (.fvar f)) left (lctx.mkLocalDecl f n t i) (used.insert n) text
  | _, e => match ← print s options lctx #[] e maxStatementBytes with
    | none => return none
    | some target => return some (text ++ " : " ++ target)

def withTrue : List Name → Options → Options
  | [], o => o
  | n :: ns, o => withTrue ns (o.setBool n true)

def withFalse : List Name → Options → Options
  | [], o => o
  | n :: ns, o => withFalse ns (o.setBool n false)

/-- As people write. -/
def usual (o : Options) : Options :=
  withTrue [`pp.proofs, `pp.deepTerms, `pp.natLit, `pp.letVarTypes] (o.setNat `pp.maxSteps (2 * maxNodes))

/-- With the types of numerals, of functions' arguments and of what is coerced. -/
def typed (o : Options) : Options :=
  withTrue [`pp.numericTypes, `pp.funBinderTypes, `pp.piBinderTypes, `pp.coercions.types, `pp.fullNames,
    `pp.structureInstanceTypes] (usual o)

/-- With what Lean's own analysis of the term finds to be needed. -/
def analysed (o : Options) : Options := withTrue [`pp.analyze] (typed o)

/-- With every argument. -/
def full (o : Options) : Options :=
  withFalse [`pp.notation, `pp.fieldNotation, `pp.coercions, `pp.structureInstances, `pp.match, `pp.analyze]
    (withTrue [`pp.explicit, `pp.universes] (typed o))

def theoremNamed (env : Environment) (n : Name) : Option TheoremVal :=
  let kernel := env.checked.get
  match kernel.find? n with
  | some (.thmInfo v) => some v
  | _ => match kernel.find? (mkPrivateName env n) with
    | some (.thmInfo v) => some v
    | _ => none

/-- The type of the theorem that a text states after the header. -/
def stated (header : Command.State) (scope : Command.Scope) (text name : String) : IO (Option (List Name × Expr)) := do
  let rules : Guard.Rules := { on := true, limit := printHeartbeats, target := .anonymous }
  let o ← Session.runText rules (Session.limited header printHeartbeats) (text ++ "\n  := by sorry")
  if o.refused.isSome || (Wire.firstError o.messages).isSome then return none else
  match theoremNamed o.state.env (Judge.absolute scope name) with
  | some v => return some (v.levelParams, plain v.type)
  | none => return none

def bringsBack (header : Command.State) (scope : Command.Scope) (text name : String) (params : List Name) (type : Expr) :
    IO Bool := do
  match ← stated header scope text name with
  | some (ps, found) => return Wire.sameNames ps params && found == type
  | none => return false

def firstThatHolds (s : Scene) (header : Command.State) (scope : Command.Scope) (name : String) (params : List Name)
    (type : Expr) (binders : Nat) : List Options → IO (Option String)
  | [] => return none
  | o :: os => do
    let us := match params with
      | [] => ""
      | _ => ".{" ++ universes params ++ "}"
    match ← signature s o type binders {} {} ("theorem " ++ name ++ us) with
    | none => firstThatHolds s header scope name params type binders os
    | some text =>
      if ← bringsBack header scope text name params type then return some text
      firstThatHolds s header scope name params type binders os

/-- `s` is the scene of the goal; what it is printed in is the header's. -/
def statement (g : Audit.Ground) (header : Command.State) (s : Scene) (goal : MVarId) (name : String) :
    IO (Option String) := do
  match header.scopes with
  | [] => return none
  | scope :: _ => match ← close s goal with
    | none => return none
    | some (e, binders) =>
      if !known g e.getUsedConstants.toList then return none else
      let old := (collectLevelParams {} e).params.toList
      let new := paramNames old 1
      let e := e.instantiateLevelParams old (params new)
      let o := scope.opts
      firstThatHolds (ofScope header.env scope) header scope name new e binders [usual o, typed o, analysed o, full o]

end Goals
