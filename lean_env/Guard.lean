module
public meta import Settings

/-!
What a candidate may say. Commands, declarations, attributes, deriving classes and options are allow-lists; tactic
configuration, which Lean evaluates as code while it elaborates, must be literal; words that run code or evade the kernel
are refused wherever they stand.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Guard
open Settings (identOf isWord isEmpty settings)

structure Rules where
  on : Bool
  /-- No option may allow more heartbeats than this. -/
  limit : Nat
  /-- The target's full name, as a user writes it. -/
  target : Name

def off : Rules := { on := false, limit := 0, target := .anonymous }

/-- What becomes of a command: it runs (perhaps with options lowered), is left out, or ends the check. -/
inductive Ruling where
  | run (command : Syntax)
  | skip
  | refuse (why : String)

/-! ### The lists -/

def nameSet (ns : List Name) : NameSet := Wire.insertAll ns {}

def commands : NameSet := nameSet [``Parser.Command.declaration, ``Parser.Command.namespace, ``Parser.Command.section,
  ``Parser.Command.end, ``Parser.Command.open, ``Parser.Command.variable, ``Parser.Command.universe,
  ``Parser.Command.mutual, ``Parser.Command.moduleDoc, ``Parser.Command.set_option, ``Parser.Command.in,
  ``Parser.Command.attribute, ``Parser.Command.include, ``Parser.Command.omit, ``Parser.Command.export,
  ``Parser.Command.deriving, ``Parser.Command.addDocString, `lemma, `Lean.Parser.Command.grindPattern]

/-- Commands that only print: they cannot matter to a proof, so they are left out instead of refused. -/
def printing : NameSet := nameSet [``Parser.Command.check, ``Parser.Command.print, ``Parser.Command.printSig,
  ``Parser.Command.printAxioms, ``Parser.Command.printEqns, ``Parser.Command.synth, ``Parser.Command.where,
  ``Parser.Command.version, `Lean.Parser.Command.reduce]

/-- What may stand before `in`. A declaration there would come to be, and be used, before `declaresSyntax` could look. -/
def before : NameSet := nameSet [``Parser.Command.open, ``Parser.Command.set_option, ``Parser.Command.variable,
  ``Parser.Command.universe, ``Parser.Command.include, ``Parser.Command.omit, ``Parser.Command.attribute]

def declarations : NameSet := nameSet [``Parser.Command.theorem, ``Parser.Command.definition, ``Parser.Command.abbrev,
  ``Parser.Command.example, ``Parser.Command.inductive, ``Parser.Command.structure, ``Parser.Command.classInductive,
  ``Parser.Command.instance]

/-- Kinds that are refused wherever they stand. -/
def kindsRefused : NameSet := nameSet [``Parser.Command.unsafe, ``Parser.Command.partial, ``Parser.Command.meta,
  ``Parser.Command.computedFields, ``Parser.Term.unsafe, `Lean.Parser.Tactic.nativeDecide, `Lean.Parser.Tactic.runTac,
  `Lean.Parser.Term.byElab, `Lean.includeStr]

/-- Keywords that are refused wherever they stand, in whatever syntax. -/
def wordsRefused : NameSet := nameSet [`unsafe, `native_decide, `run_tac, `run_conv, `run_cmd, `run_elab, `run_meta, `by_elab,
  `include_str, `elab_rules, `macro_rules, `elab, `macro, `simproc, `initialize, `builtin_initialize, `axiom, `opaque,
  `bv_check, `dbg_trace, `sleep, Name.mkSimple "#eval", Name.mkSimple "#eval!", Name.mkSimple "#exit", Name.mkSimple "eval%",
  Name.mkSimple "dbg_trace_if_shared", Name.mkSimple "dbg_stack_trace", Name.mkSimple "dbg_sleep"]

