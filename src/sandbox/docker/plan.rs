//! What a container is to be, and how a live one differs from that. Pure.
//!
//! The body of the request to the engine is made here and nowhere else, from a closed struct: nothing that an agent or
//! a workspace says is a field of it. A container that is there already is used only if everything that the engine
//! tells of its configuration is what was asked for; a field that is unknown here and not empty is a difference too.

use super::maker::MAKER;
use super::podman;
use super::reach::Kind;
use crate::crypto;
use crate::model::Limits;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Labels of a container: whose it is, which sandbox, and the digest of its plan.
pub(super) const GATEWAY: &str = "io.vambrace.gateway";
pub(super) const SANDBOX: &str = "io.vambrace.sandbox";
pub(super) const PLAN: &str = "io.vambrace.plan";
/// Seconds that it may lie unused.
pub(super) const IDLE: &str = "io.vambrace.idle";
/// Seconds that it may be there.
pub(super) const AGE: &str = "io.vambrace.age";

/// A folder or file of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// As the engine finds it.
    pub(super) source: String,
    pub(super) target: String,
    pub(super) read_only: bool,
    /// Whether nothing there is code.
    pub(super) no_exec: bool,
    /// Whether what the engine is given has these flags itself. It passes them on as they are, unless it is told one of
    /// them: then it mounts once more, and those that it was not told are gone.
    pub(super) is_mounted: bool,
    /// Device, inode and owner of what stood there: another of its name is another plan.
    pub(super) identity: String,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Whose engine it is for.
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) gateway: String,
    pub(super) sandbox: String,
    /// The id of the image with the bundle.
    pub(super) image: String,
    /// Variables that the image sets, which are emptied.
    pub(super) variables: Vec<String>,
    /// The words that keep it alive.
    pub(super) rest: Vec<String>,
    pub(super) user: (u32, u32),
    pub(super) shown: Vec<Shown>,
    /// Folders in memory by where they stand, with their options for mount(8).
    pub(super) scratch: BTreeMap<String, String>,
    /// The name server inside, where names are answered.
    pub(super) dns: Option<String>,
    /// What can be reached, in order: commands of one container share its way out.
    pub(super) domains: Vec<String>,
    /// The bridge that it is on; none for a container without a network.
    pub(super) bridge: Option<String>,
    /// What was executed in it once, before its first command.
    pub(super) setup: Option<String>,
    pub(super) limits: Limits,
    pub(super) idle_seconds: u64,
    pub(super) age_seconds: Option<u64>,
    /// The mark of the process that has it for one command: nobody else removes it meanwhile.
    pub(super) maker: Option<String>,
}

impl Plan {
    /// SHA-256 in hex over everything in it.
    pub(super) fn digest(&self) -> String {
        let mut body = self.body_without_digest();
        // A map without an order would be another text each time.
        let labels: BTreeMap<_, _> = body.labels.take().unwrap_or_default().into_iter().collect();
        let host = body.host_config.take().unwrap_or_default();
        let identities: Vec<&str> = self.shown.iter().map(|shown| shown.identity.as_str()).collect();
        let texts = [
            serde_json::to_value(&body).unwrap_or_default().to_string(),
            serde_json::to_value(&host).unwrap_or_default().to_string(),
            format!("{labels:?} {identities:?} {:?} {:?}", self.domains, self.setup),
        ];
        crypto::hex(&crypto::sha256(&texts.each_ref().map(|text| text.as_bytes())))
    }

    /// The request to the engine.
    pub(super) fn body(&self) -> ContainerCreateBody {
        let mut body = self.body_without_digest();
        if let Some(labels) = &mut body.labels {
            labels.insert(PLAN.into(), self.digest());
        }
        body
    }

