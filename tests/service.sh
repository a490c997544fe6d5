#!/bin/bash
# The packages in a Debian that a real systemd boots (systemd-nspawn): installed, driven by systemctl, journalctl and the
# command line, upgraded, broken, repaired, removed, purged. As root. What is missing is a failure, never skipped.
#
# Usage: tests/service.sh [--stay] [CHECK…]: all checks, or those whose names are given beside installing. With --stay the
# system runs on after them until a line is read, and how to enter it is printed. SUITE=trixie takes that release of Debian.
# The checks are functions in tests/service/checks-*.sh, each with a sentence for a name; `inm` runs a command inside.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
include=systemd,systemd-sysv,dbus,libnss-systemd,libpam-systemd,procps,iproute2,socat,curl,openssl,man-db,rpm
tools=${TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/vambrace-tools}
machine=vambrace-it-$$

fail() { echo "error: $1" >&2; [ -z "${2:-}" ] || echo "hint: $2" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "booting a system needs root" "run it as root"
for tool in systemd-nspawn mmdebstrap nsenter lintian rpm curl socat busybox; do
  command -v $tool >/dev/null ||
    fail "there is no $tool" "make needs PACKAGES='systemd-container mmdebstrap util-linux lintian rpm curl socat busybox-static'"
done
stay=
[ "${1:-}" != --stay ] || { stay=yes; shift; }
milliseconds() { date +%s%3N; }

# --- the packages: one to install, one to upgrade to --------------------------------------------------------------------
made=target/package
packaging/build.sh --revision 2 deb rpm
packaging/build.sh --revision 1 deb rpm
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
older=$(ls $made/vambrace_"$version"-1_*.deb) newer=$(ls $made/vambrace_"$version"-2_*.deb)
package=$(ls $made/vambrace-"$version"-1.*.rpm) newer_package=$(ls $made/vambrace-"$version"-2.*.rpm)

# --- a Debian, made once ------------------------------------------------------------------------------------------------
base=$tools/debian-$suite-$(echo "$include" | sha256sum | cut -c1-8)
if ! [ -d "$base" ]; then
  echo "making a Debian $suite in $base"
  mapfile -t sources < <(find /etc/apt/sources.list /etc/apt/sources.list.d -type f -size +0 \
    \( -name '*.list' -o -name '*.sources' \) 2>/dev/null | xargs -r grep -l "$suite")
  rm -rf "$base.new"
  mmdebstrap --quiet --variant=minbase --include=$include $suite "$base.new" ${sources[@]+"${sources[@]}"} >&2 ||
    fail "no Debian $suite can be made" "does apt-get update work on this host?"
  mv "$base.new" "$base"
fi

# --- booted, on an overlay that is thrown away --------------------------------------------------------------------------
work=$(mktemp -d /var/tmp/$machine.XXXXXX)
# What a host without systemd lets a container have of control groups: a group of its own in each hierarchy that matters.
# systemd from 256 on knows version 2 alone.
case $suite in bookworm) ;; *) export UNIFIED_CGROUP_HIERARCHY=1 ;; esac
hierarchies=()
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  [ -e $hierarchy/cgroup.procs ] && hierarchies+=("$hierarchy")
done
container=
leader=
cleanup() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$container" ]; then
    kill -TERM "$container" 2>/dev/null || :
    timeout 20 tail --pid="$container" -f /dev/null || kill -KILL "$container" 2>/dev/null || :
    # Killed by its monitor's death at the latest; the mount is free when it is gone.
    [ -z "$leader" ] || timeout 10 tail --pid="$leader" -f /dev/null || kill -KILL "$leader" 2>/dev/null || :
    wait "$container" 2>/dev/null || :
  fi
  ! mountpoint -q "$work/root" || umount "$work/root" || umount -l "$work/root"
  rm -rf "$work"
  for hierarchy in "${hierarchies[@]}"; do
    find "$hierarchy/$machine" -depth -type d -exec rmdir {} \; 2>/dev/null || :
  done
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir -p "$work"/{up,work,root}
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/up,workdir=$work/work" "$work/root"
cp "$older" "$work/root/root/older.deb"
cp "$newer" "$work/root/root/newer.deb"
cp "$package" "$work/root/root/older.rpm"
cp "$newer_package" "$work/root/root/newer.rpm"
for hierarchy in "${hierarchies[@]}"; do mkdir -p "$hierarchy/$machine"; done
# A machine of its own knows every system call; without that word nspawn's list, older than Landlock, would stand before it.
# shellcheck disable=SC2016
setsid bash -c 'for hierarchy in "${@:3}"; do echo $$ > "$hierarchy/$1/cgroup.procs"; done
  exec systemd-nspawn --quiet --directory="$2/root" --boot --register=no --keep-unit --machine="$1" --link-journal=no \
    --resolv-conf=off --private-network --system-call-filter=@known --console=pipe </dev/null >"$2/console.log" 2>&1' \
  boot "$machine" "$work" "${hierarchies[@]}" &