/-- Names that are refused as any part of an identifier: unsafe constants, and what makes code or proofs out of nothing. -/
def namesRefused : NameSet := nameSet [`unsafeCast, `unsafeIO, `unsafeBaseIO, `unsafeEIO, `unsafeST, `ptrAddrUnsafe, `ptrEq,
  `withPtrEqUnsafe, `withPtrAddrUnsafe, `withPtrEqDecEqUnsafe, `isExclusiveUnsafe, `lcProof, `lcUnreachable, `lcAny, `lcErased,
  `lcVoid, `lcCast, `dbgTrace, `dbgTraceVal, `dbgTraceIfShared, `dbgStackTrace, `dbgSleep, `evalExpr, `evalExpr', `evalConst,
  `evalConstCheck, `evalDecl, `addDeclWithoutChecking, `reduceBool, `reduceNat, `ofReduceBool, `ofReduceNat, `trustCompiler,
  `markPersistent, `autoParam, `Syntax, `TSyntax, `RealWorld]

def attributes : NameSet := nameSet [`simp, `grind, `reducible, `semireducible, `irreducible, `inline, `noinline,
  `always_inline, `specialize, `nospecialize, `ext, `congr, `symm, `refl, `rfl, `trans, `norm_cast, `push_cast,
  `coe, `default_instance, `instance, `match_pattern, `elab_as_elim, `elab_without_expected_type, `induction_eliminator,
  `cases_eliminator, `deprecated, `expose, `no_expose, `inherit_doc, `nolint, `class, `gcongr, `mono, `wf_preprocess, `seval,
  `bool_to_prop, `cbv, `simp_grind]

