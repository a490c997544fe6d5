//! A stage for one test: scratch folders, a gateway on a free port, clients of it. All of it goes when it is dropped.

use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

/// Longest wait for anything; reaching it is a failure, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whose gateway it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    /// A uid without a name or rights.
    Ordinary,
}

pub const ORDINARY_UID: u32 = 61_234;

/// Both users, so that every wall is tried in both tiers.
pub const USERS: [User; 2] = [User::Root, User::Ordinary];

pub fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The program under test, where an ordinary user can execute it.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = base().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let copy = folder.join("vambrace");
        fs::copy(env!("CARGO_BIN_EXE_vambrace"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    })
}

/// The forbidden acts, built once.
pub fn attacks() -> &'static Path {
    static ATTACKS: OnceLock<PathBuf> = OnceLock::new();
    ATTACKS.get_or_init(|| build("attacks"))
}

/// What starts a program as a container without namespaces does, built once.
fn lock_down() -> &'static Path {
    static LOCK: OnceLock<PathBuf> = OnceLock::new();
    LOCK.get_or_init(|| build("locked_down"))
}

/// A program of `tests`, where an ordinary user can execute it.
fn build(name: &str) -> PathBuf {
    let folder = base().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let built = folder.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(format!("{name}.c"));
    let done = Command::new("cc").args(["-O1", "-static", "-w", "-o"]).arg(&built).arg(source).status();
    assert!(done.is_ok_and(|s| s.success()), "cannot build tests/{name}.c: install gcc and libc6-dev");
    fs::set_permissions(&built, fs::Permissions::from_mode(0o755)).unwrap();
    built
}

/// A folder of this test process, reachable for every user. The last test to end leaves only what `make test` removes.
fn base() -> PathBuf {
    let base = std::env::temp_dir().join(format!("vambrace-test-{}", std::process::id()));
    fs::create_dir_all(&base).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
    base
}

/// The stage.
pub struct World {
    pub dir: PathBuf,
    pub user: User,
    config: String,
    gateway: Option<Child>,
    port: u16,
    /// The network that the gateway runs in, where it is not the host's.
    network: Option<PathBuf>,
    /// The file of names that the host's resolver reads there, where it is not the host's.
    hosts: Option<PathBuf>,
    /// Whether a service manager says where state and sockets are.
    is_service: bool,
    /// Whether `vambrace` can make no namespace.
    is_locked_down: bool,
    /// What else stands in the environment of `vambrace`.
    variables: Vec<(String, PathBuf)>,
    /// Whether the gateway has a service manager beyond its start, and what that is told.
    is_managed: bool,
    manager: Option<UnixDatagram>,
}

