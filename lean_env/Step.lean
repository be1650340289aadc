module
public meta import Feedback
public meta import Lean.Elab.Tactic.Basic

/-!
Proof states that are held, and tactics applied to them one at a time, for whoever searches. A state is a value: a tactic makes
a new one, and any may be gone on from again. The filter for candidates stands before each tactic. That no goal is left says
nothing yet: the tactics have to be checked as a proof.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Step

structure State where
  core : Core.State
  mctx : Meta.State
  term : Term.State
  goals : List MVarId
  /-- What was to be proved at the start. -/
  root : MVarId
  options : Options
  namespace_ : Name
  opens : List OpenDecl
  target : Name

structure Failure where
  kind : String
  reason : String

inductive Result where
  | state (s : State)
  | failure (f : Failure)

def scene (s : State) : Goals.Scene :=
  { env := s.core.env, mctx := s.mctx.mctx, options := s.options, namespace_ := s.namespace_, opens := s.opens,
    ngen := s.core.ngen }

def failed (kind reason : String) : Result := .failure { kind, reason := Wire.cut reason Wire.maxMessageBytes }

def recursion (o : Options) : Nat :=
  match KVMap.findCore o.entries `maxRecDepth with
  | some (.ofNat n) => n
  | _ => defaultMaxRecDepth

def coreContext (s : State) (heartbeats : Nat) : BaseIO Core.Context := do
  let now ← IO.getNumHeartbeats
  return { fileName := "<tactic>", fileMap := FileMap.ofString "", options := s.options.set `maxHeartbeats heartbeats,
           currNamespace := s.namespace_, openDecls := s.opens, maxHeartbeats := heartbeats * 1000, initHeartbeats := now,
           maxRecDepth := recursion s.options }

/-! ### The first state -/

/-- Without the theorem itself, which Lean offers for recursion: a step that used it would close any goal. -/
def withoutItself (lctx : LocalContext) : List FVarId → LocalContext
  | [] => lctx
  | f :: fs => match lctx.find? f with
    | some d => withoutItself (if d.isAuxDecl then lctx.erase f else lctx) fs
    | none => withoutItself lctx fs

def opened (goal : MetavarDecl) : MetaM MVarId := do
  let lctx := withoutItself goal.lctx goal.lctx.getFVarIds.toList
  return (← Meta.mkFreshExprMVarAt lctx goal.localInstances goal.type .syntheticOpaque .anonymous).mvarId!

@[noinline] def openedRaw (goal : MetavarDecl) (meta_ : Meta.Context) (m : IO.Ref Meta.State) (core : Core.Context)
    (c : IO.Ref Core.State) : BaseIO (Except Exception MVarId) :=
  (opened goal meta_ m core c).toBaseIO

@[noinline] def readCore (c : IO.Ref Core.State) : BaseIO Core.State := c.get

def firstSorry : List Feedback.Place → Option Feedback.Place
  | [] => none
  | p :: ps => if Feedback.isSorry p.info.stx then some p else firstSorry ps

/-- The goal that a proof of the statement begins with. -/
def start (header : Command.State) (statement : String) (target : Name) (levels : List Name) (heartbeats : Nat) : IO Result := do
  let o ← Session.runText Guard.off (Feedback.prepared .goals (Session.limited header heartbeats)) (statement ++ "\n  := by sorry")
  match firstSorry (Feedback.placesIn o) with
  | none => return failed "tactic" "the statement leaves no goal to begin with"
  | some p => match p.info.goalsBefore with
    | [] => return failed "tactic" "the statement leaves no goal to begin with"
    | g :: _ => match p.info.mctxBefore.findDecl? g with
      | none => return failed "tactic" "the statement leaves no goal to begin with"
      | some decl =>
        let core : Core.State := { env := header.env, ngen := p.ctx.ngen, infoState := { enabled := false } }
        let s : State := { core, mctx := { mctx := p.info.mctxBefore }, term := { levelNames := levels }, goals := [g], root := g,
                           options := p.ctx.options, namespace_ := p.ctx.currNamespace, opens := p.ctx.openDecls, target }
        let c ← IO.mkRef core
        let m ← IO.mkRef s.mctx
        match ← openedRaw decl {} m (← coreContext s heartbeats) c with
        | .error e => return failed "tactic" (← e.toMessageData.toString)
        | .ok g => return .state { s with core := ← readCore c, mctx := ← Goals.readMeta m, goals := [g], root := g }

