//! A real container engine, asked over its own socket; whoever has none is told what to install.

use crate::world::{User, World, finish};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

const SOCKET: &str = "/var/run/docker.sock";

/// Asks the engine; the status and the answer.
pub fn ask(method: &str, path: &str, body: Option<&Value>) -> (u32, Value) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket", SOCKET]);
    if let Some(body) = body {
        curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let ran = finish(curl.arg(format!("http://engine/v1.41{path}")));
    assert_eq!(ran.code, 0, "no container engine answers at {SOCKET}: run `make test`, which starts one: {ran:?}");
    let (text, status) = ran.stdout.trim_end().rsplit_once('\n').unwrap_or(("", ran.stdout.trim()));
    (status.parse().unwrap(), serde_json::from_str(text).unwrap_or(Value::Null))
}

/// The image of most tests: busybox under the usual names. Made once.
pub fn image() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| import("busybox", &[], |_| ()))
}

/// Imports busybox as an image, with these lines of a Dockerfile and whatever is done to its files, and gives its name,
/// which is this test run's alone. The label is what `tests/engine.sh` removes it by.
pub fn import(kind: &str, changes: &[&str], also: impl Fn(&Path)) -> String {
    static RUN: OnceLock<u128> = OnceLock::new();
    let run = RUN.get_or_init(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos());
    let name = format!("vambrace-test-{kind}:{run:x}");
    let world = World::new(User::Root);
    let root = world.make_dir("image");
    for folder in ["bin", "usr/bin", "etc", "lib"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox is not installed: apt-get install busybox-static");
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let applets = finish(Command::new(busybox).arg("--list")).exits(0);
    for applet in applets.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    symlink("../../bin/env", root.join("usr/bin/env")).unwrap();
    fs::write(root.join("etc/hostname"), "image\n").unwrap();
    also(&root);
    let (repo, tag) = name.split_once(':').unwrap();
    let changes: String =
        changes.iter().map(|line| format!("&changes={}", line.replace(' ', "%20").replace('"', "%22"))).collect();
    let url = format!(
        "http://engine/v1.41/images/create?fromSrc=-&repo={repo}&tag={tag}&changes=LABEL%20io.vambrace.test=1{changes}"
    );
    let mut tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sSfg", "-X", "POST", "-T", "-", "--unix-socket", SOCKET, &url]).stdin(tar.stdout.take().unwrap());
    finish(&mut curl).exits(0);
    assert!(tar.wait().unwrap().success());
    name
}

/// A world whose sandboxes are containers of that image. What it has made in the engine goes with it.
pub struct Dock {
    pub world: World,
    /// With a user who has no right to the engine's socket: the way to it.
    pub way: Option<Way>,
}

impl Dock {
    pub fn running(user: User) -> Self {
        Self::with(user, "")
    }

    /// With these lines as well.
    pub fn with(user: User, config: &str) -> Self {
        Self::of(user, image(), config)
    }

    /// In a world that has its folders already.
    pub fn within(world: World, config: &str) -> Self {
        Self::prepared(world, image(), config)
    }

    /// With another image.
    pub fn of(user: User, image: &str, config: &str) -> Self {
        Self::prepared(World::new(user), image, config)
    }

    fn prepared(world: World, image: &str, config: &str) -> Self {
        let (mut host, mut way) = (String::new(), None);
        if world.user == User::Ordinary {
            let socket = world.make_dir("engine").join("engine.sock");
            way = Some(relay(&socket));
            host = format!("[docker]\nhost = \"unix://{}\"\n", socket.display());
        }
        let defaults = format!("{host}[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{image}\"\n");
        Dock { world: world.config(&format!("{defaults}{config}")).start(), way }
    }

    /// Names of this world's containers, without what all have in common.
    pub fn containers(&self) -> Vec<String> {
        let mut found: Vec<String> = self.listed().into_iter().map(|(name, _)| name).collect();
        found.sort();
        found
    }

    /// What the engine says of a sandbox's container.
    pub fn inspect(&self, sandbox: &str) -> Value {
        let listed = self.listed();
        let (_, id) =
            listed.iter().find(|(name, _)| name == sandbox).unwrap_or_else(|| panic!("{sandbox}: {listed:?}"));
        ask("GET", &format!("/containers/{id}/json"), None).1
    }

    /// The same of every container that has its label.
    pub fn inspect_all(&self, sandbox: &str) -> Vec<Value> {
        let listed = self.listed();
        let ids = listed.iter().filter(|(name, _)| name == sandbox);
        ids.map(|(_, id)| ask("GET", &format!("/containers/{id}/json"), None).1).collect()
    }

    /// What the gateway says of the container of its only kept sandbox.
    pub fn standing(&self) -> Value {
        self.world.json(&["sandbox", "list", "--json"])["sandboxes"][0]["container"].clone()
    }

    fn listed(&self) -> Vec<(String, String)> {
        let gateway = self.label();
        let (_, found) = ask("GET", "/containers/json?all=1", None);
        let of_ours = |item: &Value| {
            let is_ours = item["Labels"]["io.vambrace.gateway"] == gateway.as_str();
            let name = item["Labels"]["io.vambrace.sandbox"].as_str()?;
            is_ours.then(|| (name.to_owned(), item["Id"].as_str().unwrap().to_owned()))
        };
        found.as_array().into_iter().flatten().filter_map(of_ours).collect()
    }

    /// What tells this gateway's containers from others': as the gateway makes it.
    pub fn label(&self) -> String {
        let line = self.runner_line();
        let at = line.iter().position(|word| word == "--gateway").expect("a docker runner");
        line[at + 1].clone()
    }

    fn runner_line(&self) -> Vec<String> {
        let pid = self.world.status()["dockerRunner"]["pid"].as_i64().expect("a docker runner is connected");
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

impl Drop for Dock {
    fn drop(&mut self) {
        for (_, id) in self.listed() {
            ask("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
        }
        ask("DELETE", &format!("/networks/vambrace-{:.8}", self.label()), None);
    }
}

/// Passes connections on to the engine, for a user who has no right to its socket.
#[derive(Clone, Default)]
pub struct Way {
    is_cut: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Way {
    /// Ends every connection and takes no other, as if the engine were gone; or lets it be there again.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Passes nothing on from now on and ends nothing, as a network that is cut off.
    pub fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }
}

/// A socket before the engine; `way` is what becomes of each connection with one of its own to the engine.
pub fn before_the_engine(path: &Path, way: impl Fn(UnixStream, UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            way(client, UnixStream::connect(SOCKET).unwrap());
        }
    });
}

fn relay(path: &Path) -> Way {
    let way = Way::default();
    let ours = way.clone();
    before_the_engine(path, move |client, engine| {
        if ours.is_cut.load(Ordering::SeqCst) {
            return;
        }
        ours.open.lock().unwrap().extend([client.try_clone().unwrap(), engine.try_clone().unwrap()]);
        for (mut from, mut to) in [
            (client.try_clone().unwrap(), engine.try_clone().unwrap()),
            (engine.try_clone().unwrap(), client.try_clone().unwrap()),
        ] {
            let silent = Arc::clone(&ours.is_silent);
            std::thread::spawn(move || {
                let mut bytes = [0; 16 << 10];
                while let Ok(read @ 1..) = from.read(&mut bytes) {
                    if silent.load(Ordering::SeqCst) {
                        continue;
                    }
                    if to.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
                if !silent.load(Ordering::SeqCst) {
                    let _ = to.shutdown(Shutdown::Write);
                }
            });
        }
    });
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    way
}
