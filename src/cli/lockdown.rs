//! `lockdown`: stop everything, let it go on, ask.

use super::args::{LockdownCommand, LockdownOnArgs, Output, PlaceArgs};
use super::render::{self, Fault};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn run(place: &PlaceArgs, command: LockdownCommand) -> Result<ExitCode, Fault> {
    match command {
        LockdownCommand::On(args) => on(place, &args),
        LockdownCommand::Off(args) => {
            let state = place.call(&["operator.admin"], "lockdown.off", None)?;
            tell(&args, &state)
        }
        LockdownCommand::Status(args) => {
            let state = place.call(&["operator.read"], "lockdown.status", None)?;
            tell(&args, &state)
        }
    }
}

fn on(place: &PlaceArgs, args: &LockdownOnArgs) -> Result<ExitCode, Fault> {
    let state = place.call(&["operator.write"], "lockdown.on", Some(json!({"kill": args.kill})))?;
    if args.output.json {
        return tell(&args.output, &state);
    }
    let what = if args.kill { "what ran is killed" } else { "what runs is stopped where it was" };
    render::line(&format!("locked down: {what}, and no command begins"));
    Ok(ExitCode::SUCCESS)
}

fn tell(args: &Output, state: &Value) -> Result<ExitCode, Fault> {
    if args.json {
        render::json(state);
        return Ok(ExitCode::SUCCESS);
    }
    let runs = state["runs"].as_u64().unwrap_or(0);
    render::line(&match state["on"] == true {
        true => format!("on; {runs} commands stand still"),
        false => format!("off; {runs} commands run"),
    });
    Ok(ExitCode::SUCCESS)
}
