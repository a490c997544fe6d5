#!/bin/bash
# Runs a command with a container engine at hand: starts Docker's if none answers, and stops what it has started. What
# the tests leave in an engine that was there before, images of theirs, is removed from it.
set -uo pipefail
socket=/var/run/docker.sock
ask() { curl --silent --fail --max-time 60 --unix-socket "$socket" "$@"; }
as=; [ "$(id -u)" = 0 ] || as=sudo
log=$(mktemp)
started=
had_bridge=$(ip link show docker0 >/dev/null 2>&1 && echo yes)

if ! ask http://engine/_ping >/dev/null; then
  if [ -S "$socket" ] && ! [ -w "$socket" ]; then
    echo "error: this user may not speak to the container engine at $socket" >&2
    echo "hint: add it to the group docker, or run as root" >&2
    exit 1
  fi
  echo "starting a container engine"
  $as dockerd >"$log" 2>&1 &
  started=$!
  for _ in $(seq 300); do
    ask http://engine/_ping >/dev/null && break
    kill -0 "$started" 2>/dev/null || break
    read -r -t 0.2 <> <(:) || :
  done
  if ! ask http://engine/_ping >/dev/null; then
    echo "error: dockerd did not start" >&2
    tail -5 "$log" >&2
    exit 1
  fi
fi

"$@"
done=$?

# Images and containers of tests bear this label, and what is made of them inherits it.
filters=$(printf '{"label":["io.vambrace.test"]}' | sed 's/{/%7B/; s/}/%7D/; s/\[/%5B/; s/\]/%5D/; s/"/%22/g')
ids() { grep -o '"Id":"[^"]*"' | cut -d'"' -f4; }
for id in $(ask "http://engine/v1.41/containers/json?all=1&filters=$filters" | ids); do
  ask -X DELETE "http://engine/v1.41/containers/$id?force=1&v=1" >/dev/null
done
for id in $(ask "http://engine/v1.41/images/json?filters=$filters" | ids); do
  ask -X DELETE "http://engine/v1.41/images/$id?force=1" >/dev/null
done
if [ -n "$started" ]; then
  $as kill "$(cat /var/run/docker.pid)" && wait "$started"
  [ -n "$had_bridge" ] || $as ip link delete docker0 2>/dev/null
fi
rm -f "$log"
exit $done
