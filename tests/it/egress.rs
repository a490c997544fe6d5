//! The way out of a sandbox with an allowlist: a real `vambrace egress`, between a network without any way out and a
//! world that has servers.

use crate::neighbours::{Network, tool};
use crate::world::{ORDINARY_UID, PATIENCE, Spawned, User, World, finish, program};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

const PORTS: [u16; 3] = [80, 443, 8443];

/// Where `hosts` of the process under test says that names lead.
const HOSTS: &str = "\
192.0.2.10 open.example web.below.example api.below.example not-listed.example closed.example below.example
10.0.0.1 private.example
127.0.0.1 loopback.example
169.254.169.254 metadata.example
192.0.2.1 host.example
192.0.2.11 listed.example
fd00:ec2::254 metadata6.example
10.0.0.1 both.example
192.0.2.12 both.example
192.0.2.10 both.example
";

/// Who the process under test is.
#[derive(Clone, Copy)]
enum Started {
    /// By root, and told to become another uid.
    AsRoot,
    AsOrdinary,
}

/// A sandbox's network, a host that stands between, and a world beyond it.
struct Stage {
    world: World,
    sandbox: Network,
    outside: Network,
    beyond: Network,
}

/// A running egress process.
struct Egress {
    process: Spawned,
    socket: UnixStream,
    reports: BufReader<UnixStream>,
}

impl Stage {
    fn new() -> Self {
        let world = World::new(User::Root);
        let sandbox = Network::new(&[]);
        let route = ["route", "add", "local", "198.18.0.0/15", "dev", "lo"];
        assert!(sandbox.command("ip", "iproute2").args(route).status().unwrap().success());
        let outside = Network::new(&[]);
        let beyond = outside.joined(&["192.0.2.1"], &["192.0.2.10", "192.0.2.11"]);
        world.make_dir("etc");
        world.write("etc/hosts", HOSTS.as_bytes());
        world.write("etc/host.conf", b"multi on\n");
        world.write("etc/nsswitch.conf", b"hosts: files dns\n");
        world.write("etc/resolv.conf", b"nameserver 192.0.2.10\noptions timeout:1 attempts:1\n");
        Stage { world, sandbox, outside, beyond }
    }

    /// A server in the world beyond.
    fn server(&self, port: u16) -> TcpListener {
        self.beyond.within(|| TcpListener::bind(("192.0.2.10", port)).unwrap())
    }

    /// The sockets that an init opens before the command starts.
    fn doors(&self) -> Vec<OwnedFd> {
        self.sandbox.within(|| {
            let mut doors = vec![OwnedFd::from(UdpSocket::bind("127.0.0.1:53").unwrap())];
            doors.push(TcpListener::bind("127.0.0.1:53").unwrap().into());
            doors.extend(PORTS.map(|port| OwnedFd::from(TcpListener::bind(("0.0.0.0", port)).unwrap())));
            doors
        })
    }

    /// Starts it without an order.
    fn spawn(&self, started: Started) -> (Spawned, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let line = match started {
            Started::AsRoot => "exec \"$1\" egress --uid 61235".to_owned(),
            Started::AsOrdinary => {
                format!("exec setpriv --reuid={ORDINARY_UID} --regid={ORDINARY_UID} --clear-groups \"$1\" egress")
            }
        };
        let process = self
            .outside
            .command("unshare", "util-linux")
            .args(["-m", "sh", "-c", &format!("mount --bind \"$0\" /etc && {line}")])
            .arg(self.world.dir.join("etc"))
            .arg(program())
            .env("LOCALDOMAIN", ".")
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        (Spawned(process), ours)
    }

    fn start(&self, started: Started) -> Egress {
        self.start_at(started, &self.doors())
    }

    fn start_at(&self, started: Started, doors: &[OwnedFd]) -> Egress {
        let (process, socket) = self.spawn(started);
        give(&socket, &order(), doors);
        let reports = BufReader::new(socket.try_clone().unwrap());
        Egress { process, socket, reports }
    }

