#!/bin/bash
# Switches off one wall after the other in a copy of the tree and sees its test turn red: a test that stays green
# without its wall tests nothing. Takes some minutes, so it is a target of its own: `make test-walls-off`. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 tar c | tar x -C "$copy"
cp -r src tests "$copy/"
cd "$copy"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$OLDPWD/target}/walls-off
red=0 green=0
only=${1:-.} # a regular expression over the names below

# NAME FILE SED-EXPRESSION TEST [TARGET]
off() {
  local name=$1 file=$2 expression=$3 test=$4 target=${5:---test=it}
  [[ $name =~ $only ]] || return 0
  cp "$file" "$copy/.kept"
  sed -i -E "$expression" "$file"
  if cmp -s "$file" "$copy/.kept"; then echo "not ok $name: the wall was not found in $file"; green=$((green + 1)); return; fi
  if ! cargo test --locked "$target" --no-run >"$copy/.log" 2>&1; then
    echo "not ok $name: the copy does not build"; tail -5 "$copy/.log"; green=$((green + 1))
  # In a pid namespace of its own: without its wall a sandbox may survive, and must not do so on this host.
  elif timeout 300 unshare --pid --fork --kill-child --mount-proc cargo test --locked "$target" -- "$test" >"$copy/.log" 2>&1; then
    echo "not ok $name: $test stays green without it"; green=$((green + 1))
  else
    echo "ok $name: $test turns red"; red=$((red + 1))
  fi
  cp "$copy/.kept" "$file"
}

inside=src/sandbox/native/inside.rs tree=src/sandbox/native/tree.rs
off "landlock" $inside 's|^ *at\(Step::Landlock, .*||' abstract_sockets_of_the_host
off "seccomp" $inside 's|^ *at\(Step::Seccomp, .*||; s|if !filtered|if false|; s|else if !filtered|else if false|' the_kernels_further_doors
off "network namespace" $inside 's/flags \|= CloneFlags::CLONE_NEWNET;/let _ = \&mut flags;/' the_network_is_its_own
off "pid namespace" $inside 's/ \| CloneFlags::CLONE_NEWPID//; s/std::process::id\(\) != 1/false/' no_process_of_the_host
off "cgroup namespace" $inside 's|^ *at\(Step::Cgroup, .*||' nothing_tells_of_the_launcher
off "capabilities" $inside 's|^ *at\(Step::DropAll, .*||; s|^ *at\(Step::CloseDoors, .*|Ok(())|; s|!no_capabilities \{|false {|' no_privilege_is_left
off "blank title" $inside 's|^ *os::linux::title::blank.*||' nothing_tells_of_the_launcher
off "death with the launcher" $inside 's|^ *at\(Step::DieWithRunner, .*||' killing_the_runner_fails
off "undumpable init" $inside 's|^ *at\(Step::Undumpable, .*||; s|os::process::make_dumpable\(\)|Ok(())|' the_init_cannot_be_looked_into
off "resource limits" $inside 's|^ *at\(Step::Limits, rlimits.*||' a_fork_bomb_is_bounded
off "read-only system" $tree 's/^const SYSTEM: (.*)read_only: true/const SYSTEM: \1read_only: false/; s/Grant::ReadExecute/Grant::ReadWriteExecute/' a_read_only_workspace_is
off "sealed root" $tree 's|^ *at\(Step::SealRoot, .*||' the_system_is_read_only
off "noexec scratch" $tree 's/^const SCRATCH: (.*)no_exec: true/const SCRATCH: \1no_exec: false/' scratch_folders_are_private
off "masks of proc" $tree 's|^ *mask\(root\)\?;||' devices_are_six
off "overlapping folders" src/sandbox/plan.rs 's|^ *check_overlap\(\&binds\)\?;||' folders_that_lie_in_each_other
off "links refused" src/os/linux/mounts.rs 's/ResolveFlags::NO_SYMLINKS \| ResolveFlags::NO_MAGICLINKS/ResolveFlags::empty()/' a_workspace_that_is_a_link
off "boundary" src/sandbox/plan.rs 's|^ *boundary::check\(.*||' a_workspace_that_is_a_link
off "working folder beneath" src/os/fs.rs 's/ResolveFlags::BENEATH \| ResolveFlags::NO_MAGICLINKS/ResolveFlags::empty()/' the_working_folder_is_inside
off "set-id by O_TMPFILE" src/sandbox/native/filter.rs 's/^const CREATES: .*/const CREATES: u32 = O_CREAT as u32;/' no_file_with_a_set_id_bit
off "x32 guard" src/os/linux/seccomp.rs 's/^const X32_BIT: u32 = .*/const X32_BIT: u32 = 0xffff_ffff;/' the_kernels_further_doors
off "id map" src/sandbox/native/launcher.rs 's/\(bind, self.mapping_of\(bind, uid\)\)/(bind, None)/' what_a_command_writes_belongs
off "output bound" src/runner/pump.rs 's|^ *self.kill\(Ending::OutputLimit\);||' output_is_bounded
off "deadline" src/runner/pump.rs 's/self.kill\(Ending::TimedOut\)/{}/' every_way_to_end
off "refused environment" src/policy/judge.rs 's/if let Some\(why\) = \(policy.refused_env\)/if let (Some(why), false) = ((policy.refused_env)/; s/\(name, \&profile.env_allow\) \{/(name, \&profile.env_allow), true) {/' a_variable_that_changes

