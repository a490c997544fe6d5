//! The list of domains, through a real gateway in a network of its own with a world beyond it: what is listed is
//! reached by programs that know of nothing, and nothing else by any. In both tiers.

use crate::engine;
use crate::neighbours::Network;
use crate::world::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The gateway's host, and the server beyond it.
const HOST: &str = "203.0.113.1";
const SERVER: &str = "203.0.113.10";

const NAMES: &str = "\
127.0.0.1 localhost
203.0.113.10 open.example web.below.example deep.er.below.example below.example other.example not-listed.example
203.0.113.10 xopen.example open.example.evil.example
127.0.0.1 loopback.example
10.1.2.3 private.example
192.168.1.1 private2.example
100.64.0.1 private3.example
169.254.169.254 metadata.example
168.63.129.16 metadata2.example
203.0.113.1 host.example
198.18.0.2 stand-in.example
0.0.0.0 any.example
224.0.0.1 many.example
::1 loopback6.example
::ffff:127.0.0.1 mapped.example
::ffff:169.254.169.254 mapped2.example
fd00:ec2::254 metadata6.example
64:ff9b::7f00:1 translated.example
";

const INWARD: [&str; 15] = [
    "loopback",
    "private",
    "private2",
    "private3",
    "metadata",
    "metadata2",
    "host",
    "stand-in",
    "any",
    "many",
    "loopback6",
    "mapped",
    "mapped2",
    "metadata6",
    "translated",
];

/// What a program does that knows of nothing: resolve, connect, send, end its half, read.
const TALK: &str = r#"
import errno, socket, sys, threading
def talk(name, port, data):
    s = socket.create_connection((name, port), 60)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: s.recv(65536), b""))
def tried(act):
    try:
        act()
        return "done"
    except socket.gaierror as e:
        return "EAI %d" % e.errno
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
"#;

struct Stage {
    world: World,
    outside: Network,
    /// Holds the server's addresses.
    beyond: Network,
    served: Arc<AtomicUsize>,
}

impl Stage {
    fn new(user: User) -> Self {
        let inward: String = INWARD.iter().map(|name| format!(", \"{name}.example\"")).collect();
        let listed = format!(
            "network = \"allowlist\"\nallow_domains = [\"Open.Example\", \"*.below.example\", \"high.example:8443\"{inward}]\n"
        );
        Stage::with(
            user,
            &format!(
                "[defaults.sandbox]\n{listed}[profiles.net]\n{listed}[profiles.none]\nnetwork = \"none\"\n\
                 [agents.two.sandbox]\nallow_domains = [\"other.example\"]\n\
                 [agents.three.sandbox]\nallow_domains = []\n"
            ),
        )
    }

    fn with(user: User, config: &str) -> Self {
        let outside = Network::new(&[]);
        let beyond = outside.joined(&[HOST], &[SERVER]);
        let world = World::new(user).config(config).within(&outside.path()).hosts(NAMES).start();
        let stage = Stage { world, outside, beyond, served: Arc::default() };
        for port in [80, 443, 8443] {
            stage.serve(port);
        }
        stage
    }

    /// A server beyond: says back what it was told, once the other side has ended its half.
    fn serve(&self, port: u16) {
        let listener = self.beyond.within(|| TcpListener::bind((SERVER, port)).unwrap());
        let served = Arc::clone(&self.served);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                served.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || answer(stream));
            }
        });
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    fn python_of(&self, agent: &str, code: &str) -> Ran {
        self.world.run(&["exec", "--agent", agent, "--", "python3", "-c", &format!("{TALK}\n{code}")])
    }

    fn python(&self, code: &str) -> Ran {
        self.python_of("main", code)
    }

    /// A command that is told lines; by `next` what it says.
    fn converse(&self, agent: &str, code: &str) -> Talking {
        let code = format!("{TALK}\n{code}");
        let mut command = self.world.command(&["exec", "--agent", agent, "--", "python3", "-uc", &code]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Talking { said: BufReader::new(child.stdout.take().unwrap()), child: Spawned(child) }
    }

    /// Children of the runner that carry connections.
    fn carriers(&self, runner: i32) -> Vec<i32> {
        let children = fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap_or_default();
        let is_carrier = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"egress")
        };
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(is_carrier).collect()
    }
}

