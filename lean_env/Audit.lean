module
public meta import Names

/-!
What a candidate's environment holds, judged without a word of its messages: the target's name, kind and type against the
reference, all constants it rests on, their axioms, and a second check of each by the kernel on the header's own environment.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Audit

structure Constant where
  name : Name
  info : ConstantInfo

def find (n : Name) : List Constant → Option ConstantInfo
  | [] => none
  | c :: cs => if c.name == n then some c.info else find n cs

/-! ### What rests on what -/

def rulesUse : List RecursorRule → List Name
  | [] => []
  | r :: rs => Wire.append r.rhs.getUsedConstants.toList (rulesUse rs)

/-- The constants that a declaration mentions. -/
def uses (info : ConstantInfo) : List Name :=
  let type := info.type.getUsedConstants.toList
  let value := match info.value? (allowOpaque := true) with
    | some v => v.getUsedConstants.toList
    | none => []
  let parts := match info with
    | .inductInfo i => Wire.append i.ctors i.all
    | .ctorInfo c => [c.induct]
    | .recInfo r => Wire.append r.all (rulesUse r.rules)
    | _ => []
  Wire.append type (Wire.append value parts)

/-- All that is reached from some names. -/
structure Reach where
  seen : NameSet := {}
  /-- The candidate's own constants. -/
  own : List Constant := []
  /-- The names outside that the candidate's own constants mention. -/
  outside : List Name := []
  axioms : List Name := []
  wrong : Option String := none

/-- The environments of one check: that of the imports, and that after the header. -/
structure Ground where
  base : Environment
  header : Environment

def inHeader (g : Ground) (n : Name) : Bool := (g.header.checked.get.find? n).isSome

/-- Imported constants are what the library says they are. The header's own are looked through for axioms. -/
partial def reachTrusted (g : Ground) : List Name → Reach → Reach
  | [], r => r
  | n :: ns, r =>
    if r.seen.contains n then reachTrusted g ns r else
    let r := { r with seen := r.seen.insert n }
    if (g.base.checked.get.find? n).isSome then
      match getOriginalConstKind? g.base n with
      | some .axiom => reachTrusted g ns { r with axioms := n :: r.axioms }
      | _ => reachTrusted g ns r
    else match g.header.checked.get.find? n with
      | none => reachTrusted g ns { r with wrong := some s!"{Wire.shown n} is unknown" }
      | some info =>
        let r := match info with | .axiomInfo _ => { r with axioms := n :: r.axioms } | _ => r
        reachTrusted g (Wire.append (uses info) ns) r

partial def reach (g : Ground) (env : Kernel.Environment) : List Name → Reach → Reach
  | [], r => r
  | n :: ns, r =>
    if r.seen.contains n then reach g env ns r
    else if inHeader g n then reach g env ns (reachTrusted g [n] { r with outside := n :: r.outside })
    else
      let r := { r with seen := r.seen.insert n }
      match env.find? n with
      | none => reach g env ns { r with wrong := some s!"{Wire.shown n} is unknown" }
      | some info =>
        let r := { r with own := { name := n, info } :: r.own }
        let r := match info with | .axiomInfo _ => { r with axioms := n :: r.axioms } | _ => r
        let r := if info.isUnsafe || info.isPartial then { r with wrong := some s!"{Wire.shown n} is unsafe or partial" } else r
        let r := if Names.isFree g.header n then r else { r with wrong := some s!"{Wire.shown n} is not the candidate's to declare" }
        reach g env (Wire.append (uses info) ns) r

/-! ### Same statement

Two types are the same when they are equal up to the names of bound variables and of universe parameters. Elaboration may
have put a part of a type into a definition of its own (`target.match_1`); such constants may have different names when
what they stand for is the same. -/

