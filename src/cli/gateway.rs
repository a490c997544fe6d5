//! Running the gateway and the runner; asking a gateway about itself; the configuration.

use super::args::{BackendArg, EgressArgs, GatewayArgs, Output, PlaceArgs, RunnerArgs};
use super::render::{self, Fault, table};
use crate::client::{self, Keyring, Shown, Target};
use crate::config::{self, Flags, Overrides, Places, Settings};
use crate::crypto;
use crate::daemon;
use crate::egress;
use crate::model::EngineHost;
use crate::model::Secret;
use crate::os;
use crate::runner;
use crate::runner::{Around, Helpers, With};
use crate::sandbox::{EngineSettings, Protected};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

impl PlaceArgs {
    /// Where everything is.
    pub(super) fn places(&self) -> Places {
        let overrides = Overrides { config: self.config.clone(), state_dir: self.state_dir.clone() };
        Places::find(&overrides, os::process::uid())
    }

    /// Places go into JSON, into orders and into the runner's arguments, where each must come out as it went in.
    pub(super) fn refuse_unreadable(&self) -> Result<(), Fault> {
        let places = self.places();
        for (what, path, other) in [
            ("configuration", &places.config, "--config or VAMBRACE_CONFIG"),
            ("state folder", &places.state, "--state-dir or VAMBRACE_STATE_DIR"),
            ("folder for sockets", &places.runtime, "RUNTIME_DIRECTORY or XDG_RUNTIME_DIR"),
        ] {
            if path.to_str().is_none() {
                return Err(Fault::new(format!("the path of the {what} is not UTF-8: {}", path.display()))
                    .hint(format!("name another with {other}")));
            }
        }
        Ok(())
    }

    /// The configuration file; an empty one where none is and none was named.
    pub(super) fn file(&self, places: &Places) -> Result<config::File, Fault> {
        match config::read(&places.config)? {
            Some(file) => Ok(file),
            None if places.config_is_named => Err(config::ConfigFault::missing(&places.config).into()),
            None => Ok(config::File::default()),
        }
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> Result<(Settings, Places), Fault> {
        let places = self.places();
        let file = self.file(&places)?;
        Ok((config::compose(&file, &places, &config::Flags::default())?, places))
    }

    /// The gateway to talk to: flag, variable, the user's socket, the system's.
    pub(super) fn target(&self) -> Result<Target, Fault> {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        if let Some(url) = self.url.clone().or_else(|| var("VAMBRACE_GATEWAY_URL")) {
            let auth = Shown {
                token: var("VAMBRACE_TOKEN").map(Secret::new),
                password: var("VAMBRACE_PASSWORD").map(Secret::new),
                setup_code: None,
            };
            return Ok(Target::url(&url, auth, self.pin()?, self.keyring())?);
        }
        let own = self.places().socket();
        let system = PathBuf::from("/run/vambrace/gateway.sock");
        let named = self.state_dir.is_some() || var("VAMBRACE_STATE_DIR").is_some();
        Ok(Target::Socket(if named || own.exists() || !system.exists() { own } else { system }))
    }

    /// Whether there is a gateway to ask; without one, what is in its state folder can be worked on here.
    pub(super) fn has_gateway(&self) -> Result<bool, Fault> {
        Ok(match self.target()? {
            Target::Socket(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
            Target::Remote(_) => true,
        })
    }

    /// Who we are to gateways beyond the unix socket.
    pub(super) fn keyring(&self) -> Keyring {
        Keyring::at(&self.places().state.join("client"))
    }

    fn pin(&self) -> Result<Option<[u8; 32]>, Fault> {
        let var = std::env::var("VAMBRACE_GATEWAY_FINGERPRINT").ok().filter(|v| !v.is_empty());
        let Some(text) = self.fingerprint.clone().or(var) else { return Ok(None) };
        let bad = || {
            Fault::new(format!("--fingerprint {text:?} is no SHA-256 of a certificate"))
                .hint("`vambrace status` on the gateway's host shows it: sha256: and 64 hex digits")
                .code(2)
        };
        crypto::parse_fingerprint(&text).map(Some).ok_or_else(bad)
    }

    /// Asks one thing of the gateway.
    pub(super) fn call(&self, scopes: &[&str], method: &str, params: Option<Value>) -> Result<Value, Fault> {
        let target = self.target()?;
        Ok(runtime()?.block_on(client::call(&target, scopes, method, params))?)
    }
}

/// Nobody else of this user may look into this process from here on.
pub(super) fn hide() -> Result<(), Fault> {
    os::process::make_undumpable().map_err(|e| {
        Fault::new(format!("cannot hide from debuggers: {e}")).hint("start it outside of what refuses it prctl(2)")
    })
}

const DOORS: &str =
    "LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are the service manager's; unset them where there is none";

/// A small runtime for a command that talks to a gateway.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
        Fault::new(format!("cannot start the runtime: {e}")).hint("this process has met a limit: ulimit -a")
    })
}

