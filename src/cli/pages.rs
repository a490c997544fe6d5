//! Manual pages and completions, made from the same table as `--help`.

use super::args::Cli;
use super::render::Fault;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn completions(shell: Shell) -> Result<ExitCode, Fault> {
    clap_complete::generate(shell, &mut Cli::command(), "vambrace", &mut std::io::stdout().lock());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(command: Option<&str>, dir: Option<&Path>) -> Result<ExitCode, Fault> {
    let mut root = Cli::command();
    root.build();
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .map_err(|e| Fault::new(format!("cannot write into {}: {e}", dir.display())))?;
        return Ok(ExitCode::SUCCESS);
    }
    let page = match command {
        None => root,
        Some(name) => {
            let found = root.find_subcommand(name).cloned();
            let unknown = || Fault::new(format!("there is no command {name:?}")).hint("`vambrace --help` lists them");
            found.ok_or_else(unknown)?.name(format!("vambrace-{name}").leak() as &'static str)
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|e| Fault::new(e.to_string()))?;
    let _ = std::io::stdout().lock().write_all(&text);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command and flag that a person can see says what it does.
    #[test]
    fn no_command_or_flag_lacks_its_text() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}: no text");
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{path} {}: no text", arg.get_id());
            }
            for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
                check(sub, &path);
            }
        }
        let mut root = Cli::command();
        root.build();
        check(&root, "");
        Cli::command().debug_assert();
    }
}
