//! The command's environment, made from nothing.
//!
//! Names are allowed one by one. A name that changes what a loader, a shell or a language runs is
//! refused with an error even if a profile lists it; dropping it in silence would run something else
//! than what was asked (attack groups ENV-01 to ENV-06).

use crate::model::is_variable_name;
use std::collections::BTreeMap;

/// The search path inside: trusted folders of the read-only system, absolute, nothing else.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The home folder inside; empty, writable, gone with the run.
pub(crate) const HOME: &str = "/home/agent";

/// What a request may set without the operator's word.
const ALLOWED: &[&str] =
    &["LANG", "LC_*", "TZ", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "CI"];

/// What nobody may set: each changes which code runs.
const DANGEROUS: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "MALLOC_*",
    "NLSPATH",
    "LOCPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "GETCONF_DIR",
    "RESOLV_*",
    "TMPDIR",
    "PATH",
    "HOME",
    "SHELL",
    "USER",
    "LOGNAME",
    "PWD",
    "IFS",
    "ENV",
    "BASH_*",
    "BASHOPTS",
    "SHELLOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "FPATH",
    "CDPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PYTHON*",
    "PERL*",
    "RUBYOPT",
    "RUBYLIB",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "CLASSPATH",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "LUA_*",
    "GIT_*",
    "SSH_*",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "LESSOPEN",
    "LESSCLOSE",
    "BROWSER",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TERMCAP",
    "AWKPATH",
    "AWKLIBPATH",
    "RUSTC_WRAPPER",
    "RUSTC",
    "CARGO_*",
    "MAKEFLAGS",
    "MAKEFILES",
    "GNUMAKEFLAGS",
    "GOFLAGS",
    "OPENSSL_*",
    "SSLKEYLOGFILE",
    "XDG_*",
    "DBUS_*",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DOCKER_*",
    // Options and programs of tools: `TAR_OPTIONS=--checkpoint-action=exec=…`.
    "TAR_OPTIONS",
    "RSYNC_RSH",
    "RSYNC_CONNECT_PROG",
    "CVS_RSH",
    "SVN_SSH",
    "HGRCPATH",
    "WGETRC",
    "SYSTEM_WGETRC",
    "CURL_HOME",
    "GNUPGHOME",
    "LESSKEY*",
    "GROFF_COMMAND_PREFIX",
    "VIM",
    "VIMRUNTIME",
    "VIMINIT",
    "GVIMINIT",
    "EXINIT",
    "EMACSLOADPATH",
    "SCREENRC",
    "PSQL*",
    // Of compilers and what builds.
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "CONFIG_SHELL",
    "RUSTFLAGS",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "CGO_*",
    "GOENV",
    "GOROOT",
    "GOTOOLCHAIN",
    "NPM_CONFIG_*",
    "npm_config_*",
    "GEM_HOME",
    "GEM_PATH",
    "BUNDLE_*",
    "JAVA_HOME",
    "MAVEN_OPTS",
    "GRADLE_OPTS",
    // Of further languages.
    "NODE_REPL_EXTERNAL_MODULE",
    "DOTNET_*",
    "CORECLR_*",
    "MONO_*",
    "R_HOME",
    "R_PROFILE*",
    "R_ENVIRON*",
    "R_LIBS*",
    "JULIA_*",
    "ERL_*",
    "ELIXIR_*",
    "TCL_LIBRARY",
    "TCLLIBPATH",
    "CAML_LD_LIBRARY_PATH",
    "OCAMLPATH",
    "GUILE_*",
    // Of libraries that load what they are shown.
    "KRB5_CONFIG",
    "SASL_PATH",
    "SASL_CONF_PATH",
    "GTK_MODULES",
    "GTK_PATH",
    "GIO_*",
    "GST_*",
    "QT_PLUGIN_PATH",
    "GDK_PIXBUF_MODULE_FILE",
    "MAGICK_*",
];

/// Why nobody may set this name, not even an operator who grants the secret in it; `None` where somebody may.
pub(crate) fn dangerous_name(name: &str) -> Option<&'static str> {
    if !is_variable_name(name) {
        return Some("is not a name of an environment variable");
    }
    // A proxy variable is upper or lower case by custom; the loader's names are read as they are.
    let is_dangerous = DANGEROUS.iter().any(|pattern| matches(pattern, name));
    is_dangerous.then_some("can change which code runs and may never be set from outside")
}

/// Why a request may not set this name, or `None` where it may.
///
/// `allow` is the profile's own list of names and `PREFIX_*` patterns.
pub(crate) fn refused_name(name: &str, allow: &[String]) -> Option<&'static str> {
    if let Some(why) = dangerous_name(name) {
        return Some(why);
    }
    let allowed = ALLOWED.iter().any(|p| matches(p, name)) || allow.iter().any(|p| matches(p, name));
    (!allowed).then_some("is not on the allow list (sandbox.env)")
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// The whole environment: ours, then what the request sets.
pub(crate) fn compose(requested: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from(
        [
            ("PATH", PATH),
            ("HOME", HOME),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
            ("SHELL", "/bin/sh"),
            ("TMPDIR", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("VAMBRACE", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    env.extend(requested.iter().map(|(k, v)| (k.clone(), v.clone())));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_change_which_code_runs_are_refused_even_when_listed() {
        let list = ["MY_*".to_owned(), "LD_PRELOAD".to_owned(), "PYTHONPATH".to_owned(), "*".to_owned()];
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "GLIBC_TUNABLES",
            "BASH_ENV",
            "ENV",
            "PS4",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "PERL5OPT",
            "GIT_SSH_COMMAND",
            "PATH",
            "IFS",
            "SHELLOPTS",
            "DOTNET_STARTUP_HOOKS",
            "JAVA_TOOL_OPTIONS",
            "RUBYOPT",
            "TAR_OPTIONS",
            "RSYNC_RSH",
            "GCC_EXEC_PREFIX",
            "npm_config_script_shell",
            "ERL_AFLAGS",
            "R_PROFILE_USER",
            "CORECLR_PROFILER_PATH",
        ] {
            assert!(refused_name(name, &list).is_some() && dangerous_name(name).is_some(), "{name}");
        }
        for name in ["", "A B", "A=B", "1A", "A\0", "É"] {
            assert!(refused_name(name, &list).is_some(), "{name:?}");
        }
    }

    #[test]
    fn the_dozen_is_allowed_and_the_rest_needs_the_operators_word() {
        for name in ["LANG", "LC_ALL", "TZ", "TERM", "CI"] {
            assert_eq!(refused_name(name, &[]), None, "{name}");
        }
        assert!(refused_name("MY_FLAG", &[]).is_some());
        assert_eq!(dangerous_name("MY_FLAG"), None, "a secret's grant is the operator's word");
        assert_eq!(refused_name("MY_FLAG", &["MY_*".to_owned()]), None);
        assert_eq!(refused_name("RUST_LOG", &["RUST_LOG".to_owned()]), None);
    }
}
