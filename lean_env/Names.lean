module
public meta import Wire

/-!
Names that are not a candidate's to declare, though the environment may not have them.

The kernel computes with some constants by their names alone. And what the library holds at the exported level mentions
constants that it does not hold: whoever declared those would decide what the library's own theorems say.
-/

public meta section
set_option compiler.extract_closed false
open Lean

namespace Names

/-- Names that the kernel computes with whoever declared them. -/
def kernel : List Name :=
  [``Nat, ``Nat.zero, ``Nat.succ, ``Nat.add, ``Nat.sub, ``Nat.mul, ``Nat.div, ``Nat.mod, ``Nat.gcd, ``Nat.beq, ``Nat.ble,
   ``Nat.land, ``Nat.lor, ``Nat.xor, ``Nat.shiftLeft, ``Nat.shiftRight, ``Nat.pow, ``Nat.log2, ``Bool, ``Bool.true,
   ``Bool.false, ``Char, ``Char.ofNat, ``String, ``String.ofList, ``List, ``List.nil, ``List.cons, ``Quot, ``Quot.mk,
   ``Quot.lift, ``Quot.ind, ``Eq, ``eagerReduce, ``Lean.reduceBool, ``Lean.reduceNat]

/-- What constants of this library mention that the modules which they import publicly lack, but for private names; a test
holds the list against all of the library. A header that imports one of those modules and not the whole library may leave
any of them open. -/
def lacking : List Name :=
  [`Array, `Bool, `ByteArray.utf8Decode?.go._unary.induct_unfolding, `Classical.propDecidable, `Int16,
   `Lean.Grind.CommRing.Mon.revlexWF._unary.induct_unfolding,
   `Lean.Grind.CommRing.Poly.combineC._unary.induct_unfolding,
   `Lean.Grind.Linarith.Poly.combine._unary.induct_unfolding, `Lean.JsonRpc.MessageDirection,
   `Lean.Meta.GeneralizeArg, `Lean.Meta.Grind.registerBuiltinDownwardPropagator,
   `Lean.Meta.Grind.registerBuiltinUpwardPropagator, `Lean.Meta.Tactic.TryThis.Suggestion, `Lean.Name, `Lean.Options,
   `Lean.PrettyPrinter.Formatter, `Lean.PrettyPrinter.Parenthesizer, `Lean.PrettyPrinter.formatterAttribute,
   `Lean.PrettyPrinter.parenthesizerAttribute, `Lean.Widget.addBuiltinModule, `Option,
   `Std.DTreeMap.Internal.Impl.Const.maxEntry._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.Const.minEntry._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.link!._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.link2!._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.maxEntry._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.maxKey._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.minEntry._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.minKey._unary.induct_unfolding,
   `Std.DTreeMap.Internal.Impl.minKeyD._unary.induct_unfolding, `Std.Iter.atIdxSlow?._unary.induct_unfolding,
   `Std.Iter.step_filterMapWithPostcondition.match_3, `Std.IterM.DefaultConsumers.forIn'.wf._unary.induct_unfolding,
   `Std.IterM.DefaultConsumers.forIn'_eq_match_step.match_1, `Std.IterM.DefaultConsumers.forIn'_eq_match_step.match_3,
   `Std.IterM.step_filterMapWithPostcondition.match_3, `Std.IterM.toArray_eq_match_step.match_1,
   `Std.Time.ZonedDateTime, `String, `String.Slice.Pos.remainingBytes, `String.utf8EncodeChar.eq_def,
   `System.FilePath, `UInt32, `Vector]

/-- A private name of another module. The exported level mentions some 500 of those that it does not have. -/
def isForeign (env : Environment) (n : Name) : Bool :=
  isPrivateName n && mkPrivateName env (Wire.userName n) != n

/-- Whether a name that the header's environment `env` does not have may be declared after it. -/
def isFree (env : Environment) (n : Name) : Bool :=
  !isForeign env n && !Wire.hasName n lacking && !Wire.hasName n kernel

end Names
