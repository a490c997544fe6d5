//! A domain that a sandbox may reach, with its ports: one entry of an allowlist.
//!
//! Knows nothing of DNS or sockets. Keeps true: a name is a host name in lower case with two labels or more, never an
//! address in any spelling that a resolver would take for one.

use std::fmt;
use std::str::FromStr;

/// The ports of an entry that names none: HTTPS and HTTP.
const DEFAULT_PORTS: &[u16] = &[443, 80];

/// Ports of one entry; more are a mistake.
const MOST_PORTS: usize = 16;

/// RFC 1035, 2.3.4: 255 bytes with the length bytes, so 253 of text.
pub(crate) const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The sandbox asks its names there, so nothing else can listen on it.
const NAME_SERVER_PORT: u16 = 53;

/// Which names an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The name itself.
    Exact,
    /// Everything below it, at any depth, and not the name itself.
    Below,
}

/// One entry: `crates.io`, `*.crates.io`, `example.org:8443`, `example.org:80,8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    name: String,
    reach: Reach,
    ports: Vec<u16>,
}

/// Why an entry is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDomain {
    #[error("an address is not a domain; name the host")]
    Address,
    #[error("a part of the name is empty")]
    EmptyLabel,
    #[error("the name or a part of it is too long (253 characters, 63 between dots)")]
    TooLong,
    #[error(
        "only ASCII letters, digits, `-` and `_` may stand between dots, and no `-` at an end; write other letters in Punycode"
    )]
    Characters,
    #[error("`*` may stand alone in front of the first dot, as in `*.example.org`, and nowhere else")]
    Wildcard,
    #[error("the name needs a dot: hosts of one word are the local network's")]
    SingleLabel,
    #[error("a port is a number from 1 to 65535, and an entry has one to sixteen")]
    Port,
    #[error("port 53 is where the sandbox asks for names")]
    NameServerPort,
}

impl Domain {
    /// An entry of these parts; the name in any case, without `*.`.
    pub(crate) fn new(name: &str, reach: Reach, ports: &[u16]) -> Result<Self, BadDomain> {
        let name = host_name(name)?;
        if ports.is_empty() || ports.len() > MOST_PORTS || ports.contains(&0) {
            return Err(BadDomain::Port);
        }
        if ports.contains(&NAME_SERVER_PORT) {
            return Err(BadDomain::NameServerPort);
        }
        let mut distinct: Vec<u16> = Vec::new();
        for port in ports {
            if !distinct.contains(port) {
                distinct.push(*port);
            }
        }
        Ok(Domain { name, reach, ports: distinct })
    }

    /// An entry as an operator writes it.
    pub(crate) fn parse(text: &str) -> Result<Self, BadDomain> {
        if text.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() || text.starts_with('[') {
            return Err(BadDomain::Address);
        }
        let (name, ports) = match text.split_once(':') {
            Some((name, ports)) => {
                let ports: Result<Vec<u16>, BadDomain> = ports.split(',').map(port).collect();
                (name, ports?)
            }
            None => (text, DEFAULT_PORTS.to_vec()),
        };
        match name.strip_prefix("*.") {
            Some(below) => Self::new(below, Reach::Below, &ports),
            None => Self::new(name, Reach::Exact, &ports),
        }
    }