struct Talking {
    child: Spawned,
    said: BufReader<std::process::ChildStdout>,
}

impl Talking {
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child().stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn child(&mut self) -> &mut Child {
        &mut self.child.0
    }

    fn end(mut self) {
        drop(self.child().stdin.take());
        assert!(self.child().wait().unwrap().success());
    }
}

fn answer(mut stream: TcpStream) {
    let mut told = Vec::new();
    let mut part = [0; 65536];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => told.extend_from_slice(&part[..length]),
            Err(_) => return,
        }
        if told.starts_with(b"GET ") && told.ends_with(b"\r\n\r\n") {
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from beyond\n");
            return;
        }
    }
    told.reverse();
    let _ = stream.write_all(&told);
}

fn refused(stage: &Stage) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    stage.world.events("net.refused").iter().map(|e| (text(&e["target"]), text(&e["error"]))).collect()
}

#[test]
fn a_program_that_knows_of_nothing_reaches_what_is_listed_and_each_connection_is_recorded() {
    for user in USERS {
        let stage = Stage::new(user);
        let code = "
import os
for name in ['open.example', 'OPEN.example', 'web.below.example', 'deep.er.below.example', 'open.example.']:
    assert talk(name, 443, b'abc') == b'cba', name
big = os.urandom(3_000_000)
assert talk('open.example', 80, big) == big[::-1]
print('well')";
        assert_eq!(stage.python(code).exits(0), "well\n");
        assert_eq!(stage.world.exec(&["curl", "-sS", "http://open.example/"]).exits(0), "hello from beyond\n");
        let ran = stage.world.exec(&["getent", "ahostsv4", "open.example"]).exits(0);
        assert!(ran.starts_with("198.18.0."), "{ran}");

        let many = "
found = []
def one(n):
    data = (b'%d ' % n) * 5000
    found.append(talk('open.example', 443, data) == data[::-1])
threads = [threading.Thread(target=one, args=(n,)) for n in range(60)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(found), all(found))";
        assert_eq!(stage.python(many).exits(0), "60 True\n");

        let connected = stage.world.events("net.connected");
        assert_eq!(connected.len(), 5 + 1 + 1 + 60);
        assert_eq!(stage.served(), connected.len());
        let runs: Vec<Value> = stage.world.events("exec.permitted").iter().map(|e| e["run"].clone()).collect();
        for (at, entry) in connected.iter().enumerate() {
            assert_eq!((&entry["agent"], &entry["verdict"]), (&json!("main"), &json!("permit")), "{entry}");
            let run = match at {
                0..=5 => &runs[0],
                6 => &runs[1],
                _ => &runs[3],
            };
            assert_eq!(&entry["run"], run, "{at}: {entry}");
        }
        let targets: Vec<&str> = connected[..7].iter().map(|e| e["target"].as_str().unwrap()).collect();
        assert_eq!(
            targets,
            [
                "open.example:443 at 203.0.113.10",
                "open.example:443 at 203.0.113.10",
                "web.below.example:443 at 203.0.113.10",
                "deep.er.below.example:443 at 203.0.113.10",
                "open.example:443 at 203.0.113.10",
                "open.example:80 at 203.0.113.10",
                "open.example:80 at 203.0.113.10"
            ]
        );
        assert!(stage.world.events("net.refused").is_empty());
    }
}

