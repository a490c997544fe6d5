//! What this host lacks for what: asked first, judged then, each finding with the command that repairs it.

use super::{Reach, Service, Supervisor, Unit};
use crate::config::{Places, Settings};
use crate::journal::JournaldUse;
use crate::model::EngineHost;
use crate::os;
use crate::sandbox::{self, Probe};
use std::fs;
use std::path::Path;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Good,
    /// It works, and could be better.
    Weaker,
    Missing,
}

/// One line of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What it is for.
    pub(crate) area: &'static str,
    pub(crate) what: String,
    pub(crate) state: State,
    /// Whether commands are refused without it, as things are configured.
    pub(crate) is_required: bool,
    pub(crate) detail: String,
    /// What repairs it: a command.
    pub(crate) repair: Option<String>,
}

/// What was asked of the host.
#[derive(Debug, Clone)]
struct Facts {
    uid: u32,
    /// The caller's name.
    user: String,
    walls: Vec<Probe>,
    /// What the engine told, or why it did not and what to do.
    engine: Result<Vec<Probe>, (String, String)>,
    wants_engine: bool,
    supervisor: Supervisor,
    is_run_by_systemd: bool,
    units: Vec<Unit>,
    /// Whether what this user runs outlives its session.
    lingers: bool,
    has_journald: bool,
    needs_journald: bool,
    has_catalog: bool,
    /// Whether the disk of the state is nearly full; nothing where there is no state.
    is_nearly_full: Option<bool>,
    kernel: Kernel,
}

/// Settings of the kernel that take away what walls are made of.
#[derive(Debug, Clone, Default)]
struct Kernel {
    /// Active security modules, separated by commas.
    modules: String,
    unprivileged_userns_clone: Option<String>,
    max_user_namespaces: Option<String>,
    apparmor_restricts_userns: Option<String>,
}

/// Looks at this host, for these settings.
///
/// `gateway` is what a gateway answered when it was asked whether commands can be run: nothing where none is there.
/// `weaker` is what it told of the walls around itself: nothing where it did not, what they lack where they do.
pub(crate) fn examine(
    settings: &Settings,
    places: &Places,
    gateway: Option<Result<(), String>>,
    weaker: Option<Option<String>>,
) -> Vec<Finding> {
    let mut findings = judge(&look(settings, places));
    let (state, detail) = match &gateway {
        Some(Ok(())) => (State::Good, "answers, and can run commands".to_owned()),
        Some(Err(why)) => (State::Missing, why.clone()),
        None => (State::Weaker, "none runs here".to_owned()),
    };
    let repair = match gateway {
        Some(Ok(())) => None,
        Some(Err(_)) => Some("vambrace service logs".to_owned()),
        None => Some("vambrace service install (or vambrace gateway)".to_owned()),
    };
    let is_required = state == State::Missing;
    findings.push(Finding { area: "service", what: "gateway".into(), state, is_required, detail, repair });
    findings.extend(weaker.map(own_walls));
    findings
}

/// The walls around the gateway itself, which stand or not by the kernel it runs on.
fn own_walls(weaker: Option<String>) -> Finding {
    let state = if weaker.is_some() { State::Weaker } else { State::Good };
    let repair = weaker.is_some().then(|| "boot Linux 6.12 or newer, with landlock among lsm=".to_owned());
    let detail = weaker.unwrap_or_else(|| "Landlock and seccomp".to_owned());
    Finding { area: "service", what: "gateway's own walls".into(), state, is_required: false, detail, repair }
}

impl Facts {
    /// Whether commands are run by a runner that is a service.
    fn has_runner(&self) -> bool {
        self.units.iter().any(|unit| unit.name == "vambrace-runner.service" && unit.active == "active")
    }
}

