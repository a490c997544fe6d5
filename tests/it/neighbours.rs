//! What stands beside a gateway: certificates, a proxy, a tailnet, a network of its own. All of it goes when it is dropped.

use crate::world::{Ran, Spawned, World, am_root, eventually, finish};
use nix::sys::signal::Signal;
use nix::sys::socket;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A program of the host, with an empty environment.
pub fn tool(name: &str, package: &str) -> Command {
    let path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no {name}: install {package}"));
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

/// The user that web servers run as.
pub fn web_uid() -> u32 {
    let user = nix::unistd::User::from_name("www-data").unwrap();
    user.expect("there is no user www-data: install nginx-light").uid.as_raw()
}

/// What a request over HTTP came to; 0 where there was no answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Head and body.
    pub text: String,
}

impl Answer {
    /// Asserts the status and gives head and body.
    #[track_caller]
    pub fn is(self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.text
    }
}

/// Asks with curl. `command` is a curl that has been set up for whoever asks.
pub fn ask(command: &mut Command, arguments: &[&str]) -> Answer {
    let ran = finish(command.args(["-sSi", "--max-time", "60", "-w", "\n%{http_code}"]).args(arguments));
    let (text, status) = ran.stdout.rsplit_once('\n').unwrap_or(("", ""));
    Answer { status: status.parse().unwrap_or(0), text: format!("{text}{}", ran.stderr) }
}

/// A curl of root's, or of whoever runs the tests.
pub fn curl() -> Command {
    tool("curl", "curl")
}

pub fn openssl(arguments: &[&str]) -> Ran {
    finish(tool("openssl", "openssl").args(arguments))
}

/// A certificate and its key, of a world's user.
pub struct Certificate {
    pub pem: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// One for localhost, signed by itself or by an authority.
    pub fn new(world: &World, name: &str, issuer: Option<&Certificate>) -> Self {
        Self::make(world, name, issuer, "CA:FALSE")
    }

    /// An authority.
    pub fn authority(world: &World, name: &str) -> Self {
        Self::make(world, name, None, "CA:TRUE")
    }

    fn make(world: &World, name: &str, issuer: Option<&Certificate>, constraint: &str) -> Self {
        let made =
            Certificate { pem: world.dir.join(format!("{name}.pem")), key: world.dir.join(format!("{name}.key")) };
        let config = format!(
            "[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=ext\n[dn]\nCN={name}\n\
             [ext]\nbasicConstraints=critical,{constraint}\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
        );
        let config = world.write(&format!("{name}.cnf"), config.as_bytes());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments: Vec<String> =
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -config"
                .split(' ')
                .map(str::to_owned)
                .collect();
        arguments.extend([text(&config), "-keyout".into(), text(&made.key), "-out".into(), text(&made.pem)]);
        if let Some(issuer) = issuer {
            arguments.extend(["-CA".into(), text(&issuer.pem), "-CAkey".into(), text(&issuer.key)]);
        }
        openssl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).exits(0);
        world.give(&made.pem);
        world.give(&made.key);
        made
    }

    /// Takes the place of another one.
    pub fn replace(&self, other: &Certificate) {
        fs::copy(&self.pem, &other.pem).unwrap();
        fs::copy(&self.key, &other.key).unwrap();
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(&self.pem)
    }
}

/// The SHA-256 of a certificate, by openssl's word, spelled as the gateway spells it.
pub fn fingerprint(pem: &Path) -> String {
    let out = openssl(&["x509", "-in", pem.to_str().unwrap(), "-noout", "-fingerprint", "-sha256"]).exits(0);
    let hex = out.trim().split_once('=').unwrap().1.replace(':', "").to_ascii_lowercase();
    format!("sha256:{hex}")
}

/// A real nginx, run by www-data.
pub struct Nginx {
    pub port: u16,
    dir: PathBuf,
    process: Spawned,
}

impl Nginx {
    /// With these lines in its `server`; `@` stands for the world's folder. It listens on a free port, in TLS with the
    /// certificate `ssl` where there is one.
    pub fn start(world: &World, ssl: Option<&Certificate>, lines: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(am_root(), "this test needs root: run `make test` as root");
        let dir = world.dir.join(format!("nginx{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).unwrap();
        Self::own(&dir);
        // The socket is handed over as nginx does it to its own successor, so that no two tests race for a port.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let here = dir.display();
        let mut listen = format!("listen 127.0.0.1:{port};");
        if let Some(certificate) = ssl {
            for (from, to) in [(&certificate.pem, "own.pem"), (&certificate.key, "own.key")] {
                fs::copy(from, dir.join(to)).unwrap();
                Self::own(&dir.join(to));
            }
            listen = format!(
                "listen 127.0.0.1:{port} ssl; ssl_certificate {here}/own.pem; ssl_certificate_key {here}/own.key;"
            );
        }
        let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {here}/{name};"))
            .concat();
        let lines = lines.replace('@', world.dir.to_str().unwrap());
        let config = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/log info;\n\
             events {{ worker_connections 64; }}\n\
             http {{\naccess_log off; {folders}\n\
             map $http_upgrade $upgraded {{ default upgrade; '' close; }}\n\
             proxy_http_version 1.1;\nproxy_read_timeout 600s;\n\
             server {{\n{listen}\n{lines}\n}}\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let process = tool("nginx", "nginx-light")
            .args(["-p", &here.to_string(), "-e", "log", "-c", "nginx.conf"])
            .env("NGINX", "0;")
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("stderr")).unwrap())
            .uid(web_uid())
            .gid(web_uid())
            .spawn()
            .unwrap();
        Nginx { port, dir, process: Spawned(process) }
    }

    /// Gives it a file of its own.
    pub fn own(path: &Path) {
        chown(path, Some(web_uid()), Some(web_uid())).unwrap();
    }

    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it only when it is asked to end, and it may not listen yet to who asks.
        eventually("nginx ends", || {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.process.0.id() as i32), Signal::SIGTERM);
            self.process.0.try_wait().unwrap().is_some()
        });
        if std::thread::panicking() {
            let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            eprintln!("--- nginx {}: {}{}", self.process.0.id(), read("log"), read("stderr"));
        }
    }
}

