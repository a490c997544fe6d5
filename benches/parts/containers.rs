//! Containers, against the engine's own ways to do the same, in turns within one run.

use super::{World, call, hello, json, launch_with, median, ms, private, row, upgrade};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

const SOCKET: &str = "/var/run/docker.sock";
const IMAGE: &str = "vambrace-bench:latest";

/// Asks the engine; all that it answers. An exec's output comes as the answer, and its end is the end.
fn ask(method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(SOCKET).expect("no container engine: run `make bench`, which starts one");
    write!(
        stream,
        "{method} /v1.41{path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn id_in(answer: &str) -> String {
    let at = answer.find("\"Id\":\"").unwrap_or_else(|| panic!("{answer}")) + 6;
    answer[at..].split('"').next().unwrap().to_owned()
}

fn import() {
    let folder = std::env::temp_dir().join(format!("vambrace-bench-image-{}", std::process::id()));
    fs::create_dir_all(folder.join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::exists(path).unwrap_or(false));
    fs::copy(busybox.expect("apt-get install busybox-static"), folder.join("bin/true")).unwrap();
    let mut tar = Command::new("tar").arg("-C").arg(&folder).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let mut import = Command::new("docker");
    import.args(["import", "-c", "LABEL io.vambrace.test=1", "-", IMAGE]).stdin(tar.stdout.take().unwrap());
    let imported = import.stdout(Stdio::null()).status();
    assert!(imported.expect("docker is not installed: apt-get install docker.io").success());
    tar.wait().unwrap();
    fs::remove_dir_all(&folder).unwrap();
}

pub(super) fn containers(world: &World) {
    import();
    let config = world.dir.join("containers.toml");
    let text = format!(
        "[store]\nkey_file = \"{}\"\n[defaults.sandbox]\nbackend = \"docker\"\nimage = \"{IMAGE}\"\n",
        world.dir.join("key").display()
    );
    private(&config, text.as_bytes());
    let flags = ["--config", config.to_str().unwrap()];
    let (gateway, _) = launch_with(world, &world.dir.join("containers"), &flags, None);
    let mut ws = upgrade(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), gateway.port);
    hello(&mut ws, &gateway.token);
    let mut run = |session: Option<&str>| {
        let begun = Instant::now();
        let answer = call(&mut ws, "exec.run", json!({"command": ["/bin/true"], "session": session}));
        assert_eq!(answer["ok"], true, "{answer}");
        (ms(begun), answer["payload"]["enforcement"]["container"]["id"].as_str().unwrap().to_owned())
    };
    // The image is made once, and is not what is measured.
    let (_, id) = run(Some("warm"));
    let (mut ours, mut api, mut cli) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40 {
        ours.push(run(Some("warm")).0);
        let begun = Instant::now();
        let wish = r#"{"AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Cmd":["/bin/true"]}"#;
        let exec = id_in(&ask("POST", &format!("/containers/{id}/exec"), wish));
        ask("POST", &format!("/exec/{exec}/start"), r#"{"Detach":false,"Tty":false}"#);
        api.push(ms(begun));
        let begun = Instant::now();
        assert!(Command::new("docker").args(["exec", &id, "/bin/true"]).status().unwrap().success());
        cli.push(ms(begun));
    }
    let (ours, api, cli) = (median(ours), median(api), median(cli));
    row("exec in a warm container / the engine's own exec by its API", ratio(ours, api), "target: at most 1.1");
    row("exec in a warm container / the command `docker exec`", ratio(ours, cli), "target: at most 0.7");
    let (mut fresh, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        fresh.push(run(None).0);
        let begun = Instant::now();
        let done = Command::new("docker").args(["run", "--rm", "--network", "none", IMAGE, "/bin/true"]).status();
        assert!(done.unwrap().success());
        engine.push(ms(begun));
    }
    let ratio = ratio(median(fresh), median(engine));
    row("first command in a fresh container / the command `docker run`", ratio, "target: at most 1.1");
    drop(gateway);
    ask("DELETE", &format!("/containers/{id}?force=1"), "");
}

fn ratio(ours: f64, theirs: f64) -> String {
    format!("{ours:.1} / {theirs:.1} ms = {:.2}", ours / theirs)
}
