# The packages as they lie there, before any is installed.

lintian_says_nothing_about_the_package() {
  local said
  said=$(lintian --allow-root --pedantic --fail-on none "$older" 2>&1)
  echo "$said"
  [ -z "$said" ]
}

neither_program_nor_package_is_larger_than_it_may_be() {
  local packed program
  packed=$(stat -c %s "$older")
  program=$(stat -c %s "${CARGO_TARGET_DIR:-target}/release/vambrace")
  echo "figure: package: $((packed / 1024)) KiB (at most 7168)"
  echo "figure: program: $((program / 1024)) KiB (at most 16384)"
  [ "$packed" -le $((7 << 20)) ]
  [ "$program" -le $((16 << 20)) ]
}

# Without its scripts, which would speak to this host's systemd.
the_rpm_has_the_same_files_and_installs_into_an_empty_root() {
  local root=$work/rpm
  mkdir -p "$root"
  rpm --root "$root" --initdb
  rpm --root "$root" --install --nodeps --noscripts "$package"
  # It verifies what it has installed: nothing differs.
  [ -z "$(rpm --root "$root" --verify --nodeps vambrace)" ]
  "$root/usr/bin/vambrace" --version
  # What only one of the two kinds has, or has elsewhere, is left out.
  local ours='s#/usr/share/licenses/.*##; s#/usr/share/lintian/.*##; s#/usr/share/doc/.*##; s#/zsh/[a-z-]*/#/zsh/#'
  diff <(rpm --query --list --package "$package" | sed "$ours" | sort -u) \
    <(dpkg-deb -c "$older" | awk '$6 !~ /\/$/ { print substr($6, 2) }' | sed "$ours" | sort -u)
}

the_scripts_of_the_rpm_are_scripts() {
  local script
  for script in packaging/rpm/*.sh; do sh -n "$script"; done
  rpm --query --scripts --package "$package" | grep 'systemctl --no-reload preset'
  [ "$(rpm --query --configfiles --package "$package")" = /etc/vambrace/vambrace.toml ]
}

# No Homebrew is here to try it: what it names is there, and is what it says.
the_formula_names_a_source_that_has_everything_it_installs() {
  local formula=target/package/vambrace.rb source file
  [ "$(packaging/build.sh brew | tail -1)" = "$formula" ]
  source=$(sed -n 's#^  url "file://\(.*\)"#\1#p' "$formula")
  echo "$(sed -n 's/^  sha256 "\(.*\)"/\1/p' "$formula")  $source" | sha256sum --check
  not grep '@[A-Z0-9]*@' "$formula"
  for file in Cargo.lock src/main.rs packaging/vambrace.toml SECURITY.md docs/service.md launchd/io.vambrace.gateway.plist; do
    tar -tzf "$source" "vambrace-$version/$file"
  done
}