fn look(settings: &Settings, places: &Places) -> Facts {
    let uid = os::process::uid();
    let user = os::host::name_of(uid).unwrap_or_else(|| uid.to_string());
    let docker = &settings.docker;
    let missing = match &docker.host {
        EngineHost::Unix(socket) => fs::symlink_metadata(socket).err().map(|error| (socket, error)),
        _ => None,
    };
    let supervisor = Supervisor::of_this_system();
    let (install, start) = match supervisor {
        Supervisor::Systemd => ("apt-get install docker.io, or dnf install moby-engine", "systemctl start docker"),
        Supervisor::Launchd => ("brew install --cask docker-desktop, and open -a Docker", "open -a Docker"),
    };
    let engine = match missing {
        Some((socket, error)) => Err((format!("{}: {error}", socket.display()), install.to_owned())),
        None => sandbox::probe_engine(&docker.host, &settings.profiles.defaults.image).map_err(|e| {
            let may_not = e.to_string().contains("ermission denied");
            (e.to_string(), if may_not { format!("usermod -aG docker {user}") } else { start.into() })
        }),
    };
    let reach = if uid == 0 { Reach::System } else { Reach::User };
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    Facts {
        uid,
        lingers: Path::new("/var/lib/systemd/linger").join(&user).exists(),
        user,
        walls: sandbox::probe_host(),
        engine,
        wants_engine: docker.is_used,
        supervisor,
        is_run_by_systemd: super::is_run_by_systemd(),
        units: Service::find(reach).and_then(|service| service.status()).unwrap_or_default(),
        has_journald: Path::new("/run/systemd/journal/socket").exists(),
        needs_journald: settings.journald == JournaldUse::Required,
        has_catalog: Path::new("/usr/lib/systemd/catalog/vambrace.catalog").exists(),
        is_nearly_full: os::tree::space(&places.state).ok().map(|space| space.is_nearly_full()),
        kernel: Kernel {
            modules: read("/sys/kernel/security/lsm").unwrap_or_default(),
            unprivileged_userns_clone: read("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: read("/proc/sys/user/max_user_namespaces"),
            apparmor_restricts_userns: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        },
    }
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.walls.iter().map(|probe| wall(probe, facts)).collect();
    engine(facts, &mut findings);
    service(facts, &mut findings);
    evidence(facts, &mut findings);
    findings
}

fn wall(probe: &Probe, facts: &Facts) -> Finding {
    // A limit without a control group holds for each process, not for all of a sandbox together.
    let is_limit = probe.wall.ends_with(" limit");
    let state = match (probe.here, is_limit && probe.detail != "control group") {
        (true, false) => State::Good,
        (_, true) => State::Weaker,
        (false, false) if probe.required => State::Missing,
        (false, false) => State::Weaker,
    };
    let repair = match (state, probe.wall) {
        (State::Good, _) => None,
        (_, "landlock") => Some(format!("boot the kernel with lsm=landlock,{}", facts.kernel.modules)),
        (_, "seccomp" | "linux kernel") => None,
        _ if is_limit => Some(delegation(facts)),
        _ => Some(namespaces(facts)),
    };
    if is_limit && state == State::Weaker && facts.has_runner() {
        // That is where commands of the service are bounded, in a control group of its own.
        let detail = format!("{}; for what this user runs without the service", probe.detail);
        return Finding { detail, ..finding("walls", probe, state, None) };
    }
    finding("walls", probe, state, repair)
}

fn finding(area: &'static str, probe: &Probe, state: State, repair: Option<String>) -> Finding {
    let (what, detail) = (probe.wall.to_owned(), probe.detail.clone());
    Finding { area, what, state, is_required: probe.required, detail, repair }
}

/// What gives a runner control groups of its own.
fn delegation(facts: &Facts) -> String {
    match (facts.is_run_by_systemd, facts.uid) {
        (false, _) => "give this container or session a control group that it may write to".into(),
        (true, 0) => "vambrace service install (its runner has Delegate=)".into(),
        (true, _) => "vambrace service install --user (it has Delegate=)".into(),
    }
}

/// What gives an ordinary user namespaces; root has them unless a container takes them away.
fn namespaces(facts: &Facts) -> String {
    let kernel = &facts.kernel;
    let is = |value: &Option<String>, what: &str| value.as_deref() == Some(what);
    if facts.uid != 0 && is(&kernel.apparmor_restricts_userns, "1") {
        return "cp /usr/share/apparmor/extra-profiles/vambrace /etc/apparmor.d/ && apparmor_parser -r \
                /etc/apparmor.d/vambrace"
            .into();
    }
    if facts.uid != 0 && is(&kernel.unprivileged_userns_clone, "0") {
        return "sysctl -w kernel.unprivileged_userns_clone=1".into();
    }
    if is(&kernel.max_user_namespaces, "0") {
        return "sysctl -w user.max_user_namespaces=15000".into();
    }
    "start it where namespaces can be made; inside a container it needs CAP_SYS_ADMIN, or profiles that accept least_tier = \
     \"landlock\""
        .into()
}

fn engine(facts: &Facts, findings: &mut Vec<Finding>) {
    let area = "containers";
    match &facts.engine {
        Err((why, repair)) => findings.push(Finding {
            area,
            what: "engine".into(),
            state: if facts.wants_engine { State::Missing } else { State::Weaker },
            is_required: facts.wants_engine,
            detail: if facts.wants_engine { why.clone() } else { format!("{why}; no profile has containers") },
            repair: Some(repair.clone()),
        }),
        Ok(rows) => findings.extend(rows.iter().map(|probe| {
            let state = match (probe.here, probe.required && facts.wants_engine) {
                (true, _) => State::Good,
                (false, true) => State::Missing,
                (false, false) => State::Weaker,
            };
            let repair = match (probe.here, probe.wall) {
                (false, "image") => Some("vambrace sandbox build-image".to_owned()),
                (false, "memory limit" | "cpu limit" | "pids limit") => {
                    Some("boot the kernel with cgroup_enable=memory, or systemd.unified_cgroup_hierarchy=1".to_owned())
                }
                _ => None,
            };
            Finding { is_required: probe.required && facts.wants_engine, ..finding(area, probe, state, repair) }
        })),
    }
}

fn service(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut add = |what: &str, is_good: bool, detail: &str, repair: Option<&str>| {
        let state = if is_good { State::Good } else { State::Weaker };
        findings.push(Finding {
            area: "service",
            what: what.to_owned(),
            state,
            is_required: false,
            detail: detail.to_owned(),
            repair: repair.filter(|_| !is_good).map(ToOwned::to_owned),
        });
    };
    if facts.supervisor == Supervisor::Launchd {
        for unit in &facts.units {
            let detail = if unit.is_known { format!("{}: {}", unit.active, unit.said) } else { "not installed".into() };
            let install = if facts.uid == 0 { "vambrace service install" } else { "vambrace service install --user" };
            add(
                &unit.name,
                unit.active == "active",
                &detail,
                Some(if unit.is_known { "vambrace service logs" } else { install }),
            );
        }
        return;
    }
    if !facts.is_run_by_systemd {
        add("systemd", false, "does not run this host; docs/service.md says what to do instead", None);
        return;
    }
    add("systemd", true, "runs this host", None);
    let install = if facts.uid == 0 { "vambrace service install" } else { "vambrace service install --user" };
    for unit in &facts.units {
        let is_wanted = unit.name != "vambrace-runner-docker.service" || facts.wants_engine;
        let is_good = unit.active == "active" || !is_wanted;
        let detail = match (unit.is_known, is_wanted) {
            (false, _) => "not installed".to_owned(),
            (true, false) => format!("{}; no profile has containers", unit.active),
            (true, true) => format!("{}: {}", unit.active, unit.said),
        };
        let start = format!("systemctl {}enable --now {}", if facts.uid == 0 { "" } else { "--user " }, unit.name);
        add(&unit.name, is_good, &detail, Some(if unit.is_known { &start } else { install }));
    }
    if facts.uid != 0 {
        let linger = format!("loginctl enable-linger {}", facts.user);
        let detail = if facts.lingers { "services outlive the session" } else { "services end with the last session" };
        add("linger", facts.lingers, detail, Some(&linger));
    }
}

fn evidence(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut add = |what: &str, state, is_required, detail: &str, repair: Option<&str>| {
        let (what, detail) = (what.to_owned(), detail.to_owned());
        let repair = repair.map(ToOwned::to_owned);
        findings.push(Finding { area: "evidence", what, state, is_required, detail, repair });
    };
    match (facts.has_journald, facts.needs_journald) {
        (true, _) => add("journald", State::Good, facts.needs_journald, "takes the records as well", None),
        (false, true) => {
            let repair = "systemctl start systemd-journald.socket (or journal.journald = \"auto\")";
            add("journald", State::Missing, true, "required by the configuration, and not there", Some(repair));
        }
        (false, false) => {
            add("journald", State::Weaker, false, "not there; records are in the state folder alone", None);
        }
    }
    match (facts.has_journald, facts.has_catalog) {
        (false, _) => {}
        (true, true) => add("catalog", State::Good, false, "journalctl -x explains our records", None),
        (true, false) => {
            let repair =
                "vambrace journal catalog > /usr/lib/systemd/catalog/vambrace.catalog && journalctl --update-catalog";
            add("catalog", State::Weaker, false, "journalctl -x does not explain our records", Some(repair));
        }
    }
    if let Some(is_nearly_full) = facts.is_nearly_full {
        let state = if is_nearly_full { State::Missing } else { State::Good };
        let detail = if is_nearly_full { "nearly full: what cannot be recorded is not done" } else { "has room" };
        add("disk", state, true, detail, is_nearly_full.then_some("vambrace sandbox prune --all"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(wall: &'static str, here: bool, required: bool, detail: &str) -> Probe {
        Probe { wall, here, required, detail: detail.into() }
    }

    fn facts() -> Facts {
        Facts {
            uid: 1000,
            user: "ada".into(),
            walls: vec![
                probe("user namespace", true, true, "can be made"),
                probe("landlock", true, true, "ABI 7"),
                probe("memory limit", true, false, "control group"),
            ],
            engine: Err(("/var/run/docker.sock: not there".into(), "apt-get install docker.io".into())),
            wants_engine: false,
            supervisor: Supervisor::Systemd,
            is_run_by_systemd: true,
            units: Vec::new(),
            lingers: true,
            has_journald: true,
            needs_journald: true,
            has_catalog: true,
            is_nearly_full: Some(false),
            kernel: Kernel { modules: "capability,yama".into(), ..Kernel::default() },
        }
    }

    fn missing(facts: &Facts) -> Vec<(String, String)> {
        let lacks = |f: &Finding| f.state == State::Missing;
        judge(facts).into_iter().filter(lacks).map(|f| (f.what, f.repair.unwrap_or_default())).collect()
    }

    #[test]
    fn a_host_that_has_everything_lacks_nothing_though_it_has_no_engine() {
        assert_eq!(missing(&facts()), []);
        let wanting = Facts { wants_engine: true, ..facts() };
        assert_eq!(missing(&wanting), [("engine".into(), "apt-get install docker.io".into())]);
    }

    #[test]
    fn each_reason_why_there_are_no_namespaces_has_a_command_of_its_own() {
        let no_namespace = vec![probe("user namespace", false, true, "Operation not permitted")];
        let set = |value: &str| Some(value.to_owned());
        let kernels = [
            (Kernel { apparmor_restricts_userns: set("1"), ..Kernel::default() }, "apparmor_parser -r"),
            (Kernel { unprivileged_userns_clone: set("0"), ..Kernel::default() }, "kernel.unprivileged_userns_clone=1"),
            (Kernel { max_user_namespaces: set("0"), ..Kernel::default() }, "user.max_user_namespaces"),
            (Kernel::default(), "least_tier"),
        ];
        for (kernel, command) in kernels {
            let lacking = missing(&Facts { walls: no_namespace.clone(), kernel, ..facts() });
            assert!(lacking[0].1.contains(command), "{lacking:?}");
        }
    }

    #[test]
    fn what_is_weaker_is_told_and_is_no_failure() {
        let walls = vec![probe("cpu limit", false, false, "none; the deadline remains")];
        let weaker = Facts { walls, lingers: false, has_catalog: false, ..facts() };
        assert_eq!(missing(&weaker), []);
        let findings = judge(&weaker);
        let repair =
            |what: &str| findings.iter().find(|f| f.what == what && f.state == State::Weaker).unwrap().repair.clone();
        assert!(repair("cpu limit").unwrap().contains("--user"));
        assert_eq!(repair("linger").unwrap(), "loginctl enable-linger ada");
        assert!(repair("catalog").unwrap().contains("--update-catalog"));
    }

    #[test]
    fn on_macos_there_are_no_walls_of_linux_and_launchd_has_the_service() {
        let unit = Unit {
            name: "io.vambrace.agent".into(),
            is_known: false,
            is_enabled: false,
            active: "inactive".into(),
            pid: None,
            said: String::new(),
        };
        let (walls, engine) = (
            vec![probe("linux kernel", false, false, "another")],
            Ok(vec![probe("linux program", false, true, "not there")]),
        );
        let mac = Facts {
            supervisor: Supervisor::Launchd,
            is_run_by_systemd: false,
            wants_engine: true,
            units: vec![unit],
            walls,
            engine,
            needs_journald: false,
            has_journald: false,
            ..facts()
        };
        assert_eq!(missing(&mac), [("linux program".to_owned(), String::new())]);
        let findings = judge(&mac);
        let of = |what: &str| findings.iter().find(|f| f.what == what).unwrap();
        assert_eq!(of("linux kernel").state, State::Weaker);
        assert_eq!(of("io.vambrace.agent").repair.as_deref(), Some("vambrace service install --user"));
        assert!(!findings.iter().any(|f| f.what == "systemd"));
    }

    #[test]
    fn a_gateway_whose_own_walls_lack_something_is_told_with_what_they_lack() {
        let lacking = own_walls(Some("not confined by Landlock: this kernel has none".into()));
        assert_eq!((lacking.state, lacking.is_required), (State::Weaker, false));
        assert!(lacking.detail.contains("Landlock") && lacking.repair.is_some());
        let whole = own_walls(None);
        assert_eq!((whole.state, whole.repair), (State::Good, None));
    }

    #[test]
    fn what_the_configuration_requires_and_the_host_has_not_is_missing() {
        let lacking = missing(&Facts { has_journald: false, is_nearly_full: Some(true), ..facts() });
        assert_eq!(lacking.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["journald", "disk"]);
        let no_landlock = Facts { walls: vec![probe("landlock", false, true, "not in this kernel")], ..facts() };
        assert_eq!(missing(&no_landlock)[0].1, "boot the kernel with lsm=landlock,capability,yama");
    }
}
