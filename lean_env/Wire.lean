module
public meta import Lean.Elab.Frontend
public meta import Lean.Elab.BuiltinCommand
public meta import Lean.Data.Json

/-!
What the worker's modules share: reading requests, writing replies, lists of names and messages.

The embedded Lean's library holds only the exported level of each module. The compiler therefore lacks the bodies that it
would specialise, and what it makes for itself (`f._redArg` for an argument that `f` does not use, `f._lam_0` for a closure,
`where` functions) stays private and cannot be found when it runs. So everywhere in this folder there is no `for`, no `while`,
no polymorphic or `where` function, no closure that outlives inlining and no unused argument, but plain recursion over lists
of one type.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Wire

/-! ### Reading requests -/

def field (j : Json) (key : String) : String :=
  match j.getObjVal? key with | .ok (.str s) => s | _ => ""

def natField (j : Json) (key : String) (default : Nat) : Nat :=
  match j.getObjVal? key with | .ok (.num n) => n.mantissa.toNat | _ => default

def boolField (j : Json) (key : String) (default : Bool) : Bool :=
  match j.getObjVal? key with | .ok (.bool b) => b | _ => default

def stringsOf : List Json → List String
  | [] => []
  | .str s :: js => s :: stringsOf js
  | _ :: js => stringsOf js

def listField (j : Json) (key : String) : List String :=
  match j.getObjVal? key with | .ok (.arr a) => stringsOf a.toList | _ => []

/-! ### Lists -/

def pushAll : List Json → Array Json → Array Json
  | [], r => r
  | j :: js, r => pushAll js (r.push j)

