# The package comes onto a booted system; everything after this file finds it there.

a_fresh_install_runs_its_first_command_at_once() {
  local began first
  began=$(milliseconds)
  inm dpkg --install /root/older.deb
  [ "$(inm vambrace exec -- echo here)" = here ]
  first=$(($(milliseconds) - began))
  figure "install to first command" $first 3000 ms
}

what_is_safe_is_on_and_the_docker_runner_is_not() {
  local unit
  for unit in vambrace.socket vambrace.service vambrace-runner.service vambrace-egress.socket; do
    inm systemctl is-enabled $unit
    inm systemctl is-active $unit
  done
  [ "$(inm systemctl is-enabled vambrace-runner-docker.service)" = disabled ]
  [ "$(inm systemctl is-active vambrace-runner-docker.service)" = inactive ]
  # Loopback alone, and there the token is asked for.
  inm ss -Hltn | awk '$4 !~ /^127\.0\.0\.1:18789$/ { bad = 1; print } END { exit bad }'
  [ "$(inm curl -s -o /dev/null -w '%{http_code}' --json '{}' http://127.0.0.1:18789/rpc/status)" = 401 ]
}

nothing_that_is_installed_is_writable_for_the_services() {
  local user
  for user in vambrace vambrace-runner; do
    inm getent passwd $user | grep nologin
    [ -z "$(inm find /usr/bin/vambrace /usr/lib/systemd /etc/vambrace -user $user)" ]
  done
  [ "$(inm stat -c '%U %a' /var/lib/vambrace)" = "vambrace 700" ]
  # What runs commands cannot read what holds secrets.
  not inm setpriv --reuid vambrace-runner --regid vambrace-runner --clear-groups ls /var/lib/vambrace
}

pages_completions_and_catalog_are_where_they_are_looked_for() {
  local page
  for page in "1 vambrace" "1 vambrace-exec" "5 vambrace.toml" "7 vambrace"; do
    # shellcheck disable=SC2086
    inm man --where $page
    # shellcheck disable=SC2086
    inm man --warnings $page 2>&1 >/dev/null | { ! grep .; }
  done
  inm bash -n /usr/share/bash-completion/completions/vambrace
  inm bash -c 'source /usr/share/bash-completion/completions/vambrace; COMP_WORDS=(vambrace jour) COMP_CWORD=1
    _vambrace vambrace jour vambrace; printf "%s\n" "${COMPREPLY[@]}"' | grep -x journal
  inm journalctl --list-catalog | grep '5d4c1a1f2b0e4f6c9a7be1c8d3f20a31 Vambrace: A command was refused'
  inm systemd-analyze verify vambrace.socket vambrace.service vambrace-runner.service vambrace-runner-docker.service
  inm vambrace config check | grep '/etc/vambrace/vambrace.toml: ok' || inm vambrace --config /etc/vambrace/vambrace.toml config check
}

the_first_request_starts_a_gateway_that_does_not_run() {
  local took best=999999
  # What else this machine does only ever adds: the least of three is the program's own.
  for _ in 1 2 3; do
    inm systemctl stop vambrace.service
    not inm systemctl is-active vambrace.service
    inm systemctl is-active vambrace.socket
    took=$(inm curl -sf http://127.0.0.1:18789/healthz -o /dev/null -w '%{time_total}')
    took=$(awk -v s="$took" 'BEGIN { printf "%d", s * 1000 }')
    [ "$took" -ge "$best" ] || best=$took
    inm systemctl is-active vambrace.service
  done
  figure "first request by socket activation" "$best" 150 ms
}
