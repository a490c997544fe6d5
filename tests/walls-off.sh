#!/bin/bash
# Switches off one wall after the other in a copy of the tree and sees its test turn red: a test that stays green
# without its wall tests nothing. Takes an hour, so it is a target of its own: `make test-walls-off`. Needs root.
# Usage: tests/walls-off.sh [--patterns] [NAMES], the names as a regular expression.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 tar c | tar x -C "$copy"
cp -r src tests "$copy/"
cd "$copy"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$OLDPWD/target}/walls-off
red=0 green=0
patterns= # with --patterns: whether each wall is found where its row says, and no more
[ "${1:-}" != --patterns ] || { patterns=yes; shift; }
only=${1:-.} # a regular expression over the names below
# In namespaces of its own: without its wall a sandbox may survive or name this host, and must not do so.
apart=(unshare --pid --uts --ipc --fork --kill-child --mount-proc)

# NAME FILE SED-EXPRESSION TEST [TARGET]
off() {
  local name=$1 file=$2 expression=$3 test=$4 target=${5:---test=it}
  [[ $name =~ $only ]] || return 0
  cp "$file" "$copy/.kept"
  sed -i -E "$expression" "$file"
  if cmp -s "$file" "$copy/.kept"; then echo "not ok $name: the wall was not found in $file"; green=$((green + 1)); return; fi
  if [ -n "$patterns" ]; then
    cp "$copy/.kept" "$file"
    if [[ $test == *:: ]] || grep -rqE "fn [a-z0-9_]*${test##*::}" src tests; then red=$((red + 1)); return; fi
    echo "not ok $name: there is no test $test"; green=$((green + 1)); return
  fi
  local ended=0
  if ! cargo test --locked "$target" --no-run >"$copy/.log" 2>&1; then
    echo "not ok $name: the copy does not build"; tail -5 "$copy/.log"; green=$((green + 1))
  else
    timeout 300 "${apart[@]}" cargo test --locked "$target" -- "$test" >"$copy/.log" 2>&1 || ended=$?
    case $ended in
      0) echo "not ok $name: $test stays green without it"; green=$((green + 1)) ;;
      124) echo "ok $name: $test does not end"; red=$((red + 1)) ;;
      *) echo "ok $name: $test turns red"; red=$((red + 1)) ;;
    esac
  fi
  cp "$copy/.kept" "$file"
}

