//! Where a request says it comes from and for whom it is: Host, Origin, forwarding headers.
//!
//! Every one of them is checked against a closed list; none is ever used to make another (attack classes BRO-01,
//! BRO-05, PRX-01, PRX-10).

use super::Door;
use crate::auth::{Peer, ProxyFault, ProxyRules, is_tailnet};
use hyper::header::{self, HeaderMap};
use std::net::IpAddr;

/// The names we go by, besides our addresses.
pub(super) struct Names {
    /// Hosts, in lower case.
    pub(super) hosts: Vec<String>,
    /// Origins of web pages that may connect.
    pub(super) origins: Vec<String>,
}

/// Why a head is refused before anybody looks at credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    Host,
    Origin,
    Forwarded,
    Proxy(ProxyFault),
}

impl Foreign {
    /// The stable kind and a sentence.
    pub(super) fn words(self) -> (&'static str, String) {
        match self {
            Foreign::Host => ("host_not_allowed", "this Host is not served here".into()),
            Foreign::Origin => ("origin_not_allowed", "this web page may not connect".into()),
            Foreign::Forwarded => {
                let why = "forwarding headers came from a peer that is not a trusted proxy";
                ("proxy_attribution_required", why.into())
            }
            Foreign::Proxy(fault) => ("proxy_attribution_required", fault.to_string()),
        }
    }
}

/// Headers by which a proxy says that it speaks for somebody else, besides every `x-forwarded-…`.
const FORWARDING: &[&str] = &[
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-remote-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
];

pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    let says =
        |name: &str| name.starts_with("x-forwarded") || name.starts_with("tailscale-") || FORWARDING.contains(&name);
    headers.keys().any(|name| says(name.as_str()))
}

/// The one Host header without its port; `None` where there is none, two, or one that names nothing.
fn host_of(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let host = host.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    (!bare.is_empty()).then_some(bare)
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn has_loopback_host(headers: &HeaderMap) -> bool {
    host_of(headers).is_some_and(is_loopback_name)
}

impl Names {
    /// Who the other end is, where everything about the head is as it must be.
    ///
    /// # Errors
    /// What is foreign about it.
    pub(super) fn peer(&self, door: &Door, headers: &HeaderMap, rules: Option<&ProxyRules>) -> Result<Peer, Foreign> {
        // The kernel is asked about the other end at most once for each request.
        let local = match door {
            Door::Unix { .. } => true,
            Door::Tcp { theirs, .. } => theirs.ip().to_canonical().is_loopback(),
        };
        let is_forwarded = is_forwarded(headers);
        let on_tailnet = matches!(door, Door::Tcp { theirs, .. } if is_tailnet(theirs.ip()));
        let facts = (rules.is_some() || on_tailnet || (local && !is_forwarded)).then(|| door.facts());
        let via = match (rules, &facts) {
            (Some(rules), Some(facts)) if rules.is_proxy(facts) => {
                let values = |name: &str| headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
                Some(rules.read(&values).map_err(Foreign::Proxy)?)
            }
            _ if is_forwarded => return Err(Foreign::Forwarded),
            _ => None,
        };
        if !self.serves_host(door, headers, via.is_some()) {
            return Err(Foreign::Host);
        }
        let has_origin = headers.contains_key(header::ORIGIN);
        if has_origin && !self.allows_origin(headers) {
            return Err(Foreign::Origin);
        }
        Ok(match *door {
            Door::Unix { uid } => Peer::Unix { uid, via },
            Door::Tcp { theirs, .. } => {
                let is_direct = local && via.is_none() && !has_origin && has_loopback_host(headers);
                let is_local = facts.map_or(local, |facts| facts.is_local);
                let local_uid = facts.filter(|_| is_direct).and_then(|facts| facts.uid);
                Peer::Tcp { address: theirs, is_direct, is_local, local_uid, has_origin, via }
            }
        })
    }

    /// A page whose name was made to resolve to us must not reach us (DNS rebinding): a Host is one of our addresses,
    /// which no DNS has a hand in, or a name that the operator gave us.
    pub(super) fn serves_host(&self, door: &Door, headers: &HeaderMap, is_proxied: bool) -> bool {
        let Some(host) = host_of(headers) else { return matches!(door, Door::Unix { .. }) && !is_proxied };
        let named = self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        match door {
            Door::Unix { .. } => named || !is_proxied || is_loopback_name(host),
            Door::Tcp { ours, .. } => {
                let ours = ours.ip().to_canonical();
                let literal = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == ours);
                named || literal || (ours.is_loopback() && is_loopback_name(host))
            }
        }
    }

    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
        self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes())
    }

    /// Whether a browser says that another site's page made this request (Fetch Metadata).
    pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
        headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
    }
}

