module
public meta import Closure
public meta import Library
public meta import Step

/-!
The worker: reads requests, one JSON object a line, and writes one reply to each. docs/soundness.md says what the status
`proved` claims and how it is decided. Its first request decides what it is for good: one that certifies does nothing else.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Check

/-- What outlives a request. -/
structure Caches where
  /-- The environment of no import but the prelude. -/
  empty : Environment
  imports : IO.Ref (List Session.Imported)
  headers : IO.Ref (List Session.Header)
  references : IO.Ref (List Judge.Reference)
  /-- What is left of the closure that is being written. -/
  closing : IO.Ref (Option Closure.State)
  steps : IO.Ref (Array (Option Step.State))

def maxReferences : Nat := 48

@[noinline] def getReferences (ref : IO.Ref (List Judge.Reference)) : BaseIO (List Judge.Reference) := ref.get
@[noinline] def setReferences (ref : IO.Ref (List Judge.Reference)) (l : List Judge.Reference) : BaseIO Unit := ref.set l

def isFor (r : Judge.Reference) (header statement target : String) : Bool :=
  r.statement == statement && r.header == header && r.target == target

def findReference (header statement target : String) : List Judge.Reference → Option Judge.Reference
  | [] => none
  | r :: rs => if isFor r header statement target then some r else findReference header statement target rs

def otherReferences (header statement target : String) : List Judge.Reference → Nat → List Judge.Reference
  | [], _ => []
  | _, 0 => []
  | r :: rs, left + 1 =>
    if isFor r header statement target then otherReferences header statement target rs (left + 1)
    else r :: otherReferences header statement target rs left

def referenceOf (c : Caches) (h : Session.Header) (g : Audit.Ground) (heartbeats : Nat) (statement target : String) :
    IO Judge.Reference := do
  let known ← getReferences c.references
  let r ← match findReference h.text statement target known with
    | some r => pure r
    | none => Judge.reference g (Session.limited h.state heartbeats) h.text statement target
  setReferences c.references (r :: otherReferences h.text statement target known (maxReferences - 1))
  return r

/-! ### Replies -/

def failure (nonce where_ why : String) (messages : List Message) : IO Json := do
  return Json.mkObj [("nonce", Json.str nonce), ("statement_failure", Json.str where_), ("reason", Json.str why),
    ("messages", ← Wire.messagesJson messages)]

/-- A candidate's own words for what went wrong are shown, but decide nothing beyond that there was an error. -/
def finding (g : Audit.Ground) (ref : Judge.Reference) (o : Session.Outcome) (forbidden : List String) (ask : Bool) :
    IO Judge.Finding := do
  match o.refused with
  | some why => return { status := "forbidden_syntax", reason := "syntax: " ++ why }
  | none => match Wire.firstError o.messages with
    | some m => return { status := "failed", reason := "elaboration: " ++ (← Wire.headline m) }
    | none => return Judge.judge g ref o.state.env forbidden ask

/-- What a second worker needs to certify a proof; without, why there is none. -/
@[noinline] def exported (f : Judge.Finding) : BaseIO (List (String × Json)) := do
  if f.status != "proved" then return []
  match Export.text f.declarations with
  | .ok text => return [("export", Json.str text)]
  | .error why => return [("unexported", Json.str why)]

def prependFields : List (String × Json) → List (String × Json) → List (String × Json)
  | [], b => b
  | a :: as, b => a :: prependFields as b

