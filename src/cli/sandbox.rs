//! `sandbox`: the same walls without a gateway, and looking at them.

use super::args::{
    BackendArg, Net, Output, PlaceArgs, SandboxCommand, SandboxExplainArgs, SandboxProbeArgs, SandboxPruneArgs,
    SandboxRunArgs,
};
use super::contained;
use super::exec::explain as explain_ending;
use super::files;
use super::image;
use super::render::{self, Fault, table};
use crate::config::{self, Layer};
use crate::model::{
    AgentId, Backend, Ending, Enforcement, ExecMode, LaunchFault, Network, ProfileName, RunFault, SandboxProfile,
};
use crate::os;
use crate::runner::{Helpers, WayOut};
use crate::sandbox::{self, Command, Descriptors, Handed, Launched, Launcher, Protected, Verdict};
use crate::wire;
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(super) fn run(place: &PlaceArgs, command: SandboxCommand) -> Result<ExitCode, Fault> {
    match command {
        SandboxCommand::Run(args) => run_one(place, &args),
        SandboxCommand::Explain(args) => explain(place, &args),
        SandboxCommand::Probe(args) => probe(place, &args),
        SandboxCommand::Read(args) => files::read(place, &args),
        SandboxCommand::Write(args) => files::write(place, &args),
        SandboxCommand::Ls(args) => files::list(place, &args),
        SandboxCommand::List(args) => list(place, &args),
        SandboxCommand::Recreate { name, output } => {
            removed(&output, &place.call(&["operator.admin"], "sandbox.recreate", Some(json!({"name": name})))?)
        }
        SandboxCommand::Prune(args) => prune(place, &args),
        SandboxCommand::BuildImage(args) => image::build(place, &args),
        SandboxCommand::CheckImage(args) => image::check(place, &args),
    }
}

fn run_one(place: &PlaceArgs, args: &SandboxRunArgs) -> Result<ExitCode, Fault> {
    let (settings, _) = place.settings().map_err(|f| f.code(125))?;
    let profile = profile(&settings, args)?;
    let argv = args.command.clone();
    let command =
        Command { argv, cwd: PathBuf::new(), env: Default::default(), secrets: Vec::new(), terminal: None, file: None };
    if profile.backend == Backend::Docker {
        let outcome = contained::run(&settings, &place.places(), &profile, &command)?;
        return told(args, outcome.ending, &outcome.enforcement);
    }
    let mut launcher = Launcher::new(settings.protected).map_err(|e| fault(&RunFault::WallMissing(e)))?;
    if let Some(times) = args.measure {
        return measure(&mut launcher, &profile, &command, times, args.reserve);
    }
    let (ending, enforcement) = once(&mut launcher, &profile, command).map_err(|e| fault(&e))?;
    told(args, ending, &enforcement)
}

/// Tells how it ended and passes that on.
fn told(args: &SandboxRunArgs, ending: Ending, enforcement: &Enforcement) -> Result<ExitCode, Fault> {
    if args.json {
        let facts = json!({"ending": ending.as_str(), "exitCode": ending.exit_code(), "enforcement": wire::enforcement_json(enforcement)});
        render::note(&facts.to_string());
    } else {
        explain_ending(ending.as_str());
    }
    Ok(ExitCode::from(ending.exit_code()))
}