    /// Whether it is for this name, which is given in lower case and without a dot at its end.
    pub(crate) fn covers(&self, name: &str) -> bool {
        match self.reach {
            Reach::Exact => name == self.name,
            // What stands in front goes to the host's resolver, so it is held to the same letters.
            Reach::Below => {
                let front = name.strip_suffix(&self.name).and_then(|front| front.strip_suffix('.'));
                name.len() <= LONGEST_NAME && front.is_some_and(|front| front.split('.').all(|l| label(l).is_ok()))
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Each port of these entries once, ascending.
    pub(crate) fn ports_of(domains: &[Domain]) -> Vec<u16> {
        let mut ports: Vec<u16> = domains.iter().flat_map(|domain| domain.ports.iter().copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

impl FromStr for Domain {
    type Err = BadDomain;

    fn from_str(text: &str) -> Result<Self, BadDomain> {
        Self::parse(text)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reach == Reach::Below {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)?;
        if self.ports == DEFAULT_PORTS {
            return Ok(());
        }
        for (at, port) in self.ports.iter().enumerate() {
            write!(f, "{}{port}", if at == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

/// Digits alone: `u16::from_str` also takes a plus.
fn port(text: &str) -> Result<u16, BadDomain> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_err(|_| BadDomain::Port)
    } else {
        Err(BadDomain::Port)
    }
}

fn host_name(text: &str) -> Result<String, BadDomain> {
    if text.contains('*') {
        return Err(BadDomain::Wildcard);
    }
    if text.len() > LONGEST_NAME {
        return Err(BadDomain::TooLong);
    }
    text.split('.').try_for_each(label)?;
    let Some((_, last)) = text.rsplit_once('.') else { return Err(BadDomain::SingleLabel) };
    // No top-level domain begins with a digit, and inet_aton(3) takes 127.1 and 0x7f.0.0.0x1 for addresses.
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(BadDomain::Address);
    }
    Ok(text.to_ascii_lowercase())
}

fn label(text: &str) -> Result<(), BadDomain> {
    if text.is_empty() {
        return Err(BadDomain::EmptyLabel);
    }
    if text.len() > LONGEST_LABEL {
        return Err(BadDomain::TooLong);
    }
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_plain || text.starts_with('-') || text.ends_with('-') {
        return Err(BadDomain::Characters);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_name_perhaps_a_star_and_perhaps_ports() {
        let rows = [
            ("crates.io", "crates.io", Reach::Exact, vec![443, 80], "crates.io"),
            ("*.Crates.IO", "crates.io", Reach::Below, vec![443, 80], "*.crates.io"),
            ("example.org:8443", "example.org", Reach::Exact, vec![8443], "example.org:8443"),
            ("*.a.example.org:1,2,1", "a.example.org", Reach::Below, vec![1, 2], "*.a.example.org:1,2"),
            ("example.org:443,80", "example.org", Reach::Exact, vec![443, 80], "example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", Reach::Exact, vec![443, 80], "xn--bcher-kva.example"),
            ("_a.1.example", "_a.1.example", Reach::Exact, vec![443, 80], "_a.1.example"),
        ];
        for (text, name, reach, ports, shown) in rows {
            let domain = Domain::parse(text).unwrap();
            assert_eq!((domain.name(), domain.reach(), domain.ports()), (name, reach, ports.as_slice()), "{text}");
            assert_eq!(domain.to_string(), shown);
            assert_eq!(Domain::parse(shown).unwrap(), domain);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_reason() {
        let long = format!("{}.org", "a".repeat(64));
        let longer = format!("{}org", "a.".repeat(126));
        let rows = [
            ("", BadDomain::EmptyLabel),
            ("*", BadDomain::Wildcard),
            ("*.", BadDomain::EmptyLabel),
            ("*.*.example.org", BadDomain::Wildcard),
            ("a*.example.org", BadDomain::Wildcard),
            ("www.*.org", BadDomain::Wildcard),
            ("*.org", BadDomain::SingleLabel),
            ("localhost", BadDomain::SingleLabel),
            ("org:443", BadDomain::SingleLabel),
            ("192.0.2.1", BadDomain::Address),
            ("192.0.2.1:443", BadDomain::Address),
            ("127.1", BadDomain::Address),
            ("0x7f.0.0.0x1", BadDomain::Address),
            ("::1", BadDomain::Address),
            ("[::1]", BadDomain::Address),
            ("[2001:db8::1]:443", BadDomain::Address),
            ("a..example.org", BadDomain::EmptyLabel),
            (".example.org", BadDomain::EmptyLabel),
            ("example.org.", BadDomain::EmptyLabel),
            ("exa mple.org", BadDomain::Characters),
            ("-a.example.org", BadDomain::Characters),
            ("a-.example.org", BadDomain::Characters),
            ("bücher.example", BadDomain::Characters),
            ("https://example.org", BadDomain::Port),
            ("example.org/path", BadDomain::Characters),
            ("example.org:", BadDomain::Port),
            ("example.org:0", BadDomain::Port),
            ("example.org:+443", BadDomain::Port),
            ("example.org:65536", BadDomain::Port),
            ("example.org:443:80", BadDomain::Port),
            ("example.org:53", BadDomain::NameServerPort),
            (&long, BadDomain::TooLong),
            (&longer, BadDomain::TooLong),
        ];
        for (text, why) in rows {
            assert_eq!(Domain::parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_star_is_for_all_below_and_not_for_the_name_itself() {
        let (exact, below) = (Domain::parse("example.org").unwrap(), Domain::parse("*.example.org").unwrap());
        let rows = [
            ("example.org", true, false),
            ("a.example.org", false, true),
            ("a.b.example.org", false, true),
            ("badexample.org", false, false),
            ("example.org.evil.net", false, false),
            (".example.org", false, false),
            ("a..example.org", false, false),
            ("a?.example.org", false, false),
            ("", false, false),
        ];
        for (name, by_exact, by_below) in rows {
            assert_eq!((exact.covers(name), below.covers(name)), (by_exact, by_below), "{name:?}");
        }
    }
}
