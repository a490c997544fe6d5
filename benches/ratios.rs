//! Speed and size, as ratios and figures measured in one run: `make bench` prints them.
//!
//! `cargo bench --bench ratios -- walls gateway` measures these parts alone.
//!
//! Every ratio compares two things done in turn by the same client on the same machine in the same minute;
//! absolute times are printed beside them for orientation only. Nothing here is asserted.

#![allow(clippy::disallowed_methods, reason = "the bans are for the program; a benchmark starts what it compares")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

const ORDINARY_UID: u32 = 61_235;

/// The code that seals, as the program has it.
#[allow(dead_code, unused_imports)]
#[path = "../src/crypto/seal.rs"]
mod seal;
#[allow(dead_code, unused_imports)]
#[path = "../src/model/secret.rs"]
mod secret;
mod model {
    pub(crate) use crate::secret::Secret;
}

#[path = "parts/containers.rs"]
mod containers;

/// What is measured, under the name by which it can be asked for.
type Part = (&'static str, fn(&World));

fn main() {
    if std::env::args().nth(1).as_deref() == Some("echo") {
        return echo_server();
    }
    let world = World::new();
    println!("# Vambrace, measured in one run on {} CPUs", std::thread::available_parallelism().map_or(0, usize::from));
    let parts: [Part; _] = [
        ("size", size),
        ("walls", walls),
        ("gateway", one_gateway),
        ("devices", devices),
        ("sealing", |_| sealing()),
        ("passwords", passwords),
        ("containers", containers::containers),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|word| !parts.iter().any(|(name, _)| name == word)) {
        panic!("there is no part {unknown:?}; there are: {}", parts.map(|(name, _)| name).join(" "));
    }
    for (_, part) in parts.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| word == name)) {
        part(&world);
    }
}

/// What is measured of one gateway that goes on running.
fn one_gateway(world: &World) {
    let gateway = start(world);
    memory(world, &gateway);
    exec(&gateway);
    at_once(&gateway);
    a_thousand(&gateway);
    wire(&gateway);
}

/// A scratch folder with a copy of the program that every user can execute.
struct World {
    dir: PathBuf,
    program: PathBuf,
    is_root: bool,
    /// With a key file, so that what is measured is not scrypt.
    config: PathBuf,
}

/// The token of every gateway here; a new state takes it over from a plain file.
const TOKEN: &str = "dG9rZW4tb2YtZXZlcnktZ2F0ZXdheS1vZi10aGlzLWJlbmNo";

impl World {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("vambrace-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let program = dir.join("vambrace");
        fs::copy(env!("CARGO_BIN_EXE_vambrace"), &program).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let mut key = [0; 32];
        getrandom::fill(&mut key).unwrap();
        let config = dir.join("vambrace.toml");
        private(&dir.join("key"), &key);
        private(&config, format!("[store]\nkey_file = \"{}\"\n", dir.join("key").display()).as_bytes());
        World { dir, program, is_root, config }
    }
}

/// Writes a file for its owner alone.
fn private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Gateway {
    child: Child,
    runner: u32,
    port: u16,
    token: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn ms(from: Instant) -> f64 {
    from.elapsed().as_secs_f64() * 1e3
}

fn row(what: &str, value: String, target: &str) {
    println!("{what:<66} {value:>22}   {target}");
}

fn size(world: &World) {
    let bytes = fs::metadata(&world.program).unwrap().len();
    row("binary, stripped", format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)), "target: at most 16 MiB");
}

