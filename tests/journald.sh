#!/bin/bash
# Inside a mount namespace of its own: a real journald, a gateway, one command; prints the records as journalctl has them.
set -eu
program=$1 scratch=$2
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal "$scratch"
[ -s /etc/machine-id ] || { touch "$scratch/id"; echo 0123456789abcdef0123456789abcdef > "$scratch/id"; : > /dev/null; }
if [ -e "$scratch/id" ]; then
  [ -e /etc/machine-id ] && mount --bind "$scratch/id" /etc/machine-id || { cp -a /etc/. "$scratch/etc" && cp "$scratch/id" "$scratch/etc/machine-id" && mount --bind "$scratch/etc" /etc; }
fi
journald=
for path in /lib/systemd/systemd-journald /usr/lib/systemd/systemd-journald; do [ -x "$path" ] && journald=$path; done
[ -n "$journald" ] || { echo "systemd-journald is not installed" >&2; exit 1; }
"$journald" >"$scratch/journald.log" 2>&1 & jd=$!
gw=
trap 'kill $gw $jd 2>/dev/null; wait' EXIT
for _ in $(seq 500); do [ -S /run/systemd/journal/socket ] && break; read -rt 0.02 <> <(:) || :; done
[ -S /run/systemd/journal/socket ] || { cat "$scratch/journald.log" >&2; exit 1; }
export VAMBRACE_STATE_DIR=$scratch/state
"$program" gateway --port 0 2>"$scratch/gateway.log" & gw=$!
for _ in $(seq 500); do "$program" health >/dev/null 2>&1 && break; read -rt 0.02 <> <(:) || :; done
"$program" exec -- sh -c 'exit 3' || [ $? = 3 ]
kill $gw; wait $gw || :
journalctl --sync >/dev/null 2>&1 || :
journalctl -o json --no-pager SYSLOG_IDENTIFIER=vambrace