inside=src/sandbox/native/inside.rs tree=src/sandbox/native/tree.rs
off "landlock" $inside 's|^ *at\(Step::Landlock, .*||' abstract_sockets_of_the_host
off "seccomp" $inside 's|^ *at\(Step::Seccomp, .*||; s|if !filtered|if false|; s|else if !filtered|else if false|' the_kernels_further_doors
off "network namespace" $inside 's/flags \|= CloneFlags::CLONE_NEWNET;/let _ = \&mut flags;/' the_network_is_its_own
off "pid namespace" $inside 's/ \| CloneFlags::CLONE_NEWPID//; s/std::process::id\(\) != 1/false/' no_process_of_the_host
off "cgroup namespace" $inside 's/ \| CloneFlags::CLONE_NEWCGROUP//' nothing_tells_of_the_launcher
off "capabilities" $inside 's|^ *at\(Step::DropAll, .*||; s|^ *at\(Step::CloseDoors, .*||' no_privilege_is_left
off "blank title" $inside 's|^ *os::linux::title::blank.*||' nothing_tells_of_the_launcher
off "death with the launcher" $inside 's|^ *at\(Step::DieWithRunner, .*||' killing_the_runner_fails
off "undumpable init" $inside 's|^ *at\(Step::Undumpable, .*||; s|os::process::make_dumpable\(\)|Ok(())|' the_init_cannot_be_looked_into
off "resource limits" $inside 's|^ *at\(Step::Limits, rlimits.*||' a_fork_bomb_is_bounded
off "read-only system" $tree 's/^const SYSTEM: (.*)read_only: true/const SYSTEM: \1read_only: false/; s/Grant::ReadExecute/Grant::ReadWriteExecute/' a_read_only_workspace_is
off "sealed root" $tree 's|^ *at\(Step::SealRoot, .*||' the_system_is_read_only
off "noexec scratch" $tree 's/^const SCRATCH: (.*)no_exec: true/const SCRATCH: \1no_exec: false/' scratch_folders_are_private
off "number of terminals" $tree 's/, \(c"max", "64"\)//' a_command_that_holds_all_terminals
off "watches of a user" $tree 's/^ *watches\.bound\(proc\.as_fd\(\)\)\?;/let _ = watches;/' what_a_command_watches
off "files of an init" src/os/linux/rlimits.rs 's/RLIMIT_NOFILE, u64::MAX/RLIMIT_NOFILE, 4096/' what_a_command_has_under_way
off "memory in sockets" src/os/linux/cgroup.rs 's|^ *where_it_is\("memory\.kmem.*||' what_lies_in_sockets
off "leases" src/sandbox/native/filter/mod.rs 's/F_SETLEASE as u32/u32::MAX/' nobody_who_writes_is_held_up
off "line disciplines" src/sandbox/native/filter/mod.rs 's|, 0x5423 /\* TIOCSETD \*/||' the_kernels_further_doors
off "types of sockets" src/sandbox/native/filter/mod.rs 's/^const FURTHER_TYPES: u32 = .*/const FURTHER_TYPES: u32 = 0;/' the_kernels_further_doors
off "masks of proc" $tree 's|^ *mask\(root\)\?;||' devices_are_six
off "overlapping folders" src/sandbox/plan.rs 's|^ *check_overlap\(\&binds\)\?;||' folders_that_lie_in_each_other
off "links refused" src/os/linux/mounts.rs 's/ResolveFlags::NO_SYMLINKS \| ResolveFlags::NO_MAGICLINKS/ResolveFlags::empty()/' a_workspace_that_is_a_link
off "boundary" src/sandbox/plan.rs 's|^ *boundary::check(_named)?\(.*||' a_workspace_that_is_a_link
off "working folder beneath" $inside 's/current_dir\(\)\?\.starts_with\(workspace\)/current_dir()?.starts_with("\/")/' the_working_folder_is_inside
off "set-id by O_TMPFILE" src/sandbox/native/filter/mod.rs 's/^const CREATES: .*/const CREATES: u32 = O_CREAT as u32;/' no_file_with_a_set_id_bit
off "x32 guard" src/os/linux/seccomp.rs 's/^const X32_BIT: u32 = .*/const X32_BIT: u32 = 0xffff_ffff;/' the_kernels_further_doors
off "id map" src/sandbox/native/launcher.rs 's/self\.mapping_of\(\*folder, owner\.uid\)/None/' what_a_command_writes_belongs
off "output bound" src/runner/pump.rs 's|^ *self.kill\(Ending::OutputLimit\);||' output_is_bounded
off "deadline" src/runner/pump.rs 's/self.kill\(Ending::TimedOut\)/{}/' every_way_to_end
off "refused environment" src/policy/judge.rs 's/if let Some\(why\) = \(policy.refused_env\)/if let (Some(why), false) = ((policy.refused_env)/; s/\(name, \&profile.env_allow\) \{/(name, \&profile.env_allow), true) {/' a_variable_that_changes

# The gateway's own.
confine=src/daemon/confine.rs
off "gateway's landlock" $confine 's|^ *landlock::restrict\(.*||' the_gateway_reads_its_own_places
off "gateway's filter" $confine 's|^ *confined::start_nothing\(\).*||' the_gateway_is_confined
off "gateway's capabilities" $confine 's|^ *capabilities::keep_what_serves.*||' the_gateway_is_confined
off "doors that are named" src/server/adopt.rs 's/if !is_meant \{/if false \&\& !is_meant {/' doors_that_the_configuration_does_not_name
off "watchdog at the door" src/daemon/watchdog.rs 's|^ *at_the_door\(socket, patience\).*||' the_watchdog_is_fed
off "sessions after a reload" src/gateway/mod.rs 's/!self\.gatekeeper\(\)\.stands\(session\)/false \&\& !self.gatekeeper().stands(session)/' who_is_no_operator_any_more

