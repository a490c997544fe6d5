# The services themselves: walls, doors, reload, restart, watchdog, stop, and starts that fail.

# Reads to the end, unlike grep -q, after which a writer fails; shows what was said where it was something else.
says() {
  local said
  said=$(cat)
  grep "$@" <<<"$said" >/dev/null || { echo "not said: ${*: -1}, but: $said"; return 1; }
}
property() { inm systemctl show --property "$1" --value "${2:-vambrace.service}"; }
# A drop-in that is gone with the check.
override() {
  inm mkdir -p "/run/systemd/system/$1.d"
  printf '%s\n' "${@:2}" | inm tee "/run/systemd/system/$1.d/check.conf" >/dev/null
  inm systemctl daemon-reload
  # Starts of earlier checks count towards the limit.
  inm systemctl reset-failed "$1"
}
restore() {
  inm rm -rf "/run/systemd/system/$1.d"
  inm systemctl daemon-reload
}
# What a person sees of it; the exit code of `systemctl status` says whether it runs.
shown() {
  inm journalctl --sync
  inm systemctl status --no-pager --lines 20 "$1" || :
}
# The journal, with all that was said before this was asked; journald writes when it comes to it.
logged() {
  inm journalctl --sync
  inm journalctl --no-pager "$@"
}
configure() { printf '%s\n' "$@" | inm tee /etc/vambrace/vambrace.toml >/dev/null; }
settle() {
  configure "$kept"
  inm chmod 644 /etc/vambrace/vambrace.toml
  inm umount -q /var/lib/vambrace || :
  restore vambrace.service
  inm systemctl reset-failed
  inm systemctl start vambrace.socket vambrace.service
  eventually inm vambrace health
}
# The configuration as it was, and everything running, however the check ends.
settled() {
  kept=$(inm cat /etc/vambrace/vambrace.toml 2>/dev/null || :)
  trap settle EXIT
}

every_unit_is_exposed_as_little_as_it_can_be() {
  local unit most score
  while read -r unit most; do
    score=$(inm systemd-analyze security --no-pager --offline=true "/usr/lib/systemd/system/$unit" | sed -n 's/.*level for [^:]*: \([0-9.]*\).*/\1/p')
    echo "figure: $unit is exposed $score (at most $most)"
    awk -v score="$score" -v most="$most" 'BEGIN { exit !(score != "" && score <= most) }'
  done <<'END'
vambrace.service 1.2
vambrace-runner.service 1.8
vambrace-runner-docker.service 0.8
vambrace-egress@.service 1.3
END
}

a_command_runs_behind_every_wall_as_nobody_but_the_runners_user() {
  local said
  said=$(inm vambrace exec --json -- id -u)
  grep -q '"tier": "user-namespace"' <<<"$said"
  grep -q '"noCapabilities": true' <<<"$said"
  grep -qF "\"stdout\": \"$(inm id -u vambrace-runner)\\n\"" <<<"$said"
  [ "$(inm stat -c '%U %a' /var/lib/vambrace-workspaces/main)" = "vambrace-runner 700" ]
  inm vambrace exec -- sh -c 'test -d /proc/self && test ! -e /proc/1/exe -o ! -r /proc/1/environ && echo > /workspace/file'
  not inm vambrace exec -- ls /var/lib/vambrace
  not inm vambrace exec -- sh -c 'echo > /usr/file'
}

what_a_sandbox_keeps_is_the_runners_and_goes_at_an_operators_word() {
  settled
  configure '[profiles.keeps]' 'scope = "agent"'
  inm systemctl reload vambrace.service
  inm vambrace exec --profile keeps -- sh -c 'echo kept > ~/file'
  [ "$(inm vambrace exec --profile keeps -- sh -c 'cat ~/file')" = kept ]
  [ "$(inm stat -c '%U %a' /var/lib/vambrace-sandboxes/agent.main)" = "vambrace-runner 700" ]
  inm vambrace sandbox list | says agent.main
  inm vambrace sandbox recreate agent.main
  not inm test -e /var/lib/vambrace-sandboxes/agent.main
}

terminals_secrets_lists_file_tools_and_lockdown_work_as_they_do_by_hand() {
  settled
  configure '[agents.picky.exec]' 'sandbox_mode = "allowlist"' 'allow = ["/usr/bin/dash", "/usr/bin/cat"]'
  inm systemctl reload vambrace.service
  inm script --quiet --return --command 'vambrace exec --tty -- sh -c "tty; stty size"' /dev/null </dev/null | says /dev/pts/
  inm vambrace secrets set CHECK --agent main <<<'canary-of-the-check'
  inm vambrace exec --secret CHECK -- sh -c 'test "$(cat /run/secrets/CHECK)" = canary-of-the-check'
  inm vambrace secrets remove CHECK
  inm vambrace exec --agent picky -- dash -c 'echo listed | cat' | says listed
  not inm vambrace exec --agent picky -- dash -c '/usr/bin/id'
  inm vambrace sandbox write from-outside <<<'a file'
  inm vambrace exec -- cat from-outside | says 'a file'
  inm vambrace lockdown on
  not inm vambrace exec -- true
  inm vambrace lockdown off
  inm vambrace exec -- true
}

