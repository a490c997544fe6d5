//! The list of executables: what is on it runs by every way there is, and nothing else by any, in both tiers. Each act
//! that is refused is tried without a list as well, where it works.

use crate::loader::{BY_ITSELF, LOADER};
use crate::world::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const LIST: &str = r#"["/bin/sh", "/usr/bin/python3", "/usr/bin/git", "/usr/lib/git-core/*", "/usr/bin/true",
    "/usr/bin/cat", "@/tools/attacks"]"#;

/// What a command says that should not have run: `id` is not on the list.
const RAN: &str = "uid=";

const WRITABLE: [&str; 4] = ["/workspace", "/tmp", "/home/agent", "/dev/shm"];

/// A world with tools beside the workspace, and this list.
fn with_list(user: User, list: &str) -> World {
    with(user, &format!("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = {list}\n"))
}

/// Its twin, where the walls alone are the limit.
fn without_list(user: User) -> World {
    with(user, "[defaults.exec]\nsandbox_mode = \"full\"\n")
}

fn with(user: User, config: &str) -> World {
    let world = World::new(user);
    world.make_dir("tools");
    world.make_dir("state-workspaces");
    world.make_dir("state-workspaces/main");
    put(&world, attacks(), "tools/attacks");
    put(&world, Path::new("/usr/bin/id"), "state-workspaces/main/id");
    for (name, source, flags) in [
        ("library.so", "library.c", &["-shared", "-fPIC"][..]),
        ("bare", "bare.c", &["-nostdlib", "-fPIE", "-pie", "-fno-stack-protector"]),
    ] {
        put(&world, &build(name, source, flags), &format!("state-workspaces/main/{name}"));
    }
    let config = if config.contains("[defaults.sandbox]") {
        config.to_owned()
    } else {
        format!("[defaults.sandbox]\nro = [\"@/tools\"]\n{config}")
    };
    world.config(&config).start()
}

fn put(world: &World, from: &Path, to: &str) {
    let to = world.dir.join(to);
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
    world.give(&to);
}

