//! Plans for systemd, and what it tells. Pure.

use super::{Act, Follow, MARK, Reach, Service, Step, Unit};
use std::path::{Path, PathBuf};

/// The units of the host, as they are shipped.
const SYSTEM: &[(&str, &str)] = &[
    ("vambrace.socket", include_str!("../../systemd/vambrace.socket")),
    ("vambrace.service", include_str!("../../systemd/vambrace.service")),
    ("vambrace-runner.service", include_str!("../../systemd/vambrace-runner.service")),
    ("vambrace-runner-docker.service", include_str!("../../systemd/vambrace-runner-docker.service")),
    ("vambrace-egress.socket", include_str!("../../systemd/vambrace-egress.socket")),
    ("vambrace-egress@.service", include_str!("../../systemd/vambrace-egress@.service")),
];
const USERS: &str = include_str!("../../packaging/sysusers.d/vambrace.conf");
const USER: &str = include_str!("../../systemd/user/vambrace.service");

/// What starts by itself. The docker runner does not: it may use the engine, which is as good as root.
const ON: &[&str] = &["vambrace-egress.socket", "vambrace.socket", "vambrace-runner.service", "vambrace.service"];
/// What runs where it is enabled.
const OPTIONAL: &str = "vambrace-runner-docker.service";

/// Where a package puts the gateway's unit.
pub(super) fn packaged(reach: Reach) -> PathBuf {
    match reach {
        Reach::System => "/usr/lib/systemd/system/vambrace.service".into(),
        Reach::User => "/usr/lib/systemd/user/vambrace.service".into(),
    }
}

fn systemctl(reach: Reach, words: &[&str]) -> Step {
    let mut all = vec!["systemctl"];
    if reach == Reach::User {
        all.push("--user");
    }
    all.extend(words);
    Step::run(&all)
}

fn units(reach: Reach) -> Vec<&'static str> {
    match reach {
        Reach::System => ON.to_vec(),
        Reach::User => vec!["vambrace.service"],
    }
}

pub(super) fn plan(service: &Service, act: Act) -> Vec<Step> {
    let reach = service.reach;
    let with = |words: &[&'static str]| -> Step {
        let mut all = words.to_vec();
        all.extend(units(reach));
        systemctl(reach, &all)
    };
    let files = if service.is_packaged { Vec::new() } else { files(service) };
    match act {
        Act::Install => {
            let has_files = !files.is_empty();
            let mut steps: Vec<Step> = files.into_iter().map(|(path, text)| Step::Write { path, text }).collect();
            if has_files {
                if reach == Reach::System {
                    steps.push(Step::run(&["systemd-sysusers", "/etc/sysusers.d/vambrace.conf"]));
                }
                steps.push(systemctl(reach, &["daemon-reload"]));
            }
            steps.push(with(&["enable", "--now"]));
            steps
        }
        Act::Uninstall => {
            let mut off = vec!["disable", "--now"];
            off.extend(units(reach));
            off.extend((reach == Reach::System).then_some(OPTIONAL));
            let mut steps = vec![systemctl(reach, &off)];
            if !files.is_empty() {
                steps.extend(files.into_iter().map(|(path, _)| Step::Remove { path }));
                steps.push(systemctl(reach, &["daemon-reload"]));
            }
            steps
        }
        Act::Start => vec![with(&["start"])],
        // The doors first: a request that comes in between would start the gateway again.
        Act::Stop => {
            let mut all = vec!["stop"];
            all.extend(units(reach).into_iter().rev().filter(|unit| unit.ends_with(".socket")));
            all.extend(units(reach).into_iter().filter(|unit| !unit.ends_with(".socket")));
            all.extend((reach == Reach::System).then_some(OPTIONAL));
            vec![systemctl(reach, &all)]
        }
        // The doors stay open meanwhile.
        Act::Restart => {
            let services: Vec<_> = units(reach).into_iter().filter(|unit| unit.ends_with(".service")).collect();
            let mut steps = Vec::new();
            if reach == Reach::System {
                steps.push(systemctl(reach, &["try-restart", OPTIONAL]));
            }
            let mut all = vec!["restart"];
            all.extend(services);
            steps.push(systemctl(reach, &all));
            steps
        }
    }
}

/// The files where no package has brought any.
fn files(service: &Service) -> Vec<(PathBuf, String)> {
    let program = service.program.display().to_string();
    let ours = |text: &str| {
        format!("# {MARK}; changes are lost with the next.\n{}", text.replace("/usr/bin/vambrace", &program))
    };
    match service.reach {
        Reach::System => {
            let units = SYSTEM.iter().map(|(name, text)| (Path::new("/etc/systemd/system").join(name), ours(text)));
            units.chain([("/etc/sysusers.d/vambrace.conf".into(), ours(USERS))]).collect()
        }
        Reach::User => vec![(service.config_home.join("systemd/user/vambrace.service"), ours(USER))],
    }
}

/// The command that tells of every unit.
pub(super) fn show(reach: Reach) -> Vec<String> {
    let words = "show --property=Id,LoadState,UnitFileState,ActiveState,SubState,MainPID,StatusText,Result";
    let Step::Run(mut all) = systemctl(reach, &words.split(' ').collect::<Vec<_>>()) else { return Vec::new() };
    all.extend(units(reach).iter().map(|unit| (*unit).to_owned()));
    all.extend((reach == Reach::System).then(|| OPTIONAL.to_owned()));
    all
}

