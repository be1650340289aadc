#!/usr/bin/env bash
# Makes a Lake project ready for native checks: elan, the toolchain of its lean-toolchain, its dependencies, and Mathlib's
# compiled files where it requires Mathlib (about 6 GB).
#
#   scripts/setup_lean.sh [PROJECT]        default: the project of our own lakefile.lean
#
# Needs bash, git, curl and the internet. Run it again after a failure: what is done is found and not done again.
# ELAN_INIT names another copy of elan's installer script (a file), for machines that cannot download it.
set -euo pipefail

# elan's own address for its installer.
readonly INSTALLER=https://elan.lean-lang.org/elan-init.sh
readonly NEEDED_KB=$((12 * 1024 * 1024))
readonly TRIES=3

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "setup_lean: $*"; }
fail() {
  printf '%s\n' "setup_lean: error: $*" >&2
  exit 1
}
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is not installed; install it and run this again"; }

# attempt WHAT COMMAND...: up to TRIES times, for what a network can spoil and a second try goes on with.
attempt() {
  local what=$1 try
  shift
  for ((try = 1; try <= TRIES; try++)); do
    if "$@"; then return 0; fi
    ((try < TRIES)) && say "$what failed; trying again ($((try + 1)) of $TRIES)"
  done
  return 1
}

find_project() {
  project=$(cd "${1:-$here}" 2>/dev/null && pwd) || fail "${1:-$here}: there is no such folder"
  [[ -f $project/lakefile.lean || -f $project/lakefile.toml ]] ||
    fail "$project: is no Lake project (neither lakefile.lean nor lakefile.toml)"
  [[ -s $project/lean-toolchain ]] || fail "$project: has no lean-toolchain"
  toolchain=$(tr -d '[:space:]' <"$project/lean-toolchain")
  needs_mathlib=no
  if grep -qsi mathlib "$project/lakefile.lean" "$project/lakefile.toml" "$project/lake-manifest.json"; then
    needs_mathlib=yes
  fi
}

install_elan() {
  export PATH="${ELAN_HOME:-$HOME/.elan}/bin:$PATH"
  if command -v elan >/dev/null 2>&1; then
    say "elan is here: $(elan --version)"
    return
  fi
  local script=${ELAN_INIT:-}
  if [[ -z $script ]]; then
    need curl
    script=$scratch/elan-init.sh
    say "downloading elan's installer"
    curl --fail --silent --show-error --location --retry "$TRIES" --proto '=https' --output "$script" "$INSTALLER" ||
      fail "elan's installer could not be downloaded; check the network and run this again, or set ELAN_INIT to a copy"
  fi
  [[ -s $script ]] || fail "$script: is no installer (missing or empty)"
  say "installing elan"
  sh "$script" -y --no-modify-path --default-toolchain none || fail "elan's installer failed; its messages are above"
  command -v elan >/dev/null 2>&1 || fail "elan was installed but not into ${ELAN_HOME:-$HOME/.elan}; set ELAN_HOME to where it is"
}

has_toolchain() {
  local listed
  listed=$(elan toolchain list) || fail "elan does not answer; delete ${ELAN_HOME:-$HOME/.elan} and run this again"
  grep -qE "^${toolchain//./\\.}( |\$)" <<<"$listed"
}

install_toolchain() {
  if has_toolchain; then
    say "the toolchain is here: $toolchain"
  else
    say "installing the toolchain $toolchain"
    attempt "the toolchain" elan toolchain install "$toolchain" ||
      fail "the toolchain $toolchain could not be installed; is its name right, and is there a network?"
  fi
  lake --version >/dev/null || fail "lake does not run in $project; its message is above"
}

fetch_dependencies() {
  if [[ $needs_mathlib == yes ]]; then
    if [[ ! -d .lake/packages/mathlib ]]; then
      local free
      free=$(df -Pk . | awk 'NR == 2 { print $4 }')
      ((free >= NEEDED_KB)) || fail "$project: $((free / 1048576)) GB free, Mathlib needs $((NEEDED_KB / 1048576)); make room"
    fi
    say "fetching Mathlib's compiled files (what is here already is kept)"
    attempt "the cache" lake exe cache get || fail "Mathlib's cache could not be fetched; run this again to go on"
  fi
  say "building $project"
  lake build || fail "$project: \`lake build\` fails; its messages are above"
}

prove_something() {
  local file=$scratch/Ready.lean
  if [[ $needs_mathlib == yes ]]; then
    printf 'import Mathlib\nexample (a b : ℝ) : (a + b) ^ 2 = a ^ 2 + 2 * a * b + b ^ 2 := by ring\n' >"$file"
  else
    printf 'example (a b : Nat) : a + b = b + a := by omega\n' >"$file"
  fi
  say "proving something"
  lake env lean "$file" || fail "$project: Lean does not accept a true theorem; its messages are above"
}

main() {
  (($# <= 1)) || fail "usage: scripts/setup_lean.sh [PROJECT]"
  [[ ${1:-} != -h && ${1:-} != --help ]] || {
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
  }
  find_project "${1:-}"
  need git
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  install_elan
  cd "$project"
  install_toolchain
  fetch_dependencies
  prove_something
  say "ready: $(lean --version)"
  say "next: prover doctor --lean-project $project"
}

main "$@"
