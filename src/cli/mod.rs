//! The bell: arguments, rendering, exit codes. The only room that prints.

mod args;
mod backup;
mod contained;
mod devices;
mod exec;
mod files;
mod gateway;
mod image;
mod journal;
mod lockdown;
mod pages;
mod password;
mod render;
mod sandbox;
mod secrets;
mod service;
mod usage;

use args::{Cli, Command, ConfigCommand, PasswordCommand, SandboxCommand, TokenCommand};
use clap::Parser;
use render::{Codes, Fault, finish};
use std::process::ExitCode;

/// Parses the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    crate::os::process::learn_of_the_kernel();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::tell(&error),
    };
    // Rust ignores SIGPIPE; `vambrace journal list | head` should end quietly like every other tool.
    // The services keep ignoring it: a command that closes its input must not end the runner.
    if !matches!(cli.command, Command::Gateway(_) | Command::Runner(_) | Command::Egress(_)) {
        crate::os::process::end_quietly_on_broken_pipe();
    }
    let codes = codes(&cli.command);
    finish(dispatch(cli), codes)
}

/// Whose exit code it is.
fn codes(command: &Command) -> Codes {
    match command {
        Command::Exec(_) | Command::Sandbox(SandboxCommand::Run(_)) => Codes::OfACommand,
        _ => Codes::Ours,
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Fault> {
    let Cli { places, command } = cli;
    if !matches!(command, Command::Runner(_) | Command::Egress(_) | Command::Completions { .. } | Command::Man { .. }) {
        places.refuse_unreadable()?;
    }
    match command {
        Command::Gateway(args) => gateway::run(&places, &args),
        Command::Runner(args) => gateway::runner(&args),
        Command::Egress(args) => gateway::egress(&args),
        Command::Exec(args) => exec::run(&places, args),
        Command::Sandbox(command) => sandbox::run(&places, command),
        Command::Status(args) => gateway::status(&places, &args),
        Command::Health(args) => gateway::health(&places, &args),
        Command::Token(TokenCommand::Show(args)) => gateway::token(&places, &args, "token.show"),
        Command::Token(TokenCommand::Rotate(args)) => gateway::token(&places, &args, "token.rotate"),
        Command::Password(PasswordCommand::Set) => password::set(&places),
        Command::Devices(command) => devices::run(&places, command),
        Command::Node(command) => devices::node(&places, command),
        Command::Secrets(command) => secrets::run(&places, command),
        Command::Backup(args) => backup::backup(&places, &args),
        Command::Restore(args) => backup::restore(&places, &args),
        Command::Lockdown(command) => lockdown::run(&places, command),
        Command::Journal(command) => journal::run(&places, command),
        Command::Config(ConfigCommand::Check(args)) => gateway::config_check(&places, &args),
        Command::Config(ConfigCommand::Reload(args)) => gateway::config_reload(&places, &args),
        Command::Config(ConfigCommand::Show(args)) => gateway::config_show(&places, &args),
        Command::Config(ConfigCommand::Path) => gateway::config_path(&places),
        Command::Config(ConfigCommand::Schema) => gateway::config_schema(),
        Command::Service(command) => service::run(command),
        Command::Doctor(args) => service::doctor(&places, &args),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { command, dir } => pages::man(command.as_deref(), dir.as_deref()),
    }
}
