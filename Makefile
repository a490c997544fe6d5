# Everything a person does with this tree. `run` and `test` set up what they need on a fresh Debian machine
# with a Rust toolchain; as an ordinary user they use sudo for that, and say what to install where there is none.
SHELL := /bin/bash
CARGO ?= cargo
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vambrace-tools
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
DEB_VERSION := 3.8.0
RPM_VERSION := 0.21.1
FUZZ_SECONDS ?= 60
# A program of its own, built by build.rs: cargo's lints do not see it.
SHIM := src/sandbox/native/shim/main.rs

# What developers use, tried inside the walls; about 300 MB on disk, most of it cargo, rustc, cmake and nodejs.
TOOLS_INSIDE := bc cargo cmake dash fd-find file g++ jq less nano nodejs openssh-client patch ripgrep rsync rustc sqlite3 \
  tmux unzip vim-tiny wget xz-utils zip

.PHONY: run test test-walls-off test-compat test-service check-macos package lint bench fuzz needs fmt clean

run:
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev"
	@docs/demo.sh

test:
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev make git python3 perl util-linux bsdutils procps systemd \
	  openssl curl iproute2 nginx-light apparmor busybox-static musl docker.io mmdebstrap socat openssh-server podman catatonit \
	  rootlesskit slirp4netns uidmap $(TOOLS_INSIDE) $$(command -v npm >/dev/null || echo npm)"
	@tests/engine.sh $(CARGO) test --locked; tested=$$?; rm -rf "$${TMPDIR:-/tmp}"/vambrace-test-*; exit $$tested

test-walls-off:
	tests/engine.sh tests/walls-off.sh

# A deb and an rpm, in target/package.
package: $(TOOLS)/bin/cargo-deb $(TOOLS)/bin/cargo-generate-rpm
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev dpkg-dev python3"
	TOOLS="$(TOOLS)" packaging/build.sh

# The packages in a Debian that systemd boots: installed, driven, upgraded, broken, repaired, removed, purged. As root.
test-service: $(TOOLS)/bin/cargo-deb $(TOOLS)/bin/cargo-generate-rpm
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev dpkg-dev python3 lintian rpm mmdebstrap systemd-container \
	  util-linux procps curl socat busybox-static docker.io"
	TOOLS="$(TOOLS)" tests/engine.sh tests/service.sh

# Whether the program type-checks for macOS, on this host. The first time it fetches about 200 MB and keeps 1.3 GB.
check-macos:
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev python3 python3-venv"
	TOOLS="$(TOOLS)" tests/check-macos.sh

lint:
	$(CARGO) fmt --check
	rustfmt --check --edition 2024 $(SHIM)
	clippy-driver --edition 2024 --crate-type bin -C panic=abort -D warnings --emit=metadata \
	  --out-dir "$${CARGO_TARGET_DIR:-target}/lint" $(SHIM)
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@$(MAKE) --no-print-directory $(TOOLS)/bin/cargo-deny
	$(TOOLS)/bin/cargo-deny --locked check bans licenses sources
	tests/walls-off.sh --patterns

bench:
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev bubblewrap busybox-static curl docker.io"
	tests/engine.sh $(CARGO) bench --locked --bench ratios

test-compat:
	@$(MAKE) --no-print-directory needs PACKAGES="gcc libc6-dev util-linux $$(command -v npm >/dev/null || echo npm)"
	$(CARGO) build --locked --release
	tests/compat.sh "$${CARGO_TARGET_DIR:-target}/release/vambrace"

# Throws bytes at every reader of what strangers send, FUZZ_SECONDS each. Needs a nightly toolchain.
fuzz:
	@$(MAKE) --no-print-directory needs PACKAGES="gcc g++ libc6-dev"
	@$(MAKE) --no-print-directory $(TOOLS)/bin/cargo-fuzz
	for target in frame proxy signature; do \
		PATH="$(TOOLS)/bin:$$PATH" $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 || exit 1; done

fmt:
	$(CARGO) fmt
	rustfmt --edition 2024 $(SHIM)

clean:
	$(CARGO) clean

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --locked --root $(TOOLS) --version $(DENY_VERSION) cargo-deny

$(TOOLS)/bin/cargo-deb:
	$(CARGO) install --locked --root $(TOOLS) --version $(DEB_VERSION) cargo-deb

$(TOOLS)/bin/cargo-generate-rpm:
	$(CARGO) install --locked --root $(TOOLS) --version $(RPM_VERSION) cargo-generate-rpm

$(TOOLS)/bin/cargo-fuzz:
	$(CARGO) install --locked --root $(TOOLS) --version $(FUZZ_VERSION) cargo-fuzz

# Installs the Debian packages of $(PACKAGES) that are missing; none of their services is started (policy-rc.d).
needs:
	@missing=(); for p in $(PACKAGES); do dpkg -s $$p 2>/dev/null | grep -q '^Status: install ok' || missing+=($$p); done; \
	[ $${#missing[@]} -eq 0 ] && exit 0; \
	echo "installing: $${missing[*]}"; \
	if [ "$$(id -u)" = 0 ]; then as=; elif command -v sudo >/dev/null; then as=sudo; \
	else echo "error: these packages are missing: $${missing[*]}" >&2; echo "hint: apt-get install $${missing[*]}" >&2; exit 1; fi; \
	policy=/usr/sbin/policy-rc.d; \
	if [ -e $$policy ]; then policy=; else printf '#!/bin/sh\nexit 101\n' | $$as tee $$policy >/dev/null; $$as chmod 755 $$policy; fi; \
	$$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	done=$$?; [ -z "$$policy" ] || $$as rm -f $$policy; exit $$done
