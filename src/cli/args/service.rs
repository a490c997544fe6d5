//! The commands that keep the program as a service.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ServiceCommand {
    /// Have the service manager (systemd, launchd) run the gateway, now and at every start of the host
    Install {
        /// Say what would be done, file by file, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// End it and have it not run any more; its state is kept
    Uninstall(ServiceArgs),
    /// Start it
    Start(ServiceArgs),
    /// Stop it, and every command that it runs
    Stop(ServiceArgs),
    /// Start it anew; clients that come meanwhile wait
    Restart(ServiceArgs),
    /// Say what runs; exit 1 where something that is enabled does not
    Status(ServiceArgs),
    /// Show what it has logged
    Logs {
        /// At most so many lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
        lines: u32,
        /// Go on with new lines as they come
        #[arg(short, long)]
        follow: bool,
        /// The service of this user instead of the host's
        #[arg(long)]
        user: bool,
    },
}

/// Which service is meant.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ServiceArgs {
    /// The service of this user instead of the host's
    #[arg(long)]
    pub(in crate::cli) user: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
