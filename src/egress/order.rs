//! The only format between the runner and `vambrace egress`: one order in, one line out for each thing that happened.
//!
//! An order is a length (u32, little-endian) and JSON, with the sockets beside its first bytes. The runner trusts no
//! line: whoever writes them reads what a sandbox sends.

use crate::model::{BadDomain, Domain, Reach};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

const VERSION: u32 = 1;

/// Bytes of JSON in one order.
pub(super) const LONGEST_ORDER: usize = 256 << 10;

/// Ports of one run. Each is a listener beside the two of the name server, and a message takes 253 (SCM_MAX_FD).
const MOST_PORTS: usize = 128;

/// Bytes of one report with its line feed.
const LONGEST_LINE: usize = 1024;

/// Characters of a reason; with the longest name a line stays far below its bound.
const LONGEST_REASON: usize = 120;

/// What one run may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    domains: Vec<Domain>,
    ports: Vec<u16>,
    refused: Vec<IpAddr>,
}

/// Why an order is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadOrder {
    #[error("it is longer than {LONGEST_ORDER} bytes")]
    TooLong,
    #[error("it is not understood: {0}")]
    Format(serde_json::Error),
    #[error("it has version {0}, and this is version {VERSION}")]
    Version(u32),
    #[error("it names a domain that is none: {0}")]
    Domain(BadDomain),
    #[error("its ports are not those of its domains")]
    Ports,
    #[error("it has more than {MOST_PORTS} ports")]
    TooManyPorts,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderText {
    version: u32,
    domains: Vec<DomainText>,
    ports: Vec<u16>,
    refused: Vec<IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainText {
    name: String,
    wildcard: bool,
    ports: Vec<u16>,
}

impl Order {
    /// These domains, and no address of the host.
    ///
    /// # Errors
    /// TooManyPorts.
    pub(crate) fn new(domains: Vec<Domain>, refused: Vec<IpAddr>) -> Result<Self, BadOrder> {
        let ports = Domain::ports_of(&domains);
        if ports.len() > MOST_PORTS {
            return Err(BadOrder::TooManyPorts);
        }
        Ok(Order { domains, ports, refused })
    }

    /// The ports that need a listener, in the order in which the descriptors are handed over.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Neither these addresses.
    pub(super) fn refuse(&mut self, addresses: Vec<IpAddr>) {
        self.refused.extend(addresses);
    }

    pub(super) fn into_parts(self) -> (Vec<Domain>, Vec<IpAddr>) {
        (self.domains, self.refused)
    }

    /// The order with its length before it.
    ///
    /// # Errors
    /// TooLong.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BadOrder> {
        let domain = |domain: &Domain| DomainText {
            name: domain.name().to_owned(),
            wildcard: domain.reach() == Reach::Below,
            ports: domain.ports().to_vec(),
        };
        let (ports, refused) = (self.ports.clone(), self.refused.clone());
        let text = OrderText { version: VERSION, domains: self.domains.iter().map(domain).collect(), ports, refused };
        let json = serde_json::to_vec(&text).map_err(BadOrder::Format)?;
        let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= LONGEST_ORDER).ok_or(BadOrder::TooLong)?;
        Ok([length.to_le_bytes().as_slice(), &json].concat())
    }

    /// Reads the JSON of an order.
    pub(super) fn decode(json: &[u8]) -> Result<Self, BadOrder> {
        let text: OrderText = serde_json::from_slice(json).map_err(BadOrder::Format)?;
        if text.version != VERSION {
            return Err(BadOrder::Version(text.version));
        }
        let domain = |text: &DomainText| {
            let reach = if text.wildcard { Reach::Below } else { Reach::Exact };
            Domain::new(&text.name, reach, &text.ports).map_err(BadOrder::Domain)
        };
        let domains = text.domains.iter().map(domain).collect::<Result<_, _>>()?;
        let order = Order::new(domains, text.refused)?;
        if order.ports == text.ports { Ok(order) } else { Err(BadOrder::Ports) }
    }
}

