//! The allowlist of one run: which names, and which ports of them. Pure; what an entry is, `model::Domain` says.

use crate::model::Domain;

/// Every entry of one run.
#[derive(Debug)]
pub(super) struct Allowlist(Vec<Domain>);

impl Allowlist {
    pub(super) fn new(domains: Vec<Domain>) -> Self {
        Self(domains)
    }

    /// Whether a name may be asked for, given in lower case.
    pub(super) fn judge_name(&self, name: &str) -> Result<(), &'static str> {
        if self.0.iter().any(|domain| domain.covers(name)) { Ok(()) } else { Err("the name is not on the list") }
    }

    /// Whether a port of a name may be connected to. Entries add up.
    pub(super) fn judge_port(&self, name: &str, port: u16) -> Result<(), &'static str> {
        self.judge_name(name)?;
        let is_open = self.0.iter().any(|domain| domain.covers(name) && domain.ports().contains(&port));
        if is_open { Ok(()) } else { Err("the port is not on the list for this name") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_add_up_and_none_lends_its_ports_to_another_name() {
        let entries = ["crates.io", "*.crates.io:8443", "static.crates.io:80"];
        let list = Allowlist::new(entries.map(|text| Domain::parse(text).unwrap()).to_vec());
        let rows = [
            ("crates.io", 443, true),
            ("crates.io", 80, true),
            ("crates.io", 8443, false),
            ("index.crates.io", 8443, true),
            ("index.crates.io", 80, false),
            ("static.crates.io", 80, true),
            ("static.crates.io", 8443, true),
            ("static.crates.io", 443, false),
            ("example.org", 443, false),
        ];
        for (name, port, is_open) in rows {
            assert_eq!(list.judge_port(name, port).is_ok(), is_open, "{name}:{port}");
        }
        assert_eq!(list.judge_name("example.org"), Err("the name is not on the list"));
        assert!(Allowlist::new(Vec::new()).judge_name("crates.io").is_err());
    }
}
