# `vambrace service` and `vambrace doctor` on a host that systemd runs.

the_service_command_tells_what_systemd_tells() {
  local told
  told=$(inm vambrace service status)
  echo "$told"
  grep -q '^vambrace.service .* enabled .* active .* pid [0-9]' <<<"$told"
  grep -q '^vambrace-runner-docker.service .* not enabled .* inactive' <<<"$told"
  inm vambrace service status --json | python3 -c 'import json, sys; t = json.load(sys.stdin); assert t["ok"], t; assert len(t["units"]) == 5, t'
}

the_service_command_stops_starts_and_restarts() {
  local pid
  inm vambrace service stop
  [ "$(inm systemctl is-active vambrace.socket vambrace.service vambrace-runner.service | sort -u)" = inactive ]
  not inm vambrace service status
  not inm vambrace health
  inm vambrace service start
  inm vambrace health
  pid=$(inm systemctl show -P MainPID vambrace.service)
  inm vambrace service restart
  [ "$(inm systemctl show -P MainPID vambrace.service)" != "$pid" ]
  [ "$(inm vambrace exec -- echo on)" = on ]
}

logs_are_those_of_the_services() {
  inm journalctl --sync
  inm vambrace service logs -n 500 | grep 'systemd\[1\]: Started vambrace.service'
}

# The package brought the units: they are switched off and on, and left where they are.
uninstall_and_install_of_a_packaged_service_are_off_and_on() {
  inm vambrace service uninstall | grep "its files are the package's"
  [ "$(inm systemctl is-enabled vambrace.service || :)" = disabled ]
  inm test -e /usr/lib/systemd/system/vambrace.service
  inm vambrace service install
  [ "$(inm systemctl is-enabled vambrace.service)" = enabled ]
  [ "$(inm vambrace exec -- echo back)" = back ]
}

# Units in /etc, for a program that no package knows; beside the package's, whose place they take meanwhile.
a_program_of_no_package_is_installed_with_units_of_its_own_and_removed_again() {
  inm install -m 755 /usr/bin/vambrace /usr/local/bin/vambrace
  inm /usr/local/bin/vambrace service install
  [ "$(inm systemctl show -P FragmentPath vambrace.service)" = /etc/systemd/system/vambrace.service ]
  inm systemctl restart vambrace-runner.service vambrace.service
  [ "$(inm readlink "/proc/$(inm systemctl show -P MainPID vambrace.service)/exe")" = /usr/local/bin/vambrace ]
  [ "$(inm /usr/local/bin/vambrace exec -- echo local)" = local ]
  inm /usr/local/bin/vambrace service uninstall
  not inm sh -c 'ls /etc/systemd/system/vambrace* /etc/sysusers.d/vambrace.conf'
  inm rm /usr/local/bin/vambrace
  inm vambrace service install
  [ "$(inm vambrace exec -- echo packaged)" = packaged ]
}

an_administrators_own_unit_is_not_overwritten() {
  inm install -m 755 /usr/bin/vambrace /usr/local/bin/vambrace
  inm bash -c 'printf "[Service]\nExecStart=/bin/true\n" > /etc/systemd/system/vambrace.service'
  not inm /usr/local/bin/vambrace service install
  [ "$(inm head -1 /etc/systemd/system/vambrace.service)" = '[Service]' ]
  inm sh -c 'rm -f /etc/systemd/system/vambrace* /usr/local/bin/vambrace /etc/sysusers.d/vambrace.conf'
  inm vambrace service install
  inm systemctl daemon-reload
}

# A service of one user, in its own session, kept by linger.
a_user_has_a_gateway_of_its_own() {
  inm useradd --create-home ada
  # Asked from within: logind since systemd 257 answers EUNATCH to who is in no control group of its own machine.
  login() { inm systemd-run --quiet --wait --pipe loginctl "$@"; }
  login enable-linger ada
  local uid
  uid=$(inm id -u ada)
  ada() { inm setpriv --reuid ada --regid ada --init-groups env HOME=/home/ada USER=ada XDG_RUNTIME_DIR="/run/user/$uid" "$@"; }
  eventually inm systemctl is-active "user@$uid.service"
  # Its port would be the host's gateway's.
  inm install -d -o ada -g ada /home/ada/.config /home/ada/.config/vambrace
  inm bash -c 'printf "[gateway]\nport = 18790\n" > /home/ada/.config/vambrace/vambrace.toml'
  ada vambrace service install --user
  ada vambrace service status --user
  [ "$(ada vambrace exec -- echo mine)" = mine ]
  [ "$(ada vambrace status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["stateDir"])')" = /home/ada/.local/state/vambrace ]
  ada vambrace doctor | grep 'linger *ok'
  ada vambrace service stop --user
  not ada vambrace health
  ada vambrace service start --user
  ada vambrace service restart --user
  [ "$(ada vambrace exec -- echo still mine)" = 'still mine' ]
  inm journalctl --sync
  ada vambrace service logs --user | grep 'Started vambrace.service'
  ada vambrace service uninstall --user
  not ada vambrace service status --user
  login disable-linger ada
  # A session that is ending is not active any more, and still there.
  eventually not inm pgrep -u "$uid"
  inm userdel --remove ada
}

doctor_finds_a_served_host_well_and_names_what_is_broken() {
  inm vambrace doctor
  inm vambrace doctor --json | python3 -c '
import json, sys
told = json.load(sys.stdin)
assert told["ok"], told
found = {row["what"]: row for row in told["findings"]}
for what in ["gateway", "journald", "catalog", "vambrace.service", "vambrace-runner.service", "landlock", "systemd"]:
    assert found[what]["state"] == "ok", found[what]
assert found["engine"]["state"] == "weaker" and not found["engine"]["required"], found["engine"]'
  # Without its runner no command runs: it is told, with what repairs it, and that does.
  inm systemctl stop vambrace-runner.service
  eventually not inm vambrace health
  local told
  told=$(inm vambrace doctor || :)
  echo "$told"
  not inm vambrace doctor
  grep -A1 'vambrace-runner.service *weaker' <<<"$told" | grep 'repair: systemctl enable --now vambrace-runner.service'
  inm systemctl enable --now vambrace-runner.service
  eventually inm vambrace health
  inm vambrace doctor
}
