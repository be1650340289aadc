module
public meta import Audit
public meta import Session

/-!
The reference of a trusted statement, and the status of a candidate measured against it.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Judge

/-- The trusted statement, elaborated after its header with `sorry` for a proof. -/
structure Reference where
  header : String
  statement : String
  target : String
  /-- The kernel's name: of a theorem that is not `public` Lean makes a private one. -/
  name : Name
  env : Kernel.Environment
  type : Expr
  levelParams : List Name
  /-- All that the type rests on. -/
  constants : NameSet
  messages : List Message
  failure : Option String

def axiomsAllowed : List Name := [``propext, ``Classical.choice, ``Quot.sound]

/-- Opaque constants that the kernel computes by running compiled code, with no axiom to show for it. -/
def runsCode : List Name := [``Lean.reduceBool, ``Lean.reduceNat]

def absolute (scope : Command.Scope) (target : String) : Name :=
  match target.toName with
  | .str .anonymous s => scope.currNamespace ++ Name.mkSimple s
  | n => if n.getRoot == `_root_ then n.replacePrefix `_root_ .anonymous else scope.currNamespace ++ n

def addUses (g : Audit.Ground) (env : Kernel.Environment) (type : Expr) : NameSet :=
  (Audit.reach g env type.getUsedConstants.toList {}).seen

def failed (header statement target : String) (env : Kernel.Environment) (messages : List Message) (why : String) : Reference :=
  { header, statement, target, name := .anonymous, env, type := .sort .zero, levelParams := [], constants := {}, messages,
    failure := some why }

def reference (g : Audit.Ground) (state : Command.State) (header statement target : String) : IO Reference := do
  let outcome ← Session.runText Guard.off state (statement ++ "\n  := by sorry")
  let env := outcome.state.env.checked.get
  let fail (why : String) := failed header statement target env outcome.messages why
  match Wire.firstError outcome.messages with
  | some m => return fail (← Wire.headline m)
  | none => match outcome.state.scopes with
    | [] => return fail "the statement closes a scope that it does not open"
    | scope :: _ =>
      let public_ := absolute scope target
      let private_ := mkPrivateName outcome.state.env public_
      let name := if (env.find? public_).isSome && !Audit.inHeader g public_ then public_ else private_
      match env.find? name with
      | none => return fail s!"it does not declare {target}"
      | some (.thmInfo v) =>
        if Audit.inHeader g name then return fail s!"{target} is already declared by the header"
        return { header, statement, target, name, env, type := v.type, levelParams := v.levelParams,
                 constants := addUses g env v.type, messages := outcome.messages, failure := none }
      | some _ => return fail s!"{target} is not a theorem"

/-! ### Forbidden constants -/

structure Forbidden where
  exact : List String := []
  under : List String := []

/-- An entry without «», last character first. -/
def plain : List Char → List Char → List Char
  | [], r => r
  | c :: cs, r => plain cs (if c == '«' || c == '»' then r else c :: r)

def isGenerated (s : String) : Bool :=
  match s.toList with
  | '_' :: _ => true
  | _ => false

def forbidden : List String → Forbidden → Forbidden
  | [], f => f
  | s :: ss, f =>
    match plain s.toList [] with
    | '*' :: '.' :: cs => forbidden ss { f with under := Wire.stringOf cs :: f.under }
    | cs => forbidden ss { f with exact := Wire.stringOf cs :: f.exact }

/-- Whether a name lies under a forbidden one, as `X.*` says, or was generated from a forbidden `X` (`X._simp_1`). -/
def isUnder (f : Forbidden) : Name → Bool
  | .anonymous => false
  | .str p s => Wire.hasString (Wire.dotted p) f.under || (isGenerated s && Wire.hasString (Wire.dotted p) f.exact) || isUnder f p
  | .num p _ => isUnder f p

def isForbidden (f : Forbidden) (n : Name) : Bool :=
  let n := Wire.userName n
  Wire.hasString (Wire.dotted n) f.exact || isUnder f n

def firstForbidden (f : Forbidden) (allowed : NameSet) : List Name → Option Name
  | [] => none
  | n :: ns => if isForbidden f n && !allowed.contains n then some n else firstForbidden f allowed ns

