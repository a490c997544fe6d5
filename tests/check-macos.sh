#!/bin/bash
# Type-checks the program for macOS on a Debian host: nothing is linked, and nothing of it was ever run there. Called by
# `make check-macos`, with TOOLS as the folder that keeps what is fetched; the target folder is one of its own.
#
# rustup's toolchains have no standard library for macOS where only one target was installed, so it is built from source:
# Debian's rustc-web brings a compiler and that source. Zig knows Apple's headers, for what is written in C.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-apple-darwin
packages=(rustc-web rust-web-src)
zig=(ziglang==0.17.1 cargo-zigbuild==0.24.1)
tools="${TOOLS:?the folder that keeps tools}/macos"
ready="$tools/ready-${zig[*]}"

lists() {
  apt-cache show rustc-web >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
  apt-cache show rustc-web >/dev/null 2>&1 && return
  echo "error: this system has no package rustc-web" >&2
  echo "hint: it is Debian 12's, among its security updates" >&2
  exit 1
}

# The packages that these two need to run and to build with, as far as they are Rust's or LLVM's.
with_needs() {
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    sed -n 's/^\(rustc-web\|rust-web-src\|libstd-rust-web-[^ ]*\|libllvm[0-9.]*\)$/\1/p' | sort -u
}

if [ ! -e "$ready" ]; then
  rm -rf "$tools" && mkdir -p "$tools/root" "$tools/debs"
  lists
  # shellcheck disable=SC2046 # names of packages
  (cd "$tools/debs" && apt-get download -qq $(with_needs "${packages[@]}"))
  for deb in "$tools"/debs/*.deb; do dpkg -x "$deb" "$tools/root"; done
  rm -rf "$tools/debs"
  python3 -m venv "$tools/zig"
  "$tools/zig/bin/pip" install --quiet "${zig[@]}"
  touch "$ready"
fi

# The newest of Debian's compilers may be older than what the program asks for.
compiler="$tools/root/usr/bin/rustc"
export LD_LIBRARY_PATH="$tools/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)"
least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
has=$("$compiler" --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$least" "$has" | sort -V | head -1)" != "$least" ]; then
  echo "error: rustc-web is $has, and the program needs $least" >&2
  echo "hint: apt-get update, with Debian's security updates among the sources; then rm -r $tools" >&2
  exit 1
fi

# Cargo is the one in use; `-Z` is for the standard library, and for our warnings as errors. Nothing is run, so nothing of
# the dependencies is optimised.
export RUSTC_BOOTSTRAP=1 RUSTC="$compiler" PATH="$tools/zig/bin:$PATH"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/macos" CARGO_BUILD_WARNINGS=deny CARGO_PROFILE_DEV_DEBUG=0
CARGO=$(rustup which cargo 2>/dev/null || command -v cargo)
export CARGO
plain=(--config 'profile.dev.package."*".opt-level=0' --config profile.dev.package.scrypt.opt-level=0
  --config profile.dev.package.salsa20.opt-level=0 --config profile.dev.package.sha2.opt-level=0)
cargo-zigbuild check --locked -Zwarnings -Zbuild-std=std,panic_abort,panic_unwind --target "$target" "${plain[@]}"
echo "the program type-checks for $target"