/// The walls against bubblewrap's, in alternating batches so that both see the same machine.
fn walls(world: &World) {
    for uid in [world.is_root.then_some(0), world.is_root.then_some(ORDINARY_UID)]
        .into_iter()
        .flatten()
        .map(Some)
        .chain((!world.is_root).then_some(None))
    {
        let who = match uid {
            Some(0) => "as root",
            _ => "as an ordinary user",
        };
        let (mut fresh, mut reserve, mut bubblewrap) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            fresh.extend(measured(world, uid, &[]));
            reserve.extend(measured(world, uid, &["--reserve"]));
            for _ in 0..60 {
                let start = Instant::now();
                let done = as_user(Command::new("bwrap"), uid)
                    .args(["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"])
                    .status()
                    .expect("bubblewrap is not installed: apt-get install bubblewrap");
                assert!(done.success());
                bubblewrap.push(ms(start));
            }
        }
        let (fresh, reserve, bubblewrap) = (median(fresh), median(reserve), median(bubblewrap));
        row(
            &format!("walls around /bin/true {who}, p50, from nothing / bubblewrap"),
            format!("{fresh:.2} / {bubblewrap:.2} = {:.2}", fresh / bubblewrap),
            "target: at most 0.35",
        );
        row(
            &format!("walls around /bin/true {who}, p50, from the reserve / bubblewrap"),
            format!("{reserve:.2} / {bubblewrap:.2} = {:.2}", reserve / bubblewrap),
            "target: at most 0.25",
        );
    }
}

fn as_user(mut command: Command, uid: Option<u32>) -> Command {
    if let Some(uid) = uid.filter(|uid| *uid != 0) {
        command.uid(uid).gid(uid);
    }
    command
}