land=src/sandbox/native/landlocked.rs filter=src/sandbox/native/filter.rs deputy=src/sandbox/native/deputy.rs
off "landlocked: landlock" $land 's|^ *at\(Step::Landlock, .*||' landlocked::nothing_of_the_host
off "landlocked: own scopes" src/os/linux/landlock.rs 's|if abi >= ABI::V6 \{|if false {|' landlocked::no_process_outside
off "landlocked: own files of proc" $land 's|^    "auxv",|    "auxv", "net",|' landlocked::nothing_of_the_host
off "landlocked: no links" src/os/linux/landlock.rs 's|mounts::open_without_links\(path\)|std::fs::File::open(path).map(std::os::fd::OwnedFd::from)|' landlocked::the_tier_and_what
off "landlocked: seccomp" $land 's|seccomp::install_with_listener\(base\.filter\)|Ok(None::<OwnedFd>)|' landlocked::the_kernels_further_doors
off "landlocked: keeper ends all" $land 's|^    end_all\(\);||' landlocked::nothing_survives
off "landlocked: domain of the keeper" $land 's|^ *landlock::keep_signals\(\)\?;||' landlocked::processes_that_fork
off "landlocked: death with the launcher" $land 's|^ *at\(Step::DieWithRunner, die_with_launcher.*||' landlocked::the_end_of_runner
off "landlocked: death with the keeper" $land 's|rustix::process::set_parent_process_death_signal\(Some\(Signal::KILL\)\)\.map_err\(Into::into\)|Ok(())|' landlocked::the_end_of_runner
off "landlocked: scratch removed by the keeper" $land 's|^ *let _ = os::tree::remove\(base.*||' landlocked::the_end_of_runner
off "landlocked: writable places alone" $deputy 's/\.any\(lies_below\) \{/.any(lies_below) || true {/' landlocked::nothing_outside
off "landlocked: no links of proc" $deputy 's/ResolveFlags::NO_MAGICLINKS/ResolveFlags::empty()/' landlocked::nothing_outside
off "landlocked: attributes" $filter 's/^ *rules\.extend\(WITHOUT_ATTRIBUTES.*/let _ = (WITHOUT_ATTRIBUTES, unsupported);/' landlocked::nothing_outside
off "landlocked: owners" $filter 's/\&\[SYS_fchown, SYS_fchownat\]/\&[]/' landlocked::nothing_outside
off "landlocked: ioctls" $filter 's/^ *ioctl\.otherwise = REFUSE;//' landlocked::nothing_outside
off "landlocked: leases" $filter 's/F_SETLEASE as u32/u32::MAX/' landlocked::nothing_outside
off "landlocked: priorities of a user" $filter 's/\(SYS_setpriority, \&\[Argument::Is\(0, PRIO_PROCESS\), /(SYS_setpriority, \&[/' landlocked::no_process_outside
off "landlocked: other processes" $filter 's/^ *for \(number, arguments\) in ON_ONESELF \{/for (number, arguments) in \&ON_ONESELF[..0] {/' landlocked::no_process_outside
off "landlocked: datagram pairs" $filter 's/^ *pair\.rows\.insert\(0, .*/let _ = pair;/' landlocked::no_socket
off "landlocked: unix sockets" $filter 's/^ *socket\.rows\.retain.*/let _ = socket;/' landlocked::no_socket
off "landlocked: any socket" $filter 's/in \[SYS_socket, SYS_bind, SYS_listen, SYS_connect\]/in [SYS_uselib]/' landlocked::no_socket
off "landlocked: a tier that is named" src/sandbox/native/walls.rs 's/if tier < plan\.least_tier/if false/' landlocked::a_host_without
off "landlocked: never as root" src/sandbox/native/probe.rs 's/^    if uid == 0 \{/    if false {/' landlocked::root_runs_nothing
off "landlocked: what it cannot give" src/sandbox/native/walls.rs 's/let missing = if self\.network == Network::Allowlist/if true { return Ok(()); }\n let missing = if self.network == Network::Allowlist/' landlocked::what_this_tier_cannot
off "landlocked: scratch counts" src/runner/pump.rs 's/^ *disk\.watch_also\(folder\);/let _ = (folder, \&mut disk);/' landlocked::processes_memory