def check (h : Session.Header) (g : Audit.Ground) (ref : Judge.Reference) (j : Json) (start : Nat) : IO Json := do
  let limit := Wire.natField j "heartbeats" 200000
  let before ← IO.getNumHeartbeats
  let rules : Guard.Rules := { on := Wire.boolField j "syntax" true, limit, target := Wire.userName ref.name }
  let depth := Feedback.depth (Wire.field j "feedback")
  let text := Wire.field j "candidate"
  let o ← Session.runText rules (Feedback.prepared depth (Session.limited h.state limit)) text
  let after ← IO.getNumHeartbeats
  let exporting := Wire.boolField j "export" false
  let f ← finding g ref o (Wire.listField j "forbidden") !exporting
  let messages ← Wire.messagesJson o.messages
  let goals ← Wire.goals o.messages
  let more ← if exporting then exported f else pure []
  let feedback ← Feedback.json depth g h.state text o
  let stop ← IO.monoNanosNow
  return Json.mkObj (
    ("nonce", Json.str (Wire.field j "nonce")) :: ("status", Json.str f.status) :: ("reason", Json.str f.reason) ::
    ("messages", messages) :: ("axioms", Wire.jsonStrings f.axioms) :: ("used", Wire.jsonStrings f.used) ::
    ("goals", goals) :: ("heartbeats", Json.num (Nat.div (after - before) 1000)) ::
    ("ms", Wire.milliseconds (stop - start)) :: prependFields feedback more)

/-- In `BaseIO` so that it is done before the clock is read. -/
@[noinline] def certified (g : Audit.Ground) (ref : Judge.Reference) (text : String) (forbidden : List String) :
    BaseIO Judge.Finding :=
  return Certify.judge g ref text forbidden

def certify (g : Audit.Ground) (ref : Judge.Reference) (j : Json) (start : Nat) : IO Json := do
  let f ← certified g ref (Wire.field j "export") (Wire.listField j "forbidden")
  let stop ← IO.monoNanosNow
  return Json.mkObj [
    ("nonce", Json.str (Wire.field j "nonce")), ("status", Json.str f.status), ("reason", Json.str f.reason),
    ("axioms", Wire.jsonStrings f.axioms), ("used", Wire.jsonStrings f.used), ("ms", Wire.milliseconds (stop - start))]

/-- The time limit for references: they are ours, and the same whatever the request's own limit. -/
def referenceHeartbeats : Nat := 1000000

/-- Whatever is asked about a statement starts with its reference. -/
def about (c : Caches) (j : Json) : IO Json := do
  let start ← IO.monoNanosNow
  let nonce := Wire.field j "nonce"
  let h ← Session.header c.imports c.headers c.empty (Wire.field j "header")
  match h.failure with
  | some why => failure nonce "header" why h.messages
  | none =>
    let g : Audit.Ground := { base := h.base, header := h.state.env }
    let ref ← referenceOf c h g referenceHeartbeats (Wire.field j "statement") (Wire.field j "target")
    match ref.failure with
    | some why => failure nonce "statement" why ref.messages
    | none => match Wire.field j "op" with
      | "check" => check h g ref j start
      | "certify" => certify g ref j start
      | "closure" => Closure.beginOp c.closing g ref j
      | "step.start" => Step.startOp c.steps h ref j start
      | _ => return Json.mkObj [("nonce", Json.str nonce), ("ok", Json.bool true)]

/-- A whole file, imports and all, as `lean FILE` would take it. -/
def file (c : Caches) (j : Json) : IO Json := do
  let start ← IO.monoNanosNow
  let limit := Wire.natField j "heartbeats" 200000
  let (_, o) ← Session.runFile c.imports c.empty (Wire.field j "text") "<input>" limit
  let messages ← Wire.messagesTo o.messages Wire.maxMessages Wire.maxAllBytes #[]
  let messages := match o.refused with
    | some why => messages.push (Wire.messageJson { fileName := "<input>", pos := ⟨1, 0⟩, data := "" } why)
    | none => messages
  let stop ← IO.monoNanosNow
  return Json.mkObj [("nonce", Json.str (Wire.field j "nonce")), ("messages", Json.arr messages),
    ("ms", Wire.milliseconds (stop - start))]

/-- What Library.lean tells about the library that the request's header imports. -/
def library (c : Caches) (j : Json) : IO Json := do
  let nonce := Wire.field j "nonce"
  let h ← Session.header c.imports c.headers c.empty (Wire.field j "header")
  match h.failure with
  | some why => failure nonce "header" why h.messages
  | none => return (← libraryOp h.base j).setObjVal! "nonce" (Json.str nonce)

