# Reloads under load and refused ones, the key that systemd unseals, kernels that lack something, starts that fail.

systemctl_reload_fails_for_every_reason_with_the_gateways_own_words() {
  settled
  # A file that is right by itself, and that the gateway which runs cannot take.
  configure '[gateway.auth]' 'mode = "none"'
  inm vambrace --config /etc/vambrace/vambrace.toml config check
  not inm systemctl reload vambrace.service
  property StatusText | says 'the new configuration was not taken: gateway.auth.mode needs a restart; nothing was changed'
  logged -u vambrace -o cat -n 20 | says '^error: the new configuration was not taken: gateway.auth.mode'
  [ "$(property ActiveState)" = active ]
  # What waits for a restart is no refusal, and is named.
  configure '[gateway]' 'port = 18791'
  inm systemctl reload vambrace.service
  property StatusText | says 'needs a restart: gateway.port$'
  # A gateway that cannot answer has not taken it.
  inm systemctl kill --signal STOP vambrace.service
  not inm timeout 3 systemctl reload vambrace.service
  inm systemctl kill --signal CONT vambrace.service
  configure ''
  eventually inm sh -c '[ "$(systemctl is-active vambrace)" = active ]'
  inm systemctl reload vambrace.service
  property StatusText | says '^listening on 127.0.0.1:18789$'
}

# Clients that come one after the other, and two commands that write all the time: pieces for lines that are written to them.
nothing_is_lost_while_good_and_bad_configurations_are_reloaded() {
  local asker streamer reloads=0 refusals=0 round
  settled
  # As long as all rounds take, on any machine.
  configure '[defaults.sandbox.limits]' 'output = "1G"' 'timeout = "1h"'
  inm systemctl reload vambrace.service
  streamer() { # NUMBER
    inm vambrace exec -- sh -c 'while read n; do seq $n $((n + 20000)); done' <"$work/lines.$1" | sha256sum >"$work/came.$1"
  }
  asker() { # NUMBER
    local asked=0
    while [ ! -e "$work/stop" ]; do
      asked=$((asked + 1))
      [ "$(inm vambrace exec -- echo "$1 $asked")" = "$1 $asked" ] || { echo "lost: $1 $asked"; return 1; }
    done
    echo $asked >"$work/asked.$1"
  }
  rm -f "$work"/{stop,lines,came,asked}*
  mkfifo "$work"/lines.{1,2}
  local jobs=()
  for number in 1 2; do
    streamer $number & jobs+=($!)
    asker $number & jobs+=($!)
  done
  exec 8>"$work/lines.1" 9>"$work/lines.2"
  for ((round = 0; round < 30; round++)); do
    echo $((1000000 + round)) | tee /dev/fd/8 >&9
    if [ $((round % 3)) = 2 ]; then
      configure '[defaults.sandbox]' 'network = "everything"'
      not inm systemctl reload vambrace.service
      refusals=$((refusals + 1))
    else
      configure '[defaults.sandbox.limits]' 'output = "1G"' "timeout = \"$((100 + round))s\""
      inm systemctl reload vambrace.service
      reloads=$((reloads + 1))
    fi
  done
  exec 8>&- 9>&-
  touch "$work/stop"
  for job in "${jobs[@]}"; do wait "$job"; done
  local wanted
  wanted=$(for ((round = 0; round < 30; round++)); do seq $((1000000 + round)) $((1020000 + round)); done | sha256sum)
  [ "$(cat "$work/came.1")" = "$wanted" ]
  [ "$(cat "$work/came.2")" = "$wanted" ]
  [ $reloads = 20 ] && [ $refusals = 10 ]
  echo "figure: reloads under load: $reloads taken and $refusals refused, $(cat "$work"/asked.* | awk '{ n += $1 } END { print n }') commands answered, 2 streams whole"
}