the_gateway_starts_nothing_and_every_thread_of_it_is_confined() {
  local main
  main=$(property MainPID)
  [ -z "$(inm cat "/proc/$main/task/$main/children")" ]
  inm sh -c "cat /proc/$main/task/*/status" | awk '
    /^NoNewPrivs:/ && $2 != 1 { bad = 1 } /^Seccomp:/ && $2 != 2 { bad = 1 } /^Cap(Prm|Bnd|Eff):/ && $2 !~ /^0+$/ { bad = 1 }
    /^Seccomp:/ { seen++ } END { exit bad || seen < 3 }'
}

a_runner_takes_orders_from_the_gateways_user_alone() {
  [ -z "$(inm socat -u UNIX-CONNECT:/run/vambrace-runner/native/orders.sock -)" ]
  eventually inm sh -c 'journalctl -u vambrace-runner -o cat | grep -q "refused a peer that is not the gateway"'
  [ "$(inm vambrace exec -- echo unharmed)" = unharmed ]
}

a_sandbox_has_no_network_and_the_way_out_is_a_process_of_its_own() {
  settled
  configure '[profiles.out]' 'network = "allowlist"' 'allow_domains = ["example.org"]' '[profiles.host]' 'network = "host"'
  inm systemctl reload vambrace.service
  # Nothing is listed by that name, and the journal says so: the way out was there and has answered.
  not inm vambrace exec --profile out -- getent hosts not-listed.example
  logged -o cat VAMBRACE_EVENT=net.refused | says .
  logged -o cat | says 'Started vambrace-egress@'
  eventually inm sh -c '! systemctl list-units --plain --no-legend "vambrace-egress@*" | grep -q .'
  not inm vambrace exec --profile host -- true
}

a_reload_takes_a_good_file_and_says_where_a_bad_one_is_wrong() {
  local main
  settled
  main=$(property MainPID)
  not inm vambrace exec --profile quick -- true
  configure '[profiles.quick]' 'network = "none"'
  inm systemctl reload vambrace.service
  inm vambrace exec --profile quick -- true
  configure '[profiles.quick]' 'network = "everything"'
  not inm systemctl reload vambrace.service
  eventually inm sh -c 'systemctl show -p StatusText vambrace | grep -q "not taken: /etc/vambrace/vambrace.toml:2:11"'
  logged -u vambrace -o cat --output-fields=MESSAGE,F_ERROR,ERROR -n 20 | says 'vambrace.toml:2:11'
  logged -o cat VAMBRACE_EVENT=config.refused | says .
  # What was in force is.
  inm vambrace exec --profile quick -- true
  [ "$(property MainPID)" = "$main" ]
  [ "$(property ActiveState)" = active ]
}

a_command_goes_on_while_the_configuration_is_reloaded() {
  local said
  said=$({ inm vambrace exec -- sh -c 'echo begun; cat' < <(
    eventually inm sh -c 'vambrace status --json | grep -q "\"runs\": 1"'
    for _ in 1 2 3 4 5; do inm systemctl reload vambrace.service; done
    echo and still there
  ); })
  [ "$said" = $'begun\nand still there' ]
}

nobody_is_turned_away_while_the_gateway_restarts() {
  local stop answers
  stop=$(mktemp -u)
  answers=$(
    { while [ ! -e "$stop" ]; do inm curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:18789/healthz; done; } &
    for _ in 1 2 3; do inm systemctl restart vambrace.service; done
    touch "$stop"
    wait
  )
  rm -f "$stop"
  sort <<<"$answers" | uniq -c
  [ "$(sort -u <<<"$answers")" = 200 ]
}

# A setup code for a device that nobody has seen yet, and that device.
invited() {
  inm rm -rf /tmp/stranger
  inm vambrace devices invite --scope operator.read --public-url ws://127.0.0.1:18789 --json |
    sed -n 's/.*"setupCode": "\([^"]*\)".*/\1/p'
}
stranger() {
  inm setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp vambrace --state-dir /tmp/stranger \
    --url ws://127.0.0.1:18789 "$@"
}

who_was_invited_before_a_restart_comes_in_after_it() {
  local code
  code=$(invited)
  [ -n "$code" ]
  inm systemctl kill --signal KILL --kill-whom main vambrace.service
  eventually inm vambrace health
  stranger devices join <<<"$code"
  stranger status | says listening
}

a_gateway_that_answers_no_more_is_restarted_by_the_watchdog_and_what_was_pending_is_there() {
  local main code
  settled
  override vambrace.service '[Service]' 'WatchdogSec=2'
  inm systemctl restart vambrace.service
  main=$(property MainPID)
  code=$(invited)
  [ -n "$code" ]
  inm kill -STOP "$main"
  # Its successor has all the time that machines which are busy need.
  restore vambrace.service
  eventually inm sh -c "[ \$(systemctl show -p MainPID --value vambrace) != $main ] && vambrace health"
  logged -u vambrace -o cat | says 'Watchdog timeout'
  [ "$(inm vambrace exec -- echo back)" = back ]
  stranger devices join <<<"$code"
}

