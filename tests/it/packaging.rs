//! What is shipped beside the program, as far as it can be checked without installing it.

use crate::neighbours::tool;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// The parser of AppArmor 3 reads all of the profile but the two lines that came with version 4.
#[test]
fn the_apparmor_profile_is_one_and_gives_user_namespaces_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/apparmor/vambrace");
    let text = fs::read_to_string(path).unwrap();
    let is_newer = |line: &&str| line.starts_with("abi <abi/4.0>") || line.trim() == "userns,";
    assert_eq!(text.lines().filter(is_newer).count(), 2);
    let older: String = text.lines().filter(|line| !is_newer(line)).map(|line| format!("{line}\n")).collect();
    let file = std::env::temp_dir().join(format!("vambrace-test-apparmor-{}", std::process::id()));
    fs::write(&file, older).unwrap();

    let mut parser = tool("apparmor_parser", "apparmor");
    let parsed = parser.args(["-Q", "-K"]).arg(&file).stderr(Stdio::piped()).output().unwrap();

    fs::remove_file(&file).unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}
