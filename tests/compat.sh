#!/usr/bin/env bash
# Proves that OpenClaw's own command line, unchanged, works against our port: it is installed from npm,
# pointed at a gateway of ours that this script starts, and its answers must be the ones we gave.
#
#   tests/compat.sh PATH/TO/vambrace
#
# Needs: Linux with bash, coreutils, grep, sed and npm (with any node), npm's registry, 900 MB of room.
# The packages are `node` (24, which OpenClaw asks for) and `openclaw`; they go into a scratch folder, or into
# $VAMBRACE_COMPAT_DIR, where a second run finds them. $VAMBRACE_COMPAT_OPENCLAW names another version of
# `openclaw`. All traffic but npm's stays on loopback. Fails where something is missing; skips nothing.
#
# What counts as proof: OpenClaw's `gateway probe` and `status` exit 0 and say "reachable" also when they
# were refused. So each command must, besides, show something that only our gateway could have told it,
# and our gateway must have let it in; and with a wrong token, or with the gateway gone, it must not pass.

set -euo pipefail

# The version whose protocol we speak. Named exactly: without a version, npm under an older node picks the
# newest one that node can run, which is an empty placeholder.
readonly openclaw_version="${VAMBRACE_COMPAT_OPENCLAW:-2026.9.6}"
readonly node_version=24

die() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