/// Times of 60 runs in milliseconds, measured inside the launcher from the order to the end of the whole tree.
fn measured(world: &World, uid: Option<u32>, flags: &[&str]) -> Vec<f64> {
    let output = as_user(Command::new(&world.program), uid)
        .env("HOME", "/nonexistent")
        .args(["sandbox", "run", "--measure", "60"])
        .args(flags)
        .args(["--", "/bin/true"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let times: Vec<f64> = serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    times.iter().map(|ns| ns / 1e6).collect()
}

/// Starts a gateway nine times; the last one stays.
fn start(world: &World) -> Gateway {
    let mut times = Vec::new();
    let mut last = None;
    for n in 0..9 {
        drop(last.take());
        let state = world.dir.join(format!("state{n}"));
        // The first start makes keys and folders; what is measured is the second of each pair.
        drop(launch(world, &state));
        let (gateway, time) = launch(world, &state);
        times.push(time);
        last = Some(gateway);
    }
    row(
        "start of the gateway to the first hello-ok, with a key file, p50",
        format!("{:.1} ms", median(times)),
        "target: at most 50 ms",
    );
    let state = world.dir.join("machine");
    let machine = || launch_with(world, &state, &[], None).1;
    machine();
    row(
        "the same with the machine's own key, which is scrypt once",
        format!("{:.0} ms", median((0..5).map(|_| machine()).collect())),
        "target: about 100 ms more",
    );
    last.unwrap()
}

fn launch(world: &World, state: &Path) -> (Gateway, f64) {
    launch_with(world, state, &["--config", world.config.to_str().unwrap()], None)
}

fn launch_with(world: &World, state: &Path, flags: &[&str], secret: Option<&str>) -> (Gateway, f64) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    if !state.exists() {
        fs::create_dir(state).unwrap();
        fs::set_permissions(state, fs::Permissions::from_mode(0o700)).unwrap();
        private(&state.join("gateway-token"), TOKEN.as_bytes());
    }
    let begun = Instant::now();
    let child = Command::new(&world.program)
        .args(["gateway", "--port", &port.to_string(), "--state-dir"])
        .arg(state)
        .args(flags)
        .env("VAMBRACE_LOG", "error")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let token = secret.unwrap_or(TOKEN).to_owned();
    let mut ws = loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            break upgrade(stream, port);
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    hello(&mut ws, &token);
    let time = ms(begun);
    let mut runner = 0;
    while runner == 0 {
        runner = call(&mut ws, "status", json!({}))["payload"]["runner"]["pid"].as_u64().unwrap_or(0) as u32;
    }
    (Gateway { child, runner, port, token }, time)
}

fn resident(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn memory(_world: &World, gateway: &Gateway) {
    let mib = f64::from(1 << 20);
    let mut first = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    hello(&mut first, &gateway.token);
    run_true(&mut first);
    let (alone, runner) = (resident(gateway.child.id()), resident(gateway.runner));
    row(
        "resident memory at rest: gateway + runner",
        format!("{:.1} + {:.1} = {:.1} MiB", alone / mib, runner / mib, (alone + runner) / mib),
        "target: at most 30 MiB",
    );
    let idle: Vec<_> = (0..1000)
        .map(|_| {
            let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
            hello(&mut ws, &gateway.token);
            ws
        })
        .collect();
    let each = (resident(gateway.child.id()) - alone) / idle.len() as f64 / 1024.0;
    row("resident memory for each of 1000 idle connections", format!("{each:.1} KiB"), "target: at most 40 KiB");
}

/// What the gateway adds to a run: the answer's round trip less the runner's own time.
fn exec(gateway: &Gateway) {
    let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    hello(&mut ws, &gateway.token);
    let (mut whole, mut inside) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let start = Instant::now();
        let elapsed = run_true(&mut ws);
        whole.push(ms(start));
        inside.push(elapsed);
    }
    let (whole, inside) = (median(whole), median(inside));
    row(
        "exec of /bin/true through the gateway, p50: whole - walls",
        format!("{whole:.2} - {inside:.2} = {:.2} ms", whole - inside),
        "target: at most 1 ms",
    );
}

/// Sixteen clients at once, against as many threads that fork and execute: what is left of the throughput that one run
/// at a time lets expect.
fn at_once(gateway: &Gateway) {
    const CLIENTS: usize = 16;
    const EACH: usize = 50;
    let plain = || assert!(Command::new("/bin/true").stdin(Stdio::null()).status().unwrap().success());
    let client = || {
        let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
        hello(&mut ws, &gateway.token);
        ws
    };
    let mut alone = client();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let (mut our_rate, mut bare_rate) = (0.0, 0.0);
    for _ in 0..3 {
        for _ in 0..100 {
            let begun = Instant::now();
            run_true(&mut alone);
            ours.push(ms(begun));
            let begun = Instant::now();
            plain();
            bare.push(ms(begun));
        }
        let rate = |work: &(dyn Fn() + Sync)| {
            let begun = Instant::now();
            std::thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(work))));
            (CLIENTS * EACH) as f64 / begun.elapsed().as_secs_f64()
        };
        our_rate += rate(&|| {
            let mut ws = client();
            (0..EACH).for_each(|_| _ = run_true(&mut ws));
        }) / 3.0;
        bare_rate += rate(&|| (0..EACH).for_each(|_| plain())) / 3.0;
    }
    let ratio = median(ours) / median(bare);
    row(
        "16 runs at once, per second / (plain fork+exec at once / single-run ratio)",
        format!("{our_rate:.0} / ({bare_rate:.0} / {ratio:.1}) = {:.2}", our_rate / (bare_rate / ratio)),
        "target: at least 0.6",
    );
}

/// What a thousand runs leave in the runner and on the host.
fn a_thousand(gateway: &Gateway) {
    let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    hello(&mut ws, &gateway.token);
    let runner = gateway.runner;
    let children = || fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
    let count = || {
        // At rest one child waits for the next command, in walls that are finished: the filter is the last of them. Until
        // then something is still being cleared away, or built.
        let is_walled = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("\nSeccomp:\t2\n"))
        };
        while !matches!(children().split_whitespace().collect::<Vec<_>>()[..], [child] if is_walled(child)) {
            std::thread::yield_now();
        }
        let descriptors = fs::read_dir(format!("/proc/{runner}/fd")).unwrap().count();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let groups = find("/sys/fs/cgroup", &format!("vambrace-{runner}-"));
        let namespaces: std::collections::BTreeSet<_> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .flat_map(|item| {
                ["mnt", "net", "pid", "ipc"].map(|kind| fs::read_link(item.path().join("ns").join(kind)).ok())
            })
            .flatten()
            .collect();
        [descriptors, mounts, groups, namespaces.len()]
    };
    run_true(&mut ws);
    let before = count();
    (0..1000).for_each(|_| _ = run_true(&mut ws));
    let left: Vec<i64> = count().iter().zip(before).map(|(now, then)| *now as i64 - then as i64).collect();
    row(
        "1000 runs leave: descriptors, mounts, control groups, namespaces",
        format!("{}, {}, {}, {}", left[0], left[1], left[2], left[3]),
        "target: none",
    );
}