/// A network namespace with nothing in it but loopback and a few addresses on it.
pub struct Network(Spawned);

impl Network {
    pub fn new(addresses: &[&str]) -> Self {
        assert!(am_root(), "this test needs root: run `make test` as root");
        tool("ip", "iproute2");
        let add: String = addresses.iter().map(|a| format!("ip address add {a}/32 dev lo && ")).collect();
        let mut holder = tool("unshare", "util-linux")
            .args(["--net", "sh", "-c", &format!("ip link set lo up && {add}echo ready && exec cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "ready", "a network of its own needs CAP_SYS_ADMIN");
        Network(Spawned(holder))
    }

    /// A second network, joined to this one by a cable; each end has these addresses, and reaches those of the other.
    pub fn joined(&self, here: &[&str], there: &[&str]) -> Network {
        let other = Network::new(&[]);
        let make = format!("ip link add cable type veth peer name cable netns {}", other.0.0.id());
        let ends = [(self, here, there), (&other, there, here)];
        let run = |network: &Network, line: &str| {
            let done = network.command("sh", "dash").args(["-c", line]).status().unwrap();
            assert!(done.success(), "{line}: the kernel has no veth, or this is not root");
        };
        run(self, &make);
        for (network, own, others) in ends {
            let add: String = own.iter().map(|a| format!("ip address add {a}/32 dev cable && ")).collect();
            let routes: String =
                others.iter().map(|a| format!(" && ip route add {a}/32 dev cable src {}", own[0])).collect();
            run(network, &format!("{add}ip link set cable up{routes}"));
        }
        other
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.0.id()).into()
    }

    /// A program inside.
    pub fn command(&self, name: &str, package: &str) -> Command {
        let program = tool(name, package).get_program().to_owned();
        let mut command = tool("nsenter", "util-linux");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// A connection inside, from one address to another.
    pub fn connect(&self, from: &str, to: SocketAddrV4) -> TcpStream {
        let from = SocketAddrV4::new(from.parse::<Ipv4Addr>().unwrap(), 0);
        self.within(move || {
            let (family, kind) = (socket::AddressFamily::Inet, socket::SockType::Stream);
            let made = socket::socket(family, kind, socket::SockFlag::SOCK_CLOEXEC, None).unwrap();
            socket::bind(made.as_raw_fd(), &socket::SockaddrIn::from(from)).unwrap();
            socket::connect(made.as_raw_fd(), &socket::SockaddrIn::from(to)).unwrap();
            TcpStream::from(made)
        })
    }

    /// Does something inside. A socket stays in the network it was made in.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }
}

/// A stand-in for tailscaled: answers `whois` on a unix socket.
pub struct Tailscaled {
    path: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Tailscaled {
    /// Knows these addresses, each with the JSON it answers.
    pub fn start(path: &Path, knows: &'static [(&'static str, &'static str)]) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (log, accepting) = (Arc::clone(&asked), listener.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                answer(stream, knows, &log);
            }
        });
        Tailscaled { path: path.to_owned(), asked, listener, thread: Some(thread) }
    }

    /// The addresses it was asked about since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(mut stream: UnixStream, knows: &[(&str, &str)], log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let wanted = head.strip_prefix("GET /localapi/v0/whois?addr=").and_then(|rest| rest.split(' ').next());
    let wanted = wanted.unwrap_or_else(|| panic!("not what tailscaled is asked: {head}"));
    log.lock().unwrap().push(wanted.to_owned());
    let ip = wanted.rsplit_once(':').unwrap().0;
    let said = match knows.iter().find(|(known, _)| *known == ip) {
        Some((_, json)) => format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{json}"),
        None => "HTTP/1.0 404 Not Found\r\n\r\nno match for IP:port\n".to_owned(),
    };
    let _ = stream.write_all(said.as_bytes());
}

impl Drop for Tailscaled {
    fn drop(&mut self) {
        // Wakes its thread, also where the folder is gone already.
        let _ = socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}
