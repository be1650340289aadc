module
public meta import Late

/-!
Elaborating texts command by command, and the states that outlive a request: one environment for each list of imports, one
state for each header, one reference for each trusted statement. A state is a value: what a candidate does to its own copy
never shows in ours.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Session

structure Outcome where
  state : Command.State
  messages : List Message
  refused : Option String := none

def input (text : String) (name : String) : Parser.InputContext :=
  { inputString := text, fileName := name, fileMap := FileMap.ofString text }

@[noinline] def elaborateRaw (command : Syntax) (ctx : Command.Context) (ref : IO.Ref Command.State) :
    BaseIO (Except Exception Unit) :=
  (Command.elabCommandTopLevel command ctx ref).toBaseIO

@[noinline] def read (ref : IO.Ref Command.State) : BaseIO Command.State := ref.get

/-- Runs one command; `elabCommandTopLevel` leaves only that command's messages in the state. -/
def runCommand (ctx : Parser.InputContext) (command : Syntax) (state : Command.State) :
    IO (Command.State × List Message) := do
  let context : Command.Context := { fileName := ctx.fileName, fileMap := ctx.fileMap, snap? := none, cancelTk? := none }
  let ref ← IO.mkRef { state with messages := {} }
  let result ← elaborateRaw command context ref
  let state ← read ref
  match result with
  | .ok _ => return (state, state.messages.toList)
  | .error e =>
    let m : Message := { fileName := ctx.fileName, pos := ⟨1, 0⟩, data := e.toMessageData }
    return (state, Wire.prepend (Wire.reversed state.messages.toList) [m])

/-- A refusal as an error in its place, for whoever reads the messages. -/
def refusal (ctx : Parser.InputContext) (command : Syntax) (why : String) : Message :=
  let start := ctx.fileMap.toPosition (command.getPos?.getD 0)
  let stop := ctx.fileMap.toPosition (command.getTailPos?.getD 0)
  { fileName := ctx.fileName, pos := start, endPos := some stop, data := why }

/-- Runs commands to the end of the text. `seen` holds the messages so far, last first. -/
partial def runCommands (rules : Guard.Rules) (ctx : Parser.InputContext)
    (at_ : Parser.ModuleParserState) (state : Command.State) (seen : List Message) : IO Outcome := do
  match state.scopes with
  | [] => return { state, messages := Wire.reversed seen, refused := some "a scope is closed that was never opened" }
  | scope :: _ =>
    let parsing : Parser.ParserModuleContext :=
      { env := state.env, options := scope.opts, currNamespace := scope.currNamespace, openDecls := scope.openDecls }
    let (command, next, errors) := Parser.parseCommand ctx parsing at_ {}
    let seen := Wire.prepend errors.toList seen
    if command.isOfKind ``Parser.Command.eoi then return { state, messages := Wire.reversed seen }
    match Guard.command rules state.env scope command with
    | .refuse why => return { state, messages := Wire.reversed (refusal ctx command why :: seen), refused := some why }
    | .skip => runCommands rules ctx next state seen
    | .run command =>
      if command.isOfKind ``Parser.Command.exit then return { state, messages := Wire.reversed seen }
      let (state, new) ← runCommand ctx command state
      let seen := Wire.prepend new seen
      match Guard.declaresSyntax rules state.env with
      | some why => return { state, messages := Wire.reversed (refusal ctx command why :: seen), refused := some why }
      | none => runCommands rules ctx next state seen

def runText (rules : Guard.Rules) (state : Command.State) (text : String) : IO Outcome :=
  runCommands rules (input text "<input>") {} state []