    fn body_without_digest(&self) -> ContainerCreateBody {
        let mut labels = vec![
            (GATEWAY, self.gateway.clone()),
            (SANDBOX, self.sandbox.clone()),
            (IDLE, self.idle_seconds.to_string()),
        ];
        labels.extend(self.age_seconds.map(|seconds| (AGE, seconds.to_string())));
        labels.extend(self.maker.clone().map(|mark| (MAKER, mark)));
        ContainerCreateBody {
            hostname: Some("sandbox".into()),
            user: Some(format!("{}:{}", self.user.0, self.user.1)),
            image: Some(self.image.clone()),
            entrypoint: Some(self.rest.clone()),
            cmd: Some(Vec::new()),
            env: Some(self.variables.iter().map(|name| format!("{name}=")).collect()),
            working_dir: Some("/".into()),
            // The image's own would be commands that nobody asked for.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
            labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            stop_signal: Some("SIGTERM".into()),
            stop_timeout: Some(1),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.host()),
            ..Default::default()
        }
    }

    fn host(&self) -> HostConfig {
        let limits = &self.limits;
        let bytes = |bytes: u64| Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        let ulimit =
            |name: &str, value| ResourcesUlimits { name: Some(name.into()), soft: Some(value), hard: Some(value) };
        HostConfig {
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            privileged: Some(false),
            readonly_rootfs: Some(true),
            network_mode: Some(self.bridge.clone().unwrap_or_else(|| "none".into())),
            dns: self.dns.clone().map(|address| vec![address]),
            ipc_mode: Some("private".into()),
            init: Some(true),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: Some(0) }),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: Some(HashMap::new()) }),
            memory: bytes(limits.memory_bytes),
            // Of both together: none to swap.
            memory_swap: bytes(limits.memory_bytes),
            nano_cpus: Some(i64::from(limits.milli_cpus) * 1_000_000),
            // One each for the engine's init and for what waits and what takes orders, with its threads.
            pids_limit: Some(i64::from(limits.pids) + OWN_PROCESSES),
            // When the host runs short, a sandbox goes early; in it a command, which has 900, before what keeps it.
            oom_score_adj: Some(500),
            shm_size: bytes(limits.scratch_bytes),
            ulimits: Some(match self.kind {
                Kind::Docker => vec![ulimit("core", 0), ulimit("nofile", 4096)],
                // Without a word it raises this one, which not every host lets it do; the control group bounds them.
                Kind::Podman => vec![ulimit("core", 0), ulimit("nofile", 4096), ulimit("nproc", 16384)],
            }),
            tmpfs: Some(match self.kind {
                Kind::Docker => self.scratch.clone().into_iter().collect(),
                // It gives them to the user of the container, without being told which.
                Kind::Podman => {
                    let of_user = format!("uid={},gid={}", self.user.0, self.user.1);
                    self.scratch
                        .iter()
                        .map(|(place, options)| (place.clone(), options.replace(&of_user, "U")))
                        .collect()
                }
            }),
            mounts: Some(self.shown.iter().map(mount).collect()),
            ..Default::default()
        }
    }

    /// How a live container differs from this plan; nothing where it is the one. A label holds the digest of the plan, with
    /// what no other field tells.
    pub(super) fn differences(&self, live: &ContainerInspectResponse) -> Vec<String> {
        let mut found = Vec::new();
        if live.image.as_deref() != Some(self.image.as_str()) {
            found.push("Image".into());
        }
        let body = self.body();
        let planned = serde_json::to_value(&body).unwrap_or_default();
        let mut config = live.config.as_ref().and_then(|config| serde_json::to_value(config).ok()).unwrap_or_default();
        let mut host = live.host_config.as_ref().and_then(|host| serde_json::to_value(host).ok()).unwrap_or_default();
        let mut own = body.host_config.as_ref().and_then(|host| serde_json::to_value(host).ok()).unwrap_or_default();
        if self.kind == Kind::Podman {
            podman::translate(&mut config, &mut host, &planned);
            own["Tmpfs"] = serde_json::to_value(&self.scratch).unwrap_or_default();
        }
        compare("Config", &planned, &config, OF_THE_IMAGE, &mut found);
        compare("HostConfig", &own, &host, OF_THE_ENGINE, &mut found);
        // Podman masks them and does not say so.
        let told = if self.kind == Kind::Docker { 2 } else { 0 };
        for (field, usual) in
            [("MaskedPaths", USUALLY_MASKED), ("ReadonlyPaths", USUALLY_READ_ONLY)].into_iter().take(told)
        {
            let paths = host.get(field).and_then(Value::as_array);
            if !usual.iter().all(|path| paths.is_some_and(|paths| paths.iter().any(|there| there == path))) {
                found.push(format!("HostConfig.{field}"));
            }
        }
        let extra = live.mounts.iter().flatten().filter(|mount| {
            let target = mount.destination.as_deref().unwrap_or_default();
            !self.shown.iter().any(|shown| shown.target == target)
        });
        found.extend(extra.map(|mount| format!("Mounts {}", mount.destination.as_deref().unwrap_or("?"))));
        found.extend(self.networks(live));
        found.sort();
        found
    }

    /// What of the networks that it is on was not planned: others are attached to a container long after it was made, and
    /// its configuration does not tell.
    fn networks(&self, live: &ContainerInspectResponse) -> Vec<String> {
        let planned = self.bridge.as_deref().unwrap_or("none");
        let networks = live.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let mut names: Vec<&str> = networks.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        // Of no network Podman tells nothing.
        if names.is_empty() && self.kind == Kind::Podman && self.bridge.is_none() {
            names.push(planned);
        }
        let missing = (!names.contains(&planned)).then(|| format!("Networks {planned} is missing"));
        let others = names.iter().filter(|name| **name != planned).map(|name| format!("Networks {name}"));
        others.chain(missing).collect()
    }
}