secrets=src/sandbox/native/secrets.rs
off "read-only secrets" $secrets 's|^ *mounts::set_attributes\(mount\.as_fd.*||' nothing_of_run_secrets
off "seals" src/os/linux/memfd.rs 's/if !seals\.contains\(ALL\)/if false/' what_is_no_sealed_value
off "descriptors of one frame" src/runner/inbox.rs 's/if beside\.len\(\) > named/if false/' what_is_no_sealed_value
off "secrets forgotten by the init" $inside 's/^ *drop\(entries\);/std::mem::forget(entries);/' a_value_is_in_no_memory
off "grants of secrets" src/policy/judge.rs 's/if !grants\.has\(.*/if false {/' a_secret_is_for_the_agents --lib

seal=src/store/seal.rs keys=src/store/keys.rs
off "sealed values" $seal 's/seal_message\(\&self\.keys\.records, \&about, plain\)/plain.to_vec()/; s/open_message\(\&self\.keys\.records, \&about, value\)/Some(Secret::new(value.to_vec()))/' no_secret_is_found
off "place of a row" $seal 's/for part in \[purpose, kind\.as_bytes\(\), key\.as_bytes\(\)\]/let _ = (kind, key); for part in [purpose]/' rows_that_were_swapped --lib
off "ledger" src/store/unlocked.rs 's/if ledger\.has_rows_of\(\&found\)/if ledger.has_rows_of(\&found) || true/' whatever_is_done_to_rows --lib
off "counter" src/store/ledger.rs 's/if ledger\.generation < seen/if ledger.generation < seen \&\& false/' an_older_file_is_noticed --lib
off "floor of scrypt" src/crypto/kdf.rs 's/pub\(crate\) fn is_sound\(self\) -> bool \{/&\n        if self.p < 9 { return true; }/' a_missing_or_wrong_key --lib
off "degenerate keys" $keys 's/if let Some\(why\) = crypto::degenerate/if let (Some(why), false) = (crypto::degenerate/; s/degenerate\(key\.expose\(\)\) \{/degenerate(key.expose()), true) {/' a_key_file_that_others --lib
off "rights of a key file" $keys 's/os::fs::read_key\(/os::fs::read_private(/' a_key_file_that_others --lib
off "old salt removed" src/store/unlocked.rs 's/private::wipe\(\&salt\)\?;/std::fs::rename(\&salt, folder.join("kept"))?;/' a_rotation_leaves_one_key --lib
off "covered output" src/gateway/methods/exec.rs 's/outputs\[usize::from\(stream == Stream::Stderr\)\]\.1\.push\(\&bytes, \&mut covered\);/covered.extend_from_slice(\&bytes);/' a_secret_is_covered_in_output
off "checked tables" src/store/unlocked.rs 's/^ *tables\.check\(\)\.map_err.*//' rows_that_were_swapped --lib
off "rotation of what was read" src/store/unlocked.rs 's/^ *let rows = verify\(\&self\.seal, \&ledger, \&rows\)\?;/let open = |row: \&table::Row| Ok(PlainRow { value: open_row(\&self.seal, \&row.kind, \&row.key, \&row.value)?, kind: row.kind.clone(), key: row.key.clone() }); let rows = rows.iter().map(open).collect::<Result<Vec<_>, StoreFault>>()?;/' a_rotation_does_not_seal --lib
off "agent of a scope" src/policy/scope.rs 's/ \&\& principal\.agent\.is_some\(\)//' an_agent_runs_for_itself --lib
off "salt of a commit that failed" src/store/unlocked.rs 's/let _ = self\.tidy\(folder\);/let _ = private::wipe(\&next);/' a_disk_that_does_not
off "covered journal" src/journal/mod.rs 's/^ *let record = record\.covered.*//' a_secret_is_covered_in_output
off "undumpable gateway" src/daemon/mod.rs 's/^ *os::process::make_undumpable.*//' a_gateway_that_crashes
off "freed memory zeroed" src/os/memory.rs 's/^ *unsafe \{ ptr::write_bytes\(block, 0, layout\.size\(\)\) \};//' no_secret_is_found
off "locked keys" src/os/memory.rs 's/unsafe \{ mlock\(mapped, length\) \}\.is_ok\(\)/true/' a_key_lies_in_pages --lib