/// Folders whose name begins so, up to six levels deep.
fn find(root: &str, prefix: &str) -> usize {
    let mut waiting = vec![(PathBuf::from(root), 0)];
    let mut found = 0;
    while let Some((folder, depth)) = waiting.pop() {
        for item in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !item.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            found += usize::from(item.file_name().to_str().is_some_and(|name| name.starts_with(prefix)));
            if depth < 6 {
                waiting.push((item.path(), depth + 1));
            }
        }
    }
    found
}

fn run_true(ws: &mut Ws) -> f64 {
    let answer = call(ws, "exec.run", json!({"command": ["/bin/true"]}));
    assert_eq!(answer["ok"], true, "{answer}");
    answer["payload"]["elapsedUs"].as_f64().unwrap() / 1e3
}

/// Handshakes and `health` against a bare echo server with frames of the same size.
fn wire(gateway: &Gateway) {
    let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    let challenge = text(&mut ws).len();
    let request = connect_request(&gateway.token);
    ws.send(Message::text(request.as_str())).unwrap();
    let greeting = text(&mut ws).len();
    let health = json!({"type": "req", "id": "1", "method": "health", "params": {}}).to_string();
    ws.send(Message::text(health.as_str())).unwrap();
    let answer = text(&mut ws).len();

    let mut echo = Command::new(std::env::current_exe().unwrap())
        .args(["echo", &challenge.to_string(), &greeting.to_string(), &answer.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(echo.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let echo_port: u16 = line.trim().parse().unwrap();

    let handshake = |port: u16| {
        let mut ws = upgrade(TcpStream::connect(("127.0.0.1", port)).unwrap(), port);
        text(&mut ws);
        ws.send(Message::text(request.as_str())).unwrap();
        text(&mut ws);
        ws
    };
    let (mut ours, mut bare) = (0.0, 0.0);
    let rate = |port: u16, count: u32| {
        let start = Instant::now();
        for _ in 0..count {
            drop(handshake(port));
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    };
    let trips = |port: u16, count: u32| {
        let mut ws = handshake(port);
        let start = Instant::now();
        for _ in 0..count {
            ws.send(Message::text(health.as_str())).unwrap();
            text(&mut ws);
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    };
    for _ in 0..5 {
        ours += rate(gateway.port, 300) / 5.0;
        bare += rate(echo_port, 300) / 5.0;
    }
    row(
        "handshakes with the token, per second / bare echo server",
        format!("{ours:.0} / {bare:.0} = {:.2}", ours / bare),
        "target: at least 0.5",
    );
    let (mut ours, mut bare) = (0.0, 0.0);
    for _ in 0..5 {
        ours += trips(gateway.port, 2000) / 5.0;
        bare += trips(echo_port, 2000) / 5.0;
    }
    row(
        "health round trips, per second / bare echo server",
        format!("{ours:.0} / {bare:.0} = {:.2}", ours / bare),
        "target: at least 0.5",
    );
    drop(echo.stdin.take());
    let _ = echo.wait();
}

/// Devices beside the shared token; and ten thousand of them.
fn devices(world: &World) {
    let pair = SigningKey::from_bytes(&[7; 32]);
    let (few, many) = (world.dir.join("few"), world.dir.join("many"));
    let (gateway, _) = launch(world, &few);
    let greet = |gateway: &Gateway, token: Option<&str>| device_hello(gateway, &pair, token);
    let own = greet(&gateway, None);
    drop(gateway);
    // The same among ten thousand others: a plain state of before sealing, which the first start seals.
    crowd(&many, 10_000);
    let (gateway, _) = launch(world, &many);
    let among = greet(&gateway, None);
    drop(gateway);

    let (gateway, _) = launch(world, &few);
    let rate = |count: u32, connect: &dyn Fn()| {
        let start = Instant::now();
        (0..count).for_each(|_| connect());
        f64::from(count) / start.elapsed().as_secs_f64()
    };
    let (mut by_token, mut by_device) = (0.0, 0.0);
    let (mut token_cpu, mut device_cpu) = (0.0, 0.0);
    for _ in 0..5 {
        let before = cpu_seconds(gateway.child.id());
        by_token += rate(300, &|| {
            let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
            hello(&mut ws, &gateway.token);
        }) / 5.0;
        let between = cpu_seconds(gateway.child.id());
        by_device += rate(300, &|| drop(greet(&gateway, Some(&own)))) / 5.0;
        token_cpu += between - before;
        device_cpu += cpu_seconds(gateway.child.id()) - between;
    }
    row(
        "handshakes of a paired device, per second / with the token",
        format!("{by_device:.0} / {by_token:.0} = {:.2}", by_device / by_token),
        "target: at least 0.7",
    );
    row(
        "the gateway's own CPU time for one of them / with the token",
        format!(
            "{:.0} / {:.0} us = {:.2}",
            device_cpu / 1500.0 * 1e6,
            token_cpu / 1500.0 * 1e6,
            device_cpu / token_cpu
        ),
        "no target: says where the time goes",
    );
    drop(gateway);

    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(launch(world, &many).1);
    }
    row(
        "start with 10 000 paired devices, with a key file, p50",
        format!("{:.0} ms", median(starts)),
        "target: at most 200 ms",
    );
    // In turn, so that both see the same machine.
    let (small, large) = (launch(world, &few).0, launch(world, &many).0);
    let (mut one, mut ten_thousand) = (0.0, 0.0);
    for _ in 0..8 {
        one += rate(200, &|| drop(greet(&small, Some(&own)))) / 8.0;
        ten_thousand += rate(200, &|| drop(greet(&large, Some(&among)))) / 8.0;
    }
    row(
        "handshakes among 10 000 devices / among one",
        format!("{ten_thousand:.0} / {one:.0} = {:.2}", ten_thousand / one),
        "target: at least 0.9",
    );
}

/// User and system time that a process has used, by the scheduler's count.
fn cpu_seconds(pid: u32) -> f64 {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    }
    nanoseconds / 1e9
}

/// Connects as a device of the operator; by the shared token, or by its own. Gives its own.
fn device_hello(gateway: &Gateway, pair: &SigningKey, own: Option<&str>) -> String {
    let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    let challenge: Value = serde_json::from_str(&text(&mut ws)).unwrap();
    let nonce = challenge["payload"]["nonce"].as_str().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let key = pair.verifying_key().to_bytes();
    let id: String = Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect();
    let token = own.unwrap_or(&gateway.token);
    let payload = format!("v3|{id}|cli|cli|operator|operator.read|{now}|{token}|{nonce}|linux|");
    let request = json!({"type": "req", "id": "c", "method": "connect", "params": {
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "cli", "mode": "cli", "version": "1", "platform": "linux"},
        "role": "operator", "scopes": ["operator.read"],
        "auth": if own.is_some() { json!({"deviceToken": token}) } else { json!({"token": token}) },
        "device": {
            "id": id, "publicKey": URL_SAFE_NO_PAD.encode(key), "signedAt": now as u64, "nonce": nonce,
            "signature": URL_SAFE_NO_PAD.encode(pair.sign(payload.as_bytes()).to_bytes()),
        },
    }});
    ws.send(Message::text(request.to_string())).unwrap();
    let answer: Value = serde_json::from_str(&text(&mut ws)).unwrap();
    answer["payload"]["auth"]["deviceToken"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A state in plain, of the version before sealing, with so many devices.
fn crowd(state: &Path, count: usize) {
    fs::create_dir(state).unwrap();
    fs::set_permissions(state, fs::Permissions::from_mode(0o700)).unwrap();
    private(&state.join("gateway-token"), TOKEN.as_bytes());
    private(&state.join("state.sqlite"), b"");
    let mut file = rusqlite::Connection::open(state.join("state.sqlite")).unwrap();
    file.execute_batch(
        "PRAGMA application_id = 0x564d4252; PRAGMA user_version = 1;
         CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))
         STRICT, WITHOUT ROWID",
    )
    .unwrap();
    let changes = file.transaction().unwrap();
    for n in 0..count {
        let id = format!("{n:064x}");
        let client = json!({"id": "cli", "mode": "cli", "version": "1", "platform": "linux",
                            "display_name": null, "device_family": null});
        let token = json!({"role": "operator", "scopes": ["operator.read"], "generation": vec![7; 16],
                           "created": 1, "rotated": null, "revoked": null, "previous": null});
        let record = json!({"id": id, "public_key": vec![9; 32], "client": client, "label": null, "agent": null,
                            "tokens": [token], "via": "silent", "created": 1, "approved": 1,
                            "last_seen": null, "last_from": null});
        let value = serde_json::to_vec(&record).unwrap();
        changes.execute("INSERT INTO record VALUES ('device', ?1, ?2)", rusqlite::params![id, value]).unwrap();
    }
    changes.commit().unwrap();
}

/// Sealing and opening of 1 KiB by the very code of the store, against the aes-gcm crate under one key.
fn sealing() {
    use seal::{NONCE, SealingKey};
    use xaes_256_gcm::aead::{AeadInOut, KeyInit, inout::InOutBuf};
    use xaes_256_gcm::aes_gcm::Aes256Gcm;
    let (about, plain) = ([1; 100], vec![2; 1024]);
    let ours = SealingKey::new(&[3; 32]);
    let bare = Aes256Gcm::new(&[3; 32].into());
    let sealed = ours.seal(&[4; NONCE], &about, &plain);
    let mut buffer = plain.clone();
    let tag = bare.encrypt_inout_detached(&[4; 12].into(), &about, InOutBuf::from(&mut buffer[..])).unwrap();
    let one = |act: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..4000).for_each(|_| act());
        start.elapsed().as_secs_f64() / 4000.0 * 1e6
    };
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..25 {
        times[0].push(one(&mut || {
            let mut nonce = [0; NONCE];
            getrandom::fill(&mut nonce).unwrap();
            std::hint::black_box(ours.seal(&nonce, &about, std::hint::black_box(&plain)));
        }));
        times[1].push(one(&mut || {
            let mut nonce = [0; 12];
            getrandom::fill(&mut nonce).unwrap();
            let mut message = std::hint::black_box(&plain).clone();
            let tag = bare.encrypt_inout_detached(&nonce.into(), &about, InOutBuf::from(&mut message[..])).unwrap();
            std::hint::black_box((message, tag));
        }));
        times[2].push(one(&mut || drop(std::hint::black_box(ours.open(&about, &sealed).unwrap()))));
        times[3].push(one(&mut || {
            let mut message = std::hint::black_box(&buffer).clone();
            bare.decrypt_inout_detached(&[4; 12].into(), &about, InOutBuf::from(&mut message[..]), &tag).unwrap();
            std::hint::black_box(message);
        }));
    }
    let [seal, bare_seal, open, bare_open] = times.map(median);
    for (what, ours, bare) in [("sealing", seal, bare_seal), ("opening", open, bare_open)] {
        row(
            &format!("{what} 1 KiB, rate / the aes-gcm crate's"),
            format!("{ours:.2} / {bare:.2} us = {:.2}", bare / ours),
            "target: at least 0.5",
        );
    }
}