/// The next thing that a service manager is told.
pub fn receive(manager: &UnixDatagram) -> std::io::Result<String> {
    let mut bytes = [0; 4096];
    let read = manager.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// A process that ends with the test, however the test ends.
pub struct Spawned(pub Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Spawned {
    /// Sends it a signal and waits for its end.
    pub fn stop(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal).unwrap();
        self.0.wait().unwrap()
    }
}

/// What a command left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// Folders for this user; nothing runs yet.
    pub fn new(user: User) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(user == User::Ordinary || am_root(), "this test needs root: run `make test` as root");
        let dir = base().join(format!("w{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let (config, network, hosts, variables) = (String::new(), None, None, Vec::new());
        let (gateway, is_service, is_locked_down) = (None, false, false);
        let world = World {
            dir,
            user,
            config,
            gateway,
            port: 0,
            network,
            hosts,
            is_service,
            is_locked_down,
            variables,
            is_managed: false,
            manager: None,
        };
        for folder in ["", "home", "run"] {
            world.make_dir(folder);
        }
        world
    }

    /// A world whose gateway runs already.
    pub fn running(user: User) -> Self {
        World::new(user).start()
    }

    /// With this configuration; `@` stands for the world's folder.
    pub fn config(mut self, text: &str) -> Self {
        self.config = text.replace('@', self.dir.to_str().unwrap());
        self.write("vambrace.toml", self.config.clone().as_bytes());
        self
    }

    /// With the gateway in a network of its own, named by its file in /proc.
    pub fn within(mut self, network: &Path) -> Self {
        assert!(am_root(), "only root enters another network: run `make test` as root");
        self.network = Some(network.to_owned());
        self
    }

    /// With names that the host's resolver knows there, as lines of hosts(5); `set_hosts` replaces them.
    pub fn hosts(mut self, lines: &str) -> Self {
        self.hosts = Some(self.write("hosts", lines.as_bytes()));
        self
    }

    /// Has the resolver know other names from now on.
    pub fn set_hosts(&self, lines: &str) {
        // The same inode: it is mounted.
        fs::write(self.dir.join("hosts"), lines).unwrap();
    }

    /// With its places named as systemd does for a service: sockets lie beside the state, in `run/vambrace`.
    pub fn under_systemd(mut self) -> Self {
        self.is_service = true;
        self
    }

    /// With a service manager that listens for as long as the gateway runs; `told` is what it hears.
    pub fn managed(mut self) -> Self {
        self.is_managed = true;
        self
    }

    pub fn manager(&self) -> &UnixDatagram {
        self.manager.as_ref().unwrap()
    }

    /// What the service manager is told next.
    pub fn told(&self) -> String {
        receive(self.manager()).unwrap_or_else(|e| panic!("the manager is told nothing: {e}\n{}", self.log()))
    }

    /// The socket of a service manager at this path, and its word for a gateway's environment.
    pub fn listen_as_manager(&self) -> (PathBuf, UnixDatagram) {
        let path = self.dir.join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (path, socket)
    }

    /// With `vambrace` where no namespace can be made, as in a container that is locked down.
    pub fn locked_down(mut self) -> Self {
        self.is_locked_down = true;
        self
    }

    /// With this in the environment of `vambrace`.
    pub fn variable(mut self, name: &str, value: &Path) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes a folder of the user below the world.
    pub fn make_dir(&self, relative: &str) -> PathBuf {
        let path = self.dir.join(relative);
        fs::create_dir_all(&path).unwrap();
        self.give(&path);
        path
    }

    /// Writes a file of the user below the world.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.join(relative);
        fs::write(&path, bytes).unwrap();
        self.give(&path);
        path
    }

    /// Makes it the user's.
    pub fn give(&self, path: &Path) {
        if self.user == User::Ordinary && am_root() {
            chown(path, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
        }
    }

    pub fn uid(&self) -> u32 {
        match self.user {
            User::Root => 0,
            User::Ordinary if am_root() => ORDINARY_UID,
            User::Ordinary => nix::unistd::geteuid().as_raw(),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The workspace of an agent without one of its own.
    pub fn workspace(&self) -> PathBuf {
        self.dir.join("state-workspaces/main")
    }

    /// `vambrace` with these arguments, as the user, in the world's places.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command =
            self.bare_command(if self.is_locked_down { lock_down() } else { program() }.to_str().unwrap());
        if self.is_locked_down {
            command.arg(program());
        }
        if self.is_service {
            command.env("STATE_DIRECTORY", self.state()).env("RUNTIME_DIRECTORY", self.dir.join("run/vambrace"));
        } else {
            command.arg("--state-dir").arg(self.state());
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if !self.config.is_empty() {
            command.arg("--config").arg(self.dir.join("vambrace.toml"));
        }
        command.args(arguments);
        command
    }

    /// Any program as the user.
    pub fn bare_command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.join("home")).current_dir(&self.dir);
        if self.user == User::Ordinary && am_root() {
            command.uid(ORDINARY_UID).gid(ORDINARY_UID);
        }
        command
    }

    /// The same command in the gateway's network and with its names. It keeps its pid.
    pub fn within_network(&self, command: Command) -> Command {
        let Some(network) = &self.network else { return command };
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net={}", network.display())).arg("--");
        if let Some(hosts) = &self.hosts {
            let line = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            inside.args(["unshare", "--mount", "sh", "-c", line]).arg(hosts);
        }
        if self.user == User::Ordinary {
            let id = ORDINARY_UID;
            inside.args(["setpriv", &format!("--reuid={id}"), &format!("--regid={id}"), "--clear-groups"]);
        }
        inside.arg(command.get_program()).args(command.get_args());
        inside.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside.current_dir(&self.dir);
        inside
    }

    /// Starts the gateway and waits for its word that it is ready.
    pub fn start(mut self) -> Self {
        self.start_again();
        self
    }

    pub fn start_again(&mut self) {
        let (path, socket) = self.listen_as_manager();
        let log = fs::File::create(self.dir.join("gateway.log")).unwrap();
        let child = self
            .within_network(self.command(&["gateway", "--port", "0"]))
            .env("NOTIFY_SOCKET", &path)
            .env("VAMBRACE_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.gateway = Some(child);
        let mut said = String::new();
        // It may have fed the watchdog before.
        while !said.contains("READY=1") && !said.contains("STATUS=failed") {
            said = receive(&socket).unwrap_or_else(|e| panic!("the gateway is not ready: {e}\n{}", self.log()));
        }
        assert!(said.contains("READY=1"), "{said}");
        self.port = said.rsplit(':').next().unwrap().trim().parse().unwrap();
        self.manager = Some(socket).filter(|_| self.is_managed);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn gateway_pid(&self) -> i32 {
        self.gateway.as_ref().unwrap().id() as i32
    }

    pub fn runner_pid(&self) -> i32 {
        self.status()["runner"]["pid"].as_i64().expect("a runner is connected") as i32
    }

    /// Waits until nothing runs and the runner's one child waits for the next command in finished walls, of which the
    /// filter is the last.
    pub fn rest(&self) {
        let runner = self.runner_pid();
        let children = || fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap();
        let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        eventually("the runner rests", || {
            let children = children();
            let mut waiting = children.split_whitespace();
            let is_walled = waiting.next().is_some_and(|pid| status(pid).contains("\nSeccomp:\t2\n"));
            is_walled && waiting.next().is_none() && self.status()["runs"] == 0
        });
    }

    /// Sends the gateway a signal and waits for its end.
    pub fn stop(&mut self, signal: nix::sys::signal::Signal) {
        if let Some(mut child) = self.gateway.take() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal);
            child.wait().unwrap();
        }
    }

    /// Runs `vambrace` to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments).stdin(Stdio::null()))
    }

    /// Runs `vambrace` with this standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = piped(&mut self.command(arguments)).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = ran(child.wait_with_output().unwrap());
        writer.join().unwrap();
        ran
    }

    /// Runs a command inside the walls, through the gateway.
    pub fn exec(&self, command: &[&str]) -> Ran {
        self.run(&[&["exec", "--"], command].concat())
    }

    /// Runs a shell line inside the walls.
    pub fn sh(&self, line: &str) -> Ran {
        self.exec(&["sh", "-c", line])
    }

    /// Tries one act of tests/attacks.c inside the walls.
    pub fn attack(&self, act: &[&str]) -> Ran {
        let copy = self.workspace().join("attacks");
        if !copy.exists() {
            fs::create_dir_all(self.workspace()).unwrap();
            self.give(&self.dir.join("state-workspaces"));
            self.give(&self.workspace());
            fs::copy(attacks(), &copy).unwrap();
            self.give(&copy);
        }
        // In the tier without namespaces the workspace stands at its own path.
        let inside = if self.is_locked_down { copy.to_str().unwrap() } else { "/workspace/attacks" };
        self.exec(&[&[inside], act].concat())
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(arguments);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {ran:?}"))
    }

    pub fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    pub fn token(&self) -> String {
        self.run(&["token", "show"]).stdout.trim().to_owned()
    }

    /// Every entry of the journal, as the gateway tells them.
    pub fn journal(&self) -> Vec<Value> {
        let ran = self.run(&["journal", "list", "--limit", "1000", "--json"]);
        ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Entries of one event.
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.journal().into_iter().filter(|e| e["event"] == event).collect()
    }

    /// A TCP connection upgraded to WebSocket, before any frame.
    pub fn socket(&self) -> Ws {
        Ws::open(self.port)
    }

    /// The certificate that the gateway made for itself.
    pub fn certificate(&self) -> PathBuf {
        self.state().join("tls-certificate.pem")
    }

    /// The TLS twin of `socket`, trusting this certificate alone.
    pub fn tls_socket(&self, certificate: &Path) -> Ws<TlsStream> {
        let stream = tls(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), "localhost", certificate);
        Ws::over(stream, &format!("localhost:{}", self.port), &[]).unwrap_or_else(|(s, body)| panic!("{s}: {body}"))
    }

    /// An authenticated connection of the original's kind of command line.
    pub fn connect(&self) -> Ws {
        let mut ws = self.socket();
        let hello = ws.hello(&self.token(), json!({}));
        assert_eq!(hello["ok"], true, "{hello}");
        ws
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whoever waits until its manager reads would not end.
        self.manager = None;
        self.stop(nix::sys::signal::Signal::SIGTERM);
        if std::thread::panicking() {
            eprintln!("--- gateway.log of {}\n{}", self.dir.display(), self.log());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn piped(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped())
}

pub fn finish(command: &mut Command) -> Ran {
    ran(piped(command).output().unwrap())
}

fn ran(output: std::process::Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ran {
    /// Asserts the exit code and gives the standard output.
    #[track_caller]
    pub fn exits(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.stdout
    }

    /// Asserts an error of this exit code whose message holds these words, with a hint.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains("error: ") && self.stderr.contains(words), "{self:?}");
        assert!(self.stderr.contains("hint: "), "{self:?}");
    }
}

pub type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// TLS over this connection, trusting one certificate alone. The handshake is done with the first byte.
pub fn tls(stream: TcpStream, name: &str, certificate: &Path) -> TlsStream {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsStream::new(rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap(), stream)
}

/// A raw WebSocket client.
pub struct Ws<S = TcpStream> {
    pub socket: WebSocket<S>,
    next: u32,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

impl Ws {
    pub fn open(port: u16) -> Self {
        Self::try_open(port, &[]).unwrap_or_else(|(status, body)| panic!("{status}: {body}"))
    }

    /// Opens with further headers; `Err` is the HTTP status and body of a refusal.
    pub fn try_open(port: u16, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ws::over(stream, &format!("127.0.0.1:{port}"), headers)
    }
}

impl<S: Read + Write> Ws<S> {
    /// Opens over a connection that is there already.
    pub fn over(stream: S, host: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        Self::over_path(stream, host, "/", headers)
    }

    /// The same on another path than `/`.
    pub fn over_path(stream: S, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = tungstenite::handshake::client::Request::builder().uri(format!("ws://{host}{path}"));
        let mut set_host = false;
        for (name, value) in headers {
            set_host |= *name == "Host";
            request = request.header(*name, *value);
        }
        if !set_host {
            request = request.header("Host", host);
        }
        let request = request
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
            .body(())
            .unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Ws { socket, next: 0 }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(e) => Err((0, e.to_string())),
        }
    }

    /// The nonce of the challenge, which must come first.
    pub fn challenge(&mut self) -> String {
        let challenge = self.read();
        assert_eq!(challenge["event"], "connect.challenge", "{challenge}");
        challenge["payload"]["nonce"].as_str().unwrap().to_owned()
    }

    /// Sends `connect` with a token and gives the response. `over` replaces parameters.
    pub fn hello(&mut self, token: &str, over: Value) -> Value {
        self.challenge();
        let mut params = json!({
            "minProtocol": 4, "maxProtocol": 4,
            "client": {"id": "cli", "mode": "cli", "version": "1", "platform": "linux"},
            "role": "operator",
            "scopes": ["operator.admin", "operator.read", "operator.write"],
            "auth": {"token": token},
        });
        for (key, value) in over.as_object().unwrap() {
            params[key] = value.clone();
        }
        self.call("connect", params)
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends a request and gives its id.
    pub fn ask(&mut self, method: &str, params: Value) -> String {
        self.next += 1;
        let id = format!("t{}", self.next);
        self.send_text(&json!({"type": "req", "id": id, "method": method, "params": params}).to_string());
        id
    }

    /// Sends a request and waits for its response; events in between are dropped.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        self.response(&id)
    }

    pub fn response(&mut self, id: &str) -> Value {
        loop {
            let frame = self.read();
            if frame["type"] == "res" && frame["id"] == id {
                return frame;
            }
        }
    }

    /// Waits for an event of this name.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let frame = self.read();
            if frame["event"] == name {
                return frame["payload"].clone();
            }
        }
    }

    /// The next text frame.
    pub fn read(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap_or_else(|e| panic!("the connection ended: {e}")) {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Reads until the close frame; texts in between are given as well.
    pub fn closed(&mut self) -> (Vec<Value>, Closed) {
        let mut texts = Vec::new();
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => texts.push(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(Some(frame))) => {
                    return (texts, Closed { code: frame.code.into(), reason: frame.reason.to_string() });
                }
                Ok(Message::Close(None)) => return (texts, Closed { code: 1005, reason: String::new() }),
                Ok(_) => {}
                Err(e) => panic!("ended without a close frame: {e}"),
            }
        }
    }
}

/// One plain HTTP request; gives the status line's code, the head and the body.
pub fn http(port: u16, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    (code, head.to_ascii_lowercase(), body.to_owned())
}

/// Waits for something that another process brings about; fails after a long while.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Seconds for a `sleep` that no other test and no other run of the tests sleeps: its mark in the process list.
pub fn mark(seconds: u32) -> &'static str {
    static MARKS: std::sync::Mutex<std::collections::BTreeMap<u32, &'static str>> =
        std::sync::Mutex::new(std::collections::BTreeMap::new());
    let mut marks = MARKS.lock().unwrap();
    marks.entry(seconds).or_insert_with(|| format!("{seconds}.{}", std::process::id()).leak())
}

/// Pids whose command line holds this word.
pub fn processes_with(word: &str) -> Vec<i32> {
    let me = std::process::id() as i32;
    let mut found = Vec::new();
    for item in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = item.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let line = fs::read(item.path().join("cmdline")).unwrap_or_default();
        if pid != me && String::from_utf8_lossy(&line).contains(word) {
            found.push(pid);
        }
    }
    found
}

/// Resident bytes of a process.
pub fn resident(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