/// What `show` printed: a block for each unit.
pub(super) fn read_units(shown: &str) -> Vec<Unit> {
    shown.split("\n\n").filter(|block| !block.trim().is_empty()).map(read_unit).collect()
}

fn read_unit(block: &str) -> Unit {
    let value = |key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    let (active, sub, result) = (value("ActiveState"), value("SubState"), value("Result"));
    let said = match (value("StatusText"), result.as_str()) {
        (text, _) if !text.is_empty() => text,
        (_, "success" | "") => sub,
        _ => result,
    };
    Unit {
        name: value("Id"),
        is_known: value("LoadState") == "loaded",
        is_enabled: value("UnitFileState") == "enabled",
        active,
        pid: value("MainPID").parse().ok().filter(|pid| *pid != 0),
        said,
    }
}

/// The command that shows what the services said.
pub(super) fn logs(reach: Reach, lines: u32, follow: Follow) -> Vec<String> {
    let mut all = vec!["journalctl".to_owned(), format!("--lines={lines}")];
    if reach == Reach::User {
        all.push("--user".into());
    }
    match follow {
        Follow::Yes => all.push("--follow".into()),
        Follow::No => all.push("--no-pager".into()),
    }
    // Also the runners, the way out and the doors.
    all.push("--unit=vambrace*".into());
    all
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::super::{ServiceFault, Supervisor};
    use super::*;

    #[test]
    fn every_unit_of_the_tree_is_installed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        let items = std::fs::read_dir(folder).unwrap().map(|item| item.unwrap());
        let mut there: Vec<String> = items
            .filter(|item| item.file_type().unwrap().is_file())
            .map(|item| item.file_name().into_string().unwrap())
            .collect();
        let mut known: Vec<&str> = SYSTEM.iter().map(|(name, _)| *name).collect();
        there.sort();
        known.sort_unstable();
        assert_eq!(there, known);
        for unit in ON {
            let text = SYSTEM.iter().find(|(name, _)| name == unit).unwrap().1;
            assert!(text.contains("\n[Install]\n"), "{unit} cannot be enabled");
        }
    }

    #[test]
    fn a_service_of_the_host_runs_this_very_program_and_leaves_the_docker_runner_off() {
        let steps = plan(&service(Supervisor::Systemd, Reach::System), Act::Install);
        let mut units = 0;
        for step in &steps {
            let Step::Write { path, text } = step else { continue };
            assert!(text.contains(MARK), "{}", path.display());
            for line in text.lines().filter(|line| line.starts_with("Exec") && line.contains("vambrace ")) {
                units += 1;
                assert!(line.contains("/usr/local/bin/vambrace "), "{}: {line}", path.display());
            }
        }
        assert!(units >= 4, "{units}");
        let Some(Step::Run(last)) = steps.last() else { panic!("{steps:?}") };
        assert_eq!(last[..3], ["systemctl", "enable", "--now"]);
        assert!(!last.iter().any(|word| word == OPTIONAL), "{last:?}");
    }

    #[test]
    fn what_a_package_brought_is_switched_on_and_off_and_not_written_or_removed() {
        let packaged = Service { is_packaged: true, ..service(Supervisor::Systemd, Reach::System) };
        for act in [Act::Install, Act::Uninstall] {
            let steps = plan(&packaged, act);
            assert!(matches!(&steps[..], [Step::Run(_)]), "{steps:?}");
        }
    }

    #[test]
    fn a_users_service_is_the_users_alone() {
        let service = service(Supervisor::Systemd, Reach::User);
        for act in [Act::Install, Act::Uninstall, Act::Start, Act::Stop, Act::Restart] {
            for step in service.plan(act).unwrap() {
                match step {
                    Step::Run(words) => assert_eq!(words[..2], ["systemctl", "--user"]),
                    Step::Write { path, .. } | Step::Remove { path } => assert!(path.starts_with("/home/ada/.config")),
                }
            }
        }
        assert!(logs(Reach::User, 9, Follow::No).contains(&"--user".to_owned()));
    }

    #[test]
    fn doors_are_shut_first_and_stay_open_over_a_restart() {
        let words = |act| match plan(&service(Supervisor::Systemd, Reach::System), act).pop() {
            Some(Step::Run(words)) => words,
            other => panic!("{other:?}"),
        };
        let stop = words(Act::Stop);
        let at = |unit: &str| stop.iter().position(|word| word == unit).unwrap();
        assert!(at("vambrace.socket") < at("vambrace.service"), "{stop:?}");
        assert!(!words(Act::Restart).iter().any(|word| word.ends_with(".socket")));
    }

    #[test]
    fn what_systemd_tells_is_read() {
        let shown = "Id=vambrace.service\nLoadState=loaded\nUnitFileState=enabled\nActiveState=active\nSubState=running\n\
                     MainPID=42\nStatusText=listening on 127.0.0.1:18789\nResult=success\n\nId=vambrace-runner.service\n\
                     LoadState=loaded\nUnitFileState=disabled\nActiveState=failed\nSubState=failed\nMainPID=0\nStatusText=\n\
                     Result=exit-code\n";
        let units = read_units(shown);
        assert_eq!(units.len(), 2);
        assert_eq!((units[0].pid, units[0].said.as_str()), (Some(42), "listening on 127.0.0.1:18789"));
        assert!(units[0].is_enabled && units[0].is_known);
        assert_eq!((units[1].pid, units[1].active.as_str(), units[1].said.as_str()), (None, "failed", "exit-code"));
        let hint = ServiceFault::NoSupervisor.hint();
        assert!(hint.contains("OpenRC"), "{hint}");
    }
}
