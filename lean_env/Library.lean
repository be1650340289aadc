module
public meta import Lean.PrettyPrinter
public meta import Session

/-!
The theorems of the imported library as problems: which there are, and each statement as text that elaborates back to the
same type.

`library.list`: `{"modules": [[module, [theorem, ...]], ...]}`, modules in import order. Internal, private and generated
theorems (`injEq`, `eq_1`, ...) are left out.

`library.describe` with `names` and `chars`: `{"items": [...]}`, one object for each name, see `describe`.

The style is that of `Wire`: no loops and no polymorphic functions of our own.
-/

public meta section
set_option compiler.extract_closed false

namespace Library
open Lean Elab

/-! ### Which theorems -/

/-- Last components of names that Lean generates under another declaration. -/
def generatedNames : List String :=
  ["injEq", "inj", "sizeOf_spec", "noConfusion", "eq_def", "eq_unfold", "congr_simp", "hcongr", "induct", "induct_unfolding",
   "fun_cases", "fun_cases_unfolding", "mutual_induct", "partial_correctness", "fixpoint_induct", "rec", "brecOn"]

def digits : List Char → Bool
  | [] => true
  | c :: cs => c.isDigit && digits cs

def afterPrefix : List Char → List Char → Option (List Char)
  | [], cs => some cs
  | p :: ps, c :: cs => if p == c then afterPrefix ps cs else none
  | _ :: _, [] => none

def oneLine : List Char → Bool
  | [] => true
  | c :: cs => c != '\n' && oneLine cs

/-- `eq_1`, `match_1`, `congr_eq_1` and their kin: a generated stem and a number. -/
def isNumbered (s : String) (stem : String) : Bool :=
  match afterPrefix stem.toList s.toList with
  | some (c :: cs) => digits (c :: cs)
  | _ => false

/-- A component that only generated names have. -/
def hasMatcher : Name → Bool
  | .anonymous => false
  | .str p s => s == "brecOn" || s == "below" || isNumbered s "match_" || hasMatcher p
  | .num _ _ => true

def isGenerated (env : Environment) (n : Name) : Bool :=
  hasMatcher n ||
  match n with
  | .str p s => (Wire.hasString s generatedNames || isNumbered s "eq_" || isNumbered s "congr_eq_") && env.contains p
  | _ => true

def theorems (env : Environment) : List Name → List Name → List Name
  | [], r => r
  | n :: ns, r =>
    if n.isInternal || isPrivateName n then theorems env ns r else
    match getOriginalConstKind? env n with
    | some .thm => theorems env ns (if isGenerated env n then r else n :: r)
    | _ => theorems env ns r

def nameList : List Name → Array Json → Json
  | [], r => Json.arr r
  | n :: ns, r => nameList ns (r.push (Json.str n.toString))

