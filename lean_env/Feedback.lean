module
public meta import Goals
public meta import Lean.Elab.InfoTree.Main

/-!
What a candidate's elaboration tells beyond its messages: the goals at each `sorry` and at the tactic that failed first, with
closed statements of them, and on request the goals before and after every tactic. It is read off Lean's info trees when the
status has been found, and takes no part in that.
-/

public meta section
set_option compiler.extract_closed false
open Lean Elab

namespace Feedback

def maxSorries : Nat := 16
def maxStates : Nat := 256
/-- Closed statements are looked for so often at most. -/
def maxStatements : Nat := 16
/-- No more states are shown once those shown take so many bytes. -/
def maxStateBytes : Nat := 262144
/-- What feedback may cost in all. -/
def maxHeartbeats : Nat := 400000

inductive Depth where
  | messages
  | goals
  | statements
  | states

def depth (word : String) : Depth :=
  if word == "states" then .states else if word == "statements" then .statements
  else if word == "goals" then .goals else .messages

/-- Info trees cost time, so they are kept only for whoever asks. The linters that would now have their say are silenced:
messages are to be the same whether feedback is asked for or not. -/
def silenced (o : Options) : Options :=
  (o.setBool `linter.unusedVariables false).setBool `linter.constructorNameAsVariable false

def prepared (depth : Depth) (state : Command.State) : Command.State :=
  match depth with
  | .messages => state
  | _ =>
    let state := { state with infoState := { state.infoState with enabled := true } }
    match state.scopes with
    | [] => state
    | scope :: rest => { state with scopes := { scope with opts := silenced scope.opts } :: rest }

/-! ### Tactics in the order of the text -/

structure Place where
  start : Position
  stop : Position
  /-- Bytes from the start of the text. -/
  first : Nat
  last : Nat
  ctx : ContextInfo
  info : TacticInfo

/-- Kinds that only hold tactics together. -/
def frames : NameSet := Guard.nameSet [`null, `Lean.Parser.Tactic.tacticSeq, `Lean.Parser.Tactic.tacticSeq1Indented,
  `Lean.Parser.Tactic.tacticSeqBracketed, `Lean.Parser.Term.byTactic, `Lean.Parser.Tactic.paren,
  `Lean.Parser.Tactic.withAnnotateState, `Lean.cdotTk]

def isWritten (stx : Syntax) : Bool :=
  match stx.getHeadInfo with
  | .original .. => true
  | _ => false

/-- A tactic's place in the text; none if it is a mere frame, or made up by Lean. -/
def placeOf (ctx : ContextInfo) (info : TacticInfo) : Option Place :=
  if info.stx.isAtom || frames.contains info.stx.getKind || !isWritten info.stx then none else
  match info.stx.getPos?, info.stx.getTailPos? with
  | some a, some b =>
    some { start := ctx.fileMap.toPosition a, stop := ctx.fileMap.toPosition b, first := a.byteIdx, last := b.byteIdx, ctx, info }
  | _, _ => none

def sameRange (p : Place) (outer : Option Place) : Bool :=
  match outer with
  | some q => p.first == q.first && p.last == q.last
  | none => false

def prependTrees : List InfoTree → List InfoTree → List InfoTree
  | [], b => b
  | a :: as, b => a :: prependTrees as b

mutual
partial def leaves (node : PersistentArrayNode InfoTree) (r : List InfoTree) : List InfoTree :=
  match node with
  | .leaf vs => prependTrees vs.toList r
  | .node cs => leavesOf cs.toList r
partial def leavesOf (nodes : List (PersistentArrayNode InfoTree)) (r : List InfoTree) : List InfoTree :=
  match nodes with
  | [] => r
  | c :: cs => leaves c (leavesOf cs r)
end

def treesOf (a : PersistentArray InfoTree) : List InfoTree := leaves a.root a.tail.toList

mutual
/-- All tactics, the last first; of those that share their piece of text the outermost. -/
partial def places (ctx? : Option ContextInfo) (outer : Option Place) (t : InfoTree) (r : List Place) : List Place :=
  match t with
  | .context i t => places (i.mergeIntoOuter? ctx?) outer t r
  | .hole _ => r
  | .node i cs =>
    let place := match i, ctx? with
      | .ofTacticInfo info, some ctx => placeOf ctx info
      | _, _ => none
    match place with
    | none => placesOf ctx? outer (treesOf cs) r
    | some p => if sameRange p outer then placesOf ctx? outer (treesOf cs) r else placesOf ctx? (some p) (treesOf cs) (p :: r)
partial def placesOf (ctx? : Option ContextInfo) (outer : Option Place) (ts : List InfoTree) (r : List Place) : List Place :=
  match ts with
  | [] => r
  | t :: ts => placesOf ctx? outer ts (places ctx? outer t r)
end

def inOrder : List Place → List Place → List Place
  | [], r => r
  | p :: ps, r => inOrder ps (p :: r)

def before (p : Place) : Goals.Scene := Goals.ofInfo p.ctx p.info.mctxBefore
def after (p : Place) : Goals.Scene := Goals.ofInfo p.ctx p.info.mctxAfter

/-- With what Lean elaborates in tasks of their own, here at once. -/
def complete (s : InfoState) : InfoState := s.substituteLazy.get

def placesIn (o : Session.Outcome) : List Place := inOrder (placesOf none none (treesOf (complete o.state.infoState).trees) []) []

/-! ### What is shown -/

/-- Whether closed statements are wanted, what they are elaborated after, how many are still to be looked for; and the
heartbeat to stop at. -/
structure Ask where
  ground : Audit.Ground
  header : Command.State
  wanted : Bool
  statements : Nat := maxStatements
  number : Nat := 1
  stop : Nat

structure Shown where
  goals : List Json
  ask : Ask
  cut : Bool := false

def isLate (ask : Ask) : BaseIO Bool := do
  let now ← IO.getNumHeartbeats
  return now > ask.stop

/-- Goals with their statements, the last first. -/
def closedGoals (s : Goals.Scene) (gs : List MVarId) (left : Nat) (shown : Shown) : IO Shown := do
  match gs, left with
  | [], _ => return shown
  | _, 0 => return { shown with cut := true }
  | g :: gs, left + 1 =>
    if ← isLate shown.ask then return { shown with cut := true }
    let ask := shown.ask
    let name := s!"prover_goal_{ask.number}"
    let statement ← if !ask.wanted || ask.statements == 0 then pure none else Goals.statement ask.ground ask.header s g name
    let j ← Goals.goalJson s g statement
    let ask := { ask with statements := ask.statements - 1, number := ask.number + 1 }
    closedGoals s gs left { shown with goals := j :: shown.goals, ask, cut := shown.cut || (ask.wanted && ask.statements == 0) }

def rangeJson (start stop : Position) (rest : List (String × Json)) : Json :=
  Json.mkObj (("start", Wire.position start) :: ("end", Wire.position stop) :: rest)

def goalsField (shown : Shown) : Json := Wire.jsonList (Goals.reversedJson shown.goals [])

structure Many where
  items : List Json := []
  ask : Ask
  cut : Bool := false

def isSorry (stx : Syntax) : Bool :=
  stx.isOfKind `Lean.Parser.Tactic.tacticSorry || stx.isOfKind `Lean.Parser.Tactic.tacticAdmit

def sorries (ps : List Place) (left : Nat) (many : Many) : IO Many := do
  match ps with
  | [] => return many
  | p :: ps =>
    if !isSorry p.info.stx then sorries ps left many else
    match left with
    | 0 => return { many with cut := true }
    | left + 1 =>
      let shown ← closedGoals (before p) p.info.goalsBefore Goals.maxGoals { goals := [], ask := many.ask }
      let item := rangeJson p.start p.stop [("goals", goalsField shown)]
      sorries ps left { items := item :: many.items, ask := shown.ask, cut := many.cut || shown.cut }

/-- The smallest tactic around a piece of the text; of several the innermost. -/
def around (first last : Nat) : List Place → Option Place → Option Place
  | [], r => r
  | p :: ps, r =>
    if p.first ≤ first && last ≤ p.last then
      match r with
      | some q => around first last ps (if p.last - p.first ≤ q.last - q.first then some p else r)
      | none => around first last ps (some p)
    else around first last ps r

structure Printed where
  goal : MVarId
  scene : Goals.Scene

/-- The goals that a message shows. -/
partial def goalsIn (m : MessageData) (ctx : Option MessageDataContext) (name : Name) (opens : List OpenDecl)
    (r : List Printed) : List Printed :=
  match m with
  | .ofGoal g => match ctx with
    | some c => { goal := g, scene := { env := c.env, mctx := c.mctx, options := c.opts, namespace_ := name, opens } } :: r
    | none => r
  | .withContext c m => goalsIn m (some c) name opens r
  | .withNamingContext c m => goalsIn m ctx c.currNamespace c.openDecls r
  | .nest _ m => goalsIn m ctx name opens r
  | .group m => goalsIn m ctx name opens r
  | .tagged _ m => goalsIn m ctx name opens r
  | .compose a b => goalsIn b ctx name opens (goalsIn a ctx name opens r)
  | _ => r

def forwards : List Printed → List Printed → List Printed
  | [], r => r
  | p :: ps, r => forwards ps (p :: r)

def closedPrinted (ps : List Printed) (left : Nat) (shown : Shown) : IO Shown := do
  match ps, left with
  | [], _ => return shown
  | _, 0 => return { shown with cut := true }
  | p :: ps, left + 1 =>
    let shown ← closedGoals p.scene [p.goal] 1 shown
    closedPrinted ps left shown

/-- The first error's place, and the goals there: those that are left where the error says so, else those that its tactic
was put to. -/
def failed (ctx : Parser.InputContext) (ps : List Place) (m : Message) (ask : Ask) : IO (Json × Ask × Bool) := do
  let stop := m.endPos.getD m.pos
  if m.kind == `Tactic.unsolvedGoals then
    let shown ← closedPrinted (forwards (goalsIn m.data none .anonymous [] []) []) Goals.maxGoals { goals := [], ask }
    return (rangeJson m.pos stop [("goals", goalsField shown)], shown.ask, shown.cut)
  let first := (ctx.fileMap.ofPosition m.pos).byteIdx
  let last := (ctx.fileMap.ofPosition stop).byteIdx
  match around first last ps none with
  | none => return (rangeJson m.pos stop [("goals", Json.arr #[])], ask, false)
  | some p =>
    let shown ← closedGoals (before p) p.info.goalsBefore Goals.maxGoals { goals := [], ask }
    return (rangeJson p.start p.stop [("goals", goalsField shown)], shown.ask, shown.cut)

def size (js : List Json) : Nat :=
  match js with
  | [] => 0
  | j :: js => (match j.getObjVal? "text" with | .ok (.str s) => s.utf8ByteSize | _ => 0) + size js

/-- The goals before and after each tactic, the last first. -/
def states (ps : List Place) (left bytes : Nat) (many : Many) : BaseIO Many := do
  match ps with
  | [] => return many
  | p :: ps =>
    if left == 0 || bytes == 0 || (← isLate many.ask) then return { many with cut := true }
    let b ← Goals.goalsJson (before p) p.info.goalsBefore Goals.maxGoals
    let a ← Goals.goalsJson (after p) p.info.goalsAfter Goals.maxGoals
    let item := rangeJson p.start p.stop [("before", Wire.jsonList b), ("after", Wire.jsonList a)]
    states ps (left - 1) (bytes - 2 * (size b + size a)) { many with items := item :: many.items }

/-- Nothing where nothing was asked for. -/
def json (depth : Depth) (g : Audit.Ground) (header : Command.State) (text : String) (o : Session.Outcome) :
    IO (List (String × Json)) := do
  match depth with
  | .messages => return []
  | _ =>
    let stop := (← IO.getNumHeartbeats) + maxHeartbeats * 1000
    let wanted := match depth with | .goals => false | _ => true
    let ask : Ask := { ground := g, header, wanted, stop }
    let ps := placesIn o
    let (failure, ask, cut) ← match Wire.firstError o.messages with
      | some m => failed (Session.input text "<input>") ps m ask
      | none => pure (Json.null, ask, false)
    let found ← sorries ps maxSorries { ask, cut }
    let all ← match depth with
      | .states => states ps maxStates maxStateBytes { ask := found.ask, cut := found.cut }
      | _ => pure { ask := found.ask, cut := found.cut }
    return [("feedback", Json.mkObj [
      ("failed", failure), ("sorries", Wire.jsonList (Goals.reversedJson found.items [])),
      ("states", Wire.jsonList (Goals.reversedJson all.items [])), ("cut", Json.bool all.cut)])]

end Feedback
