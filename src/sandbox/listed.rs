//! Lists of executables: what lies over the loaders in every backend, and what a list does not say: which of its programs
//! run code that they are given.

/// The program that stands where a loader was. Empty where there is none for this machine; then the mode is refused.
pub(in crate::sandbox) const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/loader-shim"));

/// Where the shim looks for the loader: the last component of PT_INTERP, in here.
pub(in crate::sandbox) const FOLDER: &str = "/run/loader";

/// Loaders that are covered whether a listed program names them or not: a listed folder may hold any program.
pub(in crate::sandbox) const LOADERS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux.so.2",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// Names of programs, each group with what is said of it.
const GROUPS: &[(&[&str], &str)] = &[
    (&["sh", "bash", "dash", "zsh", "ksh", "fish", "mksh"], "is a shell and runs any script it is given"),
    (
        &[
            "python", "perl", "ruby", "node", "php", "lua", "tclsh", "guile", "java", "deno", "bun", "julia",
            "Rscript", "emacs", "gdb",
        ],
        "is an interpreter and runs any program of its language",
    ),
    (
        &[
            "awk", "gawk", "mawk", "sed", "vim", "vi", "ed", "jq", "bc", "make", "gmake", "tar", "find", "git",
            "sqlite3",
        ],
        "runs commands or code that its arguments or files name",
    ),
    (&["busybox", "toybox", "coreutils"], "is many programs in one"),
    (
        &["gcc", "cc", "clang", "ld", "as", "rustc", "cargo", "go"],
        "makes programs, which nothing executes that is not listed",
    ),
];

/// What can be said of a listed path beyond that it is executed; `None` for most.
pub(crate) fn runs_code(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next()?;
    // python3*, perl5.36.0, lua5.4
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || "*?.-".contains(c));
    GROUPS.iter().find(|(names, _)| names.contains(&plain)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_known_by_its_name_with_and_without_a_version() {
        for path in ["/bin/sh", "/usr/bin/python3*", "/usr/bin/python3.11", "/usr/bin/perl5.36.0", "/usr/bin/busybox"] {
            assert!(runs_code(path).is_some(), "{path}");
        }
        for path in ["/usr/bin/rg", "/usr/bin/cat", "/usr/lib/git-core/*", "/usr/bin/shred"] {
            assert_eq!(runs_code(path), None, "{path}");
        }
    }
}