def levels : List Name → Nat → List Level
  | [], _ => []
  | _ :: ns, i => Level.param (Name.num `u i) :: levels ns (i + 1)

def asMany : List Name → List Name → Bool
  | [], [] => true
  | _ :: as, _ :: bs => asMany as bs
  | _, _ => false

def normal (e : Expr) (params : List Name) : Expr := e.instantiateLevelParams params (levels params 0)

structure Pair where
  left : Name
  right : Name

def paired (a b : Name) : List Pair → Bool
  | [] => false
  | p :: ps => (p.left == a && p.right == b) || paired a b ps

structure Comparison where
  ground : Ground
  left : Kernel.Environment
  right : Kernel.Environment

/-- Pairs found to be the same so far, and how much more may be compared. -/
structure Agreed where
  pairs : List Pair := []
  fuel : Nat := 100000

def sameLevels : List Level → List Level → Bool
  | [], [] => true
  | a :: as, b :: bs => a == b && sameLevels as bs
  | _, _ => false

def notInHeader (g : Ground) : List Name → List Name
  | [] => []
  | n :: ns => if inHeader g n then notInHeader g ns else n :: notInHeader g ns

mutual
partial def sameExpr (c : Comparison) (a b : Expr) (s : Agreed) : Option Agreed :=
  match s.fuel with
  | 0 => none
  | fuel + 1 =>
    let s := { s with fuel }
    if a == b then sameAll c (notInHeader c.ground a.getUsedConstants.toList) s else
    match a, b with
    | .const n us, .const m vs => if sameLevels us vs then sameConstant c n m s else none
    | .app f x, .app g y => match sameExpr c f g s with | some s => sameExpr c x y s | none => none
    | .lam _ t x _, .lam _ u y _ => match sameExpr c t u s with | some s => sameExpr c x y s | none => none
    | .forallE _ t x _, .forallE _ u y _ => match sameExpr c t u s with | some s => sameExpr c x y s | none => none
    | .letE _ t v x _, .letE _ u w y _ =>
      match sameExpr c t u s with
      | some s => match sameExpr c v w s with | some s => sameExpr c x y s | none => none
      | none => none
    | .mdata _ x, .mdata _ y => sameExpr c x y s
    | .mdata _ x, y => sameExpr c x y s
    | x, .mdata _ y => sameExpr c x y s
    | .proj n i x, .proj m j y => if n == m && i == j then sameExpr c x y s else none
    | _, _ => none
partial def sameAll (c : Comparison) : List Name → Agreed → Option Agreed
  | [], s => some s
  | n :: ns, s => match sameConstant c n n s with | some s => sameAll c ns s | none => none
partial def sameConstant (c : Comparison) (n m : Name) (s : Agreed) : Option Agreed :=
  if inHeader c.ground n || inHeader c.ground m then (if n == m then some s else none)
  else if paired n m s.pairs then some s
  else
    let s := { s with pairs := { left := n, right := m } :: s.pairs }
    match c.left.find? n, c.right.find? m with
    | some a, some b =>
      if !asMany a.levelParams b.levelParams then none else
      match sameExpr c (normal a.type a.levelParams) (normal b.type b.levelParams) s with
      | none => none
      | some s => match a, b with
        | .thmInfo _, .thmInfo _ => some s
        | .defnInfo v, .defnInfo w => sameExpr c (normal v.value v.levelParams) (normal w.value w.levelParams) s
        | .opaqueInfo v, .opaqueInfo w => sameExpr c (normal v.value v.levelParams) (normal w.value w.levelParams) s
        | .inductInfo v, .inductInfo w =>
          if n == m && v.numParams == w.numParams && Wire.sameNames v.ctors w.ctors then sameAll c v.ctors s else none
        | .ctorInfo v, .ctorInfo w => if n == m && v.induct == w.induct then sameConstant c v.induct w.induct s else none
        | .recInfo v, .recInfo w => if n == m && Wire.sameNames v.all w.all then sameAll c v.all s else none
        | _, _ => none
    | _, _ => none
end

/-! ### Second check by the kernel

Or, where another worker is to make that check, only the declarations in an order in which the kernel takes them. -/

structure Rebuilt where
  env : Environment
  /-- Whether the kernel is asked here. -/
  ask : Bool
  wrong : Option String := none
  /-- Last first. -/
  added : List Declaration := []
  done : NameSet := {}
  /-- What is being rebuilt: it may not rest on itself. -/
  begun : NameSet := {}

@[noinline] def addRaw (env : Environment) (d : Declaration) : Except Kernel.Exception Environment := env.addDeclCore 0 d none

/-! The kernel of 4.28.0-pre takes some inductive types from which `False` follows. They are refused here first. -/

/-- Whether a type ends in a sort that is written out, `∀ ..., Sort u`, of a level that is zero as it stands or always differs
from zero, or a parameter. A sort that the kernel has to compute (from a hypothesis, or `imax 1 0`) can make the type a
proposition in one place and none in another, and a projection then takes data out of a proof. -/
def endsInSort : Expr → Bool
  | .forallE _ _ b _ => endsInSort b
  | .mdata _ e => endsInSort e
  | .sort .zero => true
  | .sort (.param _) => true
  | .sort u => u.isNeverZero
  | _ => false

def allEndInSort : List InductiveType → Bool
  | [] => true
  | t :: ts => endsInSort t.type && allEndInSort ts

def constructorTypes : List Constructor → List Expr → List Expr
  | [], r => r
  | c :: cs, r => c.type :: constructorTypes cs r

def allConstructorTypes : List InductiveType → List Expr
  | [] => []
  | t :: ts => constructorTypes t.ctors (allConstructorTypes ts)

/-- Whether the kernel finds each type well typed, as part of a theorem's statement. Within a nested inductive type it does not
look at all of a constructor's type. -/
def wellTyped (env : Environment) (params : List Name) : List Expr → Bool
  | [] => true
  | t :: ts =>
    let type := Expr.forallE `x t (.const ``True []) .default
    let value := Expr.lam `x t (.const ``True.intro []) .default
    match addRaw env (.thmDecl { name := .num `prover 0, levelParams := params, type, value, all := [.num `prover 0] }) with
    | .ok _ => wellTyped env params ts
    | .error _ => false

/-- Puts inductive types to the kernel. -/
def addTypes (env : Environment) (n : Name) (params : List Name) (types : List InductiveType) (d : Declaration) :
    Except String Environment :=
  if !allEndInSort types then .error s!"the sort of {Wire.shown n} is not written out" else
  match addRaw env d with
  | .error _ => .error s!"the kernel rejects {Wire.shown n}"
  | .ok env =>
    if wellTyped env params (allConstructorTypes types) then .ok env
    else .error s!"the kernel rejects a constructor of {Wire.shown n}"

def unwritten (n : Name) : Declaration → Option String
  | .inductDecl _ _ types _ => if allEndInSort types then none else some s!"the sort of {Wire.shown n} is not written out"
  | _ => none

/-- Adds a declaration that makes the constants `names`, of which `n` is one. -/
def add (r : Rebuilt) (n : Name) (names : List Name) (d : Declaration) : Rebuilt :=
  let r := { r with added := d :: r.added, done := Wire.insertAll names r.done }
  if !r.ask then { r with wrong := unwritten n d } else
  let env : Except String Environment := match d with
    | .inductDecl params _ types _ => addTypes r.env n params types d
    | _ => match addRaw r.env d with
      | .ok env => .ok env
      | .error _ => .error s!"the kernel rejects {Wire.shown n}"
  match env with
  | .ok env => { r with env }
  | .error why => { r with wrong := some why }

def constructors (own : List Constant) : List Name → List Constructor
  | [] => []
  | n :: ns => match find n own with
    | some (.ctorInfo c) => { name := n, type := c.type } :: constructors own ns
    | _ => constructors own ns

def inductiveTypes (own : List Constant) : List Name → List InductiveType
  | [] => []
  | n :: ns => match find n own with
    | some (.inductInfo i) => { name := n, type := i.type, ctors := constructors own i.ctors } :: inductiveTypes own ns
    | _ => inductiveTypes own ns

def constructorUses : List Constructor → List Name
  | [] => []
  | c :: cs => c.name :: Wire.append c.type.getUsedConstants.toList (constructorUses cs)

def inductiveUses : List InductiveType → List Name
  | [] => []
  | t :: ts => Wire.append t.type.getUsedConstants.toList (Wire.append (constructorUses t.ctors) (inductiveUses ts))

def constructorNames : List Constructor → List Name
  | [] => []
  | c :: cs => c.name :: constructorNames cs

def definedNames : List InductiveType → List Name
  | [] => []
  | t :: ts => t.name :: Wire.append (constructorNames t.ctors) (definedNames ts)

def without (defined : List Name) : List Name → List Name
  | [] => []
  | n :: ns => if Wire.hasName n defined then without defined ns else n :: without defined ns

mutual
partial def rebuild (own : List Constant) (n : Name) (r : Rebuilt) : Rebuilt :=
  if r.wrong.isSome || r.done.contains n || (r.env.checked.get.find? n).isSome then r else
  match find n own with
  | none => { r with wrong := some s!"{Wire.shown n} is unknown" }
  | some info =>
    if r.begun.contains n then { r with wrong := some s!"{Wire.shown n} rests on itself" } else
    match info with
    | .thmInfo v => addAfter own (uses info) n [n] (.thmDecl v) r
    | .defnInfo v => addAfter own (uses info) n [n] (.defnDecl v) r
    | .opaqueInfo v => addAfter own (uses info) n [n] (.opaqueDecl v) r
    | .inductInfo v =>
      let types := inductiveTypes own v.all
      let names := definedNames types
      addAfter own (without names (inductiveUses types)) n names (.inductDecl v.levelParams v.numParams types v.isUnsafe) r
    | .ctorInfo v => rebuild own v.induct r
    | .recInfo v => rebuildAll own v.all r
    | .axiomInfo _ => { r with wrong := some s!"{Wire.shown n} is an axiom" }
    | .quotInfo _ => { r with wrong := some s!"{Wire.shown n} is a quotient of the candidate's own" }
partial def addAfter (own : List Constant) (needed : List Name) (n : Name) (names : List Name) (d : Declaration) (r : Rebuilt) : Rebuilt :=
  let r := rebuildAll own needed { r with begun := Wire.insertAll names r.begun }
  if r.wrong.isSome then r else add r n names d
partial def rebuildAll (own : List Constant) : List Name → Rebuilt → Rebuilt
  | [], r => r
  | n :: ns, r => if r.wrong.isSome then r else rebuildAll own ns (rebuild own n r)
end

/-- Every constant must have come out of the kernel with the type that the candidate showed. -/
def differing (env : Kernel.Environment) : List Constant → Option String
  | [] => none
  | c :: cs => match env.find? c.name with
    | none => some s!"{Wire.shown c.name} cannot be rebuilt"
    | some info =>
      if Wire.sameNames info.levelParams c.info.levelParams && info.type == c.info.type then differing env cs
      else some s!"{Wire.shown c.name} has another type when rebuilt"

def recheck (g : Ground) (own : List Constant) (target : Name) (ask : Bool) : Rebuilt :=
  let r := rebuild own target { env := g.header, ask }
  match r.wrong with
  | some _ => r
  | none => if !ask then r else { r with wrong := differing r.env.checked.get own }

end Audit