# Sealed for this host (there is no TPM here); as docs/service.md says it.
a_key_that_systemd_unseals_seals_the_state_and_without_it_nothing_opens() {
  local sealed=/etc/credstore.encrypted/vambrace.key
  settled
  key() { inm vambrace status --json | python3 -c 'import json, sys; k = json.load(sys.stdin)["state"]["key"]; print(k["source"])'; }
  # However the check ends, the state is the machine's again after it.
  back() {
    override vambrace.service '[Service]' "LoadCredentialEncrypted=vambrace.key:$sealed" 'Restart=no'
    configure '[store]' 'key = "machine"'
    inm systemctl reset-failed
    inm systemctl start vambrace.socket
    inm systemctl restart vambrace.service
    inm vambrace secrets rotate-key
  }
  trap '[ "$(key)" = machine ] || back; inm rm -rf /etc/credstore.encrypted; settle' EXIT
  [ "$(key)" = machine ]
  inm vambrace secrets set KEPT --agent main <<<'sealed-before-the-credential'
  inm sh -c "umask 077; mkdir -p /etc/credstore.encrypted; head -c 32 /dev/urandom | systemd-creds encrypt --with-key=host --name=vambrace.key - $sealed"
  override vambrace.service '[Service]' "LoadCredentialEncrypted=vambrace.key:$sealed" 'Restart=no'
  inm systemctl restart vambrace.service
  # What is sealed stays sealed by the key it has until somebody says so.
  inm vambrace status | says 'machine, rotation [0-9]*; systemd-credential is there as well'
  inm vambrace secrets rotate-key
  [ "$(key)" = systemd-credential ]
  inm systemctl restart vambrace.service
  [ "$(key)" = systemd-credential ]
  inm vambrace exec --secret KEPT -- sh -c 'test "$(cat /run/secrets/KEPT)" = sealed-before-the-credential'
  inm vambrace doctor
  # What systemd unseals is the unit's alone, and on the disk it is sealed.
  not inm setpriv --reuid vambrace-runner --regid vambrace-runner --clear-groups ls /run/credentials/vambrace.service
  not inm setpriv --reuid vambrace --regid vambrace --clear-groups cat $sealed
  # Without it, and with another in its place, the state stays shut.
  override vambrace.service '[Service]' 'Restart=no'
  fails_naming 'credential'
  inm sh -c "head -c 32 /dev/urandom | systemd-creds encrypt --with-key=host --name=vambrace.key - $sealed.other"
  override vambrace.service '[Service]' "LoadCredentialEncrypted=vambrace.key:$sealed.other" 'Restart=no'
  fails_naming 'key'
  # One that systemd cannot unseal does not even start.
  inm sh -c "head -c 200 /dev/urandom | base64 > $sealed.bad"
  override vambrace.service '[Service]' "LoadCredentialEncrypted=vambrace.key:$sealed.bad" 'Restart=no'
  not inm systemctl restart vambrace.service
  shown vambrace.service | says '243/CREDENTIALS'
  # And back, as documented.
  back
  [ "$(key)" = machine ]
  inm vambrace exec --secret KEPT -- sh -c 'test "$(cat /run/secrets/KEPT)" = sealed-before-the-credential'
  inm vambrace secrets remove KEPT
}

a_kernel_without_landlock_is_told_by_the_unit_by_status_and_by_doctor() {
  settled
  property StatusText | says '^listening on 127.0.0.1:18789$'
  inm vambrace status | says 'own walls *Landlock ABI [0-9]*, seccomp'
  inm vambrace doctor | says "gateway's own walls *ok"
  # A call that is refused is what a kernel without it looks like.
  override vambrace.service '[Service]' 'SystemCallFilter=~landlock_create_ruleset'
  inm systemctl restart vambrace.service
  property StatusText | says '^listening on 127.0.0.1:18789; not confined by Landlock: this kernel has none$'
  inm vambrace status | says 'own walls *not confined by Landlock'
  inm vambrace doctor | says "gateway's own walls *weaker *not confined by Landlock"
  logged -u vambrace -o cat -n 20 | says 'weaker than they could be'
  # It stays told after a reload.
  inm systemctl reload vambrace.service
  property StatusText | says 'not confined by Landlock'
  [ "$(inm vambrace exec -- echo on)" = on ]
}

a_second_instance_and_files_that_cannot_be_read_are_named_in_the_status() {
  local other
  settled
  override vambrace.service '[Service]' 'Restart=no'
  inm systemctl stop vambrace.service vambrace.socket
  # Somebody started one by hand, on the same state.
  inm env HOME=/tmp RUNTIME_DIRECTORY=/tmp/by-hand setpriv --reuid vambrace --regid vambrace --clear-groups \
    vambrace --state-dir /var/lib/vambrace gateway --port 0 >"$work/by-hand" 2>&1 &
  other=$!
  eventually grep -q listening "$work/by-hand"
  fails_naming 'another gateway'
  inm pkill -u vambrace -x vambrace
  wait $other || :
  # Modes under which the service cannot read what it must.
  inm chmod 600 /etc/vambrace/vambrace.toml
  fails_naming 'vambrace.toml: cannot be read: Permission denied'
  inm chmod 644 /etc/vambrace/vambrace.toml
  inm install -m 644 -o vambrace /dev/null /etc/vambrace/key
  inm sh -c 'head -c 32 /dev/urandom > /etc/vambrace/key'
  configure '[store]' 'key = "key-file"' 'key_file = "/etc/vambrace/key"'
  inm systemctl start vambrace.socket vambrace.service
  # A key that others may read is none.
  not inm vambrace secrets rotate-key
  inm rm /etc/vambrace/key
}

# Folders that the gateway's walls name stay the same ones: by their inode, not by their name, do they know them.
folders_of_sockets_are_the_same_after_a_restart_of_whose_they_are() {
  local before
  settled
  folders() { inm stat -c '%n %i' /run/vambrace /run/vambrace-runner /run/vambrace-runner/native; }
  before=$(folders)
  inm systemctl restart vambrace-runner.service
  [ "$(folders)" = "$before" ]
  inm systemctl stop vambrace-runner.service
  inm systemctl start vambrace-runner.service
  [ "$(folders)" = "$before" ]
  eventually inm vambrace health
  [ "$(inm vambrace exec -- echo on)" = on ]
}