    /// Asks the name server over UDP: the code and the address of the answer.
    fn ask(&self, name: &str, kind: u8) -> (u8, Option<Ipv4Addr>) {
        let answer = self.sandbox.within(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&query(name, kind), "127.0.0.1:53").unwrap();
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).unwrap();
            answer[..length].to_vec()
        });
        understand(name, &answer)
    }

    /// The stand-in of a name that may be asked for.
    #[track_caller]
    fn stand_in(&self, name: &str) -> Ipv4Addr {
        let (code, address) = self.ask(name, 1);
        assert_eq!(code, 0, "{name}");
        address.unwrap()
    }

    fn dial(&self, address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
        let stream = self.sandbox.within(|| TcpStream::connect((address, port)))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(stream)
    }

    /// Dials, and is thrown out.
    #[track_caller]
    fn dial_in_vain(&self, address: Ipv4Addr, port: u16) {
        let ended = self.dial(address, port).and_then(|mut stream| stream.read(&mut [0]));
        assert_eq!(ended.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "{address}:{port}");
    }
}

impl Egress {
    #[track_caller]
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// Ends the run and gives the reports that were left.
    fn end(mut self) -> Vec<Value> {
        self.socket.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.reports.read_to_string(&mut rest).unwrap();
        assert!(self.process.0.wait().unwrap().success());
        rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn order() -> Value {
    let exact = |name: &str| json!({"name": format!("{name}.example"), "wildcard": false, "ports": [443, 80]});
    let names = ["open", "private", "loopback", "metadata", "metadata6", "host", "listed", "both", "nowhere"];
    let mut domains: Vec<Value> = names.into_iter().map(exact).collect();
    domains.push(json!({"name": "below.example", "wildcard": true, "ports": [443]}));
    domains.push(json!({"name": "closed.example", "wildcard": false, "ports": [8443]}));
    json!({"version": 1, "domains": domains, "ports": PORTS, "refused": ["192.0.2.11"]})
}

fn give(socket: &UnixStream, order: &Value, doors: &[OwnedFd]) {
    let json = order.to_string();
    let bytes = [&(json.len() as u32).to_le_bytes(), json.as_bytes()].concat();
    let descriptors: Vec<_> = doors.iter().map(AsRawFd::as_raw_fd).collect();
    let beside = [ControlMessage::ScmRights(&descriptors)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &beside, MsgFlags::empty(), None);
    assert_eq!(sent.unwrap(), bytes.len());
}

fn query(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

/// Code and address of an answer that repeats the question.
fn understand(name: &str, answer: &[u8]) -> (u8, Option<Ipv4Addr>) {
    let question = &query(name, 0)[12..];
    assert_eq!(answer[..3], [7, 9, 0x81], "{answer:?}");
    assert_eq!(answer[12..12 + question.len() - 4], question[..question.len() - 4], "{name}");
    let record = &answer[12 + question.len()..];
    let address = (answer[7] == 1).then(|| Ipv4Addr::new(record[12], record[13], record[14], record[15]));
    (answer[3] & 15, address)
}

#[test]
fn an_allowed_name_is_reached_and_each_end_of_a_stream_is_passed_on() {
    let stage = Stage::new();
    let server = stage.server(443);
    let mut egress = stage.start(Started::AsRoot);

    let address = stage.stand_in("Open.Example");
    assert_eq!(address, Ipv4Addr::new(198, 18, 0, 2));
    assert_eq!(egress.next(), json!({"kind": "resolved", "name": "open.example", "address": "192.0.2.10"}));
    let mut client = stage.dial(address, 443).unwrap();
    let (mut served, from) = server.accept().unwrap();
    assert_eq!(from.ip().to_string(), "192.0.2.1");
    let connected = json!({"kind": "connected", "name": "open.example", "port": 443, "address": "192.0.2.10"});
    assert_eq!(egress.next(), connected);
    let mut said = String::new();
    client.write_all(b"ping").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    served.read_to_string(&mut said).unwrap();
    served.write_all(b"and pong").unwrap();
    drop(served);
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "pingand pong");

    assert_eq!(stage.stand_in("open.example"), address, "it stays the same");
    assert_eq!(stage.stand_in("web.below.example"), Ipv4Addr::new(198, 18, 0, 3));
    assert_eq!(stage.stand_in("both.example"), Ipv4Addr::new(198, 18, 0, 4));
    assert_eq!(stage.ask("open.example", 28), (0, None), "no IPv6 inside");
    assert_eq!(egress.next()["name"], "web.below.example");
    assert_eq!(egress.next()["name"], "both.example");
    let _client = stage.dial(Ipv4Addr::new(198, 18, 0, 4), 443).unwrap();
    server.accept().unwrap();
    let connected = json!({"kind": "connected", "name": "both.example", "port": 443, "address": "192.0.2.10"});
    assert_eq!(egress.next(), connected, "by the one address of three that may be and can be reached");
    assert_eq!(egress.end(), Vec::<Value>::new());
}

#[test]
fn a_stream_that_breaks_off_does_not_look_like_one_that_is_done() {
    let stage = Stage::new();
    let server = stage.server(443);
    let _egress = stage.start(Started::AsRoot);
    let mut client = stage.dial(stage.stand_in("open.example"), 443).unwrap();
    let (served, _) = server.accept().unwrap();

    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&served, nix::sys::socket::sockopt::Linger, &now).unwrap();
    drop(served);

    assert_eq!(client.read(&mut [0]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn names_that_are_not_listed_or_lead_inwards_are_refused_and_told_once() {
    let stage = Stage::new();
    let mut egress = stage.start(Started::AsRoot);
    let not_listed = "the name is not on the list";
    let rows = [
        ("not-listed.example", not_listed),
        ("below.example", not_listed),
        ("xopen.example", not_listed),
        ("open.example.evil.example", not_listed),
        ("private.example", "it leads to an address of a private network"),
        ("loopback.example", "it leads to a loopback address"),
        ("metadata.example", "it leads to a link-local address, where clouds answer for their machines"),
        ("metadata6.example", "it leads to an address at which a cloud answers for its machines"),
        ("host.example", "it leads to an address of this host"),
        ("listed.example", "it leads to an address of this host"),
    ];
    for (name, why) in rows {
        assert_eq!(stage.ask(name, 1), (3, None), "{name}");
        assert_eq!(stage.ask(name, 1), (3, None), "{name}");
        assert_eq!(egress.next(), json!({"kind": "refused-name", "name": name, "why": why}));
    }
    assert_eq!(stage.ask("10.2.0.192.in-addr.arpa", 12), (3, None));
    assert_eq!(stage.ask("nowhere.example", 1), (2, None), "the resolver does not answer");
    assert_eq!(egress.end(), Vec::<Value>::new());
}

#[test]
fn the_name_server_answers_over_tcp_and_what_is_no_question_harms_nothing() {
    let stage = Stage::new();
    let _egress = stage.start(Started::AsRoot);
    let mut stream = stage.dial(Ipv4Addr::LOCALHOST, 53).unwrap();
    for (name, expected) in [
        ("open.example", (0, Some(Ipv4Addr::new(198, 18, 0, 2)))),
        ("not-listed.example", (3, None)),
        ("api.below.example", (0, Some(Ipv4Addr::new(198, 18, 0, 3)))),
    ] {
        let asked = query(name, 1);
        stream.write_all(&[&[0, asked.len() as u8], asked.as_slice()].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(understand(name, &answer), expected);
    }
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a header in part has no answer");
    stage.sandbox.within(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for bytes in [&[0u8; 0][..], &[1], &[0xff; 600], &query("open.example", 1)[..20]] {
            socket.send_to(bytes, "127.0.0.1:53").unwrap();
        }
    });
    assert_eq!(stage.stand_in("open.example"), Ipv4Addr::new(198, 18, 0, 2));
}

#[test]
fn connections_that_are_not_listed_are_reset_and_each_is_told() {
    let stage = Stage::new();
    let _server = (stage.server(443), stage.server(80));
    let mut egress = stage.start(Started::AsRoot);
    let (open, below) = (stage.stand_in("open.example"), stage.stand_in("api.below.example"));
    let closed = stage.stand_in("closed.example");
    for _ in 0..3 {
        assert_eq!(egress.next()["kind"], "resolved");
    }
    let other_port = "the port is not on the list for this name";
    let unknown = "the address stands for no name";
    let rows = [
        (open, 8443, json!("open.example"), other_port),
        (below, 80, json!("api.below.example"), other_port),
        (closed, 443, json!("closed.example"), other_port),
        (Ipv4Addr::new(198, 18, 7, 7), 443, Value::Null, unknown),
        (Ipv4Addr::new(198, 19, 255, 255), 80, Value::Null, unknown),
        (Ipv4Addr::LOCALHOST, 443, Value::Null, unknown),
    ];
    for (address, port, name, why) in rows {
        stage.dial_in_vain(address, port);
        let mut report = json!({"kind": "refused-connection", "port": port, "address": address, "why": why});
        if !name.is_null() {
            report["name"] = name;
        }
        assert_eq!(egress.next(), report);
    }
    stage.dial_in_vain(closed, 8443);
    let failed = json!({"kind": "failed", "name": "closed.example", "port": 8443, "address": "192.0.2.10",
        "why": "Connection refused (os error 111)"});
    assert_eq!(egress.next(), failed);
    assert_eq!(egress.end(), Vec::<Value>::new());
}

#[test]
fn an_address_that_the_host_takes_on_after_it_was_resolved_is_refused() {
    let stage = Stage::new();
    let mut egress = stage.start(Started::AsRoot);
    let open = stage.stand_in("open.example");
    assert_eq!(egress.next()["kind"], "resolved");
    let address = ["address", "add", "192.0.2.10/32", "dev", "lo"];
    assert!(stage.outside.command("ip", "iproute2").args(address).status().unwrap().success());
    let _own = stage.outside.within(|| TcpListener::bind("192.0.2.10:443").unwrap());

    stage.dial_in_vain(open, 443);

    let refused = json!({"kind": "refused-connection", "name": "open.example", "port": 443,
        "address": open, "why": "an address of this host"});
    assert_eq!(egress.next(), refused);
}

#[test]
fn nothing_but_the_listeners_leads_out() {
    let stage = Stage::new();
    let _server = stage.server(443);
    let egress = stage.start(Started::AsRoot);
    let open = stage.stand_in("open.example");

    let dialled = |address: Ipv4Addr, port| stage.dial(address, port).map(drop).map_err(|e| e.kind());
    for address in [[192, 0, 2, 10], [192, 0, 2, 1], [1, 1, 1, 1], [169, 254, 169, 254]] {
        assert_eq!(dialled(address.into(), 443), Err(ErrorKind::NetworkUnreachable), "{address:?}");
    }
    assert_eq!(dialled(open, 22), Err(ErrorKind::ConnectionRefused), "a port without a listener");
    let datagram = |to: SocketAddr| {
        stage.sandbox.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
                .connect(to)
                .and_then(|()| socket.send(b"x"))
                .and_then(|_| socket.recv(&mut [0]))
                .map_err(|e| e.kind())
        })
    };
    assert_eq!(datagram((open, 443).into()), Err(ErrorKind::ConnectionRefused));
    assert_eq!(datagram((open, 53).into()), Err(ErrorKind::ConnectionRefused));
    assert_eq!(datagram("192.0.2.10:53".parse().unwrap()), Err(ErrorKind::NetworkUnreachable));
    assert_eq!(egress.end().len(), 1, "the resolved name");
}

#[test]
fn an_ordinary_program_needs_to_know_of_nothing() {
    let stage = Stage::new();
    let server = stage.server(80);
    let _egress = stage.start(Started::AsRoot);
    let etc = stage.world.make_dir("inside");
    stage.world.write("inside/nsswitch.conf", b"hosts: files dns\n");
    stage.world.write("inside/hosts", b"127.0.0.1 localhost\n");
    stage.world.write("inside/resolv.conf", b"nameserver 127.0.0.1\noptions edns0\n");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    });
    let asked = |url: &str| {
        let mut curl = stage.sandbox.command("unshare", "util-linux");
        curl.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc && exec curl -sS --max-time 60 \"$1\""]);
        finish(curl.arg(&etc).arg(url))
    };
    assert_eq!(asked("http://open.example/").exits(0), "hello");
    answering.join().unwrap();
    assert_eq!(asked("http://not-listed.example/").code, 6, "curl could not resolve it");
}

