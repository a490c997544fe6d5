//! What the file tools do: small acts inside the walls, on literal relative paths of the workspace.

/// One act on a file of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileAct {
    /// Bytes of a regular file.
    Read { path: String, offset: u64, length: u64 },
    /// Takes the place of a regular file in one step, or adds to its end.
    Write { path: String, append: bool },
    /// Names in a folder; of the workspace itself where the path is empty.
    List { path: String },
}

/// Most bytes that one act reads or writes.
pub(crate) const LONGEST_PIECE: u64 = 256 << 10;

/// Most names that a list holds; a longer one says that it was cut.
pub(crate) const LONGEST_LIST: usize = 10_000;

impl FileAct {
    /// The name of the method that asks for it.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            FileAct::Read { .. } => "sandbox.file.read",
            FileAct::Write { .. } => "sandbox.file.write",
            FileAct::List { .. } => "sandbox.file.list",
        }
    }

    pub(crate) fn path(&self) -> &str {
        match self {
            FileAct::Read { path, .. } | FileAct::Write { path, .. } | FileAct::List { path } => path,
        }
    }

    /// Why a text is no path of a file tool; `None` where it is one. What looks like something else than a plain relative
    /// path is an error and never rewritten: two readings of one path are how workspaces are left (CVE-2026-32846).
    pub(crate) fn refused_path(path: &str) -> Option<&'static str> {
        if path.len() > 4096 {
            return Some("is longer than 4096 bytes");
        }
        if path.contains('\0') {
            return Some("holds a NUL byte");
        }
        if path.starts_with('/') {
            return Some("is absolute; give it relative to the workspace");
        }
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        (!path.is_empty() && !path.split('/').all(is_plain)).then_some("has an empty part, '.' or '..'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_file_tool_is_plain_and_relative() {
        for good in ["", "a", "a/b.c", "~x", "@/etc", "%2e%2e/x", "..\\x", "a ", "a.", "file:x", "$HOME"] {
            assert_eq!(FileAct::refused_path(good), None, "{good:?}");
        }
        for bad in ["/", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a\0b", "file:///etc", &"a".repeat(5000)] {
            assert!(FileAct::refused_path(bad).is_some(), "{bad:?}");
        }
    }
}
