//! Where configuration, state and sockets live: for a system service, for one user, or as told.

use std::env;
use std::path::{Path, PathBuf};

/// What flags and variables say; flags were merged over variables by the caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) config: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
}

/// Every place of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// The configuration file, whether or not it is there.
    pub(crate) config: PathBuf,
    /// Whether somebody named that file, so that it must be there.
    pub(crate) config_is_named: bool,
    pub(crate) state: PathBuf,
    /// Holds the sockets.
    pub(crate) runtime: PathBuf,
    /// Where agents without a workspace of their own get one; beside the state, never in it.
    pub(crate) workspaces: PathBuf,
    /// Where sandboxes keep what outlives a command; beside the state too.
    pub(crate) sandboxes: PathBuf,
    /// Where the service manager put credentials.
    pub(crate) credentials: Option<PathBuf>,
}

impl Places {
    /// Finds them. Under systemd the variables it sets decide; otherwise the XDG base directories.
    pub(crate) fn find(overrides: &Overrides, uid: u32) -> Self {
        Self::from(overrides, uid, &|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
    }

    fn from(overrides: &Overrides, uid: u32, var: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        let home = var("HOME").unwrap_or_else(|| PathBuf::from("/"));
        let xdg = |name: &str, below: &str| var(name).filter(|p| p.is_absolute()).unwrap_or_else(|| home.join(below));
        let first = |list: PathBuf| list.to_str().and_then(|l| l.split(':').next()).map(PathBuf::from).unwrap_or(list);

        let named_state = overrides.state_dir.clone().or_else(|| var("VAMBRACE_STATE_DIR"));
        let state = named_state
            .clone()
            .or_else(|| var("STATE_DIRECTORY").map(first))
            .unwrap_or_else(|| xdg("XDG_STATE_HOME", ".local/state").join("vambrace"));

        let named_config = overrides.config.clone().or_else(|| var("VAMBRACE_CONFIG"));
        let config = named_config
            .clone()
            .or_else(|| var("CONFIGURATION_DIRECTORY").map(|d| first(d).join("vambrace.toml")))
            .unwrap_or_else(|| xdg("XDG_CONFIG_HOME", ".config").join("vambrace/vambrace.toml"));

        // A gateway on a state folder of its own has sockets of its own as well.
        let runtime = match (&named_state, var("RUNTIME_DIRECTORY"), var("XDG_RUNTIME_DIR")) {
            (Some(state), _, _) => state.join("run"),
            (None, Some(runtime), _) => first(runtime),
            (None, None, Some(runtime)) => runtime.join("vambrace"),
            (None, None, None) => {
                let run = PathBuf::from(format!("/run/user/{uid}"));
                if run.is_dir() { run.join("vambrace") } else { state.join("run") }
            }
        };
        let workspaces = beside(&state, "-workspaces");
        let sandboxes = beside(&state, "-sandboxes");
        let credentials = var("CREDENTIALS_DIRECTORY");
        Places { config, config_is_named: named_config.is_some(), state, runtime, workspaces, sandboxes, credentials }
    }

    /// The socket for the command line.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("gateway.sock")
    }

    /// Where the journal's segments are.
    pub(crate) fn journal(&self) -> PathBuf {
        self.state.join("journal")
    }
}

/// `<state><ending>`, in the same folder as the state.
fn beside(state: &Path, ending: &str) -> PathBuf {
    let mut name = state.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    state.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(vars: &[(&str, &str)], overrides: Overrides) -> Places {
        let vars: Vec<(String, PathBuf)> = vars.iter().map(|(k, v)| ((*k).to_owned(), PathBuf::from(v))).collect();
        Places::from(&overrides, 4_000_000, &|name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn a_user_without_variables_gets_the_usual_places() {
        let places = find(&[("HOME", "/home/ada")], Overrides::default());
        assert_eq!(places.config, Path::new("/home/ada/.config/vambrace/vambrace.toml"));
        assert_eq!(places.state, Path::new("/home/ada/.local/state/vambrace"));
        assert_eq!(places.socket(), Path::new("/home/ada/.local/state/vambrace/run/gateway.sock"));
        assert_eq!(places.workspaces, Path::new("/home/ada/.local/state/vambrace-workspaces"));
    }

    #[test]
    fn systemd_and_xdg_say_where_and_a_flag_wins() {
        let systemd = [
            ("HOME", "/x"),
            ("STATE_DIRECTORY", "/var/lib/vambrace:/var/lib/other"),
            ("RUNTIME_DIRECTORY", "/run/vambrace"),
            ("CONFIGURATION_DIRECTORY", "/etc/vambrace"),
        ];
        let places = find(&systemd, Overrides::default());
        assert_eq!(places.state, Path::new("/var/lib/vambrace"));
        assert_eq!(places.config, Path::new("/etc/vambrace/vambrace.toml"));
        assert_eq!(places.socket(), Path::new("/run/vambrace/gateway.sock"));

        let told = find(&systemd, Overrides { state_dir: Some("/tmp/s".into()), config: Some("/tmp/c.toml".into()) });
        assert_eq!((told.state.as_path(), told.runtime.as_path()), (Path::new("/tmp/s"), Path::new("/tmp/s/run")));
        assert!(told.config_is_named);

        let xdg = find(
            &[("HOME", "/h"), ("XDG_STATE_HOME", "relative"), ("XDG_RUNTIME_DIR", "/run/user/5")],
            Overrides::default(),
        );
        assert_eq!(xdg.state, Path::new("/h/.local/state/vambrace"));
        assert_eq!(xdg.runtime, Path::new("/run/user/5/vambrace"));
    }
}