/-! ### The status -/

structure Finding where
  status : String
  reason : String := ""
  axioms : List String := []
  used : List String := []
  /-- Where the status is `proved`: all that the target rests on within the candidate, last first. -/
  declarations : List Declaration := []

def badAxioms : List Name → List Name
  | [] => []
  | n :: ns => if Wire.hasName n axiomsAllowed then badAxioms ns else n :: badAxioms ns

/-- The first of `ns` that is among `wanted`. -/
def firstOf (wanted : List Name) : List Name → Option Name
  | [] => none
  | n :: ns => if Wire.hasName n wanted then some n else firstOf wanted ns

def shownAll : List Name → List String
  | [] => []
  | n :: ns => Wire.shown n :: shownAll ns

/-- Imported constants that the statement does not mention. -/
def libraryOnly (g : Audit.Ground) (statement : NameSet) : List Name → List Name
  | [] => []
  | n :: ns =>
    if statement.contains n || (g.base.checked.get.find? n).isNone then libraryOnly g statement ns
    else n :: libraryOnly g statement ns

/-- The declaration under the target's name: as the reference has it, or with the other visibility. -/
def candidateName (ref : Reference) (env : Environment) : Name :=
  if (env.checked.get.find? ref.name).isSome then ref.name
  else if isPrivateName ref.name then Wire.userName ref.name
  else mkPrivateName env ref.name

/-- What an environment says for itself: `proved` as far as names, types, axioms and constants tell. -/
structure Claim where
  finding : Finding
  /-- The target as the environment names it. -/
  name : Name
  own : List Audit.Constant := []

def claim (g : Audit.Ground) (ref : Reference) (env : Environment) (entries : List String) : Claim :=
  let name := candidateName ref env
  let kernel := env.checked.get
  let changed (why : String) : Claim := { name, finding := { status := "statement_changed", reason := "audit: " ++ why } }
  if Audit.inHeader g name then changed s!"{ref.target} is declared by the header" else
  match kernel.find? name with
  | none => changed s!"no declaration is named {Wire.shown ref.name}"
  | some (.thmInfo v) =>
    if !Audit.asMany v.levelParams ref.levelParams then changed s!"{ref.target} has other universe parameters" else
    let comparison : Audit.Comparison := { ground := g, left := ref.env, right := kernel }
    match Audit.sameExpr comparison (Audit.normal ref.type ref.levelParams) (Audit.normal v.type v.levelParams) {} with
    | none => changed s!"{ref.target} states something else"
    | some _ =>
      let r := Audit.reach g kernel [name] {}
      let axioms := Wire.sorted (shownAll r.axioms)
      let found (status reason : String) : Claim := { name, finding := { status, reason, axioms } }
      match r.wrong with
      | some why => found "failed" ("audit: " ++ why)
      | none => match badAxioms r.axioms with
        | a :: as =>
          if Wire.hasName ``sorryAx (a :: as) then found "sorry" "audit: it rests on sorry"
          else found "forbidden_axiom" s!"audit: it rests on the axiom {Wire.shown a}"
        | [] => match firstOf runsCode r.outside with
          | some n => found "forbidden_axiom" s!"audit: it rests on compiled code, by {Wire.shown n}"
          | none => match firstForbidden (forbidden entries {}) ref.constants r.outside with
            | some n => found "forbidden_constant" s!"audit: it uses {Wire.shown n}"
            | none =>
              let used := Wire.sorted (shownAll (libraryOnly g ref.constants r.outside))
              { name, own := r.own, finding := { status := "proved", axioms, used } }
  | some _ => changed s!"{ref.target} is not a theorem"

/-- The claim of a candidate's environment, borne out by the kernel unless another worker is to see to that. -/
def judge (g : Audit.Ground) (ref : Reference) (env : Environment) (entries : List String) (ask : Bool) : Finding :=
  let c := claim g ref env entries
  if c.finding.status != "proved" then c.finding else
  let r := Audit.recheck g c.own c.name ask
  match r.wrong with
  | some why => { c.finding with status := "failed", reason := "kernel: " ++ why, used := [] }
  | none => { c.finding with declarations := r.added }

end Judge