/-- The limit of the request holds, whatever the header or the statement set. -/
def limited (state : Command.State) (heartbeats : Nat) : Command.State :=
  match state.scopes with
  | [] => state
  | scope :: rest => { state with scopes := { scope with opts := scope.opts.set `maxHeartbeats heartbeats } :: rest }

/-! ### Environments by list of imports

They are never freed: Lean's importer leaves the library's objects in memory for good. -/

structure Imported where
  key : String
  env : Environment

def importKey : List Import → String
  | [] => ""
  | i :: is => Wire.dotted i.module ++ (if i.importAll then " all " else " ") ++ importKey is

def findImported (key : String) : List Imported → Option Environment
  | [] => none
  | i :: is => if i.key == key then some i.env else findImported key is

/-- How much of each module is loaded. A native Lean (written for v4.28.0) says `private` in its environment: all, as a file
outside the module system sees it. The embedded one (4.28.0-pre) has no environment and no more than the exported level. -/
@[noinline] def importLevel : BaseIO OLeanLevel := do
  match ← IO.getEnv "PROVER_IMPORTS" with
  | some "private" => return .private
  | _ => return .exported

@[noinline] def importRaw (imports : Array Import) : BaseIO (Except IO.Error Environment) := do
  let level ← importLevel
  (importModules imports {} 0 (loadExts := true) (leakEnv := true) (level := level)).toBaseIO

@[noinline] def getImported (ref : IO.Ref (List Imported)) : BaseIO (List Imported) := ref.get
@[noinline] def setImported (ref : IO.Ref (List Imported)) (l : List Imported) : BaseIO Unit := ref.set l

/-- Imports are public here: the worker's own modules are not to be had, and neither are other modules' private parts. -/
def plainImports : List Import → Array Import → Array Import
  | [], r => r
  | i :: is, r => plainImports is (r.push { module := i.module })

def environment (cache : IO.Ref (List Imported)) (imports : Array Import) : IO (Except IO.Error Environment) := do
  let imports := plainImports imports.toList #[]
  let key := importKey imports.toList
  let known ← getImported cache
  match findImported key known with
  | some env => return .ok env
  | none =>
    match ← importRaw imports with
    | .error e => return .error e
    | .ok env =>
      setImported cache ({ key, env } :: known)
      return .ok env

/-! ### Headers -/

/-- The state after a header, or what is wrong with it. -/
structure Header where
  text : String
  base : Environment
  state : Command.State
  messages : List Message
  failure : Option String

@[noinline] def parseHeaderRaw (ctx : Parser.InputContext) :
    BaseIO (Except IO.Error (TSyntax ``Parser.Module.header × Parser.ModuleParserState × MessageLog)) :=
  (Parser.parseHeader ctx).toBaseIO

@[noinline] def importsOf (header : TSyntax ``Parser.Module.header) : Array Import := headerToImports header

/-- A state without info trees, which nothing here reads and which cost time. -/
def fresh (env : Environment) : Command.State :=
  let state := Command.mkState env {} {}
  { state with infoState := { state.infoState with enabled := false } }

/-- As under `noncomputable section`: proofs need no compiled code, and the exported library lacks what the compiler wants. -/
def uncompiled (state : Command.State) : Command.State :=
  match state.scopes with
  | [] => state
  | scope :: rest => { state with scopes := { scope with isNoncomputable := true } :: rest }

/-- Elaborates a whole text that starts with imports, unguarded: a file of the user's, or (`heartbeats` 0) a header. -/
def runFile (cache : IO.Ref (List Imported)) (empty : Environment) (text : String) (name : String) (heartbeats : Nat) :
    IO (Environment × Outcome) := do
  let ctx := input text name
  match ← parseHeaderRaw ctx with
  | .error e => return (empty, { state := fresh empty, messages := [], refused := some (toString e) })
  | .ok (header, next, errors) =>
    match ← environment cache (importsOf header) with
    | .error e => return (empty, { state := fresh empty, messages := errors.toList, refused := some (toString e) })
    | .ok env =>
      let outcome ← runCommands Guard.off ctx next (if heartbeats == 0 then uncompiled (fresh env) else limited (fresh env) heartbeats) (Wire.reversed errors.toList)
      return (env, outcome)

def runHeader (cache : IO.Ref (List Imported)) (empty : Environment) (text : String) : IO Header := do
  let (base, outcome) ← runFile cache empty text "<header>" 0
  let failure ← match outcome.refused with
    | some why => pure (some (Wire.firstLine why.toList []))
    | none => match Wire.firstError outcome.messages with
      | some m => do pure (some (← Wire.headline m))
      | none => pure none
  return { text, base, state := { outcome.state with messages := {} }, messages := outcome.messages, failure }

/-! A small cache, the last used first. -/

def maxHeaders : Nat := 12

@[noinline] def getHeaders (ref : IO.Ref (List Header)) : BaseIO (List Header) := ref.get
@[noinline] def setHeaders (ref : IO.Ref (List Header)) (l : List Header) : BaseIO Unit := ref.set l

def findHeader (text : String) : List Header → Option Header
  | [] => none
  | h :: hs => if h.text == text then some h else findHeader text hs

def otherHeaders (text : String) : List Header → Nat → List Header
  | [], _ => []
  | _, 0 => []
  | h :: hs, left + 1 => if h.text == text then otherHeaders text hs (left + 1) else h :: otherHeaders text hs left

def header (imports : IO.Ref (List Imported)) (headers : IO.Ref (List Header)) (empty : Environment) (text : String) :
    IO Header := do
  let known ← getHeaders headers
  let h ← match findHeader text known with
    | some h => pure h
    | none => runHeader imports empty text
  setHeaders headers (h :: otherHeaders text known (maxHeaders - 1))
  return h

end Session
