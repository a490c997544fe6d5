//! Engines on other machines: over TLS with certificates of both sides, and over ssh. Here the other machine is this one,
//! behind the very programs that would stand there.

use crate::engine::{Dock, image};
use crate::world::*;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program that serves until the test ends.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(command: &mut Command, needs: &str) -> Serving {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Serving(child.unwrap_or_else(|e| panic!("{e}: install {needs}")))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listens(port: u16) {
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// An authority, a certificate for 127.0.0.1, and one for us, in the files that engines' certificates go by.
fn certificates(folder: &Path) {
    let openssl = |line: &str| {
        finish(Command::new("openssl").args(line.split_whitespace()).current_dir(folder)).exits(0);
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout authority.key -out ca.pem -days 2 -subj /CN=authority"));
    for (name, means, certificate, private) in [
        ("server", "subjectAltName=IP:127.0.0.1", "server.pem", "server.key"),
        ("client", "extendedKeyUsage=clientAuth", "cert.pem", "key.pem"),
    ] {
        fs::write(folder.join("means"), means).unwrap();
        openssl(&format!("req {key} -keyout {private} -out request -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in request -CA ca.pem -CAkey authority.key -CAcreateserial -days 2 -extfile means -out {certificate}"
        ));
    }
}

/// The engine behind TLS, with the certificates of this folder.
fn behind_tls(folder: &Path) -> (Serving, u16) {
    let (port, file) = (free_port(), |name: &str| folder.join(name).display().to_string());
    let (certificate, key, authority) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let listen = format!(
        "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,cert={certificate},key={key},cafile={authority},verify=1"
    );
    let serving = serve(Command::new("socat").args([&listen, "UNIX-CONNECT:/var/run/docker.sock"]), "socat");
    listens(port);
    (serving, port)
}

fn remote(host: &str, more: &str) -> String {
    format!(
        "[agents.far.sandbox]\nworkspace_access = \"none\"\nscope = \"agent\"\ndocker = {{ host = \"{host}\", {more} }}\n"
    )
}

fn far(world: &World, line: &str) -> Ran {
    world.run(&["exec", "--agent", "far", "--", "sh", "-c", line])
}

#[test]
fn an_agents_engine_may_be_on_another_machine_behind_tls() {
    for user in USERS {
        let scratch = World::new(user);
        let (certs, others) = (scratch.make_dir("certs"), scratch.make_dir("others"));
        for folder in [&certs, &others] {
            certificates(folder);
            for file in fs::read_dir(folder).unwrap().flatten() {
                scratch.give(&file.path());
            }
        }
        let (_serving, port) = behind_tls(&certs);
        let host = format!("tcp://127.0.0.1:{port}");
        let mut dock = Dock::with(user, &remote(&host, &format!("tls = \"{}\"", certs.display())));

        // Side by side with an agent whose engine is this host's.
        assert_eq!(dock.world.sh("echo near > file; cat file").exits(0), "near\n");
        assert_eq!(far(&dock.world, "echo far > file; cat file; echo x > /tmp/mark").exits(0), "far\n");
        assert_eq!(far(&dock.world, "cat file /tmp/mark").exits(0), "far\nx\n", "what it keeps is kept there");
        let record = dock.world.events("exec.finished").pop().unwrap();
        assert!(record["enforcement"].as_str().unwrap().starts_with("docker image=sha256:"), "{record}");
        let listed = dock.world.json(&["sandbox", "list", "--json"]);
        let container =
            &listed["sandboxes"].as_array().unwrap().iter().find(|s| s["name"] == "agent.far").unwrap()["container"];
        assert_eq!(container["asPlanned"], true, "{listed}");
        dock.world.run(&["sandbox", "recreate", "agent.far"]).exits(0);
        eventually("its container is gone", || dock.containers() != ["agent.far"]);

        // Whoever is not of the authority is not spoken to, and neither are we without our certificate.
        dock.world.stop(nix::sys::signal::Signal::SIGTERM);
        for (broken, says) in [("ca.pem", "certificate"), ("cert.pem", "")] {
            fs::copy(certs.join(broken), certs.join("kept")).unwrap();
            fs::copy(others.join(broken), certs.join(broken)).unwrap();
            if broken == "cert.pem" {
                fs::copy(certs.join("key.pem"), certs.join("kept-key")).unwrap();
                fs::copy(others.join("key.pem"), certs.join("key.pem")).unwrap();
            }
            dock.world.start_again();
            let ran = far(&dock.world, "true");
            assert!(
                ran.stderr.contains("no container engine at tcp://") && ran.stderr.contains(says),
                "{broken}: {ran:?}"
            );
            assert_eq!(ran.code, 125, "{ran:?}");
            dock.world.exec(&["true"]).exits(0);
            dock.world.stop(nix::sys::signal::Signal::SIGTERM);
            fs::copy(certs.join("kept"), certs.join(broken)).unwrap();
        }
        fs::remove_file(certs.join("key.pem")).unwrap();
        dock.world.start_again();
        far(&dock.world, "true").fails(125, "key.pem");
    }
}

#[test]
fn an_agents_engine_may_be_on_another_machine_behind_ssh() {
    let scratch = World::new(User::Root);
    let folder = scratch.make_dir("ssh");
    let at = |name: &str| folder.join(name).display().to_string();
    for key in ["host", "own"] {
        finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)])).exits(0);
    }
    fs::copy(at("own.pub"), at("authorized")).unwrap();
    let port = free_port();
    let known = fs::read_to_string(at("host.pub")).unwrap();
    fs::write(at("known"), format!("[127.0.0.1]:{port} {known}")).unwrap();
    fs::write(at("none-known"), "").unwrap();
    let server = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
        at("host"),
        at("authorized")
    );
    fs::write(at("sshd_config"), server).unwrap();
    let client = |known: &str, strict: &str| {
        format!(
            "User root\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\n\
             StrictHostKeyChecking {strict}\n",
            at("own"),
            at(known)
        )
    };
    fs::write(at("config"), client("known", "yes")).unwrap();
    fs::write(at("stranger"), client("none-known", "no")).unwrap();
    let own_folder = Path::new("/run/sshd");
    let had_folder = own_folder.exists();
    fs::create_dir_all(own_folder).unwrap();
    fs::set_permissions(own_folder, fs::Permissions::from_mode(0o755)).unwrap();
    let _serving = serve(Command::new("/usr/sbin/sshd").args(["-r", "-D", "-f", &at("sshd_config")]), "openssh-server");
    listens(port);

    let config = |name: &str| remote(&format!("ssh://127.0.0.1:{port}"), &format!("ssh_config = \"{}\"", at(name)));
    let dock = Dock::with(User::Root, &config("config"));
    assert_eq!(far(&dock.world, "echo far > file; cat file").exits(0), "far\n");
    assert_eq!(far(&dock.world, "cat file").exits(0), "far\n");
    assert_eq!(dock.containers(), ["agent.far"]);
    let ssh = || ssh_with(&at("config"));
    assert!(!ssh().is_empty(), "its runner's way in is one");
    drop(dock);
    eventually("no ssh is left", || ssh().is_empty());

    let stranger = Dock::with(User::Root, &config("stranger"));
    let ran = far(&stranger.world, "true");
    assert!(ran.stderr.contains("hint: does `ssh` get in"), "{ran:?}");
    ran.fails(125, "no container engine at ssh://127.0.0.1");
    if !had_folder {
        let _ = fs::remove_dir(own_folder);
    }
}