#[test]
fn what_is_not_listed_has_no_name_no_port_and_no_address() {
    for user in USERS {
        let stage = Stage::new(user);
        let code = format!(
            "
for name in ['not-listed.example', 'xopen.example', 'open.example.evil.example', 'below.example', 'example', 'evil.org',
             'a' * 60 + '.evil.org']:
    print(name, tried(lambda: talk(name, 443, b'')))
print('port', tried(lambda: talk('open.example', 8443, b'')))
print('closed', tried(lambda: talk('open.example', 22, b'')))
print('unknown', tried(lambda: talk('198.18.77.77', 443, b'')))
for address in ['{SERVER}', '{HOST}', '1.1.1.1', '169.254.169.254', '10.0.0.1', '198.20.0.1', '0x7f.1', '2852039166', '::ffff:{SERVER}']:
    print(address, tried(lambda: talk(address, 443, b'')))
for address in ['2606:4700:4700::1111', 'fd00:ec2::254']:
    print('six', tried(lambda: talk(address, 443, b'')))"
        );
        let said = stage.python(&code).exits(0);
        let answer = |what: &str| {
            let line = said.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{what}: {said}"));
            line[what.len()..].trim().to_owned()
        };
        for name in [
            "not-listed.example",
            "xopen.example",
            "open.example.evil.example",
            "below.example",
            "example ",
            "evil.org",
        ] {
            assert_eq!(answer(name), "EAI -2", "{name}: it does not exist");
        }
        assert_eq!((answer("port"), answer("closed")), ("ECONNRESET".into(), "ECONNREFUSED".into()));
        assert_eq!(answer("unknown"), "ECONNRESET");
        for address in [SERVER, HOST, "1.1.1.1", "169.254.169.254", "10.0.0.1", "198.20.0.1", "2852039166", "::ffff:"] {
            assert!(answer(address).ends_with("ENETUNREACH"), "{address}: {said}");
        }
        assert_eq!(answer("0x7f.1"), "ECONNRESET", "its own loopback, where no name stands");
        assert!(!said.contains("done"), "{said}");
        assert_eq!(stage.served(), 0);
        let why = |target: &str| {
            let found: Vec<_> = refused(&stage).into_iter().filter(|(t, _)| t == target).map(|(_, why)| why).collect();
            assert_eq!(found.len(), 1, "{target}: {:?}", refused(&stage));
            found[0].clone()
        };
        for name in ["not-listed.example", "xopen.example", "open.example.evil.example", "below.example"] {
            assert_eq!(why(name), "the name is not on the list");
        }
        assert!(
            refused(&stage).contains(&(
                "open.example:8443 at 198.18.0.2".into(),
                "the port is not on the list for this name".into()
            ))
        );
        assert_eq!(why("no name:443 at 198.18.77.77"), "the address stands for no name");
        let entries = stage.world.events("net.refused");
        assert!(entries.iter().all(|e| e["verdict"] == "deny" && e["agent"] == "main" && !e["run"].is_null()));
    }
}

#[test]
fn a_listed_name_that_leads_inwards_is_refused() {
    for user in USERS {
        let stage = Stage::new(user);
        // What must not be reached is there.
        let inside = stage
            .outside
            .within(|| [("127.0.0.1", 443), (HOST, 443), ("127.0.0.1", 80)].map(|at| TcpListener::bind(at).unwrap()));
        for listener in &inside {
            listener.set_nonblocking(true).unwrap();
        }
        let code = format!("for name in {INWARD:?}: print(name, tried(lambda: talk(name + '.example', 443, b'')))");
        let said = stage.python(&code).exits(0);
        for (line, name) in said.lines().zip(INWARD) {
            assert_eq!(line, format!("{name} EAI -2"));
        }
        let refused = refused(&stage);
        for name in INWARD {
            let found: Vec<_> = refused.iter().filter(|(target, _)| *target == format!("{name}.example")).collect();
            assert!(found.len() == 1 && found[0].1.starts_with("it leads to a"), "{name}: {refused:?}");
        }
        assert!(stage.world.events("net.connected").is_empty());
        assert!(inside.iter().all(|listener| listener.accept().is_err()));
        assert_eq!(stage.python("print(talk('open.example', 443, b'ab'))").exits(0), "b'ba'\n");
    }
}

#[test]
fn a_name_that_is_rebound_between_two_lookups_leads_where_it_led() {
    for user in USERS {
        let stage = Stage::new(user);
        let inside = stage.outside.within(|| TcpListener::bind("127.0.0.1:443").unwrap());
        inside.set_nonblocking(true).unwrap();
        let mut talking = stage.converse(
            "main",
            "
for line in sys.stdin:
    print(socket.gethostbyname('open.example'), tried(lambda: talk('open.example', 443, b'x')))",
        );
        talking.tell("now");
        assert_eq!(talking.next(), "198.18.0.2 done");

        stage.world.set_hosts("127.0.0.1 open.example\n");
        talking.tell("again");

        assert_eq!(talking.next(), "198.18.0.2 done");
        talking.end();
        assert_eq!(stage.served(), 2);
        // The next run asks anew.
        assert_eq!(stage.python("print(tried(lambda: talk('open.example', 443, b'x')))").exits(0), "EAI -2\n");
        assert!(refused(&stage).contains(&("open.example".into(), "it leads to a loopback address".into())));
        assert!(inside.accept().is_err());
    }
}