/// `health` on one connection while somebody tries 32 passwords a second on others.
fn passwords(world: &World) {
    let state = world.dir.join("password");
    let config = world.dir.join("password.toml");
    fs::write(&config, "[gateway.auth]\nmode = \"password\"\n").unwrap();
    let mut set = Command::new(&world.program)
        .args(["password", "set", "--state-dir"])
        .arg(&state)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    set.stdin.take().unwrap().write_all(b"correct horse battery").unwrap();
    assert!(set.wait().unwrap().success());
    let (gateway, _) =
        launch_with(world, &state, &["--config", config.to_str().unwrap()], Some("correct horse battery"));
    let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    hello(&mut ws, "correct horse battery");
    let mut trips = |count: usize| {
        let mut times: Vec<f64> = (0..count)
            .map(|_| {
                let start = Instant::now();
                call(&mut ws, "health", json!({}));
                let time = ms(start);
                std::thread::sleep(Duration::from_millis(1));
                time
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    };
    let quiet = trips(1500);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let attacked = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
                text(&mut ws);
                n += 1;
                ws.send(Message::text(connect_request(&format!("wrong password {n}")))).unwrap();
                std::thread::sleep(Duration::from_millis(31));
                // Answered or not yet: the next one is tried all the same.
                std::mem::forget(ws);
            }
        });
        let attacked = trips(2500);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        attacked
    });
    row(
        "health round trip, p99, quiet / under 32 wrong passwords a second",
        format!("{quiet:.2} / {attacked:.2} ms"),
        "target: at most 5 ms",
    );
}