# What is proved before each command: a wall that is missing is found, whichever it is, and nothing is run.
probed() { off "probe without $1" "$2" "$3" proof::the_probe_holds; }
mounts=src/os/linux/mounts.rs
probed "its own root" $tree 's/at\(Step::Pivot, mounts::pivot_into\(root\)\)/Ok(())/'
probed "sealed root" $tree 's|^ *at\(Step::SealRoot, .*||'
probed "read-only system" $tree 's/^const SYSTEM: (.*)read_only: true/const SYSTEM: \1read_only: false/'
probed "boundary" src/sandbox/plan.rs 's|^ *boundary::check.*||'
probed "landlock" $inside 's|^ *at\(Step::Landlock, .*||'
probed "seccomp" $inside 's|^ *at\(Step::Seccomp, .*||'
probed "network namespace" $inside 's/flags \|= CloneFlags::CLONE_NEWNET;/let _ = \&mut flags;/'
probed "pid namespace" $inside 's/ \| CloneFlags::CLONE_NEWPID//'
probed "ipc namespace" $inside 's/CloneFlags::CLONE_NEWIPC \| //'
probed "uts namespace" $inside 's/ \| CloneFlags::CLONE_NEWUTS//'
probed "user namespace" $inside 's/flags \|= CloneFlags::CLONE_NEWUSER;/let _ = \&mut flags;/'
probed "cgroup namespace" $inside 's/ \| CloneFlags::CLONE_NEWCGROUP//'
probed "bounding set emptied" $inside 's|^ *at\(Step::CloseDoors, .*||'
probed "capabilities dropped" $inside 's|^ *at\(Step::DropAll, .*||'
probed "no_new_privs" $inside 's|^ *at\(Step::NoNewPrivs, .*||'
probed "descriptors closed" $inside 's|^ *clone::close_from\(first_free\)\?;||'
probed "nosuid" $mounts 's/let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID;/let mut flags = MountAttrFlags::empty();/'
probed "nodev" $mounts 's/^ *flags\.set\(MountAttrFlags::MOUNT_ATTR_NODEV, self\.no_dev\);//'
probed "noexec" $mounts 's/^ *flags\.set\(MountAttrFlags::MOUNT_ATTR_NOEXEC, self\.no_exec\);//'