fn profile(settings: &config::Settings, args: &SandboxRunArgs) -> Result<SandboxProfile, Fault> {
    let mut profile = match &args.profile {
        None => settings.profiles.defaults.clone(),
        Some(name) => named(settings, name)?,
    };
    let absolute = |path: &PathBuf| resolve(path);
    profile.workspace = args.workspace.as_ref().map(absolute).transpose()?;
    profile.read_only.extend(args.ro.iter().map(absolute).collect::<Result<Vec<_>, _>>()?);
    profile.read_write.extend(args.rw.iter().map(absolute).collect::<Result<Vec<_>, _>>()?);
    if let Some(net) = args.net {
        profile.network = match net {
            Net::None => Network::None,
            Net::Allowlist => Network::Allowlist,
            Net::Host => Network::Host,
        };
    }
    match args.backend {
        None => {}
        Some(BackendArg::Native) => profile.backend = Backend::Native,
        Some(BackendArg::Docker) => profile.backend = Backend::Docker,
    }
    if let Some(image) = &args.image {
        if !config::is_image(image) {
            return Err(Fault::new(format!("{image:?} is no name of an image"))
                .hint("write for example vambrace-sandbox:latest or sha256:…")
                .code(2));
        }
        profile.image = image.clone();
    }
    if let Some(text) = &args.timeout {
        profile.limits.timeout = config::duration(text).ok_or_else(|| {
            Fault::new(format!("--timeout {text:?} is no duration")).hint("write for example 30s").code(2)
        })?;
    }
    Ok(profile)
}

fn named(settings: &config::Settings, name: &str) -> Result<SandboxProfile, Fault> {
    let found = ProfileName::parse(name).ok().and_then(|n| settings.profiles.named.get(&n).cloned());
    found.ok_or_else(|| {
        Fault::new(format!("there is no profile {name:?}"))
            .hint("`vambrace config show` lists the profiles there are")
            .code(126)
    })
}

/// Absolute, with everything before the last part resolved: a last part that is a link is refused later, by name.
fn resolve(path: &Path) -> Result<PathBuf, Fault> {
    let plain = |e: std::io::Error| {
        Fault::new(format!("{}: {e}", path.display())).hint("name a folder of this host that is there").code(126)
    };
    let absolute = std::path::absolute(path).map_err(plain)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(os::fs::canonical(parent).map_err(plain)?.join(name)),
        _ => Ok(absolute),
    }
}

fn once(
    launcher: &mut Launcher,
    profile: &SandboxProfile,
    command: Command,
) -> Result<(Ending, Enforcement), RunFault> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let handed = Descriptors { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), secrets: &[] };
    let mut launched = launcher.launch(profile, command, handed)?;
    let mut out = None;
    let timed_out = !watch(&mut launched, profile.limits.timeout, |launched| {
        out = way_out(launcher, launched, profile)?;
        Ok(())
    })?;
    drop(out);
    let verdict = launched.monitor.verdict();
    let finished = launcher.finish(launched);
    let ending = match verdict {
        Verdict::Fault(fault) if !timed_out => return Err(fault),
        _ if timed_out => Ending::TimedOut,
        Verdict::Ended(Ending::Signaled(9)) | Verdict::Killed if finished.out_of_memory => Ending::OutOfMemory,
        Verdict::Ended(ending) => ending,
        _ => Ending::Signaled(9),
    };
    Ok((ending, finished.enforcement.ok_or(RunFault::NeverStarted(ending))?))
}

/// What carries connections out, where the profile allows some. Nothing is said of them here.
fn way_out(
    launcher: &mut Launcher,
    launched: &mut Launched,
    profile: &SandboxProfile,
) -> Result<Option<WayOut>, RunFault> {
    if profile.network != Network::Allowlist {
        return Ok(None);
    }
    let fault = |e: std::io::Error| {
        RunFault::WallMissing(LaunchFault { step: "open the way out".into(), cause: e.to_string() })
    };
    let Handed::Doors(doors) = launched.receive().map_err(fault)? else { return Ok(None) };
    WayOut::open(&Helpers::Own, &profile.domains, &doors, launcher.lend_uid()?).map(Some).map_err(fault)
}