def classes : NameSet := nameSet [`DecidableEq, `Repr, `BEq, `Inhabited, `Nonempty, `Ord, `Hashable, `ReflBEq, `LawfulBEq]

def options : NameSet := nameSet [`maxRecDepth, `maxHeartbeats, `autoImplicit, `relaxedAutoImplicit,
  `synthInstance.maxHeartbeats, `synthInstance.maxSize, `maxSynthPendingDepth, `exponentiation.threshold, `smartUnfolding, `tactic.hygienic,
  `warn.sorry, `hygiene, `checkBinderAnnotations, `structureDiamondWarning, `quotPrecheck, `genInjectivity]

/-- First parts of the names of options of which all are harmless: how things are printed or warned about. -/
def optionFamilies : NameSet := nameSet [`pp, `linter]

def switches : NameSet := nameSet [`Lean.Parser.Tactic.posConfigItem, `Lean.Parser.Tactic.negConfigItem]

/-! ### Pieces of syntax -/

mutual
/-- The first word in a syntax tree. -/
partial def firstWord : Syntax → Name
  | .atom _ v => Name.mkSimple v
  | .ident _ _ n _ => n
  | .node _ _ args => firstWordOf args.toList
  | .missing => .anonymous
partial def firstWordOf : List Syntax → Name
  | [] => .anonymous
  | a :: as => match firstWord a with
    | .anonymous => firstWordOf as
    | n => n
end

/-- What Lean generates from the tactics of default arguments, and evaluates. -/
def isGenerated (s : String) : Bool :=
  match s.toList with
  | '_' :: 'a' :: 'u' :: 't' :: 'o' :: _ => true
  | '_' :: 'd' :: 'e' :: 'f' :: 'a' :: 'u' :: 'l' :: 't' :: _ => true
  | _ => false

def anyPart (set : NameSet) : Name → Bool
  | .anonymous => false
  | .str p s => isGenerated s || set.contains (Name.mkSimple s) || anyPart set p
  | .num p _ => anyPart set p

def lastPart : Name → Name
  | .str _ s => Name.mkSimple s
  | n => n

/-! ### Tactic configuration -/

mutual
partial def mentionsNative : Syntax → Bool
  | .node _ _ args => anyMentionsNative args.toList
  | .ident _ _ n _ => lastPart n == `native
  | _ => false
partial def anyMentionsNative : List Syntax → Bool
  | [] => false
  | a :: as => mentionsNative a || anyMentionsNative as
end

/-! ### The walk -/

def quoted (n : Name) : String := "`" ++ Wire.dotted n ++ "`"

def optionAllowed (n : Name) : Bool := options.contains n || optionFamilies.contains n.getRoot

partial def declaredName : List Syntax → Name
  | [] => .anonymous
  | a :: as => if a.getKind == ``Parser.Command.declId then identOf (a.getArg 0) else declaredName as

mutual
partial def hasKind (kind : Name) : Syntax → Bool
  | .node _ k args => k == kind || anyHasKind kind args.toList
  | _ => false
partial def anyHasKind (kind : Name) : List Syntax → Bool
  | [] => false
  | a :: as => hasKind kind a || anyHasKind kind as
end

def absolute (space name : Name) : Name :=
  if name.getRoot == `_root_ then name.replacePrefix `_root_ .anonymous else space ++ name

def wrongDeclaration (rules : Rules) (space : Name) (s : Syntax) : Option String :=
  let body := s.getArg 1
  if !declarations.contains body.getKind then some s!"the declaration {quoted (firstWord body)} is not allowed"
  else if hasKind ``Parser.Command.private (s.getArg 0) && absolute space (declaredName body.getArgs.toList) == rules.target then
    some "the target must not be private"
  else none

def wrongClass (s : Syntax) : Option String :=
  let n := lastPart (firstWord (s.getArg 1))
  if classes.contains n then none else some s!"deriving {quoted n} is not allowed"

/-- What is wrong with a node of a kind that needs a closer look. -/
def wrongNode (rules : Rules) (space : Name) (s : Syntax) (k : Name) : Option String :=
  if kindsRefused.contains k then some s!"{quoted (firstWord s)} is not allowed"
  else if settings.contains k then
    if mentionsNative s then some "`native` is not allowed" else none
  else if k == ``Parser.Term.attrInstance then
    let n := firstWord (s.getArg 1)
    if attributes.contains n then none else some s!"the attribute {quoted n} is not allowed"
  else if k == ``Parser.Command.declaration then wrongDeclaration rules space s
  else if k == ``Parser.Command.derivingClass then wrongClass s
  else none

/-- Kinds that need a closer look. -/
def special : NameSet := Wire.insertAll [``Parser.Term.attrInstance, ``Parser.Command.declaration, ``Parser.Command.derivingClass,
  `Lean.Parser.Tactic.valConfigItem, `Lean.Parser.Tactic.config] kindsRefused

def wrongOption (args : List Syntax) : Option String :=
  match args with
  | a :: b :: _ =>
    if isWord a "set_option" && !optionAllowed (identOf b) then some s!"the option {quoted (identOf b)} is not allowed" else none
  | _ => none

mutual
partial def wrong (rules : Rules) (space : Name) (s : Syntax) : Option String :=
  match s with
  | .missing => none
  | .atom _ v => if wordsRefused.contains (Name.mkSimple v) then some s!"`{v}` is not allowed" else none
  | .ident _ _ n _ => if anyPart namesRefused n then some s!"the name {quoted n} is not allowed" else none
  | .node _ k args =>
    match (if special.contains k then wrongNode rules space s k else none) with
    | some why => some why
    | none => match wrongOption args.toList with
      | some why => some why
      | none =>
        if switches.contains k && mentionsNative s then some "`native` is not allowed"
        else wrongAny rules space args.toList
partial def wrongAny (rules : Rules) (space : Name) : List Syntax → Option String
  | [] => none
  | a :: as => match wrong rules space a with
    | some why => some why
    | none => wrongAny rules space as
end

/-! ### Options with limits -/

def lowerValue (limit : Nat) (s : Syntax) : Syntax :=
  match s.isNatLit? with
  | some n => if n == 0 || n > limit then Syntax.mkNumLit (toString limit) else s
  | none => s

mutual
partial def lower (limit : Nat) (s : Syntax) : Syntax :=
  match s with
  | .node i k args => match args.toList with
    | a :: b :: rest =>
      if isWord a "set_option" && lastPart (identOf b) == `maxHeartbeats then
        .node i k (lowerValues limit rest (#[a, b]))
      else .node i k (lowerAll limit (a :: b :: rest) #[])
    | rest => .node i k (lowerAll limit rest #[])
  | s => s
partial def lowerAll (limit : Nat) : List Syntax → Array Syntax → Array Syntax
  | [], r => r
  | a :: as, r => lowerAll limit as (r.push (lower limit a))
partial def lowerValues (limit : Nat) : List Syntax → Array Syntax → Array Syntax
  | [], r => r
  | a :: as, r => lowerValues limit as (r.push (lower limit (lowerValue limit a)))
end

mutual
partial def setsHeartbeats : Syntax → Bool
  | .node _ _ args => anySetsHeartbeats args.toList
  | .ident _ _ n _ => lastPart n == `maxHeartbeats
  | _ => false
partial def anySetsHeartbeats : List Syntax → Bool
  | [] => false
  | a :: as => setsHeartbeats a || anySetsHeartbeats as
end

/-! ### Syntax as data

Lean runs the tactics that a constant of type `Syntax` holds when an `autoParam` names it, and the walk cannot see into it:
`def bad := Lean.mkNullNode #[]` names neither. So no such constant may come to be but those that Lean makes itself from
`(h : p := by tac)`, whose tactics the walk has seen. -/

def isAuto : Name → Bool
  | .str p s => (match s.toList with | '_' :: 'a' :: 'u' :: 't' :: 'o' :: _ => true | _ => false) || isAuto p
  | .num p _ => isAuto p
  | .anonymous => false

def typeIsSyntax (info : ConstantInfo) : Bool :=
  match info.type with
  | .const c _ => c == ``Lean.Syntax
  | _ => false

def firstNamed : List Name → List ConstantInfo → Option Name
  | n :: ns, c :: cs => if typeIsSyntax c && !isAuto n then some n else firstNamed ns cs
  | _, _ => none

mutual
/-- The first constant in a part of the table of constants that holds syntax. -/
partial def holdsSyntax (part : PersistentHashMap.Node Name ConstantInfo) : Option Name :=
  match part with
  | .entries es => holdsSyntaxIn es.toList
  | .collision names infos _ => firstNamed names.toList infos.toList
partial def holdsSyntaxIn : List (PersistentHashMap.Entry Name ConstantInfo (PersistentHashMap.Node Name ConstantInfo)) → Option Name
  | [] => none
  | e :: es => match e with
    | .entry n info => if typeIsSyntax info && !isAuto n then some n else holdsSyntaxIn es
    | .ref part => match holdsSyntax part with
      | some n => some n
      | none => holdsSyntaxIn es
    | .null => holdsSyntaxIn es
end

def declaresSyntax (rules : Rules) (env : Environment) : Option String :=
  if !rules.on then none
  else match holdsSyntax env.checked.get.constants.map₂.root with
    | some n => some s!"{quoted (Wire.userName n)} holds syntax, which is not allowed"
    | none => none

/-! ### Commands -/

mutual
partial def wrongCommand (s : Syntax) : Option String :=
  let k := s.getKind
  if !commands.contains k then some s!"the command {quoted (firstWord s)} is not allowed"
  else if k == ``Parser.Command.in then
    if before.contains (s.getArg 0).getKind then wrongCommand (s.getArg 2)
    else some s!"{quoted (firstWord s)} before `in` is not allowed"
  else if k == ``Parser.Command.mutual then wrongCommands (s.getArg 1).getArgs.toList
  else none
partial def wrongCommands : List Syntax → Option String
  | [] => none
  | a :: as => match wrongCommand a with
    | some why => some why
    | none => wrongCommands as
end

partial def prints (s : Syntax) : Bool :=
  if s.getKind == ``Parser.Command.in then prints (s.getArg 2) else printing.contains s.getKind

end Guard
