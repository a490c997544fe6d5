//! Builds the one part of the program that is a program of its own: the shim of the guarded loader.
//!
//! The compiler is the one cargo uses, for the same target and with the same linker; nothing else is needed. It knows
//! nothing of the crate. Where the shim cannot exist the file is empty, and `sandbox/native/loader.rs` says so.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const FOLDER: &str = "src/sandbox/native/shim";
const SOURCE: &str = "src/sandbox/native/shim/main.rs";
const LAYOUT: &str = "src/sandbox/native/shim/layout.ld";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={FOLDER}");
    let shim = PathBuf::from(variable("OUT_DIR")).join("loader-shim");
    let done = if has_shim() {
        build(&shim)
    } else {
        std::fs::write(&shim, b"").map_err(|e| format!("cannot write {}: {e}", shim.display()))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=the shim of the guarded loader ({SOURCE}) cannot be built: {error}");
            ExitCode::FAILURE
        }
    }
}

fn has_shim() -> bool {
    let is = |name: &str, value: &str| variable(name) == value;
    is("CARGO_CFG_TARGET_OS", "linux")
        && (is("CARGO_CFG_TARGET_ARCH", "x86_64") || is("CARGO_CFG_TARGET_ARCH", "aarch64"))
        // Not x32, not big-endian ARM.
        && is("CARGO_CFG_TARGET_POINTER_WIDTH", "64")
        && is("CARGO_CFG_TARGET_ENDIAN", "little")
}

fn build(shim: &Path) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "the ban is for the program; this runs while it is built")]
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "--crate-name=shim", "--crate-type=bin", "--cap-lints=warn", "--target"]);
    rustc.arg(variable("TARGET")).arg("-o").arg(shim);
    let mut options = vec!["opt-level=s", "panic=abort", "strip=symbols", "codegen-units=1"];
    // An ELF interpreter is position-independent and has none itself. Like every loader it is a shared object and no
    // PIE, for those who build inside: their linker reads it, and refuses a PIE. There is no C library to be static.
    options.extend(["relocation-model=pic", "target-feature=-crt-static", "link-arg=-shared"]);
    // With full RELRO, calls of memcpy go through the GOT, which nobody relocates for the shim.
    options.push("relro-level=off");
    options.extend(["link-arg=-nostdlib", "link-arg=-nostartfiles"]);
    options.push("link-arg=-Wl,--no-dynamic-linker,--build-id=none");
    if variable("CARGO_CFG_TARGET_ARCH") == "aarch64" {
        // There are kernels with pages of 64 KiB.
        options.push("link-arg=-Wl,-z,max-page-size=65536");
    }
    if variable("CARGO_CFG_TARGET_ENV") == "musl" {
        // Rust's own start files of musl are for programs with a C library.
        options.push("link-self-contained=no");
    }
    rustc.args(options.iter().flat_map(|option| ["-C", option]));
    rustc.args(["-C", &format!("link-arg=-Wl,-T,{LAYOUT}")]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let ran = rustc.arg(SOURCE).output().map_err(|e| format!("{}: {e}", rustc.get_program().display()))?;
    if !ran.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&ran.stderr));
        return Err(format!("{}; what the compiler said stands below", ran.status));
    }
    Ok(())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