/-! ### A tactic -/

def tactics : Parser.ParserFn := Parser.andthenFn Parser.whitespace Parser.Tactic.tacticSeq.fn

def parse (s : State) (text : String) : Except String Syntax :=
  let ctx := Session.input text "<tactic>"
  let env := s.core.env
  let within : Parser.ParserModuleContext := { env, options := s.options, currNamespace := s.namespace_, openDecls := s.opens }
  let p := tactics.run ctx within (Parser.getTokenTable env) (Parser.mkParserState text)
  if p.errorMsg.isSome || p.recoveredErrors.size > 0 then .error (p.toErrorMsg ctx)
  else if String.Pos.Raw.atEnd text p.pos then .ok p.stxStack.back
  else .error ((p.mkError "end of input").toErrorMsg ctx)

mutual
partial def givesUp (s : Syntax) : Bool :=
  Feedback.isSorry s || s.isOfKind ``Parser.Term.sorry || anyGivesUp s.getArgs.toList
partial def anyGivesUp : List Syntax → Bool
  | [] => false
  | a :: as => givesUp a || anyGivesUp as
end

def stepT (stx : Syntax) : Tactic.TacticM (List MVarId) := do
  Tactic.evalTactic stx
  Term.synthesizeSyntheticMVarsNoPostponing
  Tactic.getUnsolvedGoals

@[noinline] def stepRaw (stx : Syntax) (tactic : Tactic.Context) (t : IO.Ref Tactic.State) (term : Term.Context)
    (e : IO.Ref Term.State) (meta_ : Meta.Context) (m : IO.Ref Meta.State) (core : Core.Context) (c : IO.Ref Core.State) :
    BaseIO (Except Exception (List MVarId)) :=
  (stepT stx tactic t term e meta_ m core c).toBaseIO

@[noinline] def readTerm (e : IO.Ref Term.State) : BaseIO Term.State := e.get

/-- Whether a state without goals may be called done. -/
def ended (s : State) : Result :=
  match s.goals with
  | _ :: _ => .state s
  | [] =>
    let proof := Goals.instantiated s.mctx.mctx (.mvar s.root)
    if proof.hasExprMVar then failed "tactic" "no goal is left, but the proof has holes"
    else if Wire.hasName ``sorryAx proof.getUsedConstants.toList then failed "sorry" "the proof rests on sorry"
    else .state s

@[noinline] unsafe def someClosure : (Name → Bool) × Nat := (unsafeCast Parser.Tactic.tacticSeq.fn, 0)

/-- Which names are not to be bound automatically: asked only where the types of a declaration are elaborated, so never by a
tactic. The field's own default is a closure, and closures of this file cannot be found when it runs; one of Lean's stands
in, whose answer would be either. -/
@[implemented_by someClosure] opaque forbidden : (Name → Bool) × Nat

def run (rules : Guard.Rules) (s : State) (stx : Syntax) (heartbeats : Nat) : IO Result := do
  let t ← IO.mkRef ({ goals := s.goals } : Tactic.State)
  let e ← IO.mkRef s.term
  let m ← IO.mkRef s.mctx
  let c ← IO.mkRef { s.core with messages := {} }
  let core ← coreContext s heartbeats
  let term : Term.Context :=
    { declName? := some s.target, errToSorry := false, autoBoundImplicitForbidden := forbidden.1 }
  match ← stepRaw stx { elaborator := .anonymous, recover := false } t term e {} m core c with
  | .error e =>
    let text ← e.toMessageData.toString
    return failed (if e.isMaxHeartbeat then "timeout" else "tactic") text
  | .ok goals =>
    let core ← readCore c
    match Wire.firstError core.messages.toList with
    | some message => return failed "tactic" (← Wire.textOf message)
    | none => match Guard.declaresSyntax rules core.env with
      | some why => return failed "forbidden" why
      | none => return ended { s with core, mctx := ← Goals.readMeta m, term := ← readTerm e, goals }