#[test]
fn a_reader_of_reports_that_sleeps_stops_nothing_and_misses_nothing_of_a_burst() {
    let stage = Stage::new();
    let server = stage.server(443);
    let mut egress = stage.start(Started::AsRoot);
    let open = stage.stand_in("open.example");
    assert_eq!(egress.next()["kind"], "resolved");
    let tries = 200;
    stage.sandbox.within(|| {
        for _ in 0..tries {
            let mut stream = TcpStream::connect("198.18.7.7:443").unwrap();
            assert!(stream.read(&mut [0]).is_err());
        }
    });

    let _client = stage.dial(open, 443).unwrap();
    server.accept().unwrap();

    for _ in 0..tries {
        assert_eq!(egress.next()["kind"], "refused-connection");
    }
    assert_eq!(egress.next()["kind"], "connected");
    stage.dial_in_vain(open, 8443);
    assert_eq!(egress.next()["name"], "open.example", "and it goes on");
}

#[test]
fn connections_are_bounded_and_so_are_the_names_that_are_told() {
    let stage = Stage::new();
    let server = stage.server(443);
    let mut egress = stage.start(Started::AsRoot);
    let open = stage.stand_in("open.example");
    assert_eq!(egress.next()["kind"], "resolved");
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push((stage.dial(open, 443).unwrap(), server.accept().unwrap()));
        assert_eq!(egress.next()["kind"], "connected");
    }
    stage.dial_in_vain(open, 443);
    let report = egress.next();
    assert_eq!(
        (&report["kind"], &report["why"]),
        (&json!("refused-connection"), &json!("too many connections at once"))
    );

    for n in 0..256 {
        assert_eq!(stage.ask(&format!("n{n}.example"), 1), (3, None));
        assert_eq!(egress.next()["kind"], "refused-name");
    }
    for name in ["more.example", "still-more.example", "n7.example"] {
        assert_eq!(stage.ask(name, 1), (3, None));
    }
    let rest = egress.end();
    assert_eq!(rest.iter().map(|report| report["count"].as_u64().unwrap()).sum::<u64>(), 2, "{rest:?}");
}