def beginsWith : List Char → List Char → Bool
  | [], _ => true
  | a :: as, b :: bs => a == b && beginsWith as bs
  | _ :: _, [] => false

def answer (c : Caches) (j : Json) : IO Json :=
  match Wire.field j "op" with
  | "check" => about c j
  | "elaborate" => about c j
  | "certify" => about c j
  | "closure" => about c j
  | "closure.next" => Closure.nextOp c.closing j
  | "file" => file c j
  | "step.start" => about c j
  | "step.apply" => Step.applyOp c.steps j
  | "step.release" => Step.releaseOp c.steps j
  | op =>
    if beginsWith "library.".toList op.toList then library c j
    else return Json.mkObj [("nonce", Json.str (Wire.field j "nonce")), ("error", Json.str s!"no operation is named '{op}'")]

@[noinline] def readLine (h : IO.FS.Handle) : IO String := h.getLine

@[noinline] def writeLine (h : IO.FS.Handle) (j : Json) : IO Unit := do
  h.putStrLn j.compress
  h.flush

def failed (nonce why : String) : Json := Json.mkObj [("nonce", Json.str nonce), ("error", Json.str why)]

/-- What only a worker that certifies may be asked. -/
def isCertifying (op : String) : Bool := Wire.hasString op ["certify", "closure", "closure.next"]

def reply (c : Caches) (j : Json) (certifies : Bool) : IO Json := do
  let nonce := Wire.field j "nonce"
  if certifies != isCertifying (Wire.field j "op") then
    return failed nonce "a worker that certifies does nothing else, and no other certifies"
  match ← (answer c j).toBaseIO with
  | .ok reply => return reply
  | .error e => return failed nonce (toString e)

/-- `certifies` is what the worker was first asked for, once it was. -/
partial def loop (c : Caches) (requests verdicts : IO.FS.Handle) (certifies : Option Bool) : IO Unit := do
  let line ← readLine requests
  if line.isEmpty then return ()
  match Json.parse line with
  | .error e =>
    writeLine verdicts (failed "" e)
    loop c requests verdicts certifies
  | .ok j =>
    let certifies := certifies.getD (isCertifying (Wire.field j "op"))
    writeLine verdicts (← reply c j certifies)
    loop c requests verdicts (some certifies)

/-- The worker's channel. The embedded Lean has devices for it and no environment; a native one is told where it lies. -/
def place (variable_ device : String) : BaseIO String := do
  match ← IO.getEnv variable_ with
  | some path => return path
  | none => return device

unsafe def serve : IO Unit := do
  -- For appending, because that is the one way of writing that a native worker's system call filter lets pass.
  let verdicts ← IO.FS.Handle.mk (← place "PROVER_VERDICT" "/dev/verdict") .append
  let requests ← IO.FS.Handle.mk (← place "PROVER_REQUEST" "/dev/request") .read
  -- Opening this one takes all three devices away: no candidate can reach them by name. (A native channel is sealed by the
  -- driver.)
  let _ ← (IO.FS.Handle.mk (← place "PROVER_SEAL" "/dev/seal") .read).toBaseIO
  enableInitializersExecution
  let imports ← IO.mkRef []
  match ← Session.environment imports #[{ module := `Init }] with
  | .error e => writeLine verdicts (Json.mkObj [("ready", Json.bool false), ("error", Json.str (toString e))])
  | .ok empty =>
    let headers ← IO.mkRef []
    let references ← IO.mkRef []
    writeLine verdicts (Json.mkObj [("ready", Json.bool true), ("version", Json.str Lean.versionString)])
    let closing ← IO.mkRef none
    let steps ← IO.mkRef #[]
    loop { empty, imports, headers, references, closing, steps } requests verdicts none

end Check
