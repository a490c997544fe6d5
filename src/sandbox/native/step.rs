//! The steps of the recipe, by name: what a failed launch says it was doing.

use std::io;
use std::path::Path;

macro_rules! steps {
    ($($name:ident = $words:literal,)*) => {
        /// A named step of the recipe.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Step { $($name,)* }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)*];

            /// What is being done, in a few words.
            pub(super) fn words(self) -> &'static str {
                match self { $(Step::$name => $words,)* }
            }

            pub(super) fn from_number(number: u8) -> Option<Step> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

steps! {
    Descriptors = "place the command's descriptors",
    Close = "close inherited descriptors",
    UserMap = "map the user namespace",
    Cgroup = "enter the control group",
    Namespaces = "make the namespaces of network, host name, IPC and control groups",
    Private = "detach mount propagation",
    OpenNamed = "open a folder of the profile",
    OpenSystem = "open a part of the system",
    IdMap = "map the owner of the workspace (the file system must know id-mapped mounts)",
    Root = "make an empty root",
    Attach = "attach a mount",
    Devices = "make /dev",
    Proc = "mount /proc",
    Mask = "mask a part of /proc",
    Scratch = "make /tmp and the home folder",
    SecretFiles = "make /run/secrets",
    SealRoot = "make the root read-only",
    Pivot = "change the root",
    Guard = "let only listed executables be executed",
    WorkingFolder = "enter the working folder",
    HostName = "set the host name",
    Loopback = "bring up the loopback of the network namespace",
    Limits = "set resource limits",
    CloseDoors = "empty the bounding set and lock the secure bits",
    Identity = "take the sandbox's uid and gid",
    DropAll = "empty the capability sets",
    Return = "prove that root is gone",
    Keeper = "adopt what the command leaves",
    DieWithRunner = "tie this process to the launcher",
    Undumpable = "hide the init from debuggers",
    NoNewPrivs = "set no_new_privs",
    Landlock = "enforce Landlock",
    Seccomp = "install the system-call filter",
    SecretVariables = "read the secrets for the environment",
    Doors = "open the doors for connections that are allowed",
    Proof = "prove the walls",
    Brief = "take the command from the launcher",
    Start = "start the command",
}

/// A step's failure on its way to the status pipe.
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
    pub(super) text: String,
}

pub(super) type Steps<T = ()> = Result<T, Failure>;

/// The result of a step.
pub(super) fn at<T>(step: Step, result: io::Result<T>) -> Steps<T> {
    result.map_err(|e| fail(step, &e, ""))
}

/// The result of a step on a path.
pub(super) fn at_path<T>(step: Step, path: &Path, result: io::Result<T>) -> Steps<T> {
    result.map_err(|e| fail(step, &e, &path.display().to_string()))
}

fn fail(step: Step, error: &io::Error, text: &str) -> Failure {
    match error.raw_os_error() {
        Some(errno) => Failure { step, errno, text: text.to_owned() },
        None => Failure {
            step,
            errno: 0,
            text: if text.is_empty() { error.to_string() } else { format!("{text}: {error}") },
        },
    }
}
