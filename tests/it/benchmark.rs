//! What section 5 of the CIS Docker Benchmark (numbers as of 1.3 to 1.6) asks of a running container, of a live one of ours:
//! each rule is a line, and each is seen to fail where a container is otherwise.

use crate::engine::{Dock, ask};
use crate::world::*;
use serde_json::{Value, json};

struct Rule {
    number: u8,
    /// In our words.
    title: &'static str,
    holds: fn(&Value) -> bool,
    /// A fact, and the value of it that the rule is there for.
    place: &'static str,
    otherwise: fn() -> Value,
}

fn none(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(Value::is_null),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn engine_has(facts: &Value, what: &str) -> bool {
    list(&facts["engine"]).iter().any(|option| text(option).contains(what))
}

/// Whether this is how root is named, who is also whom nobody names.
fn is_root(user: &Value) -> bool {
    ["", "0", "root"].contains(&text(user).split(':').next().unwrap_or_default())
}

/// Trees of the host that no container may be shown.
fn is_sensitive(source: &str) -> bool {
    ["/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr"].contains(&source)
        || ["/boot/", "/dev/", "/etc/", "/lib/", "/proc/", "/sys/", "/usr/"].iter().any(|tree| source.starts_with(tree))
}

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { number: 1, title: "an AppArmor profile, where the engine has them",
        holds: |f| text(&f["live"]["AppArmorProfile"]) != "unconfined" && (!engine_has(f, "apparmor") || !none(&f["live"]["AppArmorProfile"])),
        place: "/live/AppArmorProfile", otherwise: || json!("unconfined") },
    Rule { number: 2, title: "SELinux labels, where the engine has them",
        holds: |f| !list(&f["host"]["SecurityOpt"]).iter().any(|o| text(o).starts_with("label")) && (!engine_has(f, "selinux") || !none(&f["live"]["ProcessLabel"])),
        place: "/host/SecurityOpt", otherwise: || json!(["label=disable"]) },
    Rule { number: 3, title: "no capability that is not needed: none at all",
        holds: |f| none(&f["host"]["CapAdd"]) && f["host"]["CapDrop"] == json!(["ALL"]) && text(&f["status"]).contains("CapBnd:\t0000000000000000"),
        place: "/host/CapAdd", otherwise: || json!(["NET_RAW"]) },
    Rule { number: 4, title: "not privileged",
        holds: |f| f["host"]["Privileged"] == false, place: "/host/Privileged", otherwise: || json!(true) },
    Rule { number: 5, title: "no folder of the host's system",
        holds: |f| !list(&f["live"]["Mounts"]).is_empty() && !list(&f["live"]["Mounts"]).iter().any(|m| is_sensitive(text(&m["Source"]))) && none(&f["host"]["Binds"]),
        place: "/live/Mounts/0/Source", otherwise: || json!("/etc") },
    Rule { number: 6, title: "no server of ssh in it",
        holds: |f| !text(&f["processes"]).is_empty() && !text(&f["processes"]).contains("sshd"), place: "/processes", otherwise: || json!("/usr/sbin/sshd -D") },
    Rule { number: 7, title: "no privileged port of the host: none",
        holds: |f| none(&f["host"]["PortBindings"]), place: "/host/PortBindings", otherwise: || json!({"80/tcp": [{"HostPort": "80"}]}) },
    Rule { number: 8, title: "no port that is not needed: none",
        holds: |f| f["host"]["PublishAllPorts"] == false && none(&f["live"]["NetworkSettings"]["Ports"]), place: "/host/PublishAllPorts", otherwise: || json!(true) },
    Rule { number: 9, title: "a network namespace of its own",
        holds: |f| text(&f["host"]["NetworkMode"]) != "host" && !text(&f["host"]["NetworkMode"]).starts_with("container:"), place: "/host/NetworkMode", otherwise: || json!("host") },
    Rule { number: 10, title: "memory is bounded, with none to swap",
        holds: |f| f["host"]["Memory"].as_i64() > Some(0) && f["host"]["MemorySwap"] == f["host"]["Memory"], place: "/host/Memory", otherwise: || json!(0) },
    // By a quota, which holds always; shares are a weight, which holds where somebody else wants the CPU.
    Rule { number: 11, title: "CPU is bounded",
        holds: |f| f["host"]["NanoCpus"].as_i64() > Some(0), place: "/host/NanoCpus", otherwise: || json!(0) },
    Rule { number: 12, title: "the root file system is read-only",
        holds: |f| f["host"]["ReadonlyRootfs"] == true, place: "/host/ReadonlyRootfs", otherwise: || json!(false) },
    // Nothing comes in, so it comes by no interface.
    Rule { number: 13, title: "what comes in comes by a named interface of the host: nothing does",
        holds: |f| none(&f["live"]["NetworkSettings"]["Ports"]), place: "/live/NetworkSettings/Ports", otherwise: || json!({"80/tcp": [{"HostIp": "0.0.0.0"}]}) },
    // Met by never: what ends is made anew for the next command, and not by the engine.
    Rule { number: 14, title: "started again five times at most: never",
        holds: |f| f["host"]["RestartPolicy"]["Name"] == "no", place: "/host/RestartPolicy/Name", otherwise: || json!("always") },
    Rule { number: 15, title: "a pid namespace of its own",
        holds: |f| none(&f["host"]["PidMode"]), place: "/host/PidMode", otherwise: || json!("host") },
    Rule { number: 16, title: "an ipc namespace of its own",
        holds: |f| f["host"]["IpcMode"] == "private", place: "/host/IpcMode", otherwise: || json!("host") },
    Rule { number: 17, title: "no device of the host",
        holds: |f| ["Devices", "DeviceRequests", "DeviceCgroupRules"].iter().all(|field| none(&f["host"][field])), place: "/host/Devices", otherwise: || json!([{"PathOnHost": "/dev/mem"}]) },
    Rule { number: 18, title: "its own limits of open files and dumps",
        holds: |f| ["core", "nofile"].iter().all(|name| list(&f["host"]["Ulimits"]).iter().any(|limit| limit["Name"] == *name)), place: "/host/Ulimits", otherwise: || json!([]) },
    Rule { number: 19, title: "no mount is passed on to the host",
        holds: |f| list(&f["live"]["Mounts"]).iter().all(|mount| mount["Propagation"] == "rprivate"), place: "/live/Mounts/0/Propagation", otherwise: || json!("shared") },
    Rule { number: 20, title: "a uts namespace of its own",
        holds: |f| none(&f["host"]["UTSMode"]), place: "/host/UTSMode", otherwise: || json!("host") },
    Rule { number: 21, title: "the engine's filter of system calls is on",
        holds: |f| !list(&f["host"]["SecurityOpt"]).iter().any(|o| text(o).starts_with("seccomp")) && text(&f["status"]).contains("Seccomp:\t2"),
        place: "/status", otherwise: || json!("CapBnd:\t0000000000000000\nSeccomp:\t0\n") },
    Rule { number: 22, title: "nothing is executed in it with privileges",
        holds: |f| !list(&f["execs"]).is_empty() && list(&f["execs"]).iter().all(|exec| exec["ProcessConfig"]["privileged"] != true), place: "/execs/0/ProcessConfig/privileged", otherwise: || json!(true) },
    Rule { number: 23, title: "nothing is executed in it as root",
        holds: |f| !is_root(&f["live"]["Config"]["User"]) && list(&f["execs"]).iter().all(|exec| none(&exec["ProcessConfig"]["user"]) || !is_root(&exec["ProcessConfig"]["user"])),
        place: "/live/Config/User", otherwise: || json!("0:0") },
    Rule { number: 24, title: "a control group where the engine puts them",
        holds: |f| none(&f["host"]["CgroupParent"]), place: "/host/CgroupParent", otherwise: || json!("/") },
    Rule { number: 25, title: "no program gives more rights",
        holds: |f| list(&f["host"]["SecurityOpt"]).contains(&json!("no-new-privileges")), place: "/host/SecurityOpt", otherwise: || json!([]) },
    // Off on purpose: what the image's author wrote would be commands beside ours that nobody asked for. Whether a container
    // answers is seen by the runner inside, before each command.
    Rule { number: 26, title: "its health is looked at: by our runner, not by the image's command",
        holds: |f| f["live"]["Config"]["Healthcheck"]["Test"] == json!(["NONE"]), place: "/live/Config/Healthcheck/Test", otherwise: || json!(["CMD", "x"]) },
    // By its digest, so that no name leads elsewhere later.
    Rule { number: 27, title: "an image that is meant, not the latest of a name",
        holds: |f| text(&f["live"]["Config"]["Image"]).starts_with("sha256:"), place: "/live/Config/Image", otherwise: || json!("x:latest") },
    Rule { number: 28, title: "processes are bounded",
        holds: |f| f["host"]["PidsLimit"].as_i64() > Some(0), place: "/host/PidsLimit", otherwise: || json!(-1) },
    Rule { number: 29, title: "not on the engine's own bridge",
        holds: |f| f["live"]["NetworkSettings"]["Networks"].as_object().is_some_and(|on| on.len() == 1 && !on.contains_key("bridge")),
        place: "/live/NetworkSettings/Networks", otherwise: || json!({"bridge": {}}) },
    Rule { number: 30, title: "the host's user namespace is not asked for",
        holds: |f| none(&f["host"]["UsernsMode"]), place: "/host/UsernsMode", otherwise: || json!("host") },
    Rule { number: 31, title: "no engine's socket in it",
        holds: |f| !f["live"].to_string().contains("docker.sock"), place: "/live/Mounts/0/Source", otherwise: || json!("/var/run/docker.sock") },
];