#[test]
fn datagrams_and_raw_sockets_carry_nothing() {
    for user in USERS {
        let stage = Stage::new(user);
        let heard = stage.beyond.within(|| [53, 443].map(|port| UdpSocket::bind((SERVER, port)).unwrap()));
        let code = format!(
            "
stand_in = socket.gethostbyname('open.example')
def datagram(address, port, kind=socket.AF_INET):
    s = socket.socket(kind, socket.SOCK_DGRAM)
    s.settimeout(60)
    s.connect((address, port)); s.send(b'x'); s.recv(1)
for to in [(stand_in, 53), (stand_in, 443), ('198.18.77.77', 53), ('{SERVER}', 53), ('{SERVER}', 443), ('1.1.1.1', 53), ('{HOST}', 443)]:
    print(tried(lambda: datagram(*to)))
print(tried(lambda: datagram('2606:4700:4700::1111', 53, socket.AF_INET6)))
for kind, protocol in [(socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.SOCK_RAW, socket.IPPROTO_RAW), (socket.SOCK_RAW, 253)]:
    print(tried(lambda: socket.socket(socket.AF_INET, kind, protocol)))
print(tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)))
def ping():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    s.sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\0', ('{SERVER}', 0))
print(tried(ping))"
        );
        let said = stage.python(&code).exits(0);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..3], ["ECONNREFUSED"; 3], "{said}");
        assert_eq!(lines[3..7], ["ENETUNREACH"; 4], "{said}");
        assert!(lines[7] == "ENETUNREACH" || lines[7] == "EADDRNOTAVAIL", "{said}");
        assert_eq!((lines[8], lines[11]), ("EPERM", "EPERM"), "{said}");
        assert!(lines[8..].iter().all(|line| ["EPERM", "EACCES", "ENETUNREACH"].contains(line)), "{said}");
        for socket in heard {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 8]).is_err(), "a datagram came through");
        }
    }
}

#[test]
fn the_gateway_and_the_hosts_own_services_are_out_of_reach() {
    for user in USERS {
        let stage = Stage::new(user);
        let own =
            stage.outside.within(|| [("127.0.0.1", 443), ("0.0.0.0", 9999)].map(|at| TcpListener::bind(at).unwrap()));
        for listener in &own {
            listener.set_nonblocking(true).unwrap();
        }
        let port = stage.world.port();
        let code = format!(
            "
for to in [('127.0.0.1', {port}), ('127.0.0.1', 9999), ('0.0.0.0', {port}), ('{HOST}', {port}), ('{HOST}', 9999), ('::1', {port}),
           ('198.18.0.2', {port}), ('198.18.0.1', 9999), ('127.0.0.1', 443), ('0.0.0.0', 443), ('127.99.1.1', 80)]:
    print(tried(lambda: talk(*to, b'x')))"
        );
        let expected = "ECONNREFUSED ECONNREFUSED ECONNREFUSED ENETUNREACH ENETUNREACH ECONNREFUSED ECONNREFUSED ECONNREFUSED ECONNRESET ECONNRESET ECONNRESET";
        assert_eq!(stage.python(&code).exits(0).split_whitespace().collect::<Vec<_>>().join(" "), expected);
        assert!(own.iter().all(|listener| listener.accept().is_err()));
        // A proxy in the environment is no way either: nothing of it is a wall, so nothing of it is a door.
        let proxied = stage.world.sh(&format!("http_proxy=http://{SERVER}:80 curl -sS http://not-listed.example/"));
        assert_eq!(proxied.code, 7, "{proxied:?}");
        let proxied = stage.world.sh("https_proxy=http://127.0.0.1:80 curl -sS http://not-listed.example/");
        assert_eq!(proxied.code, 6, "{proxied:?}");
        let plain = stage.world.sh("env -u http_proxy -u HTTPS_PROXY no_proxy='*' curl -sS http://open.example/");
        assert_eq!(plain.exits(0), "hello from beyond\n");
    }
    // A port of the gateway's that a list names leads to the host, which is refused whatever its port.
    let outside = Network::new(&[]);
    let _beyond = outside.joined(&[HOST], &[SERVER]);
    let listed = "[gateway]\nport = 18999\n[defaults.sandbox]\nnetwork = \"allowlist\"\nallow_domains = [\"host.example:18999\"]\n";
    let world = World::new(User::Root).config(listed).within(&outside.path()).hosts(NAMES).start();
    assert_eq!(world.exec(&["getent", "ahostsv4", "host.example"]).code, 2);
}

