//! How Podman tells of a container, in the words of the engine whose API it speaks: the same facts, other spellings.
//!
//! What it does not tell at all is not compared: which paths of /proc it masks. Everything else that is not as planned
//! stays a difference.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What Podman gives every container unless told otherwise; all of it dropped is none left (containers.conf(5)).
const USUAL_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Variables that it sets itself.
const OWN_VARIABLES: &[&str] = &["TERM=xterm", "container=podman", "container=oci", "HOSTNAME=sandbox"];

/// The folder in memory that it adds to a read-only root. Landlock grants nobody to write there.
const OWN_FOLDER: &str = "/var/tmp";

/// `Config` and `HostConfig` in the other engine's words. `planned` is the request.
pub(super) fn translate(config: &mut Value, host: &mut Value, planned: &Value) {
    if let Some(config) = config.as_object_mut() {
        if let Some(Value::Array(variables)) = config.get_mut("Env") {
            variables.retain(|variable| !OWN_VARIABLES.iter().any(|own| variable == own));
        }
        if config.get("Healthcheck").is_some_and(|check| check["Test"] == json!(["NONE"])) {
            config.insert("Healthcheck".into(), json!({"Test": ["NONE"]}));
        }
        same(config, "StopSignal", "15", "SIGTERM");
        // By a name of its own; which image it is, its id says.
        config.insert("Image".into(), planned["Image"].clone());
    }
    let Some(host) = host.as_object_mut() else { return };
    let dropped = host.get("CapDrop").and_then(Value::as_array).cloned().unwrap_or_default();
    if USUAL_CAPABILITIES
        .iter()
        .all(|usual| dropped.iter().any(|name| name == usual || *name == format!("CAP_{usual}")))
    {
        host.insert("CapDrop".into(), json!(["ALL"]));
    }
    // A namespace of its own; that others might be let into it is for others.
    same(host, "IpcMode", "shareable", "private");
    same(host, "PidMode", "private", "");
    same(host, "UTSMode", "private", "");
    same(host, "CgroupMode", "private", "");
    same(host, "Runtime", "oci", "runc");
    if let Some(Value::Array(limits)) = host.get_mut("Ulimits") {
        for limit in limits {
            let name = limit["Name"].as_str().unwrap_or_default().trim_start_matches("RLIMIT_").to_ascii_lowercase();
            limit["Name"] = name.into();
        }
    }
    if let Some(Value::Object(folders)) = host.get_mut("Tmpfs") {
        folders.retain(|place, options| place != OWN_FOLDER || options != "rw,rprivate,nosuid,nodev,tmpcopyup");
        for options in folders.values_mut() {
            let kept =
                options.as_str().unwrap_or_default().split(',').filter(|o| !matches!(*o, "rprivate" | "tmpcopyup"));
            *options = kept.collect::<Vec<_>>().join(",").into();
        }
    }
    let shown = host.get("Binds").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(mounts) = shown.iter().map(mount).collect::<Option<Vec<_>>>() {
        host.insert("Mounts".into(), in_order(mounts, &planned["HostConfig"]["Mounts"]).into());
        host.insert("Binds".into(), json!([]));
    }
}

fn same(fields: &mut Map<String, Value>, name: &str, told: &str, means: &str) {
    if fields.get(name).is_some_and(|value| value == told) {
        fields.insert(name.into(), means.into());
    }
}

/// `SOURCE:TARGET:OPTIONS` as a mount; `None` where it has options that none of ours has.
fn mount(bind: &Value) -> Option<Value> {
    let mut parts = bind.as_str()?.splitn(3, ':');
    let (source, target, options) = (parts.next()?, parts.next()?, parts.next()?);
    let options: Vec<&str> = options.split(',').collect();
    // What the source's own mount has is told as well.
    const KNOWN: &[&str] = &["ro", "rw", "rprivate", "bind", "rbind", "nosuid", "nodev", "noexec"];
    let is_ours = options.iter().all(|option| KNOWN.contains(option)) && options.contains(&"rprivate");
    is_ours.then(|| {
        json!({
            "Type": "bind", "Source": source, "Target": target, "ReadOnly": options.contains(&"ro"),
            "BindOptions": {"Propagation": "rprivate"},
        })
    })
}

/// In the order of the plan; it sorts them otherwise.
fn in_order(mounts: Vec<Value>, planned: &Value) -> Vec<Value> {
    let place = |mount: &Value| mount["Target"].as_str().unwrap_or_default().to_owned();
    let order: BTreeMap<String, usize> =
        planned.as_array().into_iter().flatten().enumerate().map(|(number, mount)| (place(mount), number)).collect();
    let mut mounts = mounts;
    mounts.sort_by_key(|mount| order.get(&place(mount)).copied().unwrap_or(usize::MAX));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_calls_otherwise_is_the_same_and_what_is_otherwise_is_not() {
        let planned =
            json!({"Image": "sha256:1", "HostConfig": {"Mounts": [{"Target": "/workspace"}, {"Target": "/tmp"}]}});
        let mut config = json!({"Env": ["A=", "TERM=xterm", "LD_PRELOAD=x"], "StopSignal": "15"});
        let mut host = json!({
            "CapDrop": USUAL_CAPABILITIES, "IpcMode": "host", "PidMode": "private",
            "Ulimits": [{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 1}],
            "Tmpfs": {"/var/tmp": "rw,rprivate,nosuid,nodev,tmpcopyup", "/x": "rw,exec,rprivate,tmpcopyup"},
            "Binds": ["/a:/tmp:rw,rprivate,rbind", "/b:/workspace:ro,rprivate,rbind,noexec"],
        });
        translate(&mut config, &mut host, &planned);
        assert_eq!(config, json!({"Env": ["A=", "LD_PRELOAD=x"], "StopSignal": "SIGTERM", "Image": "sha256:1"}));
        assert_eq!(
            (&host["CapDrop"], &host["IpcMode"], &host["PidMode"]),
            (&json!(["ALL"]), &json!("host"), &json!(""))
        );
        assert_eq!(host["Ulimits"][0]["Name"], "nofile");
        assert_eq!(host["Tmpfs"], json!({"/x": "rw,exec"}));
        assert_eq!((&host["Mounts"][0]["Source"], &host["Mounts"][0]["ReadOnly"]), (&json!("/b"), &json!(true)));
        for (field, value) in [
            ("CapDrop", json!(["CHOWN", "KILL"])),
            ("Binds", json!(["/a:/tmp:rw,rshared,rbind"])),
            ("PidMode", json!("host")),
        ] {
            let mut other = json!({ field: value.clone() });
            translate(&mut Value::Null, &mut other, &planned);
            assert_eq!(other[field], value, "{field}");
        }
    }
}
