# The end of a package's life: upgraded, broken, repaired, removed, purged. The last file, because nothing is there after it.

an_upgrade_keeps_the_state_and_the_doors_and_runs_the_new_program() {
  local token door pid
  token=$(inm vambrace token show)
  pid=$(inm systemctl show -P MainPID vambrace.service)
  door=$(inm systemctl show -P ActiveEnterTimestampMonotonic vambrace.socket)
  # Somebody asks all the time: nobody is turned away at the door, as long as a stop and a start may take.
  inm bash -c 'while ! [ -e /run/upgraded ]; do curl -s -o /dev/null --max-time 60 http://127.0.0.1:18789/healthz || echo "turned away: $?"; done' \
    >"$work/asked" 2>&1 &
  local asker=$!
  inm dpkg --install /root/newer.deb
  inm touch /run/upgraded
  wait $asker
  cat "$work/asked"
  not [ -s "$work/asked" ]
  [ "$(inm dpkg-query -W -f '${Version}' vambrace)" = "$version-2" ]
  [ "$(inm systemctl show -P MainPID vambrace.service)" != "$pid" ]
  [ "$(inm systemctl show -P ActiveEnterTimestampMonotonic vambrace.socket)" = "$door" ]
  [ "$(inm vambrace token show)" = "$token" ]
  [ "$(inm vambrace exec -- echo still)" = still ]
  inm vambrace journal verify
}

an_upgrade_leaves_alone_what_an_administrator_has_changed() {
  inm bash -c 'printf "\n[journal]\njournald = \"required\"\n" >> /etc/vambrace/vambrace.toml'
  inm systemctl disable --now vambrace-runner.service
  # The same package again goes the way of an upgrade.
  inm env DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install /root/newer.deb
  inm grep -q 'journald = "required"' /etc/vambrace/vambrace.toml
  [ "$(inm systemctl is-enabled vambrace-runner.service)" = disabled ]
  inm systemctl enable --now vambrace-runner.service
  eventually inm vambrace health
}

a_bad_configuration_stops_the_start_with_its_place_and_a_repaired_one_runs() {
  inm cp /etc/vambrace/vambrace.toml /root/good.toml
  inm bash -c 'printf "[gateway]\nprot = 1\n" > /etc/vambrace/vambrace.toml'
  not inm systemctl restart vambrace.service
  logged -o cat -u vambrace.service -n 20 | grep -F 'vambrace.toml:2:1: unknown field `prot`'
  inm cp /root/good.toml /etc/vambrace/vambrace.toml
  inm systemctl reset-failed vambrace.service vambrace.socket
  inm systemctl start vambrace.socket
  inm systemctl restart vambrace.service
  [ "$(inm vambrace exec -- echo repaired)" = repaired ]
}

a_program_that_is_damaged_is_noticed_and_comes_back_with_the_package() {
  inm bash -c 'dd if=/dev/zero of=/usr/bin/vambrace.new bs=1M count=1 status=none && mv /usr/bin/vambrace.new /usr/bin/vambrace'
  local differs
  differs=$(inm dpkg --verify vambrace || :)
  grep ' /usr/bin/vambrace$' <<<"$differs"
  [ -z "$(grep -v -e ' /usr/bin/vambrace$' -e ' c /etc/vambrace/vambrace.toml$' <<<"$differs")" ]
  inm env DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install /root/newer.deb
  [ "$(inm vambrace exec -- echo mended)" = mended ]
}

removing_ends_everything_and_keeps_the_state() {
  inm dpkg --remove vambrace
  not inm pgrep -x vambrace
  inm ss -Hltn | { ! grep 18789; }
  not inm test -e /usr/bin/vambrace
  inm test -s /var/lib/vambrace/state.sqlite
  inm test -e /etc/vambrace/vambrace.toml
}

installed_again_it_finds_its_state() {
  inm dpkg --install /root/newer.deb
  [ "$(inm vambrace exec -- echo again)" = again ]
  inm vambrace journal verify
  inm vambrace journal list --limit 200 | grep ' agent=chained '
}

purging_leaves_nothing_behind() {
  inm dpkg --purge vambrace
  local left
  left=$(inm find / -xdev \( -path /proc -o -path /sys -o -path /var/log/journal -o -path /run/log \) -prune -o \
    -name '*vambrace*' -not -path '/var/lib/dpkg/*' -not -path '/var/cache/*' -print)
  echo "$left"
  [ -z "$left" ]
  [ -z "$(inm systemctl list-unit-files 'vambrace*' --no-legend)" ]
  [ -z "$(inm systemctl --failed --no-legend 'vambrace*')" ]
}