#[test]
fn runs_at_once_share_nothing_and_profiles_without_a_network_have_none() {
    for user in USERS {
        let stage = Stage::new(user);
        let code = "
for line in sys.stdin:
    name = line.strip()
    print(tried(lambda: talk(name, 443, b'x')))";
        let (mut one, mut two, mut three) =
            (stage.converse("main", code), stage.converse("two", code), stage.converse("three", code));
        for (name, by_one, by_two) in [
            ("open.example", "done", "EAI -2"),
            ("other.example", "EAI -2", "done"),
            ("web.below.example", "done", "EAI -2"),
            // The first stand-in of each is another name.
            ("198.18.0.2", "done", "done"),
            ("198.18.0.3", "done", "ECONNRESET"),
        ] {
            for (talking, expected) in [(&mut one, by_one), (&mut two, by_two)] {
                talking.tell(name);
                assert_eq!(talking.next(), expected, "{name}");
            }
            three.tell(name);
            let said = three.next();
            assert!(said == "EAI -2" || said == "EAI -3" || said == "ECONNREFUSED", "{name}: an empty list: {said}");
        }
        for talking in [one, two, three] {
            talking.end();
        }
        let to = |agent: &str| -> BTreeSet<String> {
            let entries = stage.world.events("net.connected");
            let own = entries.iter().filter(|e| e["agent"] == agent);
            own.map(|e| e["target"].as_str().unwrap().split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(to("main"), ["open.example", "web.below.example"].map(str::to_owned).into());
        assert_eq!(to("two"), ["other.example"].map(str::to_owned).into());
        assert!(to("three").is_empty());
        let none = stage.world.run(&["exec", "--profile", "none", "--", "getent", "ahostsv4", "open.example"]);
        assert_eq!(none.code, 2, "{none:?}");
    }
}

#[test]
fn what_carries_connections_ends_with_its_command_and_leaves_nothing() {
    for user in USERS {
        let stage = Stage::new(user);
        let runner = stage.world.runner_pid();
        let at_rest = || {
            let children = fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
            stage.world.status()["runs"] == 0 && children.split_whitespace().count() == 1
        };
        let open = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert_eq!(stage.python("print(tried(lambda: talk('open.example', 443, b'')))").exits(0), "done\n");
        eventually("it rests", at_rest);
        let before = (open(runner), open(stage.world.gateway_pid()));

        for n in 0..50 {
            let code = [
                "print(tried(lambda: talk('open.example', 443, b'')))",
                "socket.create_connection(('open.example', 80)); print('done')",
            ][n % 2];
            assert_eq!(stage.python(code).exits(0), "done\n");
        }

        eventually("it rests again", at_rest);
        assert!(stage.carriers(runner).is_empty());
        // Fewer where the child that waits for the next command has been let go meanwhile.
        let gateway = stage.world.gateway_pid();
        eventually("as few descriptors as before", || open(runner) <= before.0 && open(gateway) <= before.1);

        let mut talking = stage
            .converse("main", "s = socket.create_connection(('open.example', 443)); print('there'); sys.stdin.read()");
        assert_eq!(talking.next(), "there");
        let carrier = stage.carriers(runner);
        assert_eq!(carrier.len(), 1);
        let network = network_of_sandbox(runner).expect("a sandbox with a network of its own");
        talking.end();
        eventually("it is gone", || !alive(carrier[0]));
        eventually("nobody is in its network", || !in_network(network));
    }
}

#[test]
fn what_carries_connections_ends_when_the_gateway_or_the_runner_is_killed() {
    for user in USERS {
        for victim in ["runner", "gateway"] {
            let mut stage = Stage::new(user);
            let runner = stage.world.runner_pid();
            let mut talking = stage.converse(
                "main",
                "s = socket.create_connection(('open.example', 443)); print('there'); sys.stdin.read()",
            );
            assert_eq!(talking.next(), "there");
            let carrier = stage.carriers(runner);
            assert_eq!(carrier.len(), 1);
            let network = network_of_sandbox(runner).expect("a sandbox with a network of its own");

            match victim {
                "runner" => nix::sys::signal::kill(nix::unistd::Pid::from_raw(runner), Signal::SIGKILL).unwrap(),
                _ => stage.world.stop(Signal::SIGKILL),
            }

            eventually("it is gone", || !alive(carrier[0]));
            eventually("nobody is in its network", || !in_network(network));
            assert!(!talking.child().wait().unwrap().success(), "{victim}");
            if victim == "runner" {
                eventually("another runner", || {
                    stage.world.status()["runner"]["pid"].as_i64().is_some_and(|pid| pid as i32 != runner)
                });
            } else {
                stage.world.start_again();
            }
            assert_eq!(stage.python("print(talk('open.example', 443, b'ab'))").exits(0), "b'ba'\n");
        }
    }
}

#[test]
fn what_carries_connections_that_is_killed_ends_its_way_and_no_other() {
    for user in USERS {
        let stage = Stage::new(user);
        let runner = stage.world.runner_pid();
        let mut talking = stage.converse(
            "main",
            "
s = socket.create_connection(('open.example', 443)); print('there')
for line in sys.stdin: print(tried(lambda: talk('{}', 443, b'')), tried(lambda: talk('198.18.0.2', 443, b'')))"
                .replace("{}", SERVER)
                .as_str(),
        );
        assert_eq!(talking.next(), "there");
        let carrier = stage.carriers(runner);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(carrier[0]), Signal::SIGKILL).unwrap();
        // The run ends, or goes on without any way out; never with another one.
        talking.tell("x");
        let said = talking.next();
        assert!(said.is_empty() || said == "ENETUNREACH ECONNREFUSED" || said == "ENETUNREACH ECONNRESET", "{said}");
        drop(talking);
        assert_eq!(stage.python("print(talk('open.example', 443, b'ab'))").exits(0), "b'ba'\n");
    }
}

#[test]
fn the_uid_of_what_carries_connections_is_given_back_however_it_ends() {
    let stage = Stage::new(User::Root);
    let runner = stage.world.runner_pid();
    let mut uids = std::collections::BTreeSet::new();
    for n in 0..12 {
        let code = "s = socket.create_connection(('open.example', 443)); print('there'); sys.stdin.read()";
        let mut talking = stage.converse("main", code);
        assert_eq!(talking.next(), "there");
        let carrier = stage.carriers(runner)[0];
        let status = fs::read_to_string(format!("/proc/{carrier}/status")).unwrap();
        let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        uids.insert(ids.split_whitespace().nth(1).unwrap().to_owned());
        if n % 2 == 0 {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(carrier), Signal::SIGKILL).unwrap();
        }
        drop(talking.child().stdin.take());
        talking.child().wait().unwrap();
        eventually("it is gone", || stage.carriers(runner).is_empty());
    }
    // The lowest that is free is taken: by its run, by the child that waits, and by it.
    assert!(!uids.contains("0") && uids.len() <= 4, "{uids:?}");
}

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The network namespace of a sandbox whose command runs: of a grandchild of the runner's.
fn network_of_sandbox(runner: i32) -> Option<u64> {
    let children = |pid: i32| -> Vec<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    let command = children(runner).into_iter().flat_map(children).next()?;
    Some(fs::metadata(format!("/proc/{command}/ns/net")).ok()?.st_ino())
}

