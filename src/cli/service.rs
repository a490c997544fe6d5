//! `service` and `doctor`: the program as a service of this host, and what the host lacks.

use super::args::{Output, PlaceArgs, ServiceArgs, ServiceCommand};
use super::render::{self, Fault, one_line, table};
use crate::service::{self, Act, Finding, Follow, Reach, Service, ServiceFault, State, Step, Unit};
use serde_json::{Value, json};
use std::process::ExitCode;

impl From<ServiceFault> for Fault {
    fn from(fault: ServiceFault) -> Self {
        Fault::new(fault.to_string()).hint(fault.hint())
    }
}

fn reach(user: bool) -> Reach {
    if user { Reach::User } else { Reach::System }
}

pub(super) fn run(command: ServiceCommand) -> Result<ExitCode, Fault> {
    match command {
        ServiceCommand::Install { dry_run: true, service } => show(&Service::imagine(reach(service.user))?, &service),
        ServiceCommand::Install { service, .. } => act(&service, Act::Install, "installed and started"),
        ServiceCommand::Uninstall(args) => act(&args, Act::Uninstall, "stopped and switched off; its state is kept"),
        ServiceCommand::Start(args) => act(&args, Act::Start, "started"),
        ServiceCommand::Stop(args) => act(&args, Act::Stop, "stopped"),
        ServiceCommand::Restart(args) => act(&args, Act::Restart, "restarted"),
        ServiceCommand::Status(args) => status(&args),
        ServiceCommand::Logs { lines, follow, user } => {
            let follow = if follow { Follow::Yes } else { Follow::No };
            let shown = Service::find(reach(user))?.logs(lines, follow)?;
            Ok(if shown { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn told(step: &Step) -> Value {
    match step {
        Step::Write { path, text } => json!({"write": path, "text": text}),
        Step::Remove { path } => json!({"remove": path}),
        Step::Run(words) => json!({"run": words}),
    }
}

/// What would be done.
fn show(service: &Service, args: &ServiceArgs) -> Result<ExitCode, Fault> {
    let steps = service.plan(Act::Install)?;
    if args.json {
        render::json(&json!({"steps": steps.iter().map(told).collect::<Vec<_>>()}));
        return Ok(ExitCode::SUCCESS);
    }
    for step in &steps {
        render::line(&match step {
            Step::Write { path, text } => format!("write {}\n{}", path.display(), indented(text)),
            Step::Remove { path } => format!("remove {}", path.display()),
            Step::Run(words) => format!("run {}", words.join(" ")),
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn act(args: &ServiceArgs, act: Act, done: &str) -> Result<ExitCode, Fault> {
    let service = Service::find(reach(args.user))?;
    let steps = service.plan(act)?;
    for step in &steps {
        service::carry_out(step)?;
    }
    if args.json {
        render::json(&json!({"done": steps.iter().map(told).collect::<Vec<_>>()}));
        return Ok(ExitCode::SUCCESS);
    }
    render::line(done);
    if act == Act::Uninstall && service.is_packaged() {
        render::line("its files are the package's: apt-get remove vambrace, or dnf remove vambrace");
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &ServiceArgs) -> Result<ExitCode, Fault> {
    let units = Service::find(reach(args.user))?.status()?;
    // The first is not always the gateway; what matters is that everything which starts by itself does run.
    let well = units.iter().all(|unit| unit.active == "active" || !unit.is_enabled)
        && units.iter().any(|unit| unit.active == "active");
    if args.json {
        let rows = units.iter().map(|unit| {
            json!({"unit": unit.name, "installed": unit.is_known, "enabled": unit.is_enabled, "active": unit.active,
                "pid": unit.pid, "said": unit.said})
        });
        render::json(&json!({"ok": well, "units": rows.collect::<Vec<_>>()}));
    } else {
        render::line(&table(&units.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(unit: &Unit) -> Vec<String> {
    let enabled = match (unit.is_known, unit.is_enabled) {
        (false, _) => "not installed",
        (true, true) => "enabled",
        (true, false) => "not enabled",
    };
    let pid = unit.pid.map_or(String::new(), |pid| format!("pid {pid}"));
    vec![unit.name.clone(), enabled.to_owned(), unit.active.clone(), pid, one_line(&unit.said)]
}

pub(super) fn doctor(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let (settings, places) = place.settings()?;
    let gateway = place.has_gateway()?.then(|| {
        let health = place.call(&[], "health", None).map_err(|fault| fault.message)?;
        let failing = health["failing"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if health["ok"] == true { Ok(()) } else { Err(failing.collect::<Vec<_>>().join(", ")) }
    });
    let status = gateway.is_some().then(|| place.call(&["operator.read"], "status", None).ok()).flatten();
    let weaker = status.map(|status| status["confinement"]["weaker"].as_str().map(one_line));
    let findings = service::examine(&settings, &places, gateway, weaker);
    let lacking = findings.iter().filter(|f| f.is_required && f.state == State::Missing).count();
    if args.json {
        let rows = findings.iter().map(|f| {
            json!({"area": f.area, "what": f.what, "state": word(f.state).to_lowercase(), "required": f.is_required,
                "detail": f.detail, "repair": f.repair})
        });
        render::json(&json!({"ok": lacking == 0, "findings": rows.collect::<Vec<_>>()}));
    } else {
        page(&findings);
    }
    match lacking {
        0 => Ok(ExitCode::SUCCESS),
        _ if args.json => Ok(ExitCode::FAILURE),
        _ => Err(Fault::new(format!("{lacking} of what is required here is missing"))
            .hint("the lines behind `repair:` say what to do")),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "ok",
        State::Weaker => "weaker",
        State::Missing => "MISSING",
    }
}

fn page(findings: &[Finding]) {
    let mut areas: Vec<&str> = Vec::new();
    areas.extend(findings.iter().map(|f| f.area));
    areas.sort_unstable();
    areas.dedup();
    let widest = findings.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
    for area in areas {
        render::line(area);
        let rows: Vec<&Finding> = findings.iter().filter(|f| f.area == area).collect();
        for (at, finding) in rows.iter().enumerate() {
            let (what, detail) = (one_line(&finding.what), one_line(&finding.detail));
            render::line(&format!("  {what:<widest$}  {:<7}  {detail}", word(finding.state)));
            // What repairs several lines is said once, below the last of them.
            let is_last = rows.get(at + 1).is_none_or(|next| next.repair != finding.repair);
            if let Some(repair) = finding.repair.as_ref().filter(|_| is_last) {
                render::line(&format!("  {:<widest$}  {:<7}  repair: {}", "", "", one_line(repair)));
            }
        }
    }
}