/// Built beside the attacks, once for each test that needs it.
fn build(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let built = attacks().with_file_name(format!("{name}-{:?}", std::thread::current().id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let done = Command::new("cc").args(["-O1", "-w"]).args(flags).arg("-o").arg(&built).arg(&source).status();
    assert!(done.is_ok_and(|s| s.success()), "cannot build {}: install gcc and libc6-dev", source.display());
    built
}

/// Refused with the list, done without; each line for a shell that is on the list.
#[track_caller]
fn only_without_a_list(lines: &[&str]) {
    for user in USERS {
        let (listed, full) = (with_list(user, LIST), without_list(user));
        for line in lines {
            let twin = full.sh(line);
            assert!(twin.stdout.contains(RAN), "without a list: {line}: {twin:?}");
            let ran = listed.sh(line);
            assert!(!ran.stdout.contains(RAN) && !ran.stderr.contains(RAN), "{line}: {ran:?}");
            assert_ne!(ran.code, 125, "the shell itself was to run: {line}: {ran:?}");
        }
    }
}

/// The path of the attacks inside.
fn attack(world: &World, act: &[&str]) -> Ran {
    let path = world.dir.join("tools/attacks");
    world.exec(&[&[path.to_str().unwrap()], act].concat())
}

#[test]
fn what_is_listed_runs_by_every_way_there_is() {
    for user in USERS {
        let world = with_list(user, LIST);
        let tools = world.dir.join("tools");
        fs::hard_link(tools.join("attacks"), tools.join("of-the-same-inode")).unwrap();
        let own = tools.join("of-the-same-inode").display().to_string();
        let lines = [
            ("true && /usr/bin/true && /bin/true && /bin/../bin/true && (exec true) && echo $(echo done)", "done\n"),
            (
                "ln -s /usr/bin/cat link; python3 -c 'import os; os.symlink(\"/usr/bin/cat\", \"link\")'; echo x | ./link",
                "x\n",
            ),
            ("cat /proc/self/exe > /dev/null && /proc/self/root/usr/bin/true && echo x", "x\n"),
            ("python3 -c 'import subprocess as s; print(s.check_output([\"cat\"], input=b\"x\"))'", "b'x'\n"),
            ("python3 -c 'import os; os.execv(\"/proc/self/exe\", [\"python3\", \"-c\", \"print(1)\"])'", "1\n"),
            (
                "python3 -c 'import ssl, ctypes, sqlite3, multiprocessing; print(ctypes.CDLL(\"libm.so.6\") is not None)'",
                "True\n",
            ),
            (
                "git init -q r && git -C r -c user.name=a -c user.email=b commit -q --allow-empty -m x && \
                 git clone -q --no-local file:///workspace/r c && git -C c log --format=%s",
                "x\n",
            ),
            (
                &format!(
                    "{own} exec /usr/bin/true; {own} exec-open /bin/true; {own} exec-path-only /bin/cat < /dev/null"
                ),
                "",
            ),
            (
                &format!(
                    "{own} exec-by-number /bin/true && {own} exec-at bin/true && {own} exec-argv0 /bin/true id && echo x"
                ),
                "x\n",
            ),
        ];
        for (line, says) in lines {
            assert_eq!(world.sh(line).exits(0), says, "{line}");
        }
        for argv in
            [&["true"][..], &["/usr/bin/true"], &["git", "--version"], &["cat", "/etc/hostname"], &[&own, "kill-self"]]
        {
            assert_eq!(world.exec(argv).code, 0, "{argv:?}");
        }
        let finished = world.events("exec.finished");
        assert!(!finished.is_empty() && finished.iter().all(|e| e["ending"] == "exited"), "{finished:?}");
    }
}

#[test]
fn an_executable_that_is_not_listed_is_refused_by_name_and_recorded() {
    for user in USERS {
        let world = with_list(user, LIST);
        let loader_folder = format!("/run/loader/{}", LOADER.rsplit('/').next().unwrap());
        let names = ["id", "/usr/bin/id", "/workspace/id", "./id", "env", "ls", "/usr/bin/../bin/id", &loader_folder];
        for name in names {
            world.exec(&[name, "-u"]).fails(126, &format!("{name:?} cannot be executed"));
        }
        world.exec(&["/run/loader/unlisted"]).fails(126, "cannot be executed");
        assert_eq!(world.events("exec.failed").len(), names.len() + 1);
        assert!(world.events("exec.finished").is_empty());
        assert!(world.exec(&["id"]).stderr.contains("vambrace sandbox explain"), "the way out");
        // The loader is there and is a program, but not one that runs others.
        let by_loader = world.exec(&[LOADER, "/usr/bin/true"]);
        assert_eq!((by_loader.code, by_loader.stderr.as_str()), (126, BY_ITSELF));
        let full = without_list(user);
        for name in &names[..6] {
            assert_eq!(full.exec(&[name]).code, 0, "without a list: {name}");
        }
    }
}

#[test]
fn a_shell_that_is_listed_executes_nothing_else_however_it_is_asked() {
    only_without_a_list(&[
        "id",
        "true; id",
        "true && id",
        "false || id",
        "echo x | id",
        "echo $(id)",
        "echo `id`",
        "echo \"$(id)\"",
        "echo \"x $\\\n(id)\"",
        "i\\\nd",
        "cat <<X\n$(id)\nX",
        "cat <<-X\n`id`\nX",
        "(id)",
        "{ id; }",
        "id & wait",
        "exec id",
        "eval id",
        "command id",
        "trap id EXIT",
        "x=id; $x",
        "X=1 id",
        "f() { id; }; f",
        "while id; do break; done",
        "cd /usr/bin && ./id",
        "/proc/self/root/usr/bin/id",
        "PATH=/workspace:$PATH id",
        "PATH= /workspace/id",
        "PATH=. id",
        "./id",
        "python3 -c 'import os; os.symlink(\"/usr/bin/id\", \"true\")'; ./true; PATH=/workspace true",
        "python3 -c 'import os; os.link(\"id\", \"cat\")'; ./cat",
        "python3 -c 'import os; os.rename(\"id\", \"python3\")'; ./python3",
    ]);
}

#[test]
fn wrappers_and_interpreters_execute_nothing_else() {
    only_without_a_list(&[
        "env id",
        "env -S 'id -a'",
        "nice id",
        "nohup id",
        "timeout 60 id",
        "setsid -w id",
        "stdbuf -o0 id",
        "echo | xargs id",
        "find /usr/bin/id -exec {} \\;",
        "bash -c id",
        "bash -lic id",
        "perl -e 'exec \"id\"'",
        "awk 'BEGIN { system(\"id\") }'",
        "echo | sed '1e id'",
        "printf 'a:\\n\\tid\\n' > Makefile; make",
        "tar -cf /dev/null --checkpoint=1 --checkpoint-action=exec=id Makefile /etc/hostname",
        "busybox id",
        "busybox sh -c id",
        "python3 -c 'import os; os.symlink(\"/bin/busybox\", \"id2\"); os.execv(\"id2\", [\"id\"])'",
        // Interpreters and git themselves are on the list.
        "python3 -c 'import os; os.system(\"id\")'",
        "python3 -c 'import os; os.execvp(\"id\", [\"id\"])'",
        "python3 -c 'import os; os.execve(os.open(\"/usr/bin/id\", 0), [\"id\"], {})'",
        "python3 -c 'import os; os.waitpid(os.posix_spawnp(\"id\", [\"id\"], {}), 0)'",
        "python3 -c 'import subprocess; subprocess.run(\"id\", shell=True)'",
        "python3 -c 'import subprocess; subprocess.run([\"true\"], executable=\"/usr/bin/id\")'",
        "python3 -c 'import pty; pty.spawn([\"id\"])'",
        "python3 -c 'import ctypes; ctypes.CDLL(None).system(b\"id\")'",
        "git -c alias.x='!id' x",
        "git init -q .; printf '#!/bin/sh\\nid >&2\\n' > .git/hooks/pre-commit; python3 -c 'import os; \
         os.chmod(\".git/hooks/pre-commit\", 0o755)'; \
         git -c user.name=a -c user.email=b commit --allow-empty -m x 2>&1",
        "git init -q .; echo x > f; git add f; echo y > f; GIT_EXTERNAL_DIFF='id;' git diff",
    ]);
}

#[test]
fn a_loader_executes_nothing_at_all() {
    let musl = "/lib/ld-musl-x86_64.so.1";
    assert!(cfg!(not(target_arch = "x86_64")) || Path::new(musl).exists(), "there is no {musl}: install musl");
    let mut lines = vec![
        "ld.so /usr/bin/id".to_owned(),
        format!("{LOADER} /usr/bin/id"),
        format!("{LOADER} --argv0 true /usr/bin/id"),
        format!("{LOADER} --preload /workspace/library.so /usr/bin/id"),
        format!("{LOADER} /workspace/id"),
        format!("{LOADER} /workspace/bare"),
        format!("python3 -c 'import os; os.execv(os.path.realpath(\"{LOADER}\"), [\"true\", \"/usr/bin/id\"])'"),
        format!("python3 -c 'import os; os.execve(os.open(\"{LOADER}\", 0), [\"x\", \"/usr/bin/id\"], {{}})'"),
        // A copy of it in the workspace.
        format!(
            "python3 -c 'import shutil; shutil.copy(\"{LOADER}\", \"ld\"); shutil.copy(\"/run/loader/\" + \
             \"{LOADER}\".split(\"/\")[-1], \"ld\")'; python3 -c 'import os; os.chmod(\"ld\", 0o755)'; ./ld /usr/bin/id"
        ),
        "/workspace/bare".to_owned(),
    ];
    if cfg!(target_arch = "x86_64") {
        lines.push(format!("{musl} /workspace/bare"));
    }
    only_without_a_list(&lines.iter().map(String::as_str).collect::<Vec<_>>());

    for user in USERS {
        let world = with_list(user, LIST);
        let real = format!("/run/loader/{}", LOADER.rsplit('/').next().unwrap());
        for program in ["/usr/bin/id", "/usr/bin/true", "/workspace/bare"] {
            assert_eq!(attack(&world, &["exec", &real]).stdout, "EACCES\n");
            assert_eq!(world.sh(&format!("{real} {program}")).code, 126, "{program}");
            assert_eq!(world.sh(&format!("{LOADER} {program}")).code, 126, "{program}");
        }
        // The shim is what stands at the loader's place, so it may be executed, and does nothing.
        for line in ["/run/loader/shim", "/run/loader/shim /usr/bin/true"] {
            assert_eq!(world.sh(line).code, 126, "{line}");
        }
        for path in [LOADER, "/run/loader/x", "/run/loader/shim", &real] {
            assert_eq!(attack(&world, &["write", path]).code, 1, "{path}");
        }
    }
}

#[test]
fn what_a_command_writes_is_no_program_whatever_it_is_called() {
    for user in USERS {
        let (listed, full) = (with_list(user, LIST), without_list(user));
        for folder in WRITABLE {
            let at = |name: &str| format!("{folder}/{name}");
            let (one, two) = (at("true"), at("cat"));
            let acts = [
                &["exec-copy", "/usr/bin/id", &one][..],
                &["exec-copy", "/usr/bin/true", &one],
                &["exec-hard-link", "/usr/bin/id", &one, &two],
                &["exec-renamed", "/usr/bin/id", &one, &two],
                &["exec-deleted", "/usr/bin/id", &one],
                &["exec-unnamed", "/usr/bin/id", folder],
                &["exec-unnamed-by-number", "/usr/bin/id", folder],
            ];
            for act in acts {
                assert_eq!(attack(&listed, act).stdout, "EACCES\n", "{act:?}");
                if folder == "/workspace" {
                    let twin = attack(&full, act);
                    assert!(
                        twin.code == 0 && (act[1] == "/usr/bin/true" || twin.stdout.contains(RAN)),
                        "{act:?}: {twin:?}"
                    );
                }
            }
            let script = at("script");
            let line = format!(
                "printf '#!/bin/sh\\necho {RAN}\\n' > {script}; python3 -c 'import os; os.chmod(\"{script}\", 0o755)'"
            );
            assert_eq!(listed.sh(&format!("{line}; {script}")).code, 126, "{script}");
            assert_eq!(listed.sh(&format!("{line}; sh {script}")).exits(0), "uid=\n", "as data it is read");
            assert_eq!(full.sh(&format!("{line}; {script}")).code, if folder == "/workspace" { 0 } else { 126 });
        }
        listed.exec(&["/workspace/script"]).fails(126, "/workspace/script");
        assert_eq!(full.exec(&["/workspace/script"]).exits(0), "uid=\n");
        for name in ["id", "/usr/bin/id"] {
            for act in ["exec", "exec-open", "exec-path-only", "exec-by-number", "exec-thread"] {
                let path = if name == "id" { "/workspace/id" } else { name };
                assert_eq!(attack(&listed, &[act, path]).stdout, "EACCES\n", "{act} {path}");
                assert!(attack(&full, &[act, path]).stdout.contains(RAN), "{act} {path}");
            }
        }
        assert_eq!(attack(&listed, &["exec-at", "bin/id"]).stdout, "EACCES\n");
        assert!(attack(&full, &["exec-at", "bin/id"]).stdout.contains(RAN));
        assert_eq!(attack(&listed, &["exec-argv0", "/usr/bin/id", "/usr/bin/true"]).stdout, "EACCES\n");
        assert_eq!(attack(&listed, &["exec-pipe", "/usr/bin/true"]).stdout, "EACCES\n");
    }
}

#[test]
fn a_file_in_memory_is_no_program() {
    for user in USERS {
        let (listed, full) = (with_list(user, LIST), without_list(user));
        for (flags, made, executed) in [
            ("0", "EPERM\n", RAN),  // executable unless said otherwise
            ("1", "EPERM\n", RAN),  // MFD_CLOEXEC
            ("2", "EPERM\n", RAN),  // MFD_ALLOW_SEALING
            ("10", "EPERM\n", RAN), // MFD_EXEC
            ("8", "", "EACCES\n"),  // MFD_NOEXEC_SEAL
            ("b", "", "EACCES\n"),
            ("18", "EINVAL\n", "EINVAL\n"), // both at once
        ] {
            assert_eq!(attack(&listed, &["memory", flags]).stdout, made, "{flags}");
            for act in ["exec-memory", "exec-memory-by-number"] {
                let refused = if made.is_empty() { executed } else { made };
                assert_eq!(attack(&listed, &[act, "/usr/bin/id", flags]).stdout, refused, "{act} {flags}");
                // What is executed by its number is gone by then where it is closed on exec.
                let twin = attack(&full, &[act, "/usr/bin/id", flags]).stdout;
                assert!(twin.contains(executed), "{act} {flags}: {twin}");
            }
        }
        assert_eq!(listed.sh("python3 -c 'import os; os.memfd_create(\"x\", 8); print(1)'").exits(0), "1\n");
    }
}

#[test]
fn the_list_takes_no_other_wall_of_memory_away() {
    for user in USERS {
        for world in [with_list(user, LIST), without_list(user)] {
            for flags in ["4", "5", "c", "d", "14"] {
                assert_eq!(attack(&world, &["memory", flags]).stdout, "EPERM\n", "huge pages: {flags}");
            }
            assert_eq!(attack(&world, &["memory", "8"]).code, 0);
        }
    }
}

#[test]
fn a_library_that_a_command_writes_is_not_loaded_by_a_listed_program() {
    let said = "code was loaded";
    let by = [
        "LD_PRELOAD=@ cat /dev/null",
        "LD_AUDIT=@ cat /dev/null",
        "LD_PRELOAD=@ git --version",
        "LD_PRELOAD=@ python3 -c ''",
        "python3 -c 'import ctypes; ctypes.CDLL(\"@\")'",
        "cat @ > module.so; python3 -c 'import module'",
    ];
    for user in USERS {
        let (listed, full) = (with_list(user, LIST), without_list(user));
        for line in by {
            let line = line.replace('@', "/workspace/library.so");
            assert!(full.sh(&line).stdout.contains(said), "without a list: {line}");
            for folder in WRITABLE {
                let there = format!("{folder}/more.so");
                let copied = line.replace("/workspace/library.so", &there);
                let ran = listed.sh(&format!("cat library.so > {there}; {copied}"));
                assert!(!ran.stdout.contains(said) && !ran.stderr.contains(said), "{copied}: {ran:?}");
            }
        }
        for (act, answer) in [("map-as-code", "EPERM\n"), ("turn-into-code", "EACCES\n")] {
            for folder in WRITABLE {
                let there = format!("{folder}/more.so");
                let line =
                    format!("cat library.so > {there}; {} {act} {there}", listed.dir.join("tools/attacks").display());
                assert_eq!(listed.sh(&line).stdout, answer, "{there}");
            }
            assert_eq!(attack(&listed, &[act, "/usr/bin/id"]).code, 0, "the system's own libraries are code");
            assert_eq!(attack(&full, &[act, "/workspace/library.so"]).code, 0);
        }
        assert_eq!(attack(&listed, &["write-self"]).stdout, "EROFS\n", "nor is a process written into by its file");
        assert_eq!(attack(&listed, &["personality"]).stdout, "EPERM\n", "READ_IMPLIES_EXEC");
    }
}

#[test]
fn a_workspace_that_is_read_only_and_folders_of_the_profile_hold_no_code_either() {
    for user in USERS {
        let config = |mode: &str| {
            format!(
                "[defaults.sandbox]\nworkspace_access = \"ro\"\nro = [\"@/tools\"]\nrw = [\"@/shared\"]\n\
                 [defaults.exec]\n{mode}\n"
            )
        };
        let prepared = |mode: &str| {
            let world = with(user, &config(mode));
            let shared = world.make_dir("shared").display().to_string();
            put(&world, Path::new("/usr/bin/id"), "shared/id");
            put(&world, &world.workspace().join("library.so"), "shared/library.so");
            (world, shared)
        };
        let (full, shared) = prepared("sandbox_mode = \"full\"");
        for program in ["/workspace/id", &format!("{shared}/id")] {
            assert!(full.exec(&[program]).exits(0).contains(RAN), "{program}");
        }
        assert!(full.sh("LD_PRELOAD=/workspace/library.so cat /dev/null").stdout.contains("loaded"));

        let (listed, shared) = prepared(&format!("sandbox_mode = \"allowlist\"\nallow = {LIST}"));
        for folder in ["/workspace", &shared] {
            listed.exec(&[&format!("{folder}/id")]).fails(126, "cannot be executed");
            assert_eq!(listed.sh(&format!("LD_PRELOAD={folder}/library.so cat /dev/null")).stdout, "", "{folder}");
            assert_eq!(attack(&listed, &["map-as-code", &format!("{folder}/library.so")]).stdout, "EPERM\n");
        }
    }
}

#[test]
fn a_listed_path_that_commands_write_to_or_that_leads_through_one_lists_nothing() {
    for user in USERS {
        let list = r#"["/bin/sh", "/usr/bin/python3", "/workspace/id", "/workspace/tool", "/workspace/bin/*", "/tmp/*",
            "/*/tool", "@/tools/*", "/dev/shm/x", "/home/agent/x", "/proc/self/cwd/tool"]"#;
        let world = with_list(user, list);
        let workspace = world.workspace();
        world.make_dir("state-workspaces/main/bin");
        for link in ["tool", "bin/id"] {
            symlink("/usr/bin/id", workspace.join(link)).unwrap();
        }
        // Of the operator's, but it leads to where commands write; and one that leads nowhere costs itself alone.
        symlink("/workspace/tool", world.dir.join("tools/by-the-workspace")).unwrap();
        symlink("/usr/bin/cat", world.dir.join("tools/straight")).unwrap();
        symlink("/nowhere", world.dir.join("tools/dangling")).unwrap();
        symlink("round", world.dir.join("tools/round")).unwrap();
        let tools = world.dir.join("tools").display().to_string();

        for path in [
            "/usr/bin/id",
            "/workspace/id",
            "/workspace/tool",
            "/workspace/bin/id",
            &format!("{tools}/by-the-workspace"),
        ] {
            let ran = world.exec(&[path]);
            assert_eq!((ran.code, ran.stdout.as_str()), (126, ""), "{path}: {ran:?}");
        }
        world.exec(&[&format!("{tools}/straight"), "/etc/hostname"]).exits(0);
        world.exec(&["cat", "/etc/hostname"]).exits(0);
        assert_eq!(attack(&world, &["kill-self"]).code, 0, "a folder below /tmp that is shown read-only is not /tmp");
    }
}

#[test]
fn an_empty_list_lists_nothing_and_a_missing_path_costs_itself_alone() {
    for user in USERS {
        for none in ["allow = []", ""] {
            let world = with(user, &format!("[defaults.exec]\nsandbox_mode = \"allowlist\"\n{none}\n"));
            for name in ["true", "/bin/sh", "/workspace/id", LOADER] {
                assert_eq!(world.exec(&[name]).code, 126, "{none} {name}");
            }
        }
        let world = with_list(
            user,
            r#"["/usr/bin/no-such", "/opt/*/no", "/usr/bin/true", "/usr/local/no-folder/*", "/usr/bin/cat/x"]"#,
        );
        world.exec(&["true"]).exits(0);
        world.exec(&["cat"]).fails(126, "cannot be executed");
        world.exec(&["no-such"]).fails(127, "not found");
        // A whole folder, as itself and as what is in it, with whatever dangles there.
        let world = with_list(user, r#"["/usr/lib/git-core", "/usr/local/"]"#);
        assert_eq!(world.exec(&["/usr/lib/git-core/git-remote-http"]).code, 1, "its usage");
        world.exec(&["true"]).fails(126, "cannot be executed");
        let world = with_list(user, r#"["/usr/bin/*"]"#);
        assert!(world.sh("id; env true && ls / > /dev/null").exits(0).contains(RAN));
        assert_eq!(world.sh("/usr/lib/git-core/git --version; /workspace/id").code, 126);
        assert_eq!(world.sh(&format!("{LOADER} /usr/bin/true")).code, 126);
    }
}

#[test]
fn a_list_that_could_mean_something_else_is_an_error_of_the_configuration_that_names_the_key() {
    let rows = [
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"/usr/../bin/sh\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"/usr/bin/..\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"sh\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"./sh\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"~/sh\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"/\"]", "defaults.exec.allow"),
        ("[agents.a.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"bin/sh\"]", "agents.a.exec.allow"),
        ("[agents.a.exec]\nallow = [\"/bin/sh\"]", "agents.a.exec.allow"),
        ("[defaults.exec]\nallow = [\"/bin/sh\"]", "defaults.exec.allow"),
        ("[defaults.exec]\nsandbox_mode = \"list\"", "unknown variant `list`"),
        ("[profiles.p.exec]\nallow = [\"/bin/sh\"]", "unknown field `exec`"),
        ("[profiles.p]\nallow = [\"/bin/sh\"]", "unknown field `allow`"),
    ];
    for (config, key) in rows {
        let world = World::new(User::Ordinary).config(config);
        for command in [&["config", "check"][..], &["gateway", "--port", "0"], &["sandbox", "run", "--", "true"]] {
            let ran = world.run(command);
            assert!(ran.code != 0 && ran.stderr.contains(key), "{config}: {command:?}: {ran:?}");
        }
    }
}

#[test]
fn an_agent_has_its_own_list_in_every_profile_and_chooses_no_other() {
    for user in USERS {
        let world = World::new(user)
            .config(
                "[defaults.exec]\nsandbox_mode = \"allowlist\"\nallow = [\"/usr/bin/true\"]\n\
                 [agents.one]\nprofiles = [\"other\"]\n[agents.one.exec]\nallow = [\"/usr/bin/id\"]\n\
                 [agents.free.exec]\nsandbox_mode = \"full\"\n[profiles.other]\nworkspace_access = \"none\"\n",
            )
            .start();
        let code = |agent: &str, profile: &str, name: &str| {
            let mut arguments = vec!["exec", "--agent", agent];
            if !profile.is_empty() {
                arguments.extend(["--profile", profile]);
            }
            world.run(&[&arguments[..], &["--", name]].concat()).code
        };
        for profile in ["", "other"] {
            for (agent, runs, refused) in [("one", "id", "true"), ("two", "true", "id"), ("main", "true", "id")] {
                assert_eq!(code(agent, profile, runs), 0, "{agent} {profile} {runs}");
                assert_eq!(code(agent, profile, refused), 126, "{agent} {profile} {refused}");
            }
            assert_eq!((code("free", profile, "id"), code("free", profile, "true")), (0, 0));
        }
        let mut ws = world.connect();
        for key in ["allow", "execAllow", "executables", "sandboxMode", "execMode", "exec"] {
            for value in [json!(["/usr/bin/id"]), json!("full"), json!({"sandbox_mode": "full"})] {
                let answer = ws.call("exec.run", json!({"command": ["id"], "agent": "two", key: value}));
                let refused = answer["ok"] == false || answer["payload"]["exitCode"] == 126;
                assert!(refused, "{key}: {answer}");
            }
        }
        let answer = ws.call("exec.run", json!({"command": ["true"], "agent": "two"}));
        assert_eq!(answer["payload"]["exitCode"], 0, "{answer}");
    }
}

#[test]
fn a_listed_file_that_is_replaced_is_the_new_one_and_not_the_old_one() {
    for user in USERS {
        let world = with_list(user, r#"["@/tools/tool"]"#);
        let (tool, tools) = (world.dir.join("tools/tool"), world.dir.join("tools"));
        let path = tool.to_str().unwrap();
        put(&world, Path::new("/usr/bin/true"), "tools/tool");
        for n in 0..3 {
            world.exec(&[path]).exits(0);
            // A child that was built around the old file waits for the next command.
            world.rest();
            fs::rename(&tool, tools.join("old")).unwrap();
            put(&world, Path::new("/usr/bin/id"), "tools/new");
            fs::rename(tools.join("new"), &tool).unwrap();
            assert!(world.exec(&[path]).exits(0).contains(RAN), "{n}");
            assert_eq!(world.exec(&[tools.join("old").to_str().unwrap()]).code, 126);
            put(&world, Path::new("/usr/bin/true"), "tools/new");
            fs::rename(tools.join("new"), &tool).unwrap();
        }
    }
}

#[test]
fn what_interpreters_on_the_list_do_is_theirs_and_is_said() {
    for user in USERS {
        let world = with_list(user, r#"["/bin/sh", "/usr/bin/python3*", "/bin/busybox"]"#);
        fs::write(world.workspace().join("data.py"), "print('of its own')").unwrap();
        fs::write(world.workspace().join("data.sh"), "echo of its own").unwrap();
        assert_eq!(world.exec(&["python3", "data.py"]).exits(0), "of its own\n");
        assert_eq!(world.exec(&["sh", "data.sh"]).exits(0), "of its own\n");
        assert_eq!(world.sh(". ./data.sh; echo 'echo $((6*7))' | sh").exits(0), "of its own\n42\n");
        assert!(world.exec(&["busybox", "id"]).exits(0).contains(RAN), "many programs in one: install busybox-static");
        let said = world.run(&["sandbox", "explain"]).exits(0);
        for words in [
            "the kernel executes these and no other file",
            "/bin/sh is a shell and runs any script it is given",
            "/usr/bin/python3* is an interpreter and runs any program of its language",
            "/bin/busybox is many programs in one",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let facts = world.json(&["sandbox", "explain", "--json"]);
        assert_eq!(facts["executables"]["mode"], "allowlist");
        assert_eq!(facts["executables"]["runCodeOfTheirOwn"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn what_a_sandbox_keeps_for_its_next_run_is_no_code_there_either() {
    for user in USERS {
        let config = "[defaults.sandbox]\nscope = \"session\"\nworkspace_access = \"none\"\n[defaults.exec]\n\
                      sandbox_mode = \"allowlist\"\nallow = [\"/bin/sh\", \"/bin/cat\", \"/usr/bin/python3\", \
                      \"/tmp/tool\", \"/home/agent/tool\", \"/workspace/tool\"]\n";
        let world = with(user, config);
        let sh = |line: &str| world.run(&["exec", "--session", "s", "--", "sh", "-c", line]);
        let folders = ["/tmp", "/home/agent", "/workspace"];
        let code = "import os, shutil, sys\nfor d in sys.argv[1:]:\n  shutil.copy('/usr/bin/id', d + '/id')\n  \
                    os.symlink('/usr/bin/id', d + '/tool')";
        sh(&format!("python3 -c \"{code}\" {}", folders.join(" "))).exits(0);
        for folder in folders {
            assert_eq!(sh(&format!("cat {folder}/id | cat > {folder}/again; echo kept")).exits(0), "kept\n");
            for path in [format!("{folder}/id"), format!("{folder}/tool"), "/usr/bin/id".to_owned()] {
                let ran = sh(&path);
                assert_eq!((ran.code, ran.stdout.as_str()), (126, ""), "{path}: {ran:?}");
                let ran = world.run(&["exec", "--session", "s", "--", &path]);
                assert_eq!(ran.code, 126, "{path}: {ran:?}");
            }
        }
    }
}
