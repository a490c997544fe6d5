//! The file tools: they see what a command sees, follow no link, open nothing but regular files, and reach nothing else.

use crate::world::*;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn call(world: &World, method: &str, params: Value) -> Value {
    world.connect().call(&format!("sandbox.file.{method}"), params)
}

#[test]
fn what_a_command_writes_a_file_tool_reads_and_the_reverse() {
    for user in USERS {
        let world = World::running(user);
        world.sh("mkdir src && echo from exec > src/a").exits(0);
        assert_eq!(world.run(&["sandbox", "read", "src/a"]).exits(0), "from exec\n");
        world.run_with_input(&["sandbox", "write", "src/b"], b"from a tool\n").exits(0);
        assert_eq!(world.exec(&["cat", "/workspace/src/b"]).exits(0), "from a tool\n");
        let listed = world.json(&["sandbox", "ls", "src", "--json"]);
        assert_eq!(
            listed["entries"],
            json!([{"kind": "file", "name": "a", "size": 10}, {"kind": "file", "name": "b", "size": 12}])
        );
        // More than one call takes.
        let large: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
        world.run_with_input(&["sandbox", "write", "large"], &large).exits(0);
        assert_eq!(fs::read(world.workspace().join("large")).unwrap(), large);
        assert_eq!(world.run(&["sandbox", "read", "large"]).code, 0);
        // The owner on the host is the owner of the workspace, the mode what it was.
        fs::set_permissions(world.workspace().join("src/b"), fs::Permissions::from_mode(0o750)).unwrap();
        world.run_with_input(&["sandbox", "write", "src/b"], b"again").exits(0);
        let meta = fs::metadata(world.workspace().join("src/b")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (world.uid(), 0o750));
        let kinds: Vec<_> = world.events("exec.finished").into_iter().map(|e| e["command"][0].clone()).collect();
        assert!(kinds.contains(&json!("sandbox.file.read")) && kinds.contains(&json!("sandbox.file.write")));
    }
}

#[test]
fn a_workspace_that_only_the_sandbox_keeps_is_the_same_for_both() {
    for user in USERS {
        let world =
            World::new(user).config("[defaults.sandbox]\nworkspace_access = \"none\"\nscope = \"agent\"\n").start();
        world.sh("echo kept > file").exits(0);
        assert_eq!(world.run(&["sandbox", "read", "file"]).exits(0), "kept\n");
        let other = world.run(&["sandbox", "read", "file", "--agent", "other"]);
        other.fails(1, "No such file");
    }
}

#[test]
fn a_read_only_workspace_is_read_only_for_the_tools_too() {
    for user in USERS {
        let world = World::new(user).config("[defaults.sandbox]\nworkspace_access = \"ro\"\n");
        world.make_dir("state-workspaces/main");
        world.write("state-workspaces/main/file", b"here");
        let world = world.start();
        assert_eq!(world.run(&["sandbox", "read", "file"]).exits(0), "here");
        world.run_with_input(&["sandbox", "write", "file"], b"x").fails(1, "Read-only");
        world.run_with_input(&["sandbox", "write", "new"], b"x").fails(1, "Read-only");
        assert_eq!(fs::read(world.workspace().join("file")).unwrap(), b"here");
    }
}

#[test]
fn links_and_special_files_are_refused_by_every_tool_and_nothing_outside_is_touched() {
    for user in USERS {
        let world = World::running(user);
        let outside = world.write("outside", b"precious");
        let folder = world.make_dir("folder");
        world.write("folder/file", b"precious");
        world.sh("echo x > plain; mkdir d; mkfifo fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'").exits(0);
        let here = world.workspace();
        for (name, to) in [("to-file", &outside), ("to-folder", &folder)] {
            symlink(to, here.join(name)).unwrap();
        }
        symlink("plain", here.join("inside")).unwrap();
        symlink("/proc/self/root", here.join("magic")).unwrap();
        for path in ["to-file", "to-folder/file", "inside", "magic/etc/passwd", "fifo", "sock", "d"] {
            for (method, params) in [
                ("read", json!({"path": path})),
                ("write", json!({"path": path, "data": "eA=="})),
                ("write", json!({"path": path, "data": "eA==", "append": true})),
            ] {
                let answer = call(&world, method, params);
                assert_eq!(
                    (&answer["ok"], &answer["error"]["details"]["code"]),
                    (&json!(false), &json!("FILE_REFUSED")),
                    "{method} {path}: {answer}"
                );
            }
        }
        for path in ["to-folder", "inside", "magic", "fifo"] {
            assert_eq!(call(&world, "list", json!({"path": path}))["ok"], false, "{path}");
        }
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
        assert_eq!(fs::read(folder.join("file")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(world.exec(&["ls", "-A", "/workspace"]).exits(0).matches(".vambrace-").count(), 0);
    }
}

#[test]
fn a_path_that_is_not_plain_and_relative_is_an_error_and_never_rewritten() {
    let world = World::running(User::Ordinary);
    world.sh("mkdir -p a && echo x > a/b && echo y > '@etc' && echo z > '%2e%2e'").exits(0);
    for path in ["/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "file:///etc/passwd", "a\u{0}b"] {
        for (method, params) in [
            ("read", json!({"path": path})),
            ("write", json!({"path": path, "data": ""})),
            ("list", json!({"path": path})),
        ] {
            let answer = call(&world, method, params);
            assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{method} {path:?}: {answer}");
        }
    }
    // What only looks like something else is a name like any other.
    assert_eq!(call(&world, "read", json!({"path": "@etc"}))["payload"]["data"], "eQo=");
    assert_eq!(call(&world, "read", json!({"path": "%2e%2e"}))["payload"]["data"], "ego=");
    assert_eq!(call(&world, "read", json!({"path": "~/.ssh/id_rsa"}))["ok"], false);
    for params in [
        json!({"path": ""}),
        json!({"path": "a/b", "length": 0}),
        json!({"path": "a/b", "length": 1 << 20}),
        json!({"path": "a/b", "data": "eA=="}),
    ] {
        assert_eq!(call(&world, "read", params.clone())["error"]["code"], "INVALID_REQUEST", "{params}");
    }
    assert_eq!(call(&world, "read", json!({"path": "a/b", "offset": u64::MAX}))["ok"], false);
}

#[test]
fn a_folder_of_a_hundred_thousand_names_and_of_odd_ones_is_told_in_bounds() {
    let world = World::running(User::Ordinary);
    let make = "import os\nos.mkdir('many')\nfor n in range(100000): os.mknod(f'many/{n}')\nos.mkdir('odd')\nfor n in (b'a\\nb', b'\\x1b[2J', b'\\xff\\xfe', b' '): os.mknod(b'odd/' + n)";
    world.exec(&["python3", "-c", make]).exits(0);
    let many = call(&world, "list", json!({"path": "many"}));
    assert_eq!(
        (many["payload"]["entries"].as_array().unwrap().len(), &many["payload"]["truncated"]),
        (10_000, &json!(true))
    );
    let odd = call(&world, "list", json!({"path": "odd"}));
    let names: Vec<_> =
        odd["payload"]["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"a\nb") && names.contains(&"\u{1b}[2J") && names.contains(&" "), "{names:?}");
    let shown = world.run(&["sandbox", "ls", "odd"]).exits(0);
    assert!(!shown.contains('\u{1b}') && shown.lines().count() == 4, "{shown:?}");
}
