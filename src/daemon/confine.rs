//! The gateway behind walls of its own, also where no service manager builds any: it starts nothing, becomes nobody else,
//! mounts nothing, and reads and writes its own places.
//!
//! Built while there is one thread; those that come inherit it. What has to be started is started by a process forked off
//! before (`runner/spawner.rs`).

use super::DaemonFault;
use crate::auth::Mode;
use crate::config::{Places, Settings, TlsSource};
use crate::os::linux::landlock::{self, Grant};
use crate::os::linux::{capabilities, confined};
use std::io;
use std::path::{Path, PathBuf};

/// What name service, certificates, time and the C library read.
const READABLE: &[&str] = &["/etc", "/usr", "/lib", "/lib32", "/lib64", "/proc", "/run/nscd", "/run/systemd/userdb"];

const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// Where journald listens. From ABI 9 on, Landlock judges who connects to a socket by its path.
const JOURNALD: &str = "/run/systemd/journal";

/// What stands around this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confined {
    /// 0 where the kernel has no Landlock.
    pub(super) landlock_abi: u8,
}

/// From this ABI on (Linux 6.12) signals and abstract sockets are bounded too; what came later bounds what the gateway does
/// not do.
const WHOLE_ABI: u8 = 6;

impl Confined {
    /// What these walls lack on this kernel, in the words of a status line.
    pub(super) fn weaker(self) -> Option<String> {
        match self.landlock_abi {
            0 => Some("not confined by Landlock: this kernel has none".into()),
            abi if abi < WHOLE_ABI => {
                Some(format!("confined by Landlock in part: this kernel has ABI {abi} of {WHOLE_ABI}"))
            }
            _ => None,
        }
    }
}

/// Builds all of it.
///
/// # Errors
/// Where a wall that this kernel has cannot be built.
pub(super) fn confine(settings: &Settings, places: &Places) -> Result<Confined, DaemonFault> {
    let fault = |what: &'static str| move |cause: io::Error| DaemonFault::System { what, cause };
    capabilities::keep_what_serves().map_err(fault("cannot give up capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| fault("cannot set no_new_privs")(e.into()))?;
    let landlock_abi = landlock::abi();
    if landlock_abi > 0 {
        let rules = grants(settings, places);
        landlock::restrict(landlock_abi, &rules).map_err(fault("cannot restrict what the gateway reads and writes"))?;
    }
    confined::start_nothing().map_err(fault("cannot restrict what the gateway calls"))?;
    Ok(Confined { landlock_abi })
}

fn grants(settings: &Settings, places: &Places) -> Vec<(PathBuf, Grant)> {
    let doors = &settings.doors;
    let mut rules: Vec<(PathBuf, Grant)> = READABLE.iter().map(|path| (path.into(), Grant::Read)).collect();
    rules.extend(DEVICES.iter().map(|path| (path.into(), Grant::Device)));
    rules.extend([&places.state, &places.runtime].map(|path| (path.clone(), Grant::ReadWrite)));
    // Folders, not files: what is replaced by another of its name must be found when it is read again.
    let folder = |path: &Path| path.parent().map(Path::to_owned);
    let mut read: Vec<PathBuf> = folder(&places.config).into_iter().chain(places.credentials.clone()).collect();
    let keys = [&settings.keys.key_file, &settings.keys.previous_key_file, &doors.client_ca];
    read.extend(keys.into_iter().flatten().filter_map(|path| folder(path)));
    if let Some(TlsSource::Files { certificate, key }) = &doors.tls {
        read.extend([certificate, key].into_iter().filter_map(|path| folder(path)));
    }
    rules.extend(read.into_iter().map(|path| (path, Grant::Read)));
    let notify = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from).filter(|path| path.is_absolute());
    let tailscaled = match &doors.mode {
        Mode::Tailnet(rules) => Some(rules.socket.clone()),
        _ => None,
    };
    let runners = [settings.runner_socket.clone(), settings.docker_runner_socket.clone()];
    let sockets = runners.into_iter().chain([notify, tailscaled]).flatten().filter_map(|path| folder(&path));
    rules.extend(sockets.chain([JOURNALD.into()]).map(|path| (path, Grant::ReadWrite)));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_landlock_or_with_an_old_one_is_told_and_a_new_one_is_not() {
        let weaker = |landlock_abi| Confined { landlock_abi }.weaker().unwrap_or_default();
        assert!(weaker(0).contains("this kernel has none"));
        assert!(weaker(2).contains("ABI 2 of 6"));
        assert_eq!((weaker(6), weaker(9)), (String::new(), String::new()));
    }
}
