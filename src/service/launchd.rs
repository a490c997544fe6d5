//! Plans for launchd, and what it tells. Pure, so that they are tried on every system.

use super::{Act, Follow, MARK, Reach, Service, Step, Unit};
use std::path::PathBuf;

const DAEMON: &str = include_str!("../../launchd/io.vambrace.gateway.plist");
const AGENT: &str = include_str!("../../launchd/io.vambrace.agent.plist");

fn label(reach: Reach) -> &'static str {
    match reach {
        Reach::System => "io.vambrace.gateway",
        Reach::User => "io.vambrace.agent",
    }
}

/// Where launchd keeps it: the host's services, or those of a user's session.
fn domain(service: &Service) -> String {
    match service.reach {
        Reach::System => "system".to_owned(),
        Reach::User => format!("gui/{}", service.uid),
    }
}

fn target(service: &Service) -> String {
    format!("{}/{}", domain(service), label(service.reach))
}

fn path(service: &Service) -> PathBuf {
    let name = format!("{}.plist", label(service.reach));
    match service.reach {
        Reach::System => PathBuf::from("/Library/LaunchDaemons").join(name),
        Reach::User => service.home.join("Library/LaunchAgents").join(name),
    }
}

pub(super) fn plan(service: &Service, act: Act) -> Vec<Step> {
    let path = path(service);
    let file = path.display().to_string();
    let (domain, target) = (domain(service), target(service));
    let load = Step::run(&["launchctl", "bootstrap", &domain, &file]);
    let unload = Step::run(&["launchctl", "bootout", &target]);
    match act {
        Act::Install => vec![Step::Write { path, text: plist(service) }, load],
        Act::Uninstall => vec![unload, Step::Remove { path }],
        Act::Start => vec![load],
        // Only what launchd does not know any more is not started again by it.
        Act::Stop => vec![unload],
        Act::Restart => vec![Step::run(&["launchctl", "kickstart", "-k", &target])],
    }
}

/// The property list, with this program in it.
fn plist(service: &Service) -> String {
    let text = if service.reach == Reach::System { DAEMON } else { AGENT };
    let escaped = service.program.display().to_string().replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace("/usr/local/bin/vambrace", &escaped);
    let log = log(service).display().to_string().replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace("/Users/USER/Library/Logs/vambrace.log", &log);
    let (head, rest) = text.split_once("<plist ").unwrap_or(("", &text));
    format!("{head}<!-- {MARK}; changes are lost with the next. -->\n<plist {rest}")
}

/// The command that tells of it.
pub(super) fn print(service: &Service) -> Vec<String> {
    vec!["launchctl".into(), "print".into(), target(service)]
}

/// What `print` printed; nothing where launchd does not know it.
pub(super) fn read_unit(service: &Service, printed: Option<&str>) -> Unit {
    let value = |key: &str| {
        let lines = printed.unwrap_or_default().lines();
        lines.map(str::trim).find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).unwrap_or_default().to_owned()
    };
    let state = value("state");
    Unit {
        name: label(service.reach).to_owned(),
        is_known: printed.is_some(),
        is_enabled: printed.is_some(),
        active: if state == "running" { "active".into() } else { "inactive".into() },
        pid: value("pid").parse().ok(),
        said: match value("last exit code") {
            code if code.is_empty() => state,
            code => format!("{state}; last exit code {code}"),
        },
    }
}

/// Where launchd puts what it says on standard error, which goes nowhere else.
fn log(service: &Service) -> PathBuf {
    match service.reach {
        Reach::System => PathBuf::from("/Library/Logs/vambrace.log"),
        Reach::User => service.home.join("Library/Logs/vambrace.log"),
    }
}

/// The command that shows what it said.
pub(super) fn logs(service: &Service, lines: u32, follow: Follow) -> Vec<String> {
    let mut words = vec!["tail".to_owned(), "-n".to_owned(), lines.to_string()];
    // By name: also the file that is there after a rotation.
    words.extend((follow == Follow::Yes).then(|| "-F".to_owned()));
    words.push(log(service).display().to_string());
    words
}

#[cfg(test)]
mod tests {
    use super::super::Supervisor;
    use super::super::tests::service;
    use super::*;

    #[test]
    fn a_daemon_is_the_hosts_and_an_agent_the_users_and_both_run_this_very_program() {
        for (reach, place) in [
            (Reach::System, "/Library/LaunchDaemons/io.vambrace.gateway.plist"),
            (Reach::User, "/home/ada/Library/LaunchAgents/io.vambrace.agent.plist"),
        ] {
            let service = Service { program: "/opt/a&b/vambrace".into(), ..service(Supervisor::Launchd, reach) };
            let steps = plan(&service, Act::Install);
            let [Step::Write { path, text }, Step::Run(load)] = &steps[..] else { panic!("{steps:?}") };
            assert_eq!(path.to_str(), Some(place));
            assert!(text.contains("<string>/opt/a&amp;b/vambrace</string>") && text.contains(MARK), "{text}");
            assert!(text.contains(&format!("<string>{}</string>", label(reach))));
            assert_eq!(load[..2], ["launchctl", "bootstrap"]);
            let log = log(&service).display().to_string();
            assert!(text.contains(&format!("<key>StandardErrorPath</key>\n\t<string>{log}</string>")), "{text}");
            assert!(!text.contains("/Users/USER"), "{text}");
            assert_eq!(logs(&service, 7, Follow::Yes), ["tail", "-n", "7", "-F", log.as_str()]);
        }
    }

    #[test]
    fn the_sockets_that_launchd_holds_have_the_name_that_they_are_taken_over_by() {
        for text in [DAEMON, AGENT] {
            let sockets = text.split_once("<key>Sockets</key>").unwrap().1;
            let names: Vec<&str> = sockets
                .lines()
                .take_while(|line| *line != "\t</dict>")
                .filter_map(|line| line.strip_prefix("\t\t<key>")?.strip_suffix("</key>"))
                .collect();
            assert_eq!(names, [crate::os::activation::NAME]);
        }
    }

    #[test]
    fn what_launchd_tells_is_read() {
        let service = service(Supervisor::Launchd, Reach::User);
        let printed = "gui/1000/io.vambrace.agent = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 77\n}\n";
        let unit = read_unit(&service, Some(printed));
        assert_eq!((unit.active.as_str(), unit.pid), ("active", Some(77)));
        assert!(!read_unit(&service, None).is_known);
    }
}