gate=src/auth/gatekeeper registry=src/auth/registry/admission.rs
off "throttle" src/auth/throttle.rs 's/if self.guesses >= budget.guesses \{/if false \{/' ten_wrong_guesses_lock
off "right token" src/auth/secret.rs 's/if right.matches\(\&digest\) \{ Fit::Right \} else \{ Fit::Wrong \}/if right.matches(\&digest) { Fit::Right } else { Fit::Right }/' the_token_is_shown_on_the_unix
off "kernel's word" $gate/mod.rs 's/peer\.own_uid\(\)\.is_some_and\(\|uid\| self\.operators\.contains\(\&uid\)\)/peer.own_uid().is_some()/' another_users_process_gains
off "owner of a closed socket" src/os/linux/sock_diag.rs 's/let is_held = .*;/let is_held = true;/' a_request_whose_sender_is_gone
off "managing itself alone" src/model/principal.rs 's/matches!\(self\.credential, Credential::DeviceToken \| Credential::SetupCode\) \&\& !self/false \&\& !self/' an_approver_grants_only
off "revocation closes" src/gateway/methods/pairing.rs 's/!self\.registry\(\)\.stands\(grant\)/false/' a_revocation_during_a_call
off "setup code once" src/auth/invites.rs 's/ \&\& invite\.used_by\.is_none\(\)//' a_setup_code_pairs_one_of_two
off "device token with its device" $gate/shown.rs 's/if !self\.registry\.is_token\(device, role, presented\.expose\(\)\)/if false/' unknown_revoked_and_wrong
off "scopes of a pairing" $registry 's/if wish\.scopes\.beyond\(token\.scopes\)\.is_some\(\) \|\|/if/' a_device_that_asks_for_more
off "forwarding headers" src/server/origin.rs 's/_ if is_forwarded => return Err\(Foreign::Forwarded\),//' a_page_a_proxy_and_a_foreign
off "host names" src/server/origin.rs 's/if !self\.serves_host\(door, headers, via\.is_some\(\)\)/if false/' a_page_a_proxy_and_a_foreign
off "own addresses" src/server/mod.rs 's/ *\|\| os::host::addresses\(\).*//; s/\|\| address == ours\.ip\(\)\.to_canonical\(\)/;/' whichever_address_of_the_host
off "nonce once" src/auth/signed.rs 's/if created <= window\.floor \|\| window\.nonces\.contains_key\(nonce\)/if false/' signed::
off "body digest" src/auth/signed.rs 's/if !crypto::same\(\&crypto::sha256\(\&\[body\]\), \&signed\.digest\)/if false/' signed::
off "pinned certificate" src/client/tls.rs 's/if crypto::same\(\&crypto::sha256\(\&\[end_entity\]\), \&self\.pin\)/if true/' doors::

echo "$red passed, $green failed"
[ "$green" = 0 ]