off "disk bound" src/runner/pump.rs 's/if exceeded \{ self\.kill/if false \&\& exceeded { self.kill/' what_one_run_adds
off "disk that is nearly full" src/runner/disk.rs 's/now\.is_nearly_gone\(\) \&\&/false \&\& now.is_nearly_gone() \&\&/' files_that_are_removed
off "files without content" src/os/tree.rs 's/\.max\(A_FILE\)//' files_count_that_have_nothing
off "files that are nearly gone" src/runner/disk.rs 's/ \|\| of_files\.is_greedy\(space\.files\)//' files_that_no_walk_finds
off "walk that does not end" src/runner/disk.rs 's/code != Some\(WITHIN\)/code == Some(1)/; s/\{ WITHIN \} else \{ 1 \}/{ WITHIN } else { 2 }/' what_is_hidden
off "what is hidden counts" src/os/tree.rs 's/(_|Err\(_\)) => Walk::Barred/\1 => Walk::Past/' what_is_hidden_from_a_walk
off "links among what is kept" src/sandbox/kept.rs 's|^ *os::fs::private_dir\(kept\)\?;|os::fs::private_dir(\&kept.join(""))?;|' a_kept_folder_that_was_replaced
off "kept folder that is a link" src/sandbox/kept.rs 's/!meta\.is_dir\(\) =>/!meta.is_dir() \&\& false =>/' a_folder_of_kept_sandboxes
off "noexec of what is kept" src/sandbox/plan.rs 's/target\.into\(\), Shown::WritableData/target.into(), Shown::Writable/' nothing_in_a_kept_home
off "in use" src/gateway/methods/sandboxes.rs 's/if self\.in_use\.counts\(\)\.contains_key\(name\)/if false/' a_sandbox_in_which_a_command_runs
off "sandboxes of others" src/sandbox/boundary.rs 's/Some\(kept\) if overlaps/Some(kept) if false \&\& overlaps/' places_of_the_system_and_of_others
off "a number until it is free" src/sandbox/native/slots.rs 's/self\.taken\.borrow_mut\(\)\.remove.*/let _ = \&self.taken;/' a_number_is_one --lib
off "pace of connections" src/egress/desk.rs 's/if due > now/if false \&\& due > now/' connections_beyond_a_burst --lib
off "stop of what runs" src/runner/pump.rs 's|^ *self\.launched\.hold\(held\);||' what_runs_stands_still
off "timers that thaw" src/sandbox/native/filter/table.rs 's/^( *)SYS_timer_settime,/\1SYS_timer_create, SYS_timer_settime,/' thawed_by_no_timer
off "input that thaws" src/sandbox/native/filter/mod.rs 's/^const F_SETSIG: u32 = 10;/const F_SETSIG: u32 = u32::MAX;/' thawed_by_no_timer
off "stop of all at once" $inside 's/Pid::from_raw\(-1\), signal/Pid::from_raw(2), signal/' what_forks_all_the_time
off "lockdown on the disk" src/gateway/lockdown.rs 's/return store\.save\(Name::Lockdown, ON\);/let _ = ON; return Ok(());/' it_outlives_every_end
off "terminals of its own" $tree 's/mounts::new_filesystem\(c"devpts", .*;/mounts::clone_tree(mounts::open_path(Path::new("\/tmp"))?.as_fd(), Reach::WholeTree)?;/' a_command_has_a_terminal
land=src/sandbox/native/landlocked.rs filter=src/sandbox/native/filter/shared.rs deputy=src/sandbox/native/deputy.rs
off "landlocked: landlock" $land 's|^ *at\(Step::Landlock, .*||' landlocked::nothing_of_the_host
off "landlocked: own scopes" src/os/linux/landlock.rs 's|if abi >= ABI::V6 \{|if false {|' landlocked::no_process_outside
off "landlocked: own files of proc" $land 's|^    "auxv",|    "auxv", "net",|' landlocked::nothing_of_the_host
off "landlocked: no links" src/os/linux/landlock.rs 's|mounts::open_without_links\(path\)|std::fs::File::open(path).map(std::os::fd::OwnedFd::from)|' landlocked::the_tier_and_what
off "landlocked: seccomp" $land 's|seccomp::install_with_listener\(base\.filter\)|Ok(None::<OwnedFd>)|' landlocked::the_kernels_further_doors
off "landlocked: keeper ends all" $land 's|^    end_all\(everybody\);||' landlocked::nothing_survives
off "landlocked: domain of the keeper" $land 's|^ *landlock::keep_signals\(\)\?;||' landlocked::processes_that_fork
off "landlocked: death with the launcher" $land 's|^ *at\(Step::DieWithRunner, die_with_launcher.*||' landlocked::the_end_of_runner
off "landlocked: death with the keeper" $land 's|rustix::process::set_parent_process_death_signal\(Some\(Signal::KILL\)\)\.map_err\(Into::into\)|Ok(())|' landlocked::the_end_of_runner
off "landlocked: scratch removed by the keeper" $land 's|^ *let _ = base\.private\.map.*||' landlocked::the_end_of_runner
off "landlocked: writable places alone" $deputy 's/\.any\(lies_below\) \{/.any(lies_below) || true {/' landlocked::nothing_outside
off "landlocked: no links of proc" $deputy 's/ResolveFlags::NO_MAGICLINKS/ResolveFlags::empty()/' landlocked::nothing_outside
off "landlocked: attributes" $filter 's/^ *rules\.extend\(WITHOUT_ATTRIBUTES.*/let _ = (WITHOUT_ATTRIBUTES, unsupported);/' landlocked::nothing_outside
off "landlocked: owners" $filter 's/\&\[SYS_fchown, SYS_fchownat\]/\&[]/' landlocked::nothing_outside
off "landlocked: ioctls" $filter 's/^ *ioctl\.otherwise = REFUSE;//' landlocked::nothing_outside
off "landlocked: priorities of a user" $filter 's/\(SYS_setpriority, \&\[Argument::Is\(0, PRIO_PROCESS\), /(SYS_setpriority, \&[/' landlocked::no_process_outside
off "landlocked: other processes" $filter 's/^ *for \(number, arguments\) in ON_ONESELF \{/for (number, arguments) in \&ON_ONESELF[..0] {/' landlocked::no_process_outside
off "landlocked: datagram pairs" $filter 's/^ *pair\.rows\.insert\(0, .*/let _ = pair;/' landlocked::no_socket
off "landlocked: unix sockets" $filter 's/^ *socket\.rows\.retain.*/let _ = socket;/' landlocked::no_socket
off "landlocked: any socket" $filter 's/in \[SYS_socket, SYS_bind, SYS_listen, SYS_connect\]/in [SYS_uselib]/' landlocked::no_socket
off "landlocked: a tier that is named" src/sandbox/native/walls.rs 's/tier < plan\.least_tier/false/' landlocked::a_host_without
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
off "agent of a scope" src/policy/scope.rs 's/principal\.agent\.is_some\(\) \&\& principal/principal/' an_agent_runs_for_itself --lib
off "salt of a commit that failed" src/store/unlocked.rs 's/let _ = self\.tidy\(folder\);/let _ = private::wipe(\&next);/' a_disk_that_does_not
off "covered journal" src/journal/mod.rs 's/^ *let record = record\.covered.*//' a_secret_is_covered_in_output
off "undumpable gateway" src/daemon/mod.rs 's/^ *os::process::make_undumpable.*//' a_gateway_that_crashes
off "freed memory zeroed" src/os/memory.rs 's/^ *unsafe \{ ptr::write_bytes\(block, 0, layout\.size\(\)\) \};//' no_secret_is_found
off "locked keys" src/os/memory.rs 's/unsafe \{ mlock\(mapped, length\) \}\.is_ok\(\)/true/' a_key_lies_in_pages --lib