def apply (s : State) (text : String) (heartbeats : Nat) : IO Result := do
  match s.goals with
  | [] => return failed "no_goals" "no goal is left"
  | _ => match parse s text with
    | .error why => return failed "syntax" why
    | .ok stx =>
      let rules : Guard.Rules := { on := true, limit := heartbeats, target := Wire.userName s.target }
      match Guard.filtered rules s.core.env s.namespace_ stx with
      | .refuse why => return failed "forbidden" why
      | .skip => return failed "forbidden" "nothing is left of it"
      | .run stx => if givesUp stx then return failed "sorry" "it gives up" else run rules s stx heartbeats

/-! ### The table of states

The driver says where each state is to be kept, and what is to be forgotten. -/

@[noinline] def getStates (ref : IO.Ref (Array (Option State))) : BaseIO (Array (Option State)) := ref.get
@[noinline] def setStates (ref : IO.Ref (Array (Option State))) (a : Array (Option State)) : BaseIO Unit := ref.set a

def maxPlaces : Nat := 65536

def grown (a : Array (Option State)) : Nat → Array (Option State)
  | 0 => a
  | n + 1 => grown (a.push none) n

def put (a : Array (Option State)) (place : Nat) (s : Option State) : Array (Option State) :=
  (grown a (place + 1 - a.size)).set! place s

def place (a : Array (Option State)) (n : Nat) : Option State :=
  match a[n]? with
  | some (some s) => some s
  | _ => none

def emptied (a : Array (Option State)) : List Json → Array (Option State)
  | [] => a
  | .num n :: js => emptied (if n.mantissa.toNat < a.size then a.set! n.mantissa.toNat none else a) js
  | _ :: js => emptied a js

def countGoals : List MVarId → Nat → Nat
  | [], n => n
  | _ :: gs, n => countGoals gs (n + 1)

def reply (ref : IO.Ref (Array (Option State))) (j : Json) (start : Nat) (r : Result) : IO Json := do
  let nonce := ("nonce", Json.str (Wire.field j "nonce"))
  let more ← match r with
    | .failure f => pure [("failure", Json.str f.kind), ("reason", Json.str f.reason)]
    | .state s => do
      let to := Wire.natField j "to" 0
      if to < maxPlaces then setStates ref (put (← getStates ref) to (some s))
      let goals ← Goals.goalsJson (scene s) s.goals Goals.maxGoals
      pure [("goals", Wire.jsonList goals), ("open", Json.num (countGoals s.goals 0))]
  let stop ← IO.monoNanosNow
  return Json.mkObj (nonce :: ("ms", Wire.milliseconds (stop - start)) :: more)

def startOp (ref : IO.Ref (Array (Option State))) (h : Session.Header) (r : Judge.Reference) (j : Json) (begun : Nat) : IO Json := do
  reply ref j begun (← start h.state r.statement r.name r.levelParams (Wire.natField j "heartbeats" 200000))

def applyOp (ref : IO.Ref (Array (Option State))) (j : Json) : IO Json := do
  let begun ← IO.monoNanosNow
  match place (← getStates ref) (Wire.natField j "from" maxPlaces) with
  | none => return Json.mkObj [("nonce", Json.str (Wire.field j "nonce")), ("error", Json.str "no such state")]
  | some s => reply ref j begun (← apply s (Wire.field j "tactic") (Wire.natField j "heartbeats" 200000))

def releaseOp (ref : IO.Ref (Array (Option State))) (j : Json) : IO Json := do
  match j.getObjVal? "places" with
  | .ok (.arr places) => setStates ref (emptied (← getStates ref) places.toList)
  | _ => pure ()
  return Json.mkObj [("nonce", Json.str (Wire.field j "nonce")), ("ok", Json.bool true)]

end Step
