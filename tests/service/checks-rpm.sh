# The rpm with its scriptlets, run by rpm under a real systemd. Nothing of the deb is there any more. What it depends on has
# other names here, so that is not looked at (--nodeps).

rpm_does() {
  # Debian 12's rpm wants to be told that this is meant; that of Debian 13 knows no such word.
  local meant=
  if inm rpm --force-debian --version >/dev/null 2>&1; then meant=--force-debian; fi
  inm rpm --nodeps ${meant:+"$meant"} "$@"
}
# What a distribution's own policy says of new services; Fedora's is to leave them off.
preset() {
  inm mkdir -p /etc/systemd/system-preset
  printf '%s\n' "$@" | inm tee /etc/systemd/system-preset/00-check.preset >/dev/null
}
running() { inm pgrep -x vambrace; }
enabled() { inm systemctl is-enabled vambrace.socket vambrace.service vambrace-runner.service vambrace-egress.socket "$@" | sort -u; }

an_rpm_makes_its_users_and_leaves_to_the_distribution_what_is_switched_on() {
  preset 'disable *'
  rpm_does --install /root/older.rpm
  local user
  for user in vambrace vambrace-runner; do inm getent passwd $user | grep nologin; done
  [ "$(inm stat -c '%U %a' /var/lib/vambrace)" = 'vambrace 700' ]
  [ "$(enabled)" = disabled ]
  not running
  inm systemctl cat vambrace.service | grep -F 'ExecReload=/usr/bin/vambrace config reload'
  inm journalctl --list-catalog | grep '5d4c1a1f2b0e4f6c9a7be1c8d3f20a31 Vambrace: A command was refused'
  [ -z "$(inm rpm --verify --nodeps vambrace)" ]
  # As docs/service.md says.
  inm vambrace service install
  [ "$(enabled)" = enabled ]
  [ "$(inm vambrace exec -- echo here)" = here ]
}

an_upgrade_of_the_rpm_restarts_what_runs_and_keeps_what_was_kept() {
  local pid door token
  pid=$(inm systemctl show -P MainPID vambrace.service)
  door=$(inm systemctl show -P ActiveEnterTimestampMonotonic vambrace.socket)
  token=$(inm vambrace token show)
  inm sh -c 'echo "# of the administrator" >> /etc/vambrace/vambrace.toml'
  rpm_does --upgrade /root/newer.rpm
  [ "$(inm rpm --query vambrace --queryformat '%{RELEASE}')" = 2 ]
  [ "$(inm systemctl show -P MainPID vambrace.service)" != "$pid" ]
  [ "$(inm systemctl show -P ActiveEnterTimestampMonotonic vambrace.socket)" = "$door" ]
  [ "$(inm vambrace token show)" = "$token" ]
  [ "$(enabled)" = enabled ]
  inm tail -1 /etc/vambrace/vambrace.toml | grep 'of the administrator'
  eventually inm vambrace health
  [ "$(inm vambrace exec -- echo still)" = still ]
}

what_was_switched_off_stays_off_over_an_upgrade_of_the_rpm() {
  inm vambrace service uninstall
  [ "$(enabled)" = disabled ]
  rpm_does --upgrade --oldpackage /root/older.rpm
  [ "$(enabled)" = disabled ]
  not running
  inm vambrace service install
}

erasing_the_rpm_ends_everything_and_keeps_the_state() {
  rpm_does --erase vambrace
  not running
  not inm test -e /usr/bin/vambrace
  [ -z "$(inm systemctl list-unit-files 'vambrace*' --no-legend)" ]
  [ -z "$(inm find /etc/systemd/system -name 'vambrace*')" ]
  [ -z "$(inm systemctl --failed --no-legend 'vambrace*')" ]
  inm ss -Hltn | { ! grep 18789; }
  inm test -s /var/lib/vambrace/state.sqlite
  inm tail -1 /etc/vambrace/vambrace.toml.rpmsave | grep 'of the administrator'
}

where_the_distribution_says_so_an_rpm_is_on_but_for_the_runner_of_containers() {
  preset 'enable vambrace*' 'disable *'
  rpm_does --install /root/newer.rpm
  [ "$(enabled)" = enabled ]
  [ "$(inm systemctl is-enabled vambrace-runner-docker.service)" = disabled ]
  inm systemctl start vambrace.service
  [ "$(inm vambrace exec -- echo again)" = again ]
  inm vambrace journal verify
  rpm_does --erase vambrace
  inm rm /etc/systemd/system-preset/00-check.preset
  not running
}