gate=src/auth/gatekeeper registry=src/auth/registry/admission.rs
off "throttle" src/auth/throttle.rs 's/if self.guesses >= budget.guesses \{/if false \{/' ten_wrong_guesses_lock
off "right token" src/auth/secret.rs 's/if right.matches\(\&digest\) \{ Fit::Right \} else \{ Fit::Wrong \}/if right.matches(\&digest) { Fit::Right } else { Fit::Right }/' the_token_is_shown_on_the_unix
off "kernel's word" $gate/mod.rs 's/peer\.own_uid\(\)\.is_some_and\(\|uid\| rules\.operators\.contains\(\&uid\)\)/{ let _ = \&rules.operators; peer.own_uid().is_some() }/' another_users_process_gains
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

off "connections of one client" src/gateway/hub.rs 's/ \|\| of_one >= MOST_OF_ONE//' doors::an_agent_has_so_many
off "reloads from this host alone" src/policy/scope.rs 's/^ *Action::ConfigReload$//' reload::a_reload_is_for
off "gateway: typing into a terminal" src/os/linux/confined.rs 's/\(vec!\[Argument::Is\(1, request\)\], EPERM\)/(vec![Argument::Is(1, request)], Answer::Allow)/' confined:: --lib

guard=src/sandbox/native/guard.rs filter=src/sandbox/native/filter/mod.rs
off "list: no code where commands write" src/sandbox/plan.rs 's/\(Shown::WritableData, Shown::ReadOnlyData\)/(Shown::Writable, Shown::ReadOnly)/' a_library_that_a_command_writes
off "list: execution of the rest" src/sandbox/native/walls.rs 's/if lists \{ Grant::Read \}/if lists { Grant::ReadExecute }/' a_shell_that_is_listed
off "list: shim over the loader" $guard 's|^ *mounts::attach\(cover\.as_fd\(\).*||' a_loader_executes_nothing
off "list: memory that is code" $filter 's/if matches!\(kind, Kind::Walled\(ExecMode::Allowlist\) \|/if false \&\& matches!(kind, Kind::Walled(ExecMode::Allowlist) |/' a_file_in_memory_is_no_program
off "list: huge pages" $filter 's/^ *\(vec!\[Argument::Has\(1, MFD_HUGETLB\)\], REFUSE\),//' the_list_takes_no_other_wall
off "list: links of commands" $guard 's/^ *true if walls\.is_written\(\&place\) => None,//' a_listed_path_that_commands_write
off "list: inodes of now" src/sandbox/native/reserve.rs 's/\.chain\(walls\.allowed\.iter\(\)\.flatten\(\)\.map\(listed\)\)/.chain(walls.allowed.iter().flatten().map(listed).take(0))/' a_listed_file_that_is_replaced

