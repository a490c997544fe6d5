#!/bin/bash
# `make run`: a gateway on a scratch state folder, a command through it, two that the walls stop, the journal of all.
# Stays up until it is interrupted, then leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
${CARGO:-cargo} build --locked --release
vambrace=${CARGO_TARGET_DIR:-target}/release/vambrace
scratch=$(mktemp -d)
export VAMBRACE_STATE_DIR=$scratch/state
gateway=
stop() {
  # Whoever is impatient interrupts twice.
  trap - EXIT
  trap '' INT TERM
  if [ -n "$gateway" ]; then kill "$gateway" 2>/dev/null || true; wait "$gateway" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap stop EXIT
trap 'stop; exit 0' INT TERM
port=${VAMBRACE_DEMO_PORT:-18789}
"$vambrace" gateway --port "$port" 2>"$scratch/gateway.log" & gateway=$!
until "$vambrace" health >/dev/null 2>&1; do
  kill -0 "$gateway" 2>/dev/null || { cat "$scratch/gateway.log" >&2; exit 1; }
  sleep 0.05
done

show() { printf '\n\033[1m$ vambrace exec --agent demo -- %s\033[0m\n' "${*@Q}"; "$vambrace" exec --agent demo -- "$@" || printf '(exit %s)\n' $?; }
show sh -c 'echo "hello from $(id -un), $(uname -n), in $PWD"; echo kept > note; ls -l'
echo; echo "The walls stop it from reading the gateway's own state:"
show cat "$VAMBRACE_STATE_DIR/state.sqlite"
echo; echo "... and from reaching the network, even this gateway:"
show bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
echo; echo "A secret is kept sealed, given to a run by name, and covered in its output:"
printf 'demo-key-5f2c9a\n' | "$vambrace" secrets set DEMO_KEY --agent demo
printf '\n\033[1m$ vambrace exec --agent demo --secret DEMO_KEY -- …\033[0m\n'
"$vambrace" exec --agent demo --secret DEMO_KEY -- sh -c 'ls -l /run/secrets; cat /run/secrets/DEMO_KEY; echo'
printf '\n\033[1m$ grep demo-key state.sqlite*\033[0m\n'
if grep -l demo-key-5f2c9a "$VAMBRACE_STATE_DIR"/state.sqlite*; then exit 1; fi; echo "(nothing found)"
printf '\n\033[1m$ vambrace journal list\033[0m\n'; "$vambrace" journal list
printf '\n\033[1m$ vambrace journal verify\033[0m\n'; "$vambrace" journal verify
printf '\n\033[1m$ vambrace status\033[0m\n'; "$vambrace" status
cat <<TXT

The gateway stays up until you interrupt this (Ctrl-C). Try it from another terminal:
  export VAMBRACE_STATE_DIR=$VAMBRACE_STATE_DIR
  $vambrace exec -- bash -c 'whoami; ls /'
  $vambrace journal tail
TXT
wait "$gateway"
