# The script for OpenRC, in a Debian whose services OpenRC starts: installed, driven, broken and stopped as docs/service.md says.

openrc_starts_reloads_respawns_and_stops_the_gateway() {
  local tree=$tools/debian-bookworm-openrc root=$work/openrc
  if ! [ -d "$tree" ]; then
    local found
    mapfile -t found < <(find /etc/apt/sources.list /etc/apt/sources.list.d -type f -size +0 \
      \( -name '*.list' -o -name '*.sources' \) 2>/dev/null | xargs -r grep -l bookworm)
    rm -rf "$tree.new"
    mmdebstrap --quiet --variant=minbase --include=openrc,procps bookworm "$tree.new" ${found[@]+"${found[@]}"}
    mv "$tree.new" "$tree"
  fi
  mkdir -p "$work/openrc-up" "$work/openrc-work" "$root"
  mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/openrc-up,workdir=$work/openrc-work" "$root"
  # shellcheck disable=SC2064
  trap "umount '$root'" EXIT
  install -m 755 "${CARGO_TARGET_DIR:-target}/release/vambrace" "$root/usr/bin/vambrace"
  mkdir -p "$root/root/packaging"
  cp -r packaging/openrc packaging/vambrace.toml "$root/root/packaging/"
  # The lines of the documentation, as they stand there but for the last: there is no boot to add it to.
  sed -n '/^## With OpenRC/,/^## /s/^    //p' docs/service.md >"$root/root/documented.sh"
  [ "$(wc -l <"$root/root/documented.sh")" = 5 ]
  cat >"$root/root/try.sh" <<'END'
set -eu
not() { if "$@"; then echo "this should have failed: $*"; exit 1; fi; }
eventually() {
  deadline=$((SECONDS + 30))
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $deadline ] || { echo "never came true: $*"; exit 1; }; sleep 0.05; done
}
cd /root
# What belongs to a machine's boot, and needs one: file systems are mounted here.
rm -f /etc/runlevels/*/*
printf '#!/sbin/openrc-run\nstart() { :; }\n' >/etc/init.d/localmount
chmod 755 /etc/init.d/localmount
openrc sysinit; openrc boot; openrc default
bash -eu documented.sh
rc-update show default | grep vambrace
eventually vambrace health
[ "$(vambrace exec -- echo here)" = here ]
[ "$(stat -c '%U %a' /var/lib/vambrace)" = 'vambrace 700' ]
pid=$(pgrep -o -u vambrace -x vambrace)
rc-service vambrace reload
printf '[gateway]\nprot = 5\n' >/etc/vambrace/vambrace.toml
not rc-service vambrace reload 2>said
grep 'not taken: /etc/vambrace/vambrace.toml:2:1: unknown field' said
[ "$(vambrace exec -- echo still)" = still ]
[ "$(pgrep -o -u vambrace -x vambrace)" = "$pid" ]
# One that dies is there again; one that cannot start does not.
: >/etc/vambrace/vambrace.toml
kill -KILL "$pid"
eventually vambrace health
[ "$(vambrace exec -- echo again)" = again ]
rc-service vambrace stop
not pgrep -u vambrace
printf '[gateway]\nprot = 5\n' >/etc/vambrace/vambrace.toml
not rc-service vambrace start
not pgrep -u vambrace
END
  timeout 100 systemd-nspawn --quiet --directory="$root" --register=no --keep-unit --machine="$machine-openrc" --as-pid2 \
    --resolv-conf=off --private-network --system-call-filter=@known --console=pipe bash /root/try.sh </dev/null
}