[[ $# -eq 1 ]] || die "usage: $0 PATH/TO/vambrace" "build it with: cargo build --release"
[[ -f $1 && -x $1 ]] || die "$1 is no program" "build it with: cargo build --release"
vambrace=$(realpath "$1")
for tool in npm node timeout grep sed sha256sum; do
    command -v "$tool" >/dev/null || die "$tool is not here" "install npm with node, coreutils, grep and sed"
done

# --- Scratch, and what undoes everything ---

scratch=$(realpath "$(mktemp -d)")
readonly scratch state="$scratch/state" claw="$scratch/claw"
gateway=

stop_gateway() {
    local pid=$gateway tries=0
    gateway=
    [[ -n $pid ]] || return 0
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((++tries > 100)); then
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || true
}

clean_up() {
    stop_gateway
    # The one thing OpenClaw keeps elsewhere: empty lock files, named after the hash of its database's path.
    local hash
    hash=$(printf %s "$claw/state/openclaw.sqlite" | sha256sum)
    rm -f "/tmp/openclaw-state-locks-$(id -u)"/*."${hash:0:8}".lock.sqlite
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$scratch/home" "$scratch/tmp" "$claw"

# --- The client ---

# A folder of our own below the caller's, because half-made installs in it are removed.
packages="${VAMBRACE_COMPAT_DIR:-$scratch}/vambrace-compat"
mkdir -p "$packages"
packages=$(realpath "$packages")
node_bin="$packages/node/node_modules/node/bin"
openclaw="$packages/openclaw/node_modules/openclaw/openclaw.mjs"

# `fetch FOLDER SPEC [OPTION]…`: leaves a mark when all is there, so that a broken-off install is begun anew.
fetch() {
    local folder="$packages/$1" spec=$2
    shift 2
    [[ -f $folder/installed && $(<"$folder/installed") == "$spec" ]] && return
    rm -rf "$folder"
    mkdir -p "$folder"
    printf '# installing %s\n' "$spec"
    timeout 600 npm install --prefix "$folder" --no-audit --no-fund --no-progress "$@" "$spec" \
        >"$scratch/npm.log" 2>&1 </dev/null || {
        cat "$scratch/npm.log" >&2
        die "npm could not install $spec" "npm needs a registry it can reach that has the package $spec"
    }
    printf '%s' "$spec" >"$folder/installed"
}

# Each in a folder of its own: node's package puts its program there by an install script, and npm tidies such
# things away when it installs the next package. OpenClaw's scripts wait for its first start, as npm 12 has it.
fetch node "node@$node_version"
[[ $("$node_bin/node" --version 2>/dev/null) == "v$node_version."* ]] ||
    die "npm's package node@$node_version brought no working node $node_version" \
        "allow install scripts for the package \"node\", or remove $packages/node and try again"
PATH="$node_bin:$PATH" fetch openclaw "openclaw@$openclaw_version" --ignore-scripts
[[ -f $openclaw ]] ||
    die "openclaw@$openclaw_version has no command line" "name another version in VAMBRACE_COMPAT_OPENCLAW"

# --- The gateway ---

# Nothing of the caller's own settings, of either program, takes part.
clean=(env -i "HOME=$scratch/home" "TMPDIR=$scratch/tmp" "PATH=$PATH")
ours() { timeout 20 "${clean[@]}" "$vambrace" "$@" --state-dir "$state"; }

"${clean[@]}" VAMBRACE_LOG=debug "$vambrace" gateway --state-dir "$state" --port 0 >"$scratch/gateway.log" 2>&1 &
gateway=$!

gateway_failed() {
    cat "$scratch/gateway.log" >&2
    die "$1" "run it by hand: $vambrace gateway --state-dir DIR --port 0"
}
tries=0
until ours health >"$scratch/health.log" 2>&1; do
    kill -0 "$gateway" 2>/dev/null || gateway_failed "the gateway ended at once"
    ((++tries < 150)) || { cat "$scratch/health.log" >&2; gateway_failed "the gateway did not become ready"; }
    sleep 0.1
done

# Reads JSON (after any heading) from stdin and prints what EXPRESSION says of it as `v`.
ask_json() {
    "$node_bin/node" -e '
        const text = require("fs").readFileSync(0, "utf8");
        const v = JSON.parse(text.slice(text.indexOf("{")));
        console.log(new Function("v", `return ${process.argv[1]}`)(v));
    ' "$1"
}

port=$(ours status --json | ask_json 'v.addresses.map(a => /^127\.0\.0\.1:(\d+)$/.exec(a)).find(Boolean)[1]')
token=$(ours token show)
version=$("${clean[@]}" "$vambrace" --version)
version=${version##* }

# --- OpenClaw, pointed at it by its own settings ---

# `mode` makes its `status` ask a gateway at all; the rest keeps it from the network and inside scratch.
cat >"$claw/openclaw.json" <<END
{"gateway": {"mode": "local"}, "update": {"checkOnStart": false}, "logging": {"file": "$scratch/openclaw.log"}}
END

# `openclaw TOKEN ARGUMENT…`; only node on its PATH, so that it asks nothing of this host's service manager.
openclaw() {
    local token=$1
    shift
    timeout --kill-after=5 120 "${clean[@]}" "PATH=$node_bin" \
        "OPENCLAW_STATE_DIR=$claw" "OPENCLAW_CONFIG_PATH=$claw/openclaw.json" \
        "OPENCLAW_GATEWAY_PORT=$port" "OPENCLAW_GATEWAY_TOKEN=$token" \
        OPENCLAW_NO_AUTO_UPDATE=1 OPENCLAW_DISABLE_BONJOUR=1 \
        "$node_bin/node" "$openclaw" "$@" </dev/null
}

# --- Checks ---

passed=0
failed=0
output="$scratch/output"

ok() {
    printf 'ok %s\n' "$1"
    passed=$((passed + 1))
}

not_ok() {
    printf 'not ok %s: %s\n' "$1" "$2"
    sed 's/^/    /' "$output"
    failed=$((failed + 1))
}

# How many connections with our token the gateway has let in, by its own log.
let_in() { grep -cE ' connected .*principal=token' "$scratch/gateway.log" || true; }

# `accepted NAME PROOF ARGUMENT…`: `openclaw ARGUMENT…` exits 0, our gateway let it in, and PROOF holds of what it said.
accepted() {
    local name=$1 proof=$2 before status=0
    shift 2
    before=$(let_in)
    openclaw "$token" "$@" >"$output" 2>&1 || status=$?
    if ((status != 0)); then
        not_ok "$name" "exit code $status"
    elif (($(let_in) <= before)); then
        not_ok "$name" "our gateway let nobody in"
    elif ! "$proof"; then
        not_ok "$name" "the output lacks what $proof looks for"
    else
        ok "$name"
    fi
}

# `refused NAME TOKEN PATTERN ARGUMENT…`: it exits with failure, says PATTERN, and nobody was let in.
refused() {
    local name=$1 with=$2 pattern=$3 before status=0
    shift 3
    before=$(let_in)
    openclaw "$with" "$@" >"$output" 2>&1 || status=$?
    if ((status == 0 || status >= 124)); then
        not_ok "$name" "exit code $status"
    elif (($(let_in) != before)); then
        not_ok "$name" "our gateway let somebody in"
    elif ! grep -q -- "$pattern" "$output"; then
        not_ok "$name" "the output lacks \"$pattern\""
    else
        ok "$name"
    fi
}

says() { grep -qE -- "$1" "$output"; }
is_true() { [[ $(ask_json "$1" <"$output" 2>>"$output") == true ]]; }

# `failing` is a field of ours; the original's health has none.
our_health() { is_true 'v.ok === true && Array.isArray(v.failing) && v.failing.length === 0'; }
health_summary() { says '^Gateway probe duration: [0-9]+ms' && says '^Agents: main'; }
# A probe has no scopes, with the original's own gateway too; one that is refused says "Capability: unknown".
probe_got_in() {
    says '^Reachable: yes' && says '^Capability: connected-no-operator-scope' &&
        says "ws://127\.0\.0\.1:$port" && says 'Connect: ok .*Read probe: limited - missing scope: operator\.read'
}
probe_names_us() {
    is_true "v.ok === true && v.targets[0].connect.ok === true && v.targets[0].server.version === '$version'"
}
status_reaches() { says "ws://127\.0\.0\.1:$port .* reachable [0-9]+ms .*auth token"; }
status_names_us() { is_true "v.gateway.reachable === true && v.pid === $gateway && v.stateDir === '$state'"; }

printf '# openclaw %s, %s, vambrace %s\n' "$openclaw_version" "$("$node_bin/node" --version)" "$version"

accepted 'gateway call health' our_health gateway call health
accepted 'health' health_summary health
accepted 'health --json' our_health health --json
accepted 'gateway probe' probe_got_in gateway probe
accepted 'gateway probe --json' probe_names_us gateway probe --json
accepted 'status' status_reaches status
accepted 'status --json' status_names_us status --json

refused 'gateway call health, with a wrong token' "not-$token" 'unauthorized: .*token mismatch' gateway call health
refused 'health, with a wrong token' "not-$token" 'unauthorized: .*token mismatch' health
stop_gateway
refused 'gateway call health, with the gateway gone' "$token" 'not reachable' gateway call health

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
