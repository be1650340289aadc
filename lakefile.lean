import Lake
open Lake DSL

/-!
A Lake workspace for native use: `scripts/setup_lean.sh` makes Lean 4.28.0 with Mathlib v4.28.0 available here, and
`lean.type = "native"` checks with it. The pipeline itself needs none of it: its embedded Lean comes with `prover setup`.
-/

package prover

require "leanprover-community" / "mathlib" @ git "v4.28.0"