/// What happened. Each connection gives one of the three in the middle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Report {
    /// The host's resolver said where a name leads; the first address of those that may be reached.
    Resolved { name: String, address: IpAddr },
    /// A name leads nowhere; said once for each name.
    RefusedName { name: String, why: String },
    /// A connection to this name and port came about, at this address.
    Connected { name: String, port: u16, address: IpAddr },
    /// A connection was refused; the address is the one that the command dialled, the name that which it stands for.
    RefusedConnection {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        name: Option<String>,
        port: u16,
        address: IpAddr,
        why: String,
    },
    /// A connection was allowed and did not come about; the address is the last that was tried.
    Failed { name: String, port: u16, address: IpAddr, why: String },
    /// So many were not said: nobody read them, or there were too many names.
    Dropped { count: u64 },
}

impl Report {
    /// The line, with its line feed.
    pub(super) fn encode(mut self) -> Vec<u8> {
        if let Report::RefusedName { why, .. } | Report::RefusedConnection { why, .. } | Report::Failed { why, .. } =
            &mut self
        {
            *why = why.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
        }
        let mut line = serde_json::to_vec(&self).unwrap_or_default();
        line.push(b'\n');
        debug_assert!(line.len() <= LONGEST_LINE, "{}", line.len());
        line
    }

    /// Reads a line without its line feed; `None` where it is none of ours or says what no egress process would say.
    pub(crate) fn decode(line: &[u8]) -> Option<Self> {
        if line.len() >= LONGEST_LINE {
            return None;
        }
        let report: Report = serde_json::from_slice(line).ok()?;
        let (name, why) = match &report {
            Report::Resolved { name, .. } | Report::Connected { name, .. } => (Some(name), None),
            Report::RefusedName { name, why } | Report::Failed { name, why, .. } => (Some(name), Some(why)),
            Report::RefusedConnection { name, why, .. } => (name.as_ref(), Some(why)),
            Report::Dropped { .. } => (None, None),
        };
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.?".contains(&b);
        let is_plain = name.is_none_or(|n| !n.is_empty() && n.len() <= 253 && n.bytes().all(is_name))
            && why.is_none_or(|w| w.chars().count() <= LONGEST_REASON && !w.chars().any(char::is_control));
        is_plain.then_some(report)
    }
}

/// The reports of one egress process, put together from what its socket gives.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// The beginning of a line.
    begun: Vec<u8>,
}

/// The other side does not keep to the format; nothing more of it is worth reading.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the egress process wrote what is no report")]
pub(crate) struct BadReport;
impl Reports {
    /// Takes what was read and gives every report that is whole now.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Report>, BadReport> {
        let mut whole = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.begun.len() + part.len() >= LONGEST_LINE {
                return Err(BadReport);
            }
            self.begun.extend(part);
            if parts.peek().is_some() {
                whole.push(Report::decode(&std::mem::take(&mut self.begun)).ok_or(BadReport)?);
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn every_report() -> Vec<Report> {
        let (name, why) = (|| "a.example".to_owned(), || "a reason".to_owned());
        vec![
            Report::Resolved { name: name(), address: ADDRESS },
            Report::RefusedName { name: name(), why: why() },
            Report::Connected { name: name(), port: 443, address: "2001:db8::1".parse().unwrap() },
            Report::RefusedConnection { name: Some(name()), port: 80, address: ADDRESS, why: why() },
            Report::RefusedConnection { name: None, port: 80, address: ADDRESS, why: why() },
            Report::Failed { name: name(), port: 80, address: ADDRESS, why: why() },
            Report::Dropped { count: 7 },
        ]
    }

    #[test]
    fn an_order_is_read_as_written() {
        let domains = ["crates.io", "*.example.org:8443"].map(|text| Domain::parse(text).unwrap()).to_vec();
        let order = Order::new(domains, vec![ADDRESS]).unwrap();
        assert_eq!(order.ports(), [80, 443, 8443]);
        let bytes = order.encode().unwrap();
        let (length, json) = bytes.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_le_bytes(*length) as usize, json.len());
        let expected = r#"{"version":1,"domains":[{"name":"crates.io","wildcard":false,"ports":[443,80]},{"name":"example.org","wildcard":true,"ports":[8443]}],"ports":[80,443,8443],"refused":["192.0.2.1"]}"#;
        assert_eq!(std::str::from_utf8(json).unwrap(), expected);
        assert_eq!(Order::decode(json).unwrap(), order);
    }