relay=src/egress/relay.rs desk=src/egress/desk.rs
off "domains: public addresses" src/egress/addresses.rs 's/^ *is_public\(address\)\?;//' a_listed_name_that_leads_inwards
off "domains: address at the answer" $desk 's/addresses::sift\(found, \&self\.hosts\(\)\)/addresses::sift(found, \&self.hosts()).or(Ok(found.to_vec()))/' a_listed_name_that_leads_inwards
off "domains: address at the connection" $desk 's/addresses::judge\(address, \&self\.hosts\(\)\)/addresses::judge(address, \&self.hosts()).or(Ok(()))/' an_address_that_the_host_takes_on
off "domains: ports" $relay 's/^ *desk\.list\.judge_port.*//' what_is_not_listed_has_no_name
off "domains: names" src/egress/names.rs 's/if let Err\(why\) = desk\.list\.judge_name\(name\) \{/if let (Err(why), false) = (desk.list.judge_name(name), true) {/' what_is_not_listed_has_no_name
off "domains: pins" src/egress/pins.rs 's/^const FRESH: .*/const FRESH: Duration = Duration::ZERO;/' a_name_that_is_rebound
off "domains: own address" src/os/linux/netns.rs 's/for message in \[local_route\(loopback\), own_address\(loopback\)\]/let _ = own_address; for message in [local_route(loopback)]/' a_program_that_knows_of_nothing
off "domains: end with the runner" src/egress/serve.rs 's/read = from\.read_u8\(\) => match read/read = async { let _ = from.read_u8().await; std::future::pending::<io::Result<u8>>().await } => match read/' what_carries_connections_ends_when
off "domains: record" src/gateway/methods/exec.rs 's/if !connections::record\(\&report\)\.is_none_or\(note\)/if connections::record(\&report).is_some() \&\& false/' a_program_that_knows_of_nothing
off "domains: whole record" src/journal/record.rs 's/^const MAX_TARGET: .*/const MAX_TARGET: usize = 128;/' the_record_of_a_connection_is_whole

