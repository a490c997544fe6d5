//! Manual pages and completions: of commands from the same table as `--help`, of the configuration from the types that
//! read it.

mod security;
mod settings;

use super::args::Cli;
use super::render::{self, Fault};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn completions(shell: Shell) -> Result<ExitCode, Fault> {
    // Into memory first: it panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vambrace", &mut text);
    render::bytes(&text);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(command: Option<&str>, dir: Option<&Path>) -> Result<ExitCode, Fault> {
    let Some(dir) = dir else {
        let name = command.map_or("vambrace.1".to_owned(), |name| name.replace(' ', "-"));
        let wanted =
            [format!("{name}.1"), format!("vambrace-{name}.1"), format!("{name}.5"), format!("{name}.7"), name];
        let Some((_, text)) = all().into_iter().find(|(file, _)| wanted.contains(file)) else {
            return Err(Fault::new(format!("there is no command {:?}", command.unwrap_or_default())).hint(
                "`vambrace --help` lists them; there are also `vambrace.toml`, the configuration, and `vambrace.7`, \
                 the security model",
            ));
        };
        render::text(&text);
        return Ok(ExitCode::SUCCESS);
    };
    let cannot = |e: std::io::Error| {
        Fault::new(format!("cannot write into {}: {e}", dir.display()))
            .hint("name a folder that this user may write to")
    };
    std::fs::create_dir_all(dir).map_err(cannot)?;
    for (file, text) in all() {
        std::fs::write(dir.join(file), text).map_err(cannot)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every page by the name of its file.
fn all() -> Vec<(String, String)> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, "vambrace", &mut pages);
    pages.push(("vambrace.toml.5".to_owned(), settings::page()));
    pages.push(("vambrace.7".to_owned(), security::page()));
    pages
}

/// The page of a command and of every one below it.
fn add(command: &Command, name: &str, pages: &mut Vec<(String, String)>) {
    if command.is_hide_set() {
        return;
    }
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.clone()).source(source()).manual("Vambrace");
    // Writing to memory does not fail.
    let _ = page.render(&mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if name == "vambrace" {
        text.push_str(&places());
    }
    text.push_str(&see_also(name));
    pages.push((format!("{name}.1"), text));
    for below in command.get_subcommands() {
        add(below, &format!("{name}-{}", below.get_name()), pages);
    }
}

fn source() -> String {
    format!("vambrace {}", env!("CARGO_PKG_VERSION"))
}

/// Where things are, for the page of the program itself.
fn places() -> String {
    let mut page = Page::default();
    page.section("FILES");
    for (path, what) in [
        ("/etc/vambrace/vambrace.toml", "The configuration of the service; vambrace.toml(5) describes it."),
        ("/var/lib/vambrace", "Its state and its journal, sealed. Workspaces and what sandboxes keep lie beside it."),
        ("/run/vambrace/gateway.sock", "Its socket for the command line."),
        (
            "$XDG_CONFIG_HOME/vambrace/vambrace.toml",
            "The configuration of one user's gateway, by default in ~/.config.",
        ),
        ("$XDG_STATE_HOME/vambrace", "Its state, by default in ~/.local/state."),
    ] {
        page.item(path, what);
    }
    page.finish()
}

fn see_also(name: &str) -> String {
    let others = [("vambrace", "1"), ("vambrace.toml", "5"), ("vambrace", "7")];
    let others = others.iter().filter(|(other, section)| (*other, *section) != (name, "1"));
    let list: Vec<String> = others.map(|(other, section)| format!("{other}({section})")).collect();
    let mut page = Page::default();
    page.section("SEE ALSO");
    page.text(&list.join(", "));
    page.finish()
}

/// A manual page, or a part of one, as it is put together.
#[derive(Default)]
struct Page(Roff);

impl Page {
    /// With its head: name, section of the manual, what it is.
    fn new(name: &str, section: &str, what: &str) -> Self {
        let mut page = Page::default();
        page.0.control("TH", [name, section, "", &source(), "Vambrace"]);
        page.section("NAME");
        page.0.text([roman(format!("{name} - {what}"))]);
        page
    }

    fn section(&mut self, title: &str) {
        self.0.control("SH", [title]);
    }

    fn subsection(&mut self, title: &str) {
        self.0.control("SS", [title]);
    }

    /// A paragraph.
    fn text(&mut self, text: &str) {
        self.0.control("PP", []);
        self.0.text(inlines(text));
    }

    /// A name with what it is.
    fn item(&mut self, name: &str, text: &str) {
        self.0.control("TP", []);
        self.0.text([bold(name)]);
        self.0.text(inlines(text));
    }

    /// Lines as they are.
    fn example(&mut self, lines: &str) {
        self.0.control("PP", []);
        self.0.control("EX", []);
        for line in lines.lines() {
            self.0.text([roman(line)]);
        }
        self.0.control("EE", []);
    }

    fn finish(self) -> String {
        self.0.to_roff()
    }
}

/// One line, with what stands in backticks in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_code = |at: usize| at % 2 == 1;
    line.split('`').enumerate().map(|(at, part)| if is_code(at) { bold(part) } else { roman(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command, flag and choice that a person can see says what it does.
    #[test]
    fn no_command_or_flag_lacks_its_text() {
        fn check(command: &Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}: no text");
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{path} {}: no text", arg.get_id());
                let is_ours = arg.get_id() != "shell" && arg.get_num_args().is_some_and(|n| n.takes_values());
                for choice in arg.get_possible_values().iter().filter(|c| is_ours && !c.is_hide_set()) {
                    assert!(choice.get_help().is_some(), "{path} {} {}: no text", arg.get_id(), choice.get_name());
                }
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

    #[test]
    fn every_command_has_a_page_and_so_have_the_configuration_and_the_security_model() {
        let pages = all();
        let has = |file: &str| pages.iter().any(|(name, _)| name == file);
        for file in ["vambrace.1", "vambrace-exec.1", "vambrace-sandbox-run.1", "vambrace.toml.5", "vambrace.7"] {
            assert!(has(file), "{file}");
        }
        assert!(!has("vambrace-egress.1") && !has("vambrace-help.1"), "a page of what nobody calls");
        for (file, text) in pages {
            assert!(text.contains(".SH NAME\n") && text.contains(".SH \"SEE ALSO\"\n"), "{file}: {text}");
        }
    }
}
