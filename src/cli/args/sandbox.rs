//! `sandbox`: the walls without a gateway, what sandboxes keep, and images.

use super::Output;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SandboxCommand {
    /// Run a command inside the same walls without a gateway; nothing is recorded
    Run(SandboxRunArgs),
    /// Show what a command would see, and which setting says so
    Explain(SandboxExplainArgs),
    /// Build the walls around nothing, try every forbidden act inside them, and show what came of it
    Probe(SandboxProbeArgs),
    /// Write a file of a workspace to standard output, read inside the walls as a command would
    Read(FileArgs),
    /// Make standard input a file of a workspace, written inside the walls as a command would
    Write(FileArgs),
    /// Show the names in a folder of a workspace
    Ls(FileArgs),
    /// Show what sandboxes keep between commands, and since when it lies unused
    List(Output),
    /// Remove what a sandbox keeps, so that its next command begins anew
    Recreate {
        /// The sandbox, as `sandbox list` names it
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Remove what sandboxes keep that have lain unused for long enough
    Prune(SandboxPruneArgs),
    /// Build the default image of containers from this host's own packages, without a registry
    BuildImage(BuildImageArgs),
    /// Look through an image for set-id programs and embedded secrets; exit 1 if there are some
    CheckImage(CheckImageArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckImageArgs {
    /// The image; that of the defaults where none is named
    pub(in crate::cli) image: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: Output,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildImageArgs {
    /// What the image is called
    #[arg(default_value = "vambrace-sandbox:latest")]
    pub(in crate::cli) name: String,
    /// Release of the distribution instead of this host's own
    #[arg(long)]
    pub(in crate::cli) suite: Option<String>,
    /// Packages beside the essential ones, with commas between them
    #[arg(long, value_name = "PACKAGES")]
    pub(in crate::cli) include: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FileArgs {
    /// Path relative to the workspace; links are not followed
    #[arg(default_value = "")]
    pub(in crate::cli) path: String,
    /// Agent whose workspace it is
    #[arg(long, default_value = "main")]
    pub(in crate::cli) agent: String,
    /// Session of the agent
    #[arg(long)]
    pub(in crate::cli) session: Option<String>,
    /// Named profile of the configuration instead of the agent's own walls
    #[arg(long)]
    pub(in crate::cli) profile: Option<String>,
    /// Print JSON, where names are shown
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SandboxProbeArgs {
    /// Named profile of the configuration whose walls to build instead of the defaults
    #[arg(long)]
    pub(in crate::cli) profile: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: Output,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SandboxPruneArgs {
    /// Unused for so long, e.g. 12h, instead of what each profile says
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) idle: Option<String>,
    /// All in which no command runs
    #[arg(long, conflicts_with = "idle")]
    pub(in crate::cli) all: bool,
    #[command(flatten)]
    pub(in crate::cli) output: Output,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SandboxRunArgs {
    /// Named profile of the configuration
    #[arg(long)]
    pub(in crate::cli) profile: Option<String>,
    /// Folder shown as /workspace, writable; without it /workspace is empty and ends with the run
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) workspace: Option<PathBuf>,
    /// Further folder shown read-only at its own path
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) ro: Vec<PathBuf>,
    /// Further folder shown writable at its own path
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) rw: Vec<PathBuf>,
    /// The network the command sees
    #[arg(long, value_enum)]
    pub(in crate::cli) net: Option<Net>,
    /// What builds the walls, instead of what the profile says
    #[arg(long, value_enum)]
    pub(in crate::cli) backend: Option<BackendArg>,
    /// With containers: the image, instead of the profile's
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) image: Option<String>,
    /// End the command after this time, e.g. 30s
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) timeout: Option<String>,
    /// Run it so many times and print the times that building and clearing the walls took
    #[arg(long, value_name = "N", hide = true)]
    pub(in crate::cli) measure: Option<usize>,
    /// With --measure: build the next walls between two runs, as the runner does
    #[arg(long, hide = true)]
    pub(in crate::cli) reserve: bool,
    /// Print what was enforced, as JSON on standard error, after the run
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(in crate::cli) command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Net {
    /// Its own, with a loopback of its own and nothing else
    None,
    /// Its own, with connections to the domains of the profile
    Allowlist,
    /// The host's
    Host,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum BackendArg {
    /// The Linux kernel
    Native,
    /// A container engine
    Docker,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SandboxExplainArgs {
    /// Agent whose walls to explain
    #[arg(long, default_value = "main")]
    pub(in crate::cli) agent: String,
    /// Named profile instead
    #[arg(long)]
    pub(in crate::cli) profile: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