/// Of /proc and /sys: what engines hide, and what they show read-only, at the least.
const USUALLY_MASKED: &[&str] = &["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const USUALLY_READ_ONLY: &[&str] = &["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Processes and threads in a container that are not a command's.
const OWN_PROCESSES: i64 = 16;

/// Of `Config`: what an engine fills in from the image, none of which reaches a command or weakens a wall.
const OF_THE_IMAGE: &[(&str, &[&str])] = &[
    ("Labels", &[]),
    ("ExposedPorts", &[]),
    ("Volumes", &[]),
    ("Image", &[]),
    ("Shell", &[]),
    ("OnBuild", &[]),
    ("MacAddress", &[]),
];

/// Of `HostConfig`: what engines fill in, with the values that they may; any where the list is empty.
const OF_THE_ENGINE: &[(&str, &[&str])] = &[
    ("Runtime", &["\"runc\"", "\"crun\"", "\"io.containerd.runc.v2\""]),
    ("CgroupnsMode", &["\"host\"", "\"private\""]),
    ("Isolation", &["\"default\""]),
    ("ConsoleSize", &["[0,0]"]),
    ("MaskedPaths", &[]),
    ("ReadonlyPaths", &[]),
    ("MemorySwappiness", &["-1"]),
    ("MemoryReservation", &[]),
    ("VolumeDriver", &["\"local\""]),
    ("CpuPeriod", &[]),
    ("CpuQuota", &[]),
    ("Annotations", &[]),
];

/// Notes every field that is not as planned. What is not planned must be empty, or one of `free`.
fn compare(of: &str, planned: &Value, live: &Value, free: &[(&str, &[&str])], found: &mut Vec<String>) {
    let (Some(planned), Some(live)) = (planned.as_object(), live.as_object()) else {
        found.push(of.to_owned());
        return;
    };
    for (name, value) in live {
        if name == "Env" {
            let none = Vec::new();
            let (wanted, live) = (planned.get(name).and_then(Value::as_array), value.as_array());
            let (wanted, live) = (wanted.unwrap_or(&none), live.unwrap_or(&none));
            if wanted.len() != live.len() || !live.iter().all(|entry| wanted.contains(entry)) {
                found.push(format!("{of}.{name}"));
            }
            continue;
        }
        if name == "Labels" {
            let wanted = planned.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
            let differs = wanted.iter().any(|(label, text)| value.get(label) != Some(text));
            if differs {
                found.push(format!("{of}.{name}"));
            }
            continue;
        }
        let is_same = match planned.get(name).filter(|value| !is_empty(value)) {
            // An engine adds its own by default.
            Some(wanted) if name == "Ulimits" => holds(value, wanted),
            Some(wanted) => covers(wanted, value),
            None => {
                let values = free.iter().find(|(known, _)| known == name).map(|(_, values)| *values);
                is_empty(value) || values.is_some_and(|v| v.is_empty() || v.contains(&value.to_string().as_str()))
            }
        };
        if !is_same {
            found.push(format!("{of}.{name}"));
        }
    }
    for (name, value) in planned.iter().filter(|(name, _)| name.as_str() != "HostConfig") {
        if !is_empty(value) && !live.contains_key(name) {
            found.push(format!("{of}.{name} is missing"));
        }
    }
}

/// Whether a live value is the wanted one, with nothing beside it that is not empty.
fn covers(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            let same = |(name, value): (&String, &Value)| match wanted.get(name) {
                Some(wanted) => covers(wanted, value),
                None => is_empty(value),
            };
            live.iter().all(same) && wanted.iter().all(|(name, value)| is_empty(value) || live.contains_key(name))
        }
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| covers(wanted, live))
        }
        (wanted, live) => wanted == live || (is_empty(wanted) && is_empty(live)),
    }
}