def jsonList (js : List Json) : Json := Json.arr (pushAll js #[])

def jsonStringsTo : List String → Array Json → Array Json
  | [], r => r
  | s :: ss, r => jsonStringsTo ss (r.push (Json.str s))

def jsonStrings (ss : List String) : Json := Json.arr (jsonStringsTo ss #[])

def append : List Name → List Name → List Name
  | [], b => b
  | a :: as, b => append as (a :: b)

def hasName (n : Name) : List Name → Bool
  | [] => false
  | m :: ms => m == n || hasName n ms

def hasString (s : String) : List String → Bool
  | [] => false
  | t :: ts => s == t || hasString s ts

def sameNames : List Name → List Name → Bool
  | [], [] => true
  | a :: as, b :: bs => a == b && sameNames as bs
  | _, _ => false

def insertAll : List Name → NameSet → NameSet
  | [], s => s
  | n :: ns, s => insertAll ns (s.insert n)

/-! ### Names

Written without «» and without Lean's private prefix, as a reader of the library would write them. -/

def dotted : Name → String
  | .anonymous => ""
  | .str .anonymous s => s
  | .num .anonymous n => toString n
  | .str p s => dotted p ++ "." ++ s
  | .num p n => dotted p ++ "." ++ toString n

def userName (n : Name) : Name := (privateToUserName? n).getD n

def shown (n : Name) : String := dotted (userName n)

/-- Merge of two sorted lists without repetitions. -/
partial def merge : List String → List String → List String
  | [], b => b
  | a, [] => a
  | a :: as, b :: bs =>
    if a == b then merge (a :: as) bs
    else if a < b then a :: merge as (b :: bs)
    else b :: merge (a :: as) bs

def pairUp : List (List String) → List (List String)
  | a :: b :: r => merge a b :: pairUp r
  | r => r

partial def mergeAll : List (List String) → List String
  | [] => []
  | [a] => a
  | r => mergeAll (pairUp r)

def singletons : List String → List (List String)
  | [] => []
  | s :: ss => [s] :: singletons ss

def sorted (ss : List String) : List String := mergeAll (singletons ss)

/-! ### Messages -/

def maxMessages : Nat := 50
def maxMessageBytes : Nat := 4096
def maxAllBytes : Nat := 65536

def isError (m : Message) : Bool := match m.severity with | .error => true | _ => false

def firstError : List Message → Option Message
  | [] => none
  | m :: ms => if isError m then some m else firstError ms

/-- `as` reversed in front of `bs`. -/
def prepend : List Message → List Message → List Message
  | [], bs => bs
  | a :: as, bs => prepend as (a :: bs)

def reversed (ms : List Message) : List Message := prepend ms []

def count : List Message → Nat
  | [] => 0
  | _ :: ms => count ms + 1

/-- The last place at or before `bytes` where a character begins. -/
def boundary (s : String) : Nat → String.Pos.Raw
  | 0 => ⟨0⟩
  | bytes + 1 => if String.Pos.Raw.isValid s ⟨bytes + 1⟩ then ⟨bytes + 1⟩ else boundary s bytes

def cut (s : String) (bytes : Nat) : String :=
  if s.utf8ByteSize ≤ bytes then s
  else String.Pos.Raw.extract s ⟨0⟩ (boundary s bytes) ++ " [cut]"

def position (p : Position) : Json := Json.arr #[Json.num p.line, Json.num p.column]

def severity : MessageSeverity → String
  | .error => "error"
  | .warning => "warning"
  | .information => "information"

@[noinline] def textOf (m : Message) : BaseIO String := m.data.toString

def messageJson (m : Message) (text : String) : Json :=
  Json.mkObj [
    ("severity", Json.str (severity m.severity)),
    ("start", position m.pos),
    ("end", position (m.endPos.getD m.pos)),
    ("text", Json.str text)]

def note (text : String) : Json :=
  Json.mkObj [
    ("severity", Json.str "information"),
    ("start", position ⟨1, 0⟩),
    ("end", position ⟨1, 0⟩),
    ("text", Json.str text)]

/-- At most `left` messages and `bytes` bytes. -/
def messagesTo : List Message → Nat → Nat → Array Json → BaseIO (Array Json)
  | [], _, _, r => return r
  | m :: ms, left, bytes, r => do
    if left == 0 || bytes == 0 then
      return r.push (note s!"[cut: {count ms + 1} more messages]")
    let text ← textOf m
    let text := cut text (if bytes < maxMessageBytes then bytes else maxMessageBytes)
    messagesTo ms (left - 1) (bytes - text.utf8ByteSize) (r.push (messageJson m text))

/-- The errors among the messages, last first, in front of `r`; `others` likewise for the rest. -/
def errors : List Message → List Message → List Message
  | [], r => r
  | m :: ms, r => errors ms (if isError m then m :: r else r)

def others : List Message → List Message → List Message
  | [], r => r
  | m :: ms, r => others ms (if isError m then r else m :: r)

/-- In the order they came, or errors first where not all fit. -/
def messagesJson (ms : List Message) : BaseIO Json := do
  let ms := if count ms ≤ maxMessages then ms else prepend (errors ms []) (reversed (others ms []))
  return Json.arr (← messagesTo ms maxMessages maxAllBytes #[])

/-- Milliseconds as a decimal number. -/
def milliseconds (nanoseconds : Nat) : Json := Json.num { mantissa := Int.ofNat (nanoseconds / 1000), exponent := 3 }

/-! ### Pieces of texts -/

def reverseChars : List Char → List Char → List Char
  | [], r => r
  | c :: cs, r => reverseChars cs (c :: r)

def stringOf (backwards : List Char) : String := String.ofList (reverseChars backwards [])

def firstLine : List Char → List Char → String
  | [], r => stringOf r
  | '\n' :: _, r => stringOf r
  | c :: cs, r => firstLine cs (c :: r)

def afterFirstLine : List Char → List Char
  | [] => []
  | '\n' :: cs => cs
  | _ :: cs => afterFirstLine cs

/-- Pieces between blank lines, at most `left` of them. -/
def paragraphs : List Char → List Char → Nat → List String
  | [], [], _ => []
  | [], r, _ => [stringOf r]
  | _, _, 0 => []
  | '\n' :: '\n' :: cs, r, left + 1 => stringOf r :: paragraphs cs [] left
  | c :: cs, r, left + 1 => paragraphs cs (c :: r) (left + 1)

def appendStrings : List String → List String → List String
  | [], b => b
  | a :: as, b => a :: appendStrings as b

/-! ### Goals of `unsolved goals` errors -/

def maxGoals : Nat := 16

def goalsOf : List Message → Nat → BaseIO (List String)
  | [], _ => return []
  | _, 0 => return []
  | m :: ms, left + 1 => do
    if isError m && m.kind == `Tactic.unsolvedGoals then
      let text ← textOf m
      let rest ← goalsOf ms left
      return appendStrings (paragraphs (afterFirstLine (cut text maxMessageBytes).toList) [] maxGoals) rest
    else goalsOf ms (left + 1)

def goals (ms : List Message) : BaseIO Json := do
  return jsonStrings (← goalsOf ms 4)

/-- The first line of an error, for the one-line reason of a verdict. -/
def headline (m : Message) : BaseIO String := do
  let text ← textOf m
  return firstLine (cut text 300).toList []

end Wire