#[test]
fn the_process_has_no_right_and_reads_only_what_a_resolver_reads() {
    for (started, uid) in [(Started::AsRoot, 61235), (Started::AsOrdinary, ORDINARY_UID)] {
        let stage = Stage::new();
        let egress = stage.start(started);
        stage.stand_in("open.example");
        let status = fs::read_to_string(format!("/proc/{}/status", egress.process.0.id())).unwrap();
        let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!(line("Uid:"), [uid.to_string().as_str(); 4].join("\t"));
        assert_eq!(line("Gid:"), [uid.to_string().as_str(); 4].join("\t"));
        assert_eq!(line("Groups:"), "");
        assert_eq!(line("NoNewPrivs:"), "1");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(line(set), "0000000000000000", "{set}");
        }
        egress.end();
        // The same file, where every user may read it, but not where a resolver has to.
        fs::rename(stage.world.dir.join("etc/hosts"), stage.world.dir.join("hosts")).unwrap();
        std::os::unix::fs::symlink(stage.world.dir.join("hosts"), stage.world.dir.join("etc/hosts")).unwrap();
        let _egress = stage.start(started);
        assert_eq!(stage.ask("open.example", 1), (2, None));
    }
}

#[test]
fn it_ends_with_the_other_side_also_while_connections_are_open_or_in_the_making() {
    let stage = Stage::new();
    let server = stage.server(443);
    let mut egress = stage.start(Started::AsRoot);
    let mut client = stage.dial(stage.stand_in("open.example"), 443).unwrap();
    let (served, _) = server.accept().unwrap();
    assert_eq!(egress.next()["kind"], "resolved");
    assert_eq!(egress.next()["kind"], "connected");
    // Nobody answers there: a connection in the making.
    let dropped = stage.beyond.command("ip", "iproute2").args(["link", "set", "cable", "down"]).status().unwrap();
    assert!(dropped.success());
    let mut waiting = stage.dial(Ipv4Addr::new(198, 18, 0, 2), 80).unwrap();
    // Connections are taken in their order: once this one is refused, the other one is on its way.
    stage.dial_in_vain(Ipv4Addr::new(198, 18, 7, 7), 80);
    assert_eq!(egress.next()["kind"], "refused-connection");

    let last = egress.end();

    let failed = json!({"kind": "failed", "name": "open.example", "port": 80, "address": "192.0.2.10",
        "why": "the run has ended"});
    assert_eq!(last, [failed]);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(matches!(waiting.read(&mut [0]), Ok(0) | Err(_)));
    drop(served);
}