# Containers are the engine's, which must see this host's processes and mounts.
apart=()
plan=src/sandbox/docker/plan.rs engine=src/sandbox/docker/engine.rs image=src/sandbox/docker/image.rs
off "container: capabilities" $plan 's/^ *cap_drop: Some.*//' docker::what_the_engine
off "container: privileges" $plan 's/^ *security_opt: Some.*//' docker::what_the_engine
off "container: read-only root" $plan 's/readonly_rootfs: Some\(true\)/readonly_rootfs: Some(false)/' docker::what_the_engine
off "container: memory" $plan 's/^ *memory: bytes.*//' docker::what_the_engine
off "container: network" $plan 's/unwrap_or_else\(\|\| "none"\.into\(\)\)/unwrap_or_else(|| "bridge".into())/' docker::what_the_engine
off "container: health checks" $plan 's/^ *healthcheck: Some.*//' docker::an_images_volumes
off "container: every field" $engine 's/if runs \&\& differences\.is_empty\(\)/if runs/' docker::a_container_is_adopted
off "container: whose it is" $engine 's/if label\(plan::GATEWAY\) != .*/if false {/' docker::a_container_of_somebody
off "container: folders of now" $engine 's/let is_same = shown::identities.*/let is_same = true;/' docker::a_container_is_adopted
off "container: volumes of the image" src/sandbox/docker/memory.rs 's/for volume in volumes \{/for volume in volumes.iter().take(0) {/' docker::an_images_volumes
bundle=src/sandbox/docker/bundle.rs
off "container: preload of the image" $bundle 's/without_preload\(bytes\)\?/bytes/; s/^fn without_preload/#[allow(dead_code)]\nfn without_preload/' docker::an_images_volumes
off "container: folder nobody knows" $bundle 's|"/.vambrace-\{:.16\}", crypto.*|"/.vambrace{:.0}", base)|' docker::an_images_volumes
off "container: limits of who keeps it" src/sandbox/native/filter/mod.rs 's/Kind::Contained\(_\) => shared::on_oneself_alone\(\&mut rules\),/Kind::Contained(_) => {}/' docker::what_keeps_a_command
off "container: list" src/sandbox/native/walls.rs 's/if lists \{ Grant::Read \} else \{ Grant::ReadExecute \}/Grant::ReadExecute/' contained_list::
off "container: loaders" src/sandbox/docker/image.rs 's/^ *dockerfile\.push_str\(&format!\("COPY \{cover.*/let _ = cover; dockerfile.push_str(\&format!("COPY {shown}\\n"));/' contained_list::
off "container: mounts without code" src/sandbox/docker/memory.rs 's/let code = if lists \{ data \} else (.*);/let code = \1; let _ = lists;/' contained_list::
off "container: folders without code" src/sandbox/docker/host.rs 's/How::WritableData \| How::Device => Attributes \{ read_only: false, no_exec: true/How::WritableData | How::Device => Attributes { read_only: false, no_exec: false/' contained_list::
off "container: flags of its mounts" src/sandbox/docker/plan.rs 's/shown\.read_only && !shown\.is_mounted/shown.read_only/' contained_list::what_a_command
off "container: bridge" src/sandbox/docker/bridge.rs 's/\(BETWEEN_CONTAINERS\.to_owned\(\), "false"/(BETWEEN_CONTAINERS.to_owned(), "true"/; s/holds\(&live\.options, BETWEEN_CONTAINERS, "false"\)/true/' docker::a_bridge
off "container: lockdown of a setup" src/runner/line.rs 's/^ *containers\.opened\(\&line\);//' docker::setup_is
off "container: known hosts" src/sandbox/docker/reach.rs 's/"StrictHostKeyChecking=yes"/"StrictHostKeyChecking=no"/' remote::an_agents_engine_may_be_on_another_machine_behind_ssh
off "container: engines that it was told of" src/runner/relay.rs 's/if host != own \&\& !self\.settings\.others\.contains\(host\)/if false/' delivery::a_runner_speaks
off "places of kept sandboxes" src/runner/trees.rs 's/Some\(folder\) if folder\.parent\(\) != protected\.kept\.as_deref\(\)/Some(folder) if folder.as_os_str().is_empty()/' delivery::a_runner_speaks
off "container: in use" $engine 's/Fit::Same\(id\) \| Fit::Stale\(id\) if in_use\(\&id\) => .*//' docker::a_container_in_use
off "container: the engine's socket" src/config/compose.rs 's/\[canonical\(engine\), engine\.to_owned\(\)\]\)/[canonical(engine), engine.to_owned()].into_iter().take(0))/' docker::the_engines_socket
off "container: builds on the image" $image 's/is_some_and\(\|steps\| !steps\.is_empty\(\)\)/is_some_and(|_| false)/' docker::an_engine_an_image
off "container: what is thawed" src/runner/relay.rs 's/^ *self\.open_lines\(\)\.iter\(\)\.for_each.*//' docker::lockdown
off "container: limits of open files" $plan 's/vec!\[ulimit\("core", 0\), ulimit\("nofile", 4096\)\],/vec![ulimit("core", 0)],/' benchmark::
off "container: processes" $plan 's/^ *pids_limit: Some.*//; s/^const OWN_PROCESSES/#[allow(dead_code)]\nconst OWN_PROCESSES/' benchmark::
own=src/sandbox/docker/probe.rs
off "container: limits that an engine has" $own 's/if !missing\.is_empty\(\)/if false \&\& !missing.is_empty()/' own_engine::an_engine_of
off "container: ids that an engine maps" $engine 's/if !is_remapped \|\| binds\.is_empty\(\)/if true || !is_remapped || binds.is_empty()/' own_engine::an_engine_that_maps
off "container: what a failed build leaves" src/sandbox/docker/build.rs 's/^ *self\.clear\(docker\)\.await;//' own_engine::an_engine_whose
off "container: layers of an image" $image 's/layers\.len\(\) > base\.len\(\) \&\& layers\.starts_with\(base\)/true || layers.starts_with(base)/' docker::an_image_of_other
off "container: lists in pages" src/sandbox/docker/lists.rs 's/^const PAGE: .*/const PAGE: i32 = 10_000;/' hostile_engine::containers_that
off "container: networks" $plan 's/^ *found\.extend\(self\.networks\(live\)\);/let _ = self.networks(live);/' docker::a_container_that_somebody_put
off "container: bytes of an answer" src/sandbox/docker/meter.rs 's/if self\.left == 0/if false \&\& self.left == 0/' docker::meter --lib
off "container: time of an answer" src/sandbox/docker/meter.rs 's/end: Box::pin\(sleep\(self\.time\)\)/end: Box::pin(sleep(Duration::from_secs(7200)))/' docker::meter --lib
off "container: time of a preparation" $engine 's/timeout\(way\.patience\.preparation, prepared\)/timeout(Duration::from_secs(7200), prepared)/' docker::engine --lib
off "container: names in an archive" src/sandbox/docker/contents.rs 's/^const MOST_BESIDE: .*/const MOST_BESIDE: u64 = 64 << 20;/' a_long_name_is_read --lib
off "container: looks that were left" src/sandbox/docker/look.rs 's/if maker::is_left\(mark, .*\{$/if maker::is_left(mark, Default::default()) \&\& id.is_empty() {/' hostile_engine::a_look
off "container: looks of somebody else" src/sandbox/docker/look.rs 's/labels\.get\(plan::SANDBOX\), is_new\)/labels.get(plan::SANDBOX), is_new || !is_new)/' hostile_engine::a_look
off "container: looks that were interrupted" src/sandbox/docker/contents.rs 's/^ *look::done\(\&docker, .*//' hostile_engine::a_look
prune=src/sandbox/docker/engine/prune.rs
off "container: runs of another runner" $prune 's/return maker::is_left_here\(mark, listed\.age\);/let _ = mark; return true;/' shared_engine::a_run_without
off "container: what is made of ours" $prune 's/ \&\& self\.is_ours\(.*\)\.await \{$/ {/' shared_engine::a_container_that_somebody
off "container: age" $prune 's/listed\.age >= age/false/' shared_engine::what_is_old
off "container: mounts of another runner" src/sandbox/docker/shown.rs 's/let Ok\(Some\(held\)\) = os::fs::lock_folder\(.*/let held = File::open(folder.path()).unwrap();/' shared_engine::what_stands
off "container: whose they are" src/daemon/mod.rs 's/unwrap_or_default\(\), drawn\(folder\)\?\)/unwrap_or_default(), Vec::<u8>::new())/' shared_engine::gateways_whose
off "container: what was listed" $engine 's/^ *self\.placed\.borrow_mut\(\)\.remove\(\&sandbox\);//' shared_engine::what_differs
off "container: volumes as they are written" src/sandbox/docker/memory.rs 's/folders\.entry\(place_of\(volume\)\)/folders.entry(volume.clone())/' contained_places::a_volume
off "container: volumes in folders of the host" $engine 's/^ *memory::check\(\&ready, .*//' contained_places::a_volume
off "container: end where nobody is heard" src/runner/serve.rs 's/matches!\(from, Way::Pipe\(_\)\)\.then_some\(SILENCE\)/None::<Duration>/' docker::what_runs_where
off "container: what could not be removed" $engine 's/^ *if is_gone \{$/if is_gone || !is_gone {/' own_engine::an_engine_that_is_stopped
off "container: end with what it kept" src/gateway/methods/sandboxes.rs 's/^ *self\.parts\.runners\.discard\(name\);//' docker::what_is_pruned

echo "$red passed, $green failed"
[ "$green" = 0 ]
