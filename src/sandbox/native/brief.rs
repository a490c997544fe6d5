//! The launcher's brief to a child that waits inside its walls: the command, its descriptors, its secrets.
//!
//! Both sides are one program, forked from each other, so the form is plain: length-prefixed fields in a
//! fixed order, and the descriptors beside the first bytes.

use super::secrets::Held;
use crate::model::{Delivery, FileAct, LONGEST_SECRET, SecretName, SecretUse, WindowSize};
use crate::os::Sealed;
use crate::os::handover;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the child is told.
#[derive(Debug)]
pub(super) struct Brief {
    pub(super) cwd: PathBuf,
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) cpu_seconds: u64,
    /// A terminal of this size, to be made by the child; `stdio` is then not used.
    pub(super) terminal: Option<WindowSize>,
    /// An act of a file tool, to be carried out instead of a command.
    pub(super) file: Option<FileAct>,
    /// What the command gets as 0, 1 and 2.
    pub(super) stdio: Vec<OwnedFd>,
    /// Those that are to be variables.
    pub(super) secrets: Vec<Held>,
}

/// The same before it is sent: everything is borrowed.
pub(super) struct Outgoing<'a> {
    pub(super) cwd: &'a Path,
    pub(super) candidates: &'a [CString],
    pub(super) argv: &'a [CString],
    pub(super) env: &'a [CString],
    pub(super) cpu_seconds: u64,
    pub(super) terminal: Option<WindowSize>,
    pub(super) file: Option<&'a FileAct>,
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) secrets: Vec<(&'a SecretUse, &'a Sealed)>,
}

impl Outgoing<'_> {
    /// Sends it. A child that is gone has said why on its status pipe.
    pub(super) fn send(&self, channel: &OwnedFd) -> io::Result<()> {
        let mut fields = Vec::with_capacity(4096);
        fields.extend([0; LENGTH]);
        put(&mut fields, self.cwd.as_os_str().as_bytes());
        put_number(&mut fields, self.cpu_seconds);
        // No terminal has no rows.
        let size = self.terminal.unwrap_or(WindowSize { rows: 0, columns: 0 });
        put_number(&mut fields, size.rows.into());
        put_number(&mut fields, size.columns.into());
        put_file(&mut fields, self.file);
        let mut descriptors = self.stdio.to_vec();
        for list in [self.candidates, self.argv, self.env] {
            put_number(&mut fields, list.len() as u64);
            list.iter().for_each(|text| put(&mut fields, text.as_bytes()));
        }
        put_number(&mut fields, self.secrets.len() as u64);
        for (wanted, value) in &self.secrets {
            put(&mut fields, wanted.name.as_bytes());
            // No variable has an empty name.
            put(&mut fields, wanted.variable().unwrap_or_default().as_bytes());
            descriptors.push(value.as_fd());
        }
        let length = (fields.len() - LENGTH) as u64;
        fields[..LENGTH].copy_from_slice(&length.to_le_bytes());
        // In one piece as far as the socket takes it: the child wakes once. It reads at once, so the rest follows soon.
        let sent = handover::send(channel, &fields, &descriptors)?;
        File::from(channel.try_clone()?).write_all(&fields[sent..])
    }
}

/// Bytes of the length before the fields.
const LENGTH: usize = 8;

impl Brief {
    /// Waits for the brief; `None` where the launcher let go of the channel instead.
    pub(super) fn receive(mut channel: &File) -> io::Result<Option<Brief>> {
        let mut length = [0; LENGTH];
        let Some(descriptors) = handover::receive(channel, &mut length)? else { return Ok(None) };
        let mut fields = vec![0; usize::try_from(u64::from_le_bytes(length)).map_err(io::Error::other)?];
        channel.read_exact(&mut fields)?;
        let mut fields = Fields(&fields);
        let mut descriptors = descriptors.into_iter();
        let cut = || io::Error::other("the brief came without all of its descriptors");
        let stdio: Vec<OwnedFd> = descriptors.by_ref().take(3).collect();
        let cwd = fields.path()?;
        let cpu_seconds = fields.number()?;
        let size = WindowSize { rows: fields.small()?, columns: fields.small()? };
        let file = fields.file()?;
        let (candidates, argv, env) = (fields.list()?, fields.list()?, fields.list()?);
        let mut secrets = Vec::new();
        for _ in 0..fields.number()? {
            let wanted = fields.secret()?;
            secrets.push((wanted, Sealed::check(descriptors.next().ok_or_else(cut)?, LONGEST_SECRET)?));
        }
        if stdio.len() != 3 {
            return Err(cut());
        }
        let terminal = (size.rows > 0).then_some(size);
        Ok(Some(Brief { cwd, candidates, argv, env, cpu_seconds, terminal, file, stdio, secrets }))
    }
}

