#!/usr/bin/env bash
# Proves that OpenClaw's own command line and its node host, unchanged, work against our port: they are installed
# from npm, pointed at gateways of ours that this script starts, and their answers must be the ones we gave.
#
#   tests/compat.sh PATH/TO/vambrace
#
# Needs: root on Linux with bash, coreutils, grep, sed, util-linux and npm (with any node), npm's registry, 900 MB
# of room, and the uid 61234, which nodes run as: a device of the operator's own uid would be paired without a word.
# The packages are `node` (24, which OpenClaw asks for) and `openclaw`; they go into a scratch folder, or into
# $VAMBRACE_COMPAT_DIR, where a second run finds them. $VAMBRACE_COMPAT_OPENCLAW names another version of
# `openclaw`. All traffic but npm's stays on loopback. Fails where something is missing; skips nothing.
#
# What counts as proof: OpenClaw's `gateway probe` and `status` exit 0 and say "reachable" also when they
# were refused. So each command must, besides, show something that only our gateway could have told it,
# and our gateway must have let it in; and with a wrong token, or with the gateway gone, it must not pass.
# A change must stand in our journal, made by our token. What a node says of itself must be so on our side, too.

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
for tool in npm node timeout grep sed sha256sum setpriv setsid; do
    command -v "$tool" >/dev/null ||
        die "$tool is not here" "install npm with node, coreutils, grep, sed and util-linux"
done
((EUID == 0)) || die "nodes run as another user than the operator, and only root can start them so" "run it as root"

# --- Scratch, and what undoes everything ---

scratch=$(realpath "$(mktemp -d)")
readonly scratch state="$scratch/state" tls="$scratch/tls" claw="$scratch/claw" nodes="$scratch/nodes"
readonly stranger=61234
gateway=
tls_gateway=
node=

# `stop PID`: and waits for its end. Without one there is nothing to do.
stop() {
    local tries=0
    [[ -n $1 ]] || return 0
    kill "$1" 2>/dev/null || true
    while kill -0 "$1" 2>/dev/null; do
        if ((++tries > 100)); then
            kill -KILL "$1" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    wait "$1" 2>/dev/null || true
}

stop_gateway() {
    local pid=$gateway
    gateway=
    stop "$pid"
}

# A node is a process group of its own; whatever outlives its first process goes with it.
stop_node() {
    local pid=$node
    node=
    stop "$pid"
    [[ -z $pid ]] || kill -KILL -- "-$pid" 2>/dev/null || true
}