/// Whether a live list has every wanted item.
fn holds(live: &Value, wanted: &Value) -> bool {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    items(wanted).iter().all(|wanted| items(live).iter().any(|live| covers(wanted, live)))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(true) => false,
    }
}

fn mount(shown: &Shown) -> Mount {
    Mount {
        target: Some(shown.target.clone()),
        source: Some(shown.source.clone()),
        typ: Some(MountType::BIND),
        read_only: Some(shown.read_only && !shown.is_mounted),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            kind: Kind::Docker,
            name: "vambrace-0-shared".into(),
            gateway: "0".into(),
            sandbox: "shared".into(),
            image: "sha256:1".into(),
            variables: vec!["PATH".into(), "LD_PRELOAD".into()],
            rest: vec!["/.vambrace/vambrace".into(), "runner".into(), "--rest".into()],
            user: (1000, 1000),
            shown: vec![Shown {
                source: "/srv/w".into(),
                target: "/workspace".into(),
                read_only: false,
                no_exec: false,
                is_mounted: false,
                identity: "1:2".into(),
            }],
            scratch: BTreeMap::from([("/tmp".to_owned(), "rw,noexec".to_owned())]),
            dns: None,
            domains: Vec::new(),
            bridge: None,
            setup: None,
            limits: Limits::default(),
            idle_seconds: 60,
            age_seconds: None,
            maker: None,
        }
    }

    /// What an engine would tell of a container that is as planned.
    fn live() -> Value {
        let body = plan().body();
        let mut config = serde_json::to_value(&body).unwrap();
        let mut host = config.as_object_mut().unwrap().remove("HostConfig").unwrap();
        host["MaskedPaths"] = USUALLY_MASKED.iter().chain(&["/proc/acpi"]).copied().collect();
        host["ReadonlyPaths"] = USUALLY_READ_ONLY.iter().copied().collect();
        host["Ulimits"].as_array_mut().unwrap().push(serde_json::json!({"Name": "nproc", "Soft": 9, "Hard": 9}));
        config["Labels"]["maintainer"] = "somebody".into();
        serde_json::json!({
            "Image": "sha256:1", "Config": config, "HostConfig": host, "Mounts": [{"Destination": "/workspace"}],
            "NetworkSettings": {"Networks": {"none": {}}},
        })
    }

    fn differences(live: Value) -> Vec<String> {
        plan().differences(&serde_json::from_value(live).unwrap())
    }

    #[test]
    fn a_container_that_is_as_planned_is_the_one_and_each_other_value_is_a_difference() {
        assert_eq!(differences(live()), Vec::<String>::new());
        for (field, value) in [
            ("Privileged", serde_json::json!(true)),
            ("CapAdd", serde_json::json!(["SYS_ADMIN"])),
            ("CapDrop", serde_json::json!(["NET_RAW"])),
            ("SecurityOpt", serde_json::json!(["no-new-privileges", "seccomp=unconfined"])),
            ("NetworkMode", serde_json::json!("host")),
            ("NetworkMode", serde_json::json!("container:gateway")),
            ("PidMode", serde_json::json!("host")),
            ("IpcMode", serde_json::json!("host")),
            ("UTSMode", serde_json::json!("host")),
            ("UsernsMode", serde_json::json!("host")),
            ("Binds", serde_json::json!(["/var/run/docker.sock:/s"])),
            ("Devices", serde_json::json!([{"PathOnHost": "/dev/mem"}])),
            ("DeviceCgroupRules", serde_json::json!(["a *:* rwm"])),
            ("DeviceRequests", serde_json::json!([{"Count": -1}])),
            ("GroupAdd", serde_json::json!(["docker"])),
            ("VolumesFrom", serde_json::json!(["other"])),
            ("PortBindings", serde_json::json!({"9222/tcp": [{"HostPort": "9222"}]})),
            ("PublishAllPorts", serde_json::json!(true)),
            ("Dns", serde_json::json!(["192.0.2.53"])),
            ("ExtraHosts", serde_json::json!(["a:1.2.3.4"])),
            ("Sysctls", serde_json::json!({"net.ipv4.ip_forward": "1"})),
            ("RestartPolicy", serde_json::json!({"Name": "always"})),
            ("ReadonlyRootfs", serde_json::json!(false)),
            ("Memory", serde_json::json!(0)),
            ("MemorySwap", serde_json::json!(-1)),
            ("PidsLimit", serde_json::json!(-1)),
            ("NanoCpus", serde_json::json!(0)),
            ("OomKillDisable", serde_json::json!(true)),
            ("CgroupParent", serde_json::json!("/other")),
            ("Runtime", serde_json::json!("own")),
            ("Tmpfs", serde_json::json!({"/tmp": "rw,exec"})),
            ("Mounts", serde_json::json!([])),
            ("MaskedPaths", serde_json::json!([])),
            ("ReadonlyPaths", serde_json::json!(["/proc/sys"])),
            ("Ulimits", serde_json::json!([{"Name": "nofile", "Soft": 4096, "Hard": 4096}])),
            ("LogConfig", serde_json::json!({"Type": "json-file"})),
            ("AutoRemove", serde_json::json!(true)),
            ("Links", serde_json::json!(["other"])),
        ] {
            let mut other = live();
            other["HostConfig"][field] = value.clone();
            assert_eq!(differences(other), [format!("HostConfig.{field}")], "{value}");
        }
        for (field, value) in [
            ("User", serde_json::json!("root")),
            ("Entrypoint", serde_json::json!(["/bin/sh"])),
            ("Cmd", serde_json::json!(["-c", "x"])),
            ("Healthcheck", serde_json::json!({"Test": ["CMD", "x"]})),
            ("Tty", serde_json::json!(true)),
            ("Env", serde_json::json!(["PATH=", "LD_PRELOAD=/evil.so"])),
            ("Env", serde_json::json!(["PATH=", "LD_PRELOAD=", "LD_AUDIT=/evil.so"])),
            ("Labels", serde_json::json!({})),
        ] {
            let mut other = live();
            other["Config"][field] = value;
            assert_eq!(differences(other), [format!("Config.{field}")]);
        }
        let mut other = live();
        other["Mounts"] = serde_json::json!([{"Destination": "/workspace"}, {"Destination": "/data"}]);
        other["Image"] = "sha256:2".into();
        assert_eq!(differences(other), ["Image", "Mounts /data"]);
        for (networks, found) in [
            (serde_json::json!({"none": {}, "bridge": {}}), &["Networks bridge"][..]),
            (serde_json::json!({"bridge": {}}), &["Networks bridge", "Networks none is missing"]),
            (serde_json::json!({}), &["Networks none is missing"]),
        ] {
            let mut other = live();
            other["NetworkSettings"]["Networks"] = networks;
            assert_eq!(differences(other), found);
        }
    }

    #[test]
    fn the_digest_is_of_everything_and_always_the_same() {
        let digest = plan().digest();
        assert_eq!(digest, plan().digest());
        let others: [fn(&mut Plan); 11] = [
            |plan| plan.domains = vec!["example.org".into()],
            |plan| plan.bridge = Some("b".into()),
            |plan| plan.setup = Some("true".into()),
            |plan| plan.user = (0, 0),
            |plan| plan.shown[0].identity = "1:3".into(),
            |plan| plan.scratch = BTreeMap::new(),
            |plan| plan.limits.pids += 1,
            |plan| plan.idle_seconds += 1,
            |plan| plan.age_seconds = Some(1),
            |plan| plan.maker = Some("1".into()),
            |plan| plan.sandbox = "agent.a".into(),
        ];
        for change in others {
            let mut other = plan();
            change(&mut other);
            assert_ne!(digest, other.digest());
        }
    }
}