fn facts(live: Value, status: &str) -> Value {
    let id = text(&live["Id"]).to_owned();
    let execs: Vec<Value> =
        list(&live["ExecIDs"]).iter().map(|exec| ask("GET", &format!("/exec/{}/json", text(exec)), None).1).collect();
    let processes = ask("GET", &format!("/containers/{id}/top"), None).1["Processes"].to_string();
    let engine = ask("GET", "/info", None).1["SecurityOptions"].clone();
    json!({"host": live["HostConfig"], "live": live, "execs": execs, "processes": processes, "engine": engine, "status": status})
}

#[test]
fn each_rule_of_the_benchmark_for_containers_holds() {
    let numbers: Vec<u8> = RULES.iter().map(|rule| rule.number).collect();
    assert_eq!(numbers, (1..=31).collect::<Vec<_>>());
    for user in USERS {
        let dock = Dock::with(user, "scope = \"agent\"\n[profiles.out]\nnetwork = \"host\"\nscope = \"session\"\n");
        for (more, name) in [(&[][..], "agent.main"), (&["--profile", "out", "--session", "s"], "session.main.s")] {
            let line = [&["exec"], more, &["--", "cat", "/proc/self/status"]].concat();
            let status = dock.world.run(&line).exits(0);
            let facts = facts(dock.inspect(name), &status);
            for Rule { number, title, holds, place, otherwise } in RULES {
                assert!(holds(&facts), "5.{number} {title}: {name}");
                let mut other = facts.clone();
                *other.pointer_mut(place).unwrap_or_else(|| panic!("5.{number}: {place}")) = otherwise();
                assert!(!holds(&other), "5.{number} {title}: not seen where it is otherwise");
            }
        }
    }
}