/// Processes of ssh that were started with this configuration.
fn ssh_with(config: &str) -> Vec<PathBuf> {
    let of = |path: &Path| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first() == Some(&b"ssh".as_slice()) && words.contains(&config.as_bytes())
    };
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(|path| of(path)).collect()
}

#[test]
fn what_another_machine_cannot_have_of_this_one_is_refused_by_the_configuration() {
    let world = World::new(User::Ordinary);
    let certs = world.make_dir("certs").display().to_string();
    for (sandbox, says) in [
        ("docker = { host = \"tcp://192.0.2.7:2376\" }".to_owned(), "needs `tls`"),
        ("docker = { host = \"http://h:2375\" }".into(), "none of unix:///PATH"),
        ("docker = { host = \"ssh://-oProxyCommand=x\" }".into(), "no [user@]host"),
        ("docker = { tls = \"/certs\" }".into(), "is missing"),
        (format!("docker = {{ host = \"tcp://192.0.2.7:2376\", tls = \"{certs}\" }}"), "workspace_access"),
        (
            format!(
                "workspace_access = \"none\"\nro = [\"/usr\"]\ndocker = {{ host = \"tcp://192.0.2.7:2376\", tls = \"{certs}\" }}"
            ),
            "ro",
        ),
        (
            format!(
                "workspace_access = \"none\"\nnetwork = \"allowlist\"\ndocker = {{ host = \"tcp://192.0.2.7:2376\", tls = \"{certs}\" }}"
            ),
            "network",
        ),
    ] {
        let config = format!("[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{}\"\n{sandbox}\n", image());
        let file = world.write("remote.toml", config.as_bytes());
        let ran = world.run(&["--config", file.to_str().unwrap(), "config", "check"]);
        assert!(ran.code != 0 && ran.stderr.contains(says), "{sandbox}: {ran:?}");
    }
}