/// Kept for the probes, which tell more to a process of this host.
pub(super) fn is_direct(door: &Door, headers: &HeaderMap) -> bool {
    match door {
        Door::Unix { .. } => true,
        Door::Tcp { theirs, .. } => theirs.ip().is_loopback() && !is_forwarded(headers) && has_loopback_host(headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn door(ours: &str) -> Door {
        let theirs = "127.0.0.1:5".parse().unwrap();
        Door::Tcp { theirs, ours: ours.parse().unwrap(), has_certificate: false }
    }

    fn names() -> Names {
        Names { hosts: vec!["gw.example.org".into()], origins: vec!["https://ui.example.org".into()] }
    }

    #[test]
    fn a_host_is_an_address_of_ours_or_a_name_that_was_given() {
        let serves = |ours: &str, host: &str| names().serves_host(&door(ours), &headers(&[("host", host)]), false);
        for host in [
            "127.0.0.1",
            "127.0.0.1:18789",
            "localhost",
            "LOCALHOST:1",
            "[::1]",
            "[::1]:18789",
            "127.9.9.9:5",
            "gw.example.org",
            "GW.example.org:443",
        ] {
            assert!(serves("127.0.0.1:1", host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:18789",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "localhost.",
            "",
            "0.0.0.0",
            "127.0.0.1@evil",
            "[::1",
            "2130706433",
            "127.1",
            "gw.example.org.",
            "xgw.example.org",
        ] {
            assert!(!serves("127.0.0.1:1", host), "{host}");
        }
        assert!(serves("192.0.2.1:1", "192.0.2.1") && serves("[::ffff:192.0.2.1]:1", "192.0.2.1:1"));
        assert!(!serves("192.0.2.1:1", "192.0.2.2") && !serves("192.0.2.1:1", "localhost"));
        assert!(!names().serves_host(&door("127.0.0.1:1"), &headers(&[]), false));
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert!(!names().serves_host(&door("127.0.0.1:1"), &twice, false));
    }

    #[test]
    fn an_origin_is_on_the_list_letter_by_letter() {
        let allows = |origin: &str| names().allows_origin(&headers(&[("origin", origin)]));
        assert!(allows("https://ui.example.org"));
        for origin in [
            "https://ui.example.org:443",
            "http://ui.example.org",
            "https://ui.example.org.evil",
            "null",
            "https://UI.example.org",
        ] {
            assert!(!allows(origin), "{origin}");
        }
    }

    #[test]
    fn every_spelling_of_a_forwarding_header_marks_a_request() {
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-prefix", "x-real-ip", "via", "x-client-ip"] {
            assert!(is_forwarded(&headers(&[(name, "x")])), "{name}");
        }
        assert!(!is_forwarded(&headers(&[("host", "localhost"), ("user-agent", "x")])));
    }

    proptest! {
        /// No spelling of a Host that is not ours is taken for ours.
        #[test]
        fn no_host_that_is_foreign_is_served(host in "[a-z0-9.:@\\[\\]-]{1,40}") {
            if let Ok(value) = HeaderValue::from_str(&host) {
                let mut map = HeaderMap::new();
                map.insert(header::HOST, value);
                if names().serves_host(&door("127.0.0.1:1"), &map, false) {
                    let bare = host_of(&map).unwrap().to_owned();
                    prop_assert!(is_loopback_name(&bare) || bare == "gw.example.org");
                }
            }
        }
    }
}