a_gateway_whose_door_is_gone_is_restarted_though_it_lives() {
  local main
  settled
  override vambrace.service '[Service]' 'WatchdogSec=2'
  inm systemctl restart vambrace.service
  main=$(property MainPID)
  # Requests come to nobody; the process itself is well.
  inm mv /run/vambrace/gateway.sock /run/vambrace/away
  restore vambrace.service
  eventually inm sh -c "[ \$(systemctl show -p MainPID --value vambrace) != $main ]"
  inm mv /run/vambrace/away /run/vambrace/gateway.sock
  logged -u vambrace -o cat | says 'the watchdog is not fed'
}

a_stop_ends_what_runs_and_takes_seconds() {
  local began running
  settled
  inm vambrace exec -- sh -c 'trap "" TERM; echo begun; while :; do sleep 1; done' &
  running=$!
  eventually inm sh -c 'vambrace status --json | grep -q "\"runs\": 1"'
  began=$(milliseconds)
  inm systemctl stop vambrace.service vambrace.socket
  # What takes longer than TimeoutStopSec= is killed, and its result is `timeout`.
  figure "stop amid a command" $(($(milliseconds) - began)) 5000 ms
  [ "$(property Result)" = success ]
  not wait $running
  eventually inm sh -c '! pgrep -u vambrace-runner -x sleep'
}

a_killed_runner_is_there_again_and_the_gateway_stays() {
  local main
  main=$(property MainPID)
  inm systemctl kill --signal KILL vambrace-runner.service
  eventually inm vambrace exec -- true
  [ "$(property MainPID)" = "$main" ]
}

a_second_gateway_on_the_same_state_says_so() {
  # Whoever may read the state at all.
  { inm env HOME=/tmp setpriv --reuid vambrace --regid vambrace --clear-groups \
    vambrace --state-dir /var/lib/vambrace gateway --port 0 2>&1 || :; } | says 'another gateway'
}

an_occupied_port_is_named_by_the_unit_that_failed() {
  settled
  inm systemctl stop vambrace.socket vambrace.service
  local holder status since=$EPOCHSECONDS
  holder=$(inm sh -c 'socat TCP-LISTEN:18789,bind=127.0.0.1,reuseaddr,fork /dev/null >/dev/null 2>&1 & echo $!')
  eventually inm sh -c 'ss -Hltn | grep -q 127.0.0.1:18789'
  not inm systemctl start vambrace.service
  status=$(shown vambrace.socket)
  inm kill "$holder"
  says 'listening socket (127.0.0.1:18789)' <<<"$status"
  # Why is said by a process that systemd forks for it, and which may be gone when journald asks whose it was: `systemctl status`
  # and `journalctl -u` then do not show it. It says itself which unit it speaks of.
  logged --since "@$since" -o cat UNIT=vambrace.socket | says 'Address already in use'
  eventually inm sh -c '! ss -Hltn | grep -q 127.0.0.1:18789'
}

# The status of a start that fails, and that it names this.
fails_naming() {
  not inm systemctl restart vambrace.service
  echo "status: $(property StatusText)"
  property StatusText | says "^failed: .*$1"
  inm systemctl stop vambrace.service vambrace.socket
  inm systemctl reset-failed
}

a_start_that_cannot_be_names_its_cause_in_the_status() {
  settled
  override vambrace.service '[Service]' 'Restart=no'
  configure '[gateway]' 'prot = 5'
  fails_naming 'vambrace.toml:2:1: unknown field `prot`'
  configure '[gateway]' 'port = 9'
  fails_naming '127.0.0.1:18789, but the configuration says 127.0.0.1:9'
  configure ''
  inm chown root /var/lib/vambrace/state.sqlite
  fails_naming 'state.sqlite'
  inm chown vambrace /var/lib/vambrace/state.sqlite
  inm mount -t tmpfs -o size=64k,uid="$(inm id -u vambrace)",mode=700 none /var/lib/vambrace
  fails_naming 'full\|space'
  inm umount /var/lib/vambrace
}

a_place_that_cannot_be_written_and_a_user_who_is_not_there_are_named() {
  settled
  override vambrace.service '[Service]' 'Restart=no'
  inm mount -t tmpfs -o ro none /var/lib/vambrace
  not inm systemctl restart vambrace.service
  shown vambrace.service | says '238/STATE_DIRECTORY\|failed: .*[Rr]ead-only'
  inm umount /var/lib/vambrace
  override vambrace.service '[Service]' 'Restart=no' 'User=nobody-of-that-name'
  not inm systemctl restart vambrace.service
  shown vambrace.service | says '217/USER'
}
