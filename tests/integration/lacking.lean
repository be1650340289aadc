import Lean
open Lean Elab Command
set_option compiler.extract_closed false

/-! Prints the names that safe constants of the library mention though the modules which they import publicly do not declare
them, but for private names. In the style of the worker's own modules: the embedded library runs nothing polymorphic. -/

def append : List Name → List Name → List Name
  | [], b => b
  | a :: as, b => append as (a :: b)

def rulesUse : List RecursorRule → List Name
  | [] => []
  | r :: rs => append (r.ctor :: r.rhs.getUsedConstants.toList) (rulesUse rs)

def uses (info : ConstantInfo) : List Name :=
  let value := match info.value? (allowOpaque := true) with
    | some v => v.getUsedConstants.toList
    | none => []
  let parts := match info with
    | .inductInfo i => append i.ctors i.all
    | .ctorInfo c => [c.induct]
    | .recInfo r => append r.all (rulesUse r.rules)
    | _ => []
  append info.type.getUsedConstants.toList (append value parts)

def moduleOf (env : Environment) (n : Name) : Nat := match env.getModuleIdx? n with | some i => i.toNat | none => 0

/-- The bits of all modules that are publicly in reach. `reach` has those of the modules before. -/
partial def publicly (env : Environment) (reach : Array Nat) : List Import → Nat → Nat
  | [], b => b
  | i :: is, b =>
    publicly env reach is (if i.isExported then b ||| reach.getD (moduleOf env i.module) 0 else b)

partial def reaches (env : Environment) : List ModuleData → Nat → Array Nat → Array Nat
  | [], _, r => r
  | m :: ms, k, r => reaches env ms (k + 1) (r.push (publicly env r m.imports.toList (1 <<< k)))

structure Found where
  seen : NameSet
  text : String

def isThere (env : Environment) (reach : Nat) (n : Name) : Bool :=
  match env.getModuleIdxFor? n with
  | some i => Nat.testBit reach i.toNat
  | none => false

def dotted : Name → String
  | .anonymous => ""
  | .str .anonymous s => s
  | .num .anonymous n => Nat.repr n
  | .str p s => dotted p ++ "." ++ s
  | .num p n => dotted p ++ "." ++ Nat.repr n

def ofConstant (env : Environment) (reach : Nat) : List Name → Found → Found
  | [], r => r
  | n :: ns, r =>
    if r.seen.contains n || isPrivateName n || isThere env reach n then ofConstant env reach ns r
    else ofConstant env reach ns { seen := r.seen.insert n, text := r.text ++ "\n" ++ dotted n }

def ofConstants (env : Environment) (reach : Nat) : List ConstantInfo → Found → Found
  | [], r => r
  | c :: cs, r =>
    ofConstants env reach cs (if c.isUnsafe || c.isPartial then r else ofConstant env reach (uses c) r)

def ofModules (env : Environment) : List ModuleData → List Nat → Found → Found
  | m :: ms, reach :: rs, r => ofModules env ms rs (ofConstants env reach m.constants.toList r)
  | _, _, r => r

run_cmd show CommandElabM Unit from do
  let env ← getEnv
  let modules := env.header.moduleData.toList
  let found := ofModules env modules (reaches env modules 0 #[]).toList { seen := {}, text := "lacking" }
  modify (fun s => { s with messages := s.messages.add { fileName := "", pos := ⟨1, 0⟩, data := .ofFormat (.text found.text) } })
