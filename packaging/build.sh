#!/bin/bash
# Builds the packages of this tree into target/package: a deb and an rpm. What can be made from the program is made from
# it here: manual pages, completions, the catalog. Usage: packaging/build.sh [--revision N] [deb] [rpm], or
# packaging/build.sh brew [URL]: a formula for the committed source, which is to be found at that URL.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
if [ "${1:-}" = brew ]; then
  mkdir -p target/package
  source=$PWD/target/package/vambrace-$version.tar.gz
  git archive --format=tar.gz --prefix="vambrace-$version/" --output="$source" HEAD
  sed "s#@URL@#${2:-file://$source}#; s#@VERSION@#$version#; s#@SHA256@#$(sha256sum "$source" | cut -d' ' -f1)#" \
    packaging/homebrew/vambrace.rb.in > target/package/vambrace.rb
  echo target/package/vambrace.rb
  exit
fi
revision=1
kinds=()
while [ $# -gt 0 ]; do
  case $1 in
    --revision) revision=$2; shift ;;
    deb|rpm) kinds+=("$1") ;;
    *) echo "error: what is $1?" >&2; echo "hint: packaging/build.sh [--revision N] [deb] [rpm]" >&2; exit 2 ;;
  esac
  shift
done
[ ${#kinds[@]} -gt 0 ] || kinds=(deb rpm)
target=${CARGO_TARGET_DIR:-target}
made=target/package

cargo build --release --locked
program=$target/release/vambrace
rm -rf "$made/parts"
mkdir -p "$made/parts"
"$program" man --dir "$made/parts/man"
for page in "$made"/parts/man/*; do gzip -9n "$page"; done
for shell in bash zsh fish; do "$program" completions $shell > "$made/parts/vambrace.$shell"; done
"$program" journal catalog > "$made/parts/vambrace.catalog"
python3 packaging/third_party.py > "$made/parts/third-party.txt"
gzip -9n "$made/parts/third-party.txt"
gzip -9nc CHANGELOG.md > "$made/parts/changelog.gz"

# The changelog that dpkg's tools read; what changed stands in the other one.
maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
printf 'vambrace (%s-%s) unstable; urgency=medium\n\n  * What has changed stands in changelog.gz.\n\n -- %s  %s\n' \
  "$version" "$revision" "$maintainer" "$(date -uRd "@$SOURCE_DATE_EPOCH")" > "$made/parts/changelog.Debian"

for kind in "${kinds[@]}"; do
  case $kind in
    deb) "${TOOLS:+$TOOLS/bin/}cargo-deb" --no-build --locked --deb-revision "$revision" --output "$made/" ;;
    rpm) "${TOOLS:+$TOOLS/bin/}cargo-generate-rpm" --target-dir "$target" --set-metadata "release = \"$revision\"" --output "$made/" ;;
  esac
done