/// Reads the status pipe to its end, and says when the walls stand; false where the deadline came first and the tree was
/// killed.
fn watch(
    launched: &mut Launched,
    at_most: Duration,
    mut walled: impl FnMut(&mut Launched) -> Result<(), RunFault>,
) -> Result<bool, RunFault> {
    let deadline = Instant::now().checked_add(at_most);
    let Ok(mut status) = launched.status.try_clone().map(std::fs::File::from) else { return Ok(true) };
    let mut stands = false;
    let mut in_time = true;
    let mut bytes = [0; 1024];
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if in_time && !os::process::wait_readable(&status, left).unwrap_or(true) {
            launched.kill();
            in_time = false;
        }
        match status.read(&mut bytes) {
            Ok(n) if n > 0 => launched.monitor.feed(&bytes[..n]),
            _ => return Ok(in_time),
        }
        if !stands && launched.monitor.stands() {
            stands = true;
            walled(launched)?;
        }
    }
}

/// For the benchmark: the same run again and again, timed from order to the end of the whole tree.
fn measure(
    launcher: &mut Launcher,
    profile: &SandboxProfile,
    command: &Command,
    times: usize,
    reserve: bool,
) -> Result<ExitCode, Fault> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| Fault::new(format!("/dev/null: {e}")))?;
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let handed = Descriptors { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd(), secrets: &[] };
        let mut launched = launcher.launch(profile, command.clone(), handed).map_err(|e| fault(&e))?;
        watch(&mut launched, profile.limits.timeout, |_| Ok(())).map_err(|e| fault(&e))?;
        if let Verdict::Fault(e) = launched.monitor.verdict() {
            return Err(fault(&e));
        }
        took.push(launcher.finish(launched).elapsed.as_nanos() as u64);
        if reserve {
            // As between two commands of an agent: the next walls are built while nobody waits for them.
            launcher.refill();
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    render::line(&json!(took).to_string());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn fault(fault: &RunFault) -> Fault {
    Fault::new(fault.to_string()).hint(fault.hint()).code(fault.exit_code())
}

fn list(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let answer = place.call(&["operator.read"], "sandbox.list", None)?;
    if args.json {
        render::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let time = |ms: &Value| config::rough(Duration::from_millis(ms.as_u64().unwrap_or(0)));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut rows = vec![
        ["SANDBOX", "AGENT", "SESSION", "RUNNING", "UNUSED FOR", "REMOVED AFTER", "CONTAINER"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for kept in answer["sandboxes"].as_array().into_iter().flatten() {
        rows.push(vec![
            text(&kept["name"]),
            text(&kept["agent"]),
            text(&kept["session"]),
            kept["running"].to_string(),
            time(&kept["idleMs"]),
            time(&kept["prunedAfterMs"]),
            container(&kept["container"]),
        ]);
    }
    match rows.len() {
        1 => render::line("no sandbox keeps anything"),
        _ => render::line(&table(&rows)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A container in a few words: its id, since when it is there, and whether the next command finds it as it is.
fn container(container: &Value) -> String {
    if container.is_null() {
        return "-".into();
    }
    let text = |key: &str| container[key].as_str().unwrap_or("?").to_owned();
    let differs: Vec<&str> =
        container["differences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fit = match differs[..] {
        [] => "as planned".to_owned(),
        // The digest of the plan: other folders of the same names, or another way out.
        ["Config.Labels"] => "of another plan, is made anew".to_owned(),
        _ => format!("differs in {}, is made anew", differs.join(", ")),
    };
    render::one_line(&format!("{:.12} {} since {:.16}, {fit}", text("id"), text("state"), text("created")))
}

fn prune(place: &PlaceArgs, args: &SandboxPruneArgs) -> Result<ExitCode, Fault> {
    let idle = match (&args.idle, args.all) {
        (None, false) => None,
        (None, true) => Some(0),
        (Some(text), _) => Some(config::days(text).map(|d| d.as_millis() as u64).ok_or_else(|| {
            Fault::new(format!("--idle {text:?} is no duration")).hint("write for example 12h or 7d").code(2)
        })?),
    };
    removed(&args.output, &place.call(&["operator.admin"], "sandbox.prune", Some(json!({"idleMs": idle})))?)
}

fn removed(args: &Output, answer: &Value) -> Result<ExitCode, Fault> {
    if args.json {
        render::json(answer);
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = answer["removed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    render::line(&if names.is_empty() {
        "nothing to remove".to_owned()
    } else {
        format!("removed {}", names.join(", "))
    });
    Ok(ExitCode::SUCCESS)
}

fn probe(place: &PlaceArgs, args: &SandboxProbeArgs) -> Result<ExitCode, Fault> {
    let (settings, _) = place.settings()?;
    let profile = match &args.profile {
        None => settings.profiles.defaults.clone(),
        Some(name) => named(&settings, name)?,
    };
    let rows = match profile.backend {
        Backend::Native => sandbox::probe_host(),
        Backend::Docker => {
            sandbox::probe_engine(profile.engine.as_ref().unwrap_or(&settings.docker.host), &profile.image)
                .map_err(|e| fault(&e))?
        }
    };
    let able = rows.iter().all(|row| row.here || !row.required);
    // Not on a host that cannot build them: the rows say why better than the first step that fails.
    // In a container they stand around each command, and its record says what was proved.
    let proofs = (able && profile.backend == Backend::Native).then(|| {
        let mut launcher = Launcher::new(settings.protected.clone()).map_err(RunFault::WallMissing)?;
        launcher.prove(&profile)
    });
    let proofs = proofs.transpose().map_err(|e| fault(&e))?.unwrap_or_default();
    if args.output.json {
        let walls: Vec<_> = rows
            .iter()
            .map(|r| json!({"wall": r.wall, "here": r.here, "required": r.required, "detail": r.detail}))
            .collect();
        let proofs: Vec<_> = proofs.iter().map(|p| json!({"act": p.act, "what": p.what, "answer": p.answer})).collect();
        render::json(&json!({"able": able, "walls": walls, "proofs": proofs}));
    } else {
        let word = |here: bool, required: bool| match (here, required) {
            (true, _) => "yes",
            (false, true) => "MISSING",
            (false, false) => "no",
        };
        let cells = rows.iter().map(|r| vec![r.wall.to_owned(), word(r.here, r.required).to_owned(), r.detail.clone()]);
        render::line(&table(&cells.collect::<Vec<_>>()));
        if !proofs.is_empty() {
            render::line("\ntried and read back inside the finished walls, as before every command");
            let cells = proofs.iter().map(|p| vec![p.act.clone(), p.answer.clone(), p.what.clone()]);
            render::line(&table(&cells.collect::<Vec<_>>()));
        }
        if !able {
            return Err(Fault::new("this host cannot build every wall, so no command would be run")
                .hint("the rows marked MISSING say what the kernel or its settings must offer"));
        }
    }
    Ok(if able { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(place: &PlaceArgs, args: &SandboxExplainArgs) -> Result<ExitCode, Fault> {
    let places = place.places();
    let file = place.file(&places)?;
    let settings = config::compose(&file, &places, &config::Flags::default())?;
    let agent = AgentId::parse(&args.agent)
        .map_err(|e| Fault::new(e.to_string()).hint("--agent takes the name of one agent").code(2))?;
    let own = settings.profiles.agents.get(&agent);
    let agent_layer = file.agents.get(&*agent).map(|a| &a.sandbox);
    let agent_name = format!("agents.{agent}.sandbox");
    let profile_name = args.profile.as_ref().map(|p| format!("profiles.{p}"));
    let mut layers: Vec<(&str, &Layer)> = Vec::new();
    let mut profile = match (&args.profile, &profile_name) {
        (Some(name), Some(key)) => {
            let profile = named(&settings, name)?;
            layers.extend(file.profiles.get(name).map(|l| (key.as_str(), l)));
            profile
        }
        _ => {
            layers.extend(agent_layer.map(|l| (agent_name.as_str(), l)));
            own.unwrap_or(&settings.profiles.defaults).clone()
        }
    };
    // What may be executed is the agent's, whatever profile is chosen for it.
    let its_own = own.unwrap_or(&settings.profiles.defaults);
    (profile.exec_mode, profile.exec_allow) = (its_own.exec_mode, its_own.exec_allow.clone());
    layers.push(("defaults.sandbox", &file.defaults.sandbox));
    let configured = own.and_then(|o| o.workspace.clone());
    let origin = if configured.is_some() { format!("agents.{agent}.workspace") } else { "built in".into() };
    profile.workspace = configured.or_else(|| Some(settings.profiles.workspaces.join(&*agent)));
    print_plan(args, &profile, &layers, &origin, &settings.protected)
}

fn print_plan(
    args: &SandboxExplainArgs,
    profile: &SandboxProfile,
    layers: &[(&str, &Layer)],
    workspace_origin: &str,
    protected: &Protected,
) -> Result<ExitCode, Fault> {
    let view = sandbox::view(profile, protected).map_err(|e| fault(&e))?;
    let mut settings = Layer::origins(profile, layers);
    let workspace = profile.workspace.as_ref().map(|w| w.display().to_string()).unwrap_or_default();
    settings.insert(0, ("workspace", workspace, workspace_origin.to_owned()));
    let calls = sandbox::allowed_system_calls();
    let runs_code: Vec<(&str, &str)> =
        profile.exec_allow.iter().filter_map(|p| Some((p.as_str(), sandbox::runs_code(p)?))).collect();
    if args.json {
        let settings: Vec<_> =
            settings.iter().map(|(k, v, from)| json!({"setting": k, "value": v, "from": from})).collect();
        let view: Vec<_> =
            view.iter().map(|b| json!({"path": b.target, "source": b.source, "shown": b.shown.as_str()})).collect();
        render::json(&json!({
            "settings": settings, "view": view,
            "systemCalls": calls.map(|(allowed, refused)| json!({"allowed": allowed, "refused": refused})),
            "executables": {
                "mode": profile.exec_mode.as_str(), "allow": profile.exec_allow,
                "runCodeOfTheirOwn": runs_code.iter().map(|(path, what)| json!({"path": path, "what": what})).collect::<Vec<_>>(),
            },
        }));
        return Ok(ExitCode::SUCCESS);
    }
    render::line("settings");
    render::line(&table(
        &settings.into_iter().map(|(k, v, from)| vec![format!("  {k}"), v, format!("({from})")]).collect::<Vec<_>>(),
    ));
    render::line("\nwhat the command sees of the host");
    let rows = view.iter().map(|b| {
        let source = if b.source == b.target { String::new() } else { format!("from {}", b.source.display()) };
        vec![format!("  {}", b.target.display()), b.shown.as_str().to_owned(), source]
    });
    render::line(&table(&rows.collect::<Vec<_>>()));
    render::line(&match profile.backend {
        Backend::Native => {
            "  everything else: not there; /tmp, /dev/shm and the home folder are empty, writable and end \
                            with the run"
                .to_owned()
        }
        Backend::Docker => format!(
            "  everything else: what is in the image {}, read-only; /tmp, /dev/shm and the home folder are writable",
            profile.image
        ),
    });
    if profile.exec_mode == ExecMode::Allowlist {
        render::line("\nexecutables: the kernel executes these and no other file, whoever asks and by whatever name");
        profile.exec_allow.iter().for_each(|path| render::line(&format!("  {path}")));
        for (path, what) in &runs_code {
            render::line(&format!("  note: {path} {what}; the list does not look into that"));
        }
    }
    if let Some((allowed, refused)) = calls {
        render::line(&format!("\nsystem calls: {allowed} allowed, every other refused; refused on purpose:"));
        refused.iter().for_each(|why| render::line(&format!("  {why}")));
    }
    Ok(ExitCode::SUCCESS)
}