type Ws = WebSocket<TcpStream>;

fn upgrade(stream: TcpStream, port: u16) -> Ws {
    stream.set_nodelay(true).unwrap();
    tungstenite::client(format!("ws://127.0.0.1:{port}/"), stream).unwrap().0
}

fn text(ws: &mut Ws) -> String {
    loop {
        if let Message::Text(text) = ws.read().unwrap() {
            return text.to_string();
        }
    }
}

fn connect_request(token: &str) -> String {
    json!({"type": "req", "id": "c", "method": "connect", "params": {
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "cli", "mode": "cli", "version": "1", "platform": "linux"},
        "role": "operator", "scopes": ["operator.admin"], "auth": {"token": token},
    }})
    .to_string()
}

fn hello(ws: &mut Ws, token: &str) {
    text(ws);
    ws.send(Message::text(connect_request(token))).unwrap();
    let answer: Value = serde_json::from_str(&text(ws)).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
}

fn call(ws: &mut Ws, method: &str, params: Value) -> Value {
    ws.send(Message::text(json!({"type": "req", "id": "q", "method": method, "params": params}).to_string())).unwrap();
    loop {
        let frame: Value = serde_json::from_str(&text(ws)).unwrap();
        if frame["id"] == "q" {
            return frame;
        }
    }
}

/// A bare tokio-tungstenite server: sends a frame at once, one of another size for the first it gets, then answers
/// each with a third size. Ends with its standard input.
fn echo_server() {
    let sizes: Vec<usize> = std::env::args().skip(2).map(|s| s.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let sizes = sizes.clone();
            tokio::spawn(async move {
                let Ok(mut ws) = tokio_tungstenite::accept_async(stream).await else { return };
                let mut sizes = sizes.into_iter();
                let (first, second, rest) = (sizes.next().unwrap(), sizes.next().unwrap(), sizes.next().unwrap());
                let _ = ws.send(Message::text("x".repeat(first))).await;
                let mut answer = second;
                while let Some(Ok(message)) = ws.next().await {
                    if !message.is_text() {
                        break;
                    }
                    let _ = ws.send(Message::text("x".repeat(answer))).await;
                    answer = rest;
                }
            });
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
}