fn in_network(network: u64) -> bool {
    let items = fs::read_dir("/proc").unwrap().flatten();
    items.filter_map(|item| fs::metadata(item.path().join("ns/net")).ok()).any(|found| found.st_ino() == network)
}

#[test]
fn the_record_of_a_connection_is_whole_however_long_its_name_and_covers_secrets_in_it() {
    for user in USERS {
        let long = format!("{}.below.example", ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."));
        let stage = Stage::new(user);
        stage.world.set_hosts(&format!("{NAMES}{SERVER} {long} key-of-nobody-else.below.example\n"));
        stage.world.run_with_input(&["secrets", "set", "KEY", "--agent", "main"], b"key-of-nobody-else").exits(0);
        let code = format!(
            "
print(talk('{long}', 443, b'ab'), talk('key-of-nobody-else.below.example', 80, b'ab'))
print(tried(lambda: talk('key-of-nobody-else.evil.example', 443, b'')))
import os; print(talk('open.example', 443, os.environ['KEY'].encode()[::-1]))"
        );
        let code = format!("{TALK}\n{code}");
        let ran = stage.world.run(&["exec", "--secret-env", "KEY", "--", "python3", "-c", &code]);
        assert_eq!(ran.exits(0), "b'ba' b'ba'\nEAI -2\nb'[secret KEY]'\n");
        let targets: Vec<String> =
            stage.world.events("net.connected").iter().map(|e| e["target"].as_str().unwrap().to_owned()).collect();
        assert_eq!(targets[0], format!("{long}:443 at {SERVER}"));
        assert_eq!(targets[1], format!("[secret KEY].below.example:80 at {SERVER}"));
        assert_eq!(refused(&stage)[0].0, "[secret KEY].evil.example");
        assert!(!serde_json::to_string(&stage.world.journal()).unwrap().contains("nobody-else"));
    }
}

#[test]
fn a_container_has_the_same_way_out_and_no_other() {
    let image = engine::image();
    let listed = "network = \"allowlist\"\nallow_domains = [\"open.example\", \"private.example\"]\n";
    // Without folders of the host: here the runner sees other mounts than the engine.
    let config = format!(
        "[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{image}\"\nworkspace_access = \"none\"\n{listed}\
         [profiles.closed]\nnetwork = \"none\"\nallow_domains = []\n"
    )
    .replace("allow_domains = []\n", "");
    let stage = Stage::with(User::Root, &config);
    let world = &stage.world;

    let said = world.exec(&["wget", "-q", "-O", "-", "http://open.example/"]).exits(0);

    assert_eq!(said, "hello from beyond\n");
    assert_eq!(stage.served(), 1);
    let connected: Vec<Value> = world.events("net.connected");
    assert_eq!(connected.len(), 1, "{connected:?}");
    assert!(connected[0].to_string().contains("open.example"), "{connected:?}");
    let run = world.events("exec.finished").pop().unwrap();
    assert_eq!(connected[0]["run"], run["run"]);
    assert!(run["enforcement"].as_str().unwrap().contains("net=allowlist"), "{run}");
    // A name that is not listed, one that leads inwards, a port, an address.
    for url in [
        "http://not-listed.example/",
        "http://private.example/",
        "http://open.example:8443/",
        &format!("http://{SERVER}/"),
    ] {
        assert_ne!(world.exec(&["timeout", "5", "wget", "-q", "-O", "-", url]).code, 0, "{url}");
    }
    assert_eq!(stage.served(), 1);
    assert!(!world.events("net.refused").is_empty());
    assert_ne!(
        world.run(&["exec", "--profile", "closed", "--", "wget", "-q", "-O", "-", "http://open.example/"]).code,
        0
    );
    let runner = world.status()["dockerRunner"]["pid"].as_i64().unwrap() as i32;
    eventually("nothing carries connections any more", || stage.carriers(runner).is_empty());
}

#[test]
fn sandbox_run_has_the_same_way_out_without_a_gateway() {
    for user in USERS {
        let stage = Stage::new(user);
        let run = |profile: &str, code: &str| {
            let code = format!("{TALK}\n{code}");
            let arguments = ["sandbox", "run", "--profile", profile, "--", "python3", "-c", &code];
            finish(stage.world.within_network(stage.world.command(&arguments)).stdin(Stdio::null()))
        };
        assert_eq!(run("net", "print(talk('open.example', 443, b'ab'))").exits(0), "b'ba'\n");
        let said = run(
            "net",
            &format!(
                "for n in ['not-listed.example', 'loopback.example', '{SERVER}']: print(tried(lambda: talk(n, 443, b'')))"
            ),
        );
        assert_eq!(said.exits(0), "EAI -2\nEAI -2\nENETUNREACH\n");
        assert_eq!(run("net", "print(tried(lambda: talk('open.example', 8443, b'')))").exits(0), "ECONNRESET\n");
        assert_eq!(run("none", "print(tried(lambda: talk('198.18.0.2', 443, b'')))").exits(0), "ENETUNREACH\n");
    }
}