pub(super) fn run(place: &PlaceArgs, args: &GatewayArgs) -> Result<ExitCode, Fault> {
    daemon::start_log();
    let inherited =
        os::activation::take().map_err(|e| Fault::new(format!("cannot take the doors we were given: {e}")).hint(DOORS));
    let run = || {
        let places = place.places();
        let flags = Flags {
            bind: args.bind.clone(),
            port: args.port,
            runner_socket: args.runner_socket.clone(),
            docker_runner_socket: args.docker_runner_socket.clone(),
        };
        let settings = config::compose(&place.file(&places)?, &places, &flags)?;
        daemon::run(settings, &places, &flags, inherited?).map_err(|e| Fault::new(e.to_string()).hint(e.hint()))
    };
    // The last that the service manager shows of us.
    run().inspect_err(|fault: &Fault| daemon::tell_failure(&fault.message))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn runner(args: &RunnerArgs) -> Result<ExitCode, Fault> {
    // Before anything else: another runner of the same user must not look into this one.
    hide()?;
    daemon::start_log();
    let protected = Protected {
        own: args.protect.clone(),
        home: args.home.clone(),
        kept: args.kept.clone(),
        workspaces: args.workspaces.clone(),
    };
    let with = match args.backend {
        BackendArg::Native => With::Native(protected),
        BackendArg::Docker => With::Docker(EngineSettings {
            host: EngineHost::Unix(args.engine.clone()),
            others: args.elsewhere.iter().map(|text| elsewhere(text)).collect::<Result<_, _>>()?,
            gateway: whose(args)?,
            scratch: args.scratch.clone().unwrap_or_default(),
            protected,
        }),
    };
    let served = match &args.socket {
        None if args.rest => runner::rest(),
        None if args.in_container => runner::serve_in_container(),
        None => runner::serve_inherited(with),
        Some(path) => {
            let uid = gateway_uid(args.gateway_user.as_deref())?;
            let helpers = args.egress_socket.clone().map_or(Helpers::Own, Helpers::Service);
            runner::serve_socket(path, uid, with, Around { helpers }, || {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            })
        }
    };
    served.map_err(|e| {
        Fault::new(e.to_string()).hint("the gateway starts its own runner unless `runner.socket` is set")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whose containers those of a docker runner are.
fn whose(args: &RunnerArgs) -> Result<String, Fault> {
    match (&args.gateway, &args.kept) {
        (Some(gateway), _) => Ok(gateway.clone()),
        (None, Some(kept)) => daemon::whose(kept).map_err(|e| Fault::new(format!("{}: {e}", kept.display()))),
        (None, None) => {
            Err(Fault::new("a docker runner was not told whose containers are its own").hint("give it --kept").code(2))
        }
    }
}

/// An engine on the command line, as in the configuration.
fn elsewhere(text: &str) -> Result<EngineHost, Fault> {
    config::DockerFile::engine(text).map_err(|why| {
        let hint = "write {\"host\": \"ssh://sandboxes.example.org\"}";
        Fault::new(format!("--elsewhere {text:?}: {why}")).hint(hint).code(2)
    })
}

pub(super) fn egress(args: &EgressArgs) -> Result<ExitCode, Fault> {
    daemon::start_log();
    egress::serve_inherited(args.uid)
        .map_err(|e| Fault::new(e.to_string()).hint("the runner starts it; it is of no use by itself"))?;
    Ok(ExitCode::SUCCESS)
}

fn gateway_uid(user: Option<&str>) -> Result<u32, Fault> {
    let Some(user) = user else { return Ok(os::process::uid()) };
    os::host::uid_of(user)
        .ok()
        .flatten()
        .ok_or_else(|| Fault::new(format!("there is no user {user:?}")).hint("give --gateway-user a name or a uid"))
}

pub(super) fn status(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let status = place.call(&["operator.read"], "status", None)?;
    if args.json {
        render::json(&status);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let addresses = status["addresses"].as_array().map(|a| a.iter().map(&text).collect::<Vec<_>>().join(", "));
    let runner = |runner: &Value| match (runner["connected"].as_bool(), runner["unable"].as_str()) {
        (Some(true), None) => format!("ready, pid {}", text(&runner["pid"])),
        (Some(true), Some(why)) => format!("cannot build its walls: {why}"),
        _ if runner.is_null() => "none, no profile has containers".to_owned(),
        _ => "not connected".to_owned(),
    };
    let megabytes = status["processMemory"]["rss"].as_u64().unwrap_or(0) as f64 / f64::from(1 << 20);
    let rows = [
        ("version", text(&status["runtimeVersion"])),
        ("listening", addresses.unwrap_or_default()),
        ("authentication", text(&status["authMode"])),
        ("certificate", status["tls"]["fingerprint"].as_str().map_or("no TLS".to_owned(), ToOwned::to_owned)),
        ("devices", text(&status["devices"])),
        ("own walls", own_walls(&status["confinement"])),
        ("runner", runner(&status["runner"])),
        ("docker runner", runner(&status["dockerRunner"])),
        ("up", format!("{} s", status["uptimeMs"].as_u64().unwrap_or(0) / 1000)),
        ("running", text(&status["runs"])),
        ("connections", text(&status["connections"])),
        ("key", key_line(&status["state"]["key"])),
        ("journald", if status["journal"]["journald"] == true { "yes" } else { "no" }.to_owned()),
        ("memory", format!("{megabytes:.1} MiB")),
        ("state", text(&status["stateDir"])),
        ("config", text(&status["configPath"])),
    ];
    render::line(&table(&rows.map(|(name, value)| vec![name.to_owned(), render::one_line(&value)])));
    Ok(ExitCode::SUCCESS)
}

/// What stands around the gateway itself.
fn own_walls(confinement: &Value) -> String {
    let weaker = confinement["weaker"].as_str().map(ToOwned::to_owned);
    weaker.unwrap_or_else(|| format!("Landlock ABI {}, seccomp", confinement["landlockAbi"]))
}

/// Where the key of the state comes from, and what could be better about it.
fn key_line(key: &Value) -> String {
    let (source, best) = (key["source"].as_str().unwrap_or("-"), key["best"].as_str().unwrap_or("-"));
    let mut line = format!("{source}, rotation {}", key["epoch"]);
    if source != best {
        line.push_str(&format!("; {best} is there as well: `vambrace secrets rotate-key` moves to it"));
    }
    if key["lockedInMemory"] == false {
        line.push_str("; not locked in memory (LimitMEMLOCK)");
    }
    line
}

pub(super) fn health(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let health = place.call(&[], "health", None)?;
    let ok = health["ok"] == true;
    if args.json {
        render::json(&health);
    } else if ok {
        render::line("ok");
    } else {
        let failing: Vec<&str> = health["failing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        render::line(&format!("not ready: {}", failing.join(", ")));
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn token(place: &PlaceArgs, args: &Output, method: &str) -> Result<ExitCode, Fault> {
    let answer = place.call(&["operator.admin"], method, None)?;
    if args.json {
        render::json(&answer);
    } else {
        render::line(answer["token"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_check(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let (_, places) = place.settings()?;
    let here = places.config.exists();
    if args.json {
        render::json(&json!({"ok": true, "path": places.config, "exists": here}));
    } else if here {
        render::line(&format!("{}: ok", places.config.display()));
    } else {
        render::line(&format!("{}: not there; defaults are in force", places.config.display()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_reload(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let answer = place.call(&["operator.admin"], "config.reload", None)?;
    if args.json {
        render::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let waiting: Vec<&str> =
        answer["needsRestart"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    render::line("the configuration was read again");
    if !waiting.is_empty() {
        render::line(&format!("needs a restart: {}", waiting.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_show(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let places = place.places();
    let file = place.file(&places)?;
    let settings = config::compose(&file, &places, &config::Flags::default())?;
    let value = json!({
        "file": file,
        "config": places.config, "state": places.state, "socket": places.socket(), "workspaces": places.workspaces,
        "address": settings.doors.address.to_string(), "operators": settings.doors.operators,
    });
    if args.json {
        render::json(&value);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows: Vec<Vec<String>> = ["config", "state", "socket", "workspaces", "address", "operators"]
        .map(|key| vec![key.to_owned(), value[key].as_str().map_or_else(|| value[key].to_string(), ToOwned::to_owned)])
        .to_vec();
    let defaults = config::Layer::origins(&settings.profiles.defaults, &[("defaults.sandbox", &file.defaults.sandbox)]);
    rows.extend(
        defaults
            .into_iter()
            .map(|(key, value, from)| vec![format!("defaults.sandbox.{key}"), value, format!("({from})")]),
    );
    rows.extend(settings.profiles.agents.keys().map(|agent| vec![format!("agents.{agent}"), "configured".into()]));
    rows.extend(settings.profiles.named.keys().map(|name| vec![format!("profiles.{name}"), "configured".into()]));
    render::line(&table(&rows));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_path(place: &PlaceArgs) -> Result<ExitCode, Fault> {
    render::line(&place.places().config.display().to_string());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_schema() -> Result<ExitCode, Fault> {
    render::json(&config::schema());
    Ok(ExitCode::SUCCESS)
}
