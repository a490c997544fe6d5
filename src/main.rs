//! The binary: everything it does is in the library, so that every room is tested the same way.

fn main() -> std::process::ExitCode {
    vambrace::main()
}