fn put(fields: &mut Vec<u8>, bytes: &[u8]) {
    put_number(fields, bytes.len() as u64);
    fields.extend_from_slice(bytes);
}

fn put_number(fields: &mut Vec<u8>, number: u64) {
    fields.extend(number.to_le_bytes());
}

/// A kind, two numbers and a path.
fn put_file(fields: &mut Vec<u8>, act: Option<&FileAct>) {
    let (kind, a, b) = match act {
        None => (0, 0, 0),
        Some(FileAct::Read { offset, length, .. }) => (1, *offset, *length),
        Some(FileAct::Write { append, .. }) => (2, u64::from(*append), 0),
        Some(FileAct::List { .. }) => (3, 0, 0),
    };
    [kind, a, b].iter().for_each(|number| put_number(fields, *number));
    put(fields, act.map_or("", FileAct::path).as_bytes());
}

/// What is left of the fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| io::Error::other("the brief is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(io::Error::other)?))
    }

    fn small(&mut self) -> io::Result<u16> {
        u16::try_from(self.number()?).map_err(io::Error::other)
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(io::Error::other)?;
        self.take(length)
    }

    fn path(&mut self) -> io::Result<PathBuf> {
        Ok(PathBuf::from(OsStr::from_bytes(self.bytes()?)))
    }

    fn text(&mut self) -> io::Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(io::Error::other)
    }

    fn file(&mut self) -> io::Result<Option<FileAct>> {
        let (kind, a, b, path) = (self.number()?, self.number()?, self.number()?, self.text()?.to_owned());
        Ok(match kind {
            0 => None,
            1 => Some(FileAct::Read { path, offset: a, length: b }),
            2 => Some(FileAct::Write { path, append: a != 0 }),
            3 => Some(FileAct::List { path }),
            _ => return Err(io::Error::other("the brief names no act of a file tool")),
        })
    }

    fn secret(&mut self) -> io::Result<SecretUse> {
        let name = SecretName::parse(self.text()?).map_err(|e| io::Error::other(e.to_string()))?;
        let delivery = match self.text()? {
            "" => Delivery::File,
            variable => Delivery::Variable(variable.to_owned()),
        };
        Ok(SecretUse { name, delivery })
    }

    fn list(&mut self) -> io::Result<Vec<CString>> {
        let count = self.number()?;
        (0..count).map(|_| CString::new(self.bytes()?).map_err(io::Error::other)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_brief_arrives_as_it_was_sent_with_its_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let words = |list: &[&str]| list.iter().map(|w| CString::new(*w).unwrap()).collect::<Vec<_>>();
        let uses = [Delivery::File, Delivery::Variable("V".into())]
            .map(|delivery| SecretUse { name: SecretName::parse("S").unwrap(), delivery });
        let values = [b"one", b"two"].map(|value| Sealed::new(value).unwrap());
        let (candidates, argv, env) = (words(&["/bin/x"]), words(&["x", "", "y\n"]), words(&["A=b"]));
        Outgoing {
            cwd: Path::new("c"),
            candidates: &candidates,
            argv: &argv,
            env: &env,
            cpu_seconds: 9,
            terminal: Some(WindowSize { rows: 24, columns: 80 }),
            file: Some(&FileAct::Write { path: "p".into(), append: true }),
            stdio: [null.as_fd(); 3],
            secrets: vec![(&uses[0], &values[0]), (&uses[1], &values[1])],
        }
        .send(&ours.into())
        .unwrap();

        let brief = Brief::receive(&OwnedFd::from(theirs).into()).unwrap().unwrap();

        assert_eq!(
            (brief.cwd.as_path(), brief.candidates, brief.argv, brief.env),
            (Path::new("c"), candidates, argv, env)
        );
        assert_eq!((brief.cpu_seconds, brief.stdio.len()), (9, 3));
        assert_eq!(brief.terminal, Some(WindowSize { rows: 24, columns: 80 }));
        assert_eq!(brief.file, Some(FileAct::Write { path: "p".into(), append: true }));
        let secrets = brief.secrets.iter().map(|(wanted, value)| {
            let mut bytes = [0; 3];
            value.read(&mut bytes).unwrap();
            (wanted.clone(), bytes)
        });
        let [file, variable] = uses;
        assert_eq!(secrets.collect::<Vec<_>>(), [(file, *b"one"), (variable, *b"two")]);
    }

    #[test]
    fn a_channel_that_is_let_go_is_no_brief() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(Brief::receive(&OwnedFd::from(theirs).into()).unwrap().is_none());
    }
}