container=$!
inm() { nsenter -t "$leader" -m -u -i -n -p -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"; }
export -f inm

# Waits for a condition; its not coming true is a failure, its time no measure.
eventually() {
  local until=$((SECONDS + 30))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || { echo "never came true: $*" >&2; return 1; }
    read -rt 0.05 <> <(:) || :
  done
}
booted() {
  leader=${leader:-$(pgrep -P "$container" | head -1)}
  [ -n "$leader" ] && case $(inm systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) false ;; esac
}
began=$(milliseconds)
eventually booted || { cat "$work/console.log" >&2; fail "systemd did not come up" "what it said stands above"; }
echo "booted in $(($(milliseconds) - began)) ms: $(inm systemctl --version | head -1)"

# --- checks -------------------------------------------------------------------------------------------------------------
failed=()
ran=0
# A figure with its aim, told and not held: what else the machine does is in it.
figure() {
  local missed=
  [ "$2" -le "$3" ] || missed=', missed'
  echo "figure: $1: $2 $4 (aim: at most $3$missed)"
}
# A pipe's end must read all: `grep -q` leaves early, its writer dies of that, and pipefail says so.
# Negation that counts: a plain `! command` never ends a shell (bash(1), set -e), so it would be no check at all.
not() {
  if "$@"; then echo "this should have failed: $*"; return 1; fi
}
# In a shell of its own that ends with the first command that fails. Not as a condition: there set -e would be off.
check() {
  local name=$1 began status
  began=$(milliseconds)
  ran=$((ran + 1))
  # systemd counts starts, also those that were asked for, and refuses the sixth in a minute.
  inm systemctl reset-failed 'vambrace*' 2>/dev/null || :
  set +e
  (set -euo pipefail; shopt -s inherit_errexit; "$name") >"$work/check.log" 2>&1
  status=$?
  set -e
  if [ $status = 0 ]; then
    echo "ok    ${name//_/ } ($(($(milliseconds) - began)) ms)"
    grep '^figure: ' "$work/check.log" | sed 's/^/      /' || :
  else
    echo "FAIL  ${name//_/ }"
    sed 's/^/      | /' "$work/check.log"
    failed+=("$name")
  fi
}
wanted=("$@")
for part in package install core docker reload journal commands upgrade rpm openrc; do
  file=tests/service/checks-$part.sh
  ! grep -nE '^ *! ' "$file" || fail "$file has a negation that checks nothing" "write: not COMMAND"
  before=$(declare -F | cut -d' ' -f3 | sort)
  # shellcheck source=/dev/null
  source "$file"
  # The new functions, in the order in which they stand.
  shopt -s extdebug
  mapfile -t names < <(comm -13 <(echo "$before") <(declare -F | cut -d' ' -f3 | sort) |
    while read -r name; do declare -F "$name"; done | sort -k2n | cut -d' ' -f1)
  shopt -u extdebug
  for name in "${names[@]}"; do
    # A function without a sentence is a tool of the others.
    [[ $name == *_*_* ]] || continue
    [ ${#wanted[@]} -eq 0 ] || [ $part = install ] || [[ " ${wanted[*]} " == *" $name "* ]] || continue
    check "$name"
  done
done
if [ -n "$stay" ]; then
  echo "enter it: nsenter -t $leader -m -u -i -n -p; a line ends it"
  read -r
fi
if [ ${#failed[@]} -gt 0 ]; then
  echo "--- the last of the system's journal"
  inm journalctl --no-pager -o short-monotonic -n 60 || :
  fail "${#failed[@]} of $ran checks failed: ${failed[*]}"
fi
echo "$ran checks hold, in ${SECONDS}s"