# What OpenClaw keeps elsewhere: empty lock files, named after the hash of its database's path.
# `remove_locks UID FOLDER`: FOLDER is its state folder.
remove_locks() {
    local hash
    hash=$(printf %s "$2/state/openclaw.sqlite" | sha256sum)
    rm -f "/tmp/openclaw-state-locks-$1"/*."${hash:0:8}".lock.sqlite
}

clean_up() {
    stop_node
    stop "$tls_gateway"
    stop_gateway
    remove_locks 0 "$claw"
    local home
    for home in "$nodes"/*/; do
        remove_locks "$stranger" "${home%/}"
    done
    rmdir "/tmp/openclaw-state-locks-$stranger" 2>/dev/null || true
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$scratch/home" "$scratch/tmp" "$claw" "$nodes"
# Nodes reach their own homes through it, and see nothing on the way.
chmod 711 "$scratch" "$nodes"

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
# `at STATE ARGUMENT…`: our own command line, and the gateway with this state folder.
at() {
    local of=$1
    shift
    timeout 20 "${clean[@]}" "$vambrace" "$@" --state-dir "$of" --config "$of.toml"
}
ours() { at "$state" "$@"; }

gateway_failed() {
    cat "$1.log" >&2
    die "$2" "run it by hand: $vambrace gateway --state-dir DIR --port 0"
}

# `start_gateway STATE`: its settings are in STATE.toml, its log is STATE.log, its process is `started`.
start_gateway() {
    local tries=0
    "${clean[@]}" VAMBRACE_LOG=debug "$vambrace" gateway --state-dir "$1" --config "$1.toml" --port 0 \
        >"$1.log" 2>&1 </dev/null &
    started=$!
    until at "$1" health >"$scratch/health.log" 2>&1; do
        kill -0 "$started" 2>/dev/null || gateway_failed "$1" "the gateway ended at once"
        ((++tries < 150)) || {
            cat "$scratch/health.log" >&2
            gateway_failed "$1" "the gateway did not become ready"
        }
        sleep 0.1
    done
}

: >"$state.toml"
printf '[gateway.tls]\nenabled = true\n' >"$tls.toml"
start_gateway "$state"
gateway=$started
start_gateway "$tls"
tls_gateway=$started

# Reads JSON (after any heading) from stdin and prints what EXPRESSION says of it as `v`.
ask_json() {
    "$node_bin/node" -e '
        const text = require("fs").readFileSync(0, "utf8");
        const v = JSON.parse(text.slice(text.search(/^(\{|\[(?=\s*[\]{]))/m)));
        console.log(new Function("v", `return ${process.argv[1]}`)(v));
    ' "$1"
}

port_of() {
    at "$1" status --json | ask_json 'v.addresses.map(a => /^127\.0\.0\.1:(\d+)$/.exec(a)).find(Boolean)[1]'
}

port=$(port_of "$state")
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

# --- OpenClaw's node host, as another user ---

as_stranger=(setsid setpriv --reuid "$stranger" --regid "$stranger" --clear-groups env -i "PATH=$node_bin")

# `at_home NAME`: what makes a folder below `nodes` the home of a node.
at_home() {
    home="$nodes/$1"
    [[ -d $home ]] && return
    mkdir -p "$home/tmp"
    printf '{"update": {"checkOnStart": false}}\n' >"$home/openclaw.json"
    chown -R "$stranger:$stranger" "$home"
    chmod 700 "$home"
}

# `node_program NAME TOKEN ARGUMENT…` puts into `program` how a node is started; with no TOKEN it has what it stored.
node_program() {
    local token=$2
    at_home "$1"
    shift 2
    program=("${as_stranger[@]}" "HOME=$home" "TMPDIR=$home/tmp" "OPENCLAW_STATE_DIR=$home"
        OPENCLAW_NO_AUTO_UPDATE=1 OPENCLAW_DISABLE_BONJOUR=1 ${token:+"OPENCLAW_GATEWAY_TOKEN=$token"}
        "$node_bin/node" "$openclaw" "$@")
}

# `start_node NAME TOKEN ARGUMENT…`: `openclaw node run ARGUMENT…`, in place of the one that ran before.
start_node() {
    stop_node
    node_program "$1" "$2" node run "${@:3}"
    node_log="$nodes/$1.log"
    # Emptied here and not by the process to come: what the node before it said is not to be read as its words.
    : >"$node_log"
    "${program[@]}" >>"$node_log" 2>&1 </dev/null &
    node=$!
}

at_home box
"${as_stranger[@]}" "$node_bin/node" -e '
    const fs = require("fs");
    fs.accessSync(process.argv[1], fs.constants.R_OK);
    fs.accessSync(process.argv[2], fs.constants.W_OK);
' "$openclaw" "$home" >"$scratch/access.log" 2>&1 </dev/null || {
    cat "$scratch/access.log" >&2
    die "uid $stranger, which nodes run as, cannot read OpenClaw or write below $nodes" \
        "let everybody through the folders above, or set TMPDIR and VAMBRACE_COMPAT_DIR to others"
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
let_in() { grep -cE ' connected .*principal=token' "$state.log" || true; }

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

# --- Checks of nodes ---

alive() { kill -0 "$node" 2>/dev/null; }

# `said PATTERN TIMES`: waits until the node has said it so often; one that has ended says nothing more.
said() {
    local tries=0 ended=false
    until (($(grep -cE -- "$1" "$node_log") >= $2)); do
        if $ended || ((++tries > 400)); then
            return 1
        fi
        alive || ended=true
        sleep 0.1
    done
}

# `node_shows NAME PATTERN TIMES PROOF`: the node says PATTERN the TIMES-th time, and PROOF holds of our side.
node_shows() {
    local as_told=true
    said "$2" "$3" || as_told=false
    cp "$node_log" "$output"
    if ! $as_told; then
        not_ok "$1" "the node does not say \"$2\" (time $3)"
    elif ! "$4"; then
        not_ok "$1" "$4 does not hold"
    else
        ok "$1"
    fi
}

# `answered NAME PATTERN ARGUMENT…`: our gateway lets it in and refuses what it asks, saying PATTERN.
answered() {
    local name=$1 pattern=$2 before status=0
    shift 2
    before=$(let_in)
    openclaw "$token" "$@" >"$output" 2>&1 || status=$?
    if ((status == 0 || status >= 124)); then
        not_ok "$name" "exit code $status"
    elif (($(let_in) <= before)); then
        not_ok "$name" "our gateway let nobody in"
    elif ! says "$pattern"; then
        not_ok "$name" "the output lacks \"$pattern\""
    else
        ok "$name"
    fi
}

# Where nothing is found, a word that is in no answer.
or_nothing() { "$@" 2>/dev/null || echo nothing; }

# `ours_say STATE EXPRESSION ARGUMENT…`: what our own command line prints as JSON.
ours_say() { [[ $(at "$1" "${@:3}" --json 2>>"$output" | or_nothing ask_json "$2") == true ]]; }
pending() { at "$1" devices list --json | or_nothing ask_json "v.pending[0].$2"; }

# The latest entry of the journal about EVENT: it was our token that asked for it, for TARGET.
journaled() {
    local entry
    entry=$(ours journal list --json --event "$1" --limit 1 2>>"$output") || return
    [[ $entry == *'"principal":"token"'* && $entry == *"\"target\":\"$2\""* ]]
}
# How many connections of the node our gateway has let in, and how often it has refused one for RULE.
nodes_let_in() { grep -cE " connected .*principal=device:$device role=\"node\"" "$state.log" || true; }
refusals() { ours journal list --json --event auth.refused --limit 500 | grep -c "\"rule\":\"$1\"" || true; }

request=
device=
known_request=
surface=
let_in_before=0
refused_before=0

# The request that the node names is the one that waits at our gateway, and nobody is paired by it.
waits_with_us() {
    request=$(pending "$state" requestId)
    device=$(pending "$state" deviceId)
    local one='v.pending.length === 1 && v.pending[0].role === "node" && v.paired.length === 0'
    alive && [[ $request != "$known_request" && $request =~ ^[0-9a-f]{32}$ ]] &&
        says "connect failed: device pairing required \(requestId: $request\)" && ours_say "$state" "$one" devices list
}
lists_request() { says "$request" && says '^Pending \(1\)'; }
lists_device_asking() {
    is_true "v.paired.length === 0 && v.pending[0].requestId === '$request'" &&
        is_true "v.pending.length === 1 && v.pending[0].deviceId === '$identity'" &&
        is_true "v.pending[0].deviceId === '$device' && v.pending[0].displayName === 'compat-box'"
}
device_approved() {
    is_true "v.requestId === '$request' && v.device.deviceId === '$device'" && journaled device.approved "$request"
}
device_rejected() { journaled device.rejected "$request" && ours_say "$state" 'v.pending.length === 0' devices list; }

has_come_in() { (($(nodes_let_in) > let_in_before)) && alive; }
has_come_back() { has_come_in && ! says 'paused' && (($(refusals AUTH_DEVICE_TOKEN_MISMATCH) == 0)); }

offers_nothing_yet() {
    is_true "v.nodeId === '$device' && v.connected === true && v.approvalState === 'pending-approval'" &&
        is_true 'v.commands.length === 0 && v.caps.length === 0'
}
# What the node says at its start that it advertises, as a list in JSON.
advertised() {
    sed -n 's/^\[node-host\] advertised commands: //p' "$node_log" | sed 's/[^, ][^,]*/"&"/g; s/.*/[&]/'
}
same_commands() {
    is_true "$1.commands.length > 1 && $1.commands.slice().sort().join() === $(advertised).sort().join()"
}
lists_surface() {
    surface=$(or_nothing ask_json 'v[0].requestId' <"$output")
    is_true "v.length === 1 && v[0].nodeId === '$device' && v[0].requiredApproveScopes.includes('operator.admin')" &&
        same_commands 'v[0]'
}
node_approved() { journaled node.approved "$surface" && same_commands v.node; }
no_surface_waits() { is_true 'v.length === 0'; }
lists_node() { says '^Pending: 0 · Paired: 1' && says "compat-box .*$device"; }
offers_all() {
    is_true "v.nodeId === '$device' && v.connected === true && v.approvalState === 'approved'" && same_commands v
}

device_renamed() {
    journaled device.renamed "$device" && ours_say "$state" 'v.paired[0].operatorLabel === "shed"' devices list
}
node_renamed() { journaled node.renamed "$device" && ours_say "$state" 'v.nodes[0].displayName === "barn"' node list; }
# A token goes to its own device alone.
token_withheld() {
    is_true "v.deviceId === '$device' && v.tokenDelivery === 'withheld-cross-device' && !('token' in v)" &&
        journaled device.token.rotated "$device node"
}
token_revoked() {
    is_true "v.deviceId === '$device' && v.revokedAtMs > 0" && journaled device.token.revoked "$device node"
}
is_kept_out() {
    alive && says '^node host gateway closed \(4001\): device removed' && (($(nodes_let_in) == let_in_before)) &&
        (($(refusals AUTH_DEVICE_TOKEN_MISMATCH) > refused_before))
}
device_removed() { journaled device.removed "$device" && ours_say "$state" 'v.paired.length === 0' devices list; }
lists_nobody() { is_true 'v.pending.length === 0 && v.paired.length === 0'; }

came_with_code() {
    device=$(at "$state" devices list --json | or_nothing ask_json 'v.paired[0].deviceId')
    (($(nodes_let_in) == 1)) && ours_say "$state" \
        'v.pending.length === 0 && v.paired.length === 1 && v.paired[0].approvedVia === "bootstrap"' devices list
}
code_is_used() {
    (($(refusals AUTH_BOOTSTRAP_TOKEN_INVALID) == 1)) && ours_say "$state" \
        "v.pending.length === 0 && v.paired.length === 1 && v.paired[0].deviceId === '$device'" devices list
}
surface_rejected() { journaled node.rejected "$surface" && ours_say "$state" 'v.length === 0' node pending; }
offers_nothing() {
    is_true "v.nodeId === '$device' && v.connected === true && v.approvalState === 'unapproved'" &&
        is_true 'v.commands.length === 0'
}
node_removed() { journaled node.removed "$device" && ours_say "$state" 'v.nodes.length === 0' node list; }

nobody_asked_over_tls() { ours_say "$tls" 'v.pending.length === 0 && v.paired.length === 0' devices list; }
waits_over_tls() { says "requestId: $(pending "$tls" requestId)\)" && alive; }

printf '# openclaw %s, %s, vambrace %s\n' "$openclaw_version" "$("$node_bin/node" --version)" "$version"

accepted 'gateway call health' our_health gateway call health
accepted 'health' health_summary health
accepted 'health --json' our_health health --json
accepted 'gateway probe' probe_got_in gateway probe
accepted 'gateway probe --json' probe_names_us gateway probe --json
accepted 'status' status_reaches status
accepted 'status --json' status_names_us status --json

# How a node says that it does not try again by itself; the reason, and what it does now, come after it.
paused='reconnect paused after close \(1008\): .* detail'

# A node is unknown, asks, is let in, and after that offers what an operator enabled, until it is taken away.
here=(--host 127.0.0.1 --port "$port" --display-name compat-box)
start_node box "$token" "${here[@]}"
node_shows 'node run, unknown: asks and waits' "$paused=PAIRING_REQUIRED; waiting" 1 waits_with_us
node_program box '' node identity --json
identity=$(timeout 60 "${program[@]}" 2>/dev/null </dev/null | or_nothing ask_json v.deviceId) || true
accepted 'devices list' lists_request devices list
accepted 'devices list --json' lists_device_asking devices list --json
accepted 'devices approve' device_approved devices approve "$request" --json

start_node box "$token" "${here[@]}"
node_shows 'node run, approved: gets in' '^node host gateway connected: ws://127\.0\.0\.1' 1 has_come_in
accepted 'nodes describe, before its commands are enabled' offers_nothing_yet nodes describe --node "$device" --json
accepted 'nodes pending' lists_surface nodes pending --json
accepted 'nodes approve' node_approved nodes approve "$surface"
accepted 'nodes list' lists_node nodes list
accepted 'nodes describe' offers_all nodes describe --node compat-box --json

# From here on without the shared token: with it, it would come back by that.
let_in_before=$(nodes_let_in)
start_node box '' "${here[@]}"
node_shows 'node run, with its own token alone: gets in' '^node host gateway connected: ' 1 has_come_in
accepted 'nodes pending, enabled before' no_surface_waits nodes pending --json
accepted 'devices rename' device_renamed devices rename --device "$device" --name shed
accepted 'nodes rename' node_renamed nodes rename --node "$device" --name barn
accepted 'nodes describe, by its new name' offers_all nodes describe --node barn --json

# The token before the present one opens five minutes longer, so that the node can fetch the present one; that
# before it opens nothing. So a node that comes back after a second rotation was given the token of the first.
for time in 1 2; do
    let_in_before=$(nodes_let_in)
    accepted "devices rotate ($time)" token_withheld devices rotate --device "$device" --role node
    node_shows "node run, rotated ($time): its connection is closed" \
        '^node host gateway closed \(4001\): device removed' "$time" alive
    node_shows "node run, rotated ($time): comes back" '^node host gateway connected: ' $((time + 1)) has_come_back
done
let_in_before=$(nodes_let_in)
start_node box '' "${here[@]}"
node_shows 'node run, rotated: gets in when started anew' '^node host gateway connected: ' 1 has_come_in

let_in_before=$(nodes_let_in)
refused_before=$(refusals AUTH_DEVICE_TOKEN_MISMATCH)
accepted 'devices revoke' token_revoked devices revoke --device "$device" --role node
node_shows 'node run, revoked: is kept out' "$paused=AUTH_DEVICE_TOKEN_MISMATCH; waiting" 1 is_kept_out
accepted 'devices remove' device_removed devices remove "$device"
accepted 'devices list, after that' lists_nobody devices list --json

known_request=$request
start_node box "$token" "${here[@]}"
node_shows 'node run, removed: asks anew' "$paused=PAIRING_REQUIRED; waiting" 1 waits_with_us
accepted 'devices reject' device_rejected devices reject "$request"
answered 'device.pair.approve, of what was rejected' 'unknown requestId' \
    gateway call device.pair.approve --params "{\"requestId\": \"$request\"}"

# A setup code lets one node in, and enables nothing.
code=$(ours devices invite --role node --public-url "ws://127.0.0.1:$port" --json | ask_json v.setupCode)
start_node invited '' --pair "$code"
node_shows 'node run --pair: gets in at once' '^node host gateway connected: ' 1 came_with_code
let_in_before=$(nodes_let_in)
start_node late '' --pair "$code"
node_shows 'node run --pair, with a code that was used: is refused' \
    "$paused=AUTH_BOOTSTRAP_TOKEN_INVALID; exiting" 1 code_is_used
start_node invited ''
node_shows 'node run, paired by a code: gets in without it' '^node host gateway connected: ' 1 has_come_in
accepted 'nodes pending, after a code' lists_surface nodes pending --json
accepted 'nodes reject' surface_rejected nodes reject "$surface"
accepted 'nodes describe, after that' offers_nothing nodes describe --node "$device" --json
let_in_before=$(nodes_let_in)
refused_before=$(refusals AUTH_DEVICE_TOKEN_MISMATCH)
accepted 'nodes remove' node_removed nodes remove --node "$device"
node_shows 'node run, removed as a node: is kept out' "$paused=AUTH_DEVICE_TOKEN_MISMATCH; waiting" 1 is_kept_out

# Over TLS a node speaks with the gateway whose certificate it was told, and with no other.
tls_token=$(at "$tls" token show)
fingerprint=$(at "$tls" status --json | ask_json v.tls.fingerprint)
# The same but for its last digit.
other=${fingerprint%?}$([[ $fingerprint == *0 ]] && echo 1 || echo 0)
there=(--host 127.0.0.1 --port "$(port_of "$tls")" --tls --tls-fingerprint)
start_node outside "$tls_token" "${there[@]}" "$other"
node_shows 'node run --tls, another fingerprint: asks nothing of us' 'gateway tls fingerprint mismatch' 1 \
    nobody_asked_over_tls
start_node outside "$tls_token" "${there[@]}" "$fingerprint"
node_shows 'node run --tls: asks and waits' "$paused=PAIRING_REQUIRED; waiting" 1 waits_over_tls
stop_node

refused 'gateway call health, with a wrong token' "not-$token" 'unauthorized: .*token mismatch' gateway call health
refused 'health, with a wrong token' "not-$token" 'unauthorized: .*token mismatch' health
stop_gateway
refused 'gateway call health, with the gateway gone' "$token" 'not reachable' gateway call health

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