#[test]
fn what_is_not_exactly_an_order_with_its_sockets_is_refused() {
    let stage = Stage::new();
    let doors = stage.doors();
    let change = |field: &str, value: Value| {
        let mut changed = order();
        changed[field] = value;
        changed
    };
    let rows = [
        (change("more", json!(1)), doors.as_slice()),
        (change("version", json!(2)), doors.as_slice()),
        (change("ports", json!([443, 80, 8443])), doors.as_slice()),
        (change("refused", json!(["here"])), doors.as_slice()),
        (order(), &doors[..4]),
        (order(), &doors[..0]),
        (order(), &doors[1..]),
    ];
    for (order, doors) in rows {
        let (mut process, socket) = stage.spawn(Started::AsRoot);
        give(&socket, &order, doors);
        assert_eq!(process.0.wait().unwrap().code(), Some(1), "{order}");
    }
    let (mut process, mut socket) = stage.spawn(Started::AsRoot);
    socket.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(process.0.wait().unwrap().code(), Some(1), "an order without bound");
    let (mut process, socket) = stage.spawn(Started::AsRoot);
    drop(socket);
    assert!(process.0.wait().unwrap().success(), "nobody wants anything");
    let mut egress = stage.start_at(Started::AsRoot, &doors);
    egress.socket.write_all(b"x").unwrap();
    assert_eq!(egress.process.0.wait().unwrap().code(), Some(1), "more than an order");
}

#[test]
fn it_does_not_start_as_root_or_with_the_hosts_search_domains() {
    let mut alone = tool("env", "coreutils");
    let without = finish(alone.arg(program()).args(["egress", "--uid", "61235"]));
    assert_eq!(without.code, 1);
    assert!(without.stderr.contains("the environment lacks LOCALDOMAIN=."), "{without:?}");
    for arguments in [&["egress"][..], &["egress", "--uid", "0"]] {
        let mut alone = tool("env", "coreutils");
        let ran = finish(alone.arg("LOCALDOMAIN=.").arg(program()).args(arguments).stdin(Stdio::null()));
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("root was given no uid to become"), "{ran:?}");
    }
}