def modules (env : Environment) : List Name → List ModuleData → Array Json → Array Json
  | m :: ms, d :: ds, r =>
    modules env ms ds (r.push (Json.arr #[Json.str m.toString, nameList (theorems env d.constNames.toList []) #[]]))
  | _, _, r => r

def listed (env : Environment) : Json :=
  Json.arr (modules env env.header.moduleNames.toList env.header.moduleData.toList #[])

/-! ### Types up to renaming -/

def levels : List Name → Nat → List Level
  | [], _ => []
  | _ :: ns, k => .param (.num `u k) :: levels ns (k + 1)

/-- The type with its universe parameters named by their order. -/
def normalType (ci : ConstantInfo) : Expr := ci.type.instantiateLevelParams ci.levelParams (levels ci.levelParams 0)

/-- The statement with the two sides of a concluding equation or equivalence exchanged: what `.symm` turns it into. -/
def flipped : Expr → Expr
  | .forallE n t b i => .forallE n t (flipped b) i
  | .mdata _ e => flipped e
  | .app (.app (.app (.const ``Eq us) t) a) b => .app (.app (.app (.const ``Eq us) t) b) a
  | .app (.app (.const ``Iff us) a) b => .app (.app (.const ``Iff us) b) a
  | e => e

def conclusionHead : Expr → Name
  | .forallE _ _ b _ => conclusionHead b
  | .mdata _ e => conclusionHead e
  | .app f _ => conclusionHead f
  | .const n _ => n
  | _ => .anonymous

def anyInternal : List Name → Bool
  | [] => false
  | n :: ns => n.isInternal || isPrivateName n || hasMatcher n || anyInternal ns

/-! ### Statements as text -/

def signature (n : Name) : MetaM Format := do
  let f ← PrettyPrinter.ppSignature n
  return f.fmt

@[noinline] def signatureRaw (n : Name) (cc : Core.Context) (c : IO.Ref Core.State) (m : IO.Ref Meta.State) :
    BaseIO (Except Exception Format) :=
  (signature n {} m cc c).toBaseIO

/-- `name.{u} binders : type` on one line as Lean prints it; none where printing fails. -/
def print (env : Environment) (n : Name) : BaseIO (Option String) := do
  let start ← IO.getNumHeartbeats
  let o : Options := {}
  let o := o.setBool `pp.universes false
  let o := o.setBool `pp.proofs true
  let c ← IO.mkRef ({ env := env } : Core.State)
  let m ← IO.mkRef ({} : Meta.State)
  let cc : Core.Context :=
    { fileName := "<library>", fileMap := FileMap.ofString "", options := o, maxHeartbeats := 200000000, initHeartbeats := start }
  match ← signatureRaw n cc c m with
  | .ok f => return some (f.pretty 1000000)
  | .error _ => return none

/-- The state after the commands of our own text, and what they had to say. (Unlike `Session.runText` without a guard: none is
needed, and closures over functions of other modules are what the exported level lacks.) -/
partial def run (ctx : Parser.InputContext) (at_ : Parser.ModuleParserState) (state : Command.State) (seen : List Message) :
    IO (Command.State × List Message) := do
  match state.scopes with
  | [] => return (state, seen)
  | scope :: _ =>
    let parsing : Parser.ParserModuleContext :=
      { env := state.env, options := scope.opts, currNamespace := scope.currNamespace, openDecls := scope.openDecls }
    let (command, next, errors) := Parser.parseCommand ctx parsing at_ {}
    let seen := Wire.prepend errors.toList seen
    if command.isOfKind ``Parser.Command.eoi then return (state, seen)
    let (state, new) ← Session.runCommand ctx command state
    run ctx next state (Wire.prepend new seen)

def elaborate (env : Environment) (text : String) : IO (Command.State × List Message) :=
  run (Session.input text "<library>") {} (Session.fresh env) []

/-- Whether `theorem target TEXT` means the same as the theorem that `text` was printed from. -/
def returns (env : Environment) (text : String) (type : Expr) : IO Bool := do
  let text := "set_option autoImplicit false\ntheorem target" ++ text ++ " := by sorry"
  let (state, _) ← elaborate env text
  let after := state.env
  let kernel := after.checked.get
  match kernel.find? (mkPrivateName after `target) with
  | some ci => return normalType ci == type
  | none => return false

/-- Whether `attribute [-attr] name` has anything to remove; where it has not, Lean says so in a message. -/
def removable (env : Environment) (attr name : String) : IO Bool := do
  let (_, messages) ← elaborate env ("attribute [-" ++ attr ++ "] " ++ name)
  match messages with
  | [] => return true
  | _ => return false

def hashes (name : String) (type : Expr) : List (String × Json) :=
  [("name", Json.str name), ("type", Json.str (toString type.hash)), ("flipped", Json.str (toString (flipped type).hash))]

/--
What is known of one theorem:
`type` and `flipped`: hashes of the statement up to names of variables and universes, and of the same with the sides of a
concluding equation or equivalence exchanged;
and, unless `chars` is 0, `text`: its statement without the name, `.{u} binders : type`, or null where that is longer than
`chars`, no single line, or names something internal; `returns`: the text elaborates back to the same type (`autoImplicit`
off); `instance`: it is an instance of a class, dressed as a theorem; `simp`, `grind`: it has that attribute.
-/
def describe (env : Environment) (chars : Nat) (name : String) : IO Json := do
  let n := name.toName
  match env.find? n with
  | none => return Json.mkObj [("name", Json.str name), ("error", Json.str "unknown name")]
  | some ci =>
    let type := normalType ci
    if chars == 0 then return Json.mkObj (hashes name type)
    let printed ← print env n
    let (named, text) := match printed with
      | some s => (String.Pos.Raw.extract s 0 name.rawEndPos == name, String.Pos.Raw.extract s name.rawEndPos s.rawEndPos)
      | none => (false, "")
    let clean := named && text.length ≤ chars && oneLine text.toList && !anyInternal ci.type.getUsedConstants.toList
    let same ← if clean then returns env text type else pure false
    let simp ← if same then removable env "simp" name else pure false
    let grind ← if same then removable env "grind" name else pure false
    return Json.mkObj (
      ("text", if clean then Json.str text else Json.null) ::
      ("returns", Json.bool same) ::
      ("instance", Json.bool (isClass env (conclusionHead type))) ::
      ("simp", Json.bool simp) ::
      ("grind", Json.bool grind) ::
      hashes name type)

def describeAll (env : Environment) (chars : Nat) : List String → Array Json → IO (Array Json)
  | [], r => return r
  | n :: ns, r => do
    let d ← describe env chars n
    describeAll env chars ns (r.push d)

end Library

/-- Answers the operations `library.*` about the library that `env` imports. -/
def libraryOp (env : Lean.Environment) (request : Lean.Json) : IO Lean.Json := do
  let nonce := ("nonce", Lean.Json.str (Wire.field request "nonce"))
  match Wire.field request "op" with
  | "library.list" => return Lean.Json.mkObj [nonce, ("modules", Library.listed env)]
  | "library.describe" =>
    let items ← Library.describeAll env (Wire.natField request "chars" 0) (Wire.listField request "names") #[]
    return Lean.Json.mkObj [nonce, ("items", Lean.Json.arr items)]
  | op => return Lean.Json.mkObj [nonce, ("error", Lean.Json.str s!"no operation is named '{op}'")]