    #[test]
    fn an_order_that_is_not_exactly_one_is_refused() {
        let rows = [
            r#"{"version":1,"domains":[],"ports":[],"refused":[],"more":1}"#,
            r#"{"version":2,"domains":[],"ports":[],"refused":[]}"#,
            r#"{"version":1,"domains":[],"ports":[80],"refused":[]}"#,
            r#"{"version":1,"domains":[],"ports":[],"refused":["nowhere"]}"#,
            r#"{"version":1,"domains":[{"name":"org","wildcard":false,"ports":[80]}],"ports":[80],"refused":[]}"#,
            r#"{"version":1,"domains":[{"name":"a.org","wildcard":false,"ports":[]}],"ports":[],"refused":[]}"#,
            r#"{"version":1,"domains":[{"name":"a.org","wildcard":false,"ports":[80,443]}],"ports":[443,80],"refused":[]}"#,
        ];
        for row in rows {
            assert!(Order::decode(row.as_bytes()).is_err(), "{row}");
        }
        assert!(Order::decode(br#"{"version":1,"domains":[],"ports":[],"refused":[]}"#).is_ok());
        let many = |ports: std::ops::Range<u16>| {
            let domain = |port| Domain::new("a.example", Reach::Exact, &[port]).unwrap();
            Order::new(ports.map(domain).collect(), Vec::new())
        };
        assert!(many(1000..1128).is_ok());
        assert!(matches!(many(1000..1129), Err(BadOrder::TooManyPorts)));
    }

    #[test]
    fn reports_are_read_as_written_however_the_socket_cuts_them() {
        let all = every_report();
        let bytes: Vec<u8> = all.iter().cloned().flat_map(Report::encode).collect();
        let mut reports = Reports::default();
        let read: Vec<Report> = bytes.chunks(7).flat_map(|part| reports.take(part).unwrap()).collect();
        assert_eq!(read, all);
        let line = |report: &Report| String::from_utf8(report.clone().encode()).unwrap();
        assert_eq!(line(&all[0]), "{\"kind\":\"resolved\",\"name\":\"a.example\",\"address\":\"192.0.2.1\"}\n");
        assert_eq!(line(&all[6]), "{\"kind\":\"dropped\",\"count\":7}\n");
    }

    #[test]
    fn the_longest_report_fits_into_a_line() {
        let address = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        let why = "😀\n".repeat(500);
        let report = Report::Failed { name: "a".repeat(253), port: u16::MAX, address, why };
        let line = report.encode();
        assert!(line.len() <= LONGEST_LINE, "{}", line.len());
        assert!(Report::decode(&line[..line.len() - 1]).is_some());
    }

    #[test]
    fn a_line_that_no_egress_process_writes_is_no_report() {
        let long = format!("{{\"kind\":\"refused-name\",\"name\":\"{}\",\"why\":\"\"}}", "a".repeat(254));
        let rows = [
            "",
            "{}",
            r#"{"kind":"else"}"#,
            r#"{"kind":"dropped","count":1,"name":"a"}"#,
            r#"{"kind":"dropped","count":-1}"#,
            r#"{"kind":"refused-name","name":"a\u001b[2J","why":"b"}"#,
            r#"{"kind":"refused-name","name":"","why":"b"}"#,
            r#"{"kind":"refused-name","name":"a","why":"b\u0007"}"#,
            &long,
        ];
        for row in rows {
            assert_eq!(Report::decode(row.as_bytes()), None, "{row}");
        }
        let mut reports = Reports::default();
        assert_eq!(reports.take(&[b'a'; 900]), Ok(Vec::new()));
        assert_eq!(reports.take(&[b'a'; 900]), Err(BadReport));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500), cut in 0usize..40) {
            let _ = Order::decode(&bytes);
            let _ = Report::decode(&bytes);
            let mut line = every_report()[cut % 7].clone().encode();
            line.truncate(line.len().saturating_sub(cut));
            line.extend(&bytes);
            let _ = Reports::default().take(&line);
        }
    }
}
