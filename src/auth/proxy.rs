//! A trusted proxy: who is one, and what it says of the client it speaks for.
//!
//! Everything in the head that the proxy does not set is the client's own, so there is one header for the
//! user and one for the address, each read in one way (attack classes PRX-01 to PRX-13).

use crate::model::ScopeSet;
use ipnet::IpNet;
use std::net::IpAddr;

/// What the operator says of proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyRules {
    /// Where they connect from.
    pub(crate) networks: Vec<IpNet>,
    /// Users of this host whose processes are proxies, by the kernel's word.
    pub(crate) uids: Vec<u32>,
    /// Whether a proxy shows a certificate of the configured authority.
    pub(crate) shows_certificate: bool,
    /// The header that names the user, in lower case.
    pub(crate) user_header: String,
    pub(crate) users: AllowedUsers,
    /// What such a user may hold without a device, and at most with one.
    pub(crate) scopes: ScopeSet,
}

/// Which users are let in; compared in ASCII lower case, after nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowedUsers {
    /// `"*"`: whoever the identity provider knows.
    Everybody,
    These(Vec<String>),
}

impl AllowedUsers {
    /// Reads a list.
    ///
    /// # Errors
    /// What cannot be meant: an empty list, a blank or non-ASCII name.
    pub(crate) fn parse(names: &[String]) -> Result<Self, String> {
        if names.iter().any(|name| name == "*") {
            return match names.len() {
                1 => Ok(AllowedUsers::Everybody),
                _ => Err("\"*\" stands for everybody and takes no others beside it".into()),
            };
        }
        if names.is_empty() {
            return Err("is empty, so nobody could come in; \"*\" stands for everybody".into());
        }
        let tidy = |name: &String| normal(name).ok_or_else(|| format!("{name:?} is no user name in plain ASCII"));
        names.iter().map(tidy).collect::<Result<_, _>>().map(AllowedUsers::These)
    }

    /// The user's one spelling, if it is let in.
    pub(crate) fn admit(&self, name: &str) -> Option<String> {
        let name = normal(name)?;
        match self {
            AllowedUsers::Everybody => Some(name),
            AllowedUsers::These(names) => names.contains(&name).then_some(name),
        }
    }
}

/// ASCII letters small; what is not visible ASCII or could be two names is none.
fn normal(name: &str) -> Option<String> {
    let good = (1..=256).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b';' | b'"' | b'%' | b'\\'));
    good.then(|| name.to_ascii_lowercase())
}

/// What a proxy said of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// The client's address, for the throttle and the records; never a reason to trust it.
    pub(crate) client: IpAddr,
    /// The user header, as it came.
    pub(crate) user: Option<String>,
}

/// Why what a proxy sent is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyFault {
    #[error("the proxy does not say for whom it speaks: X-Forwarded-For is missing")]
    NoClient,
    #[error("X-Forwarded-For does not name an address that the proxy saw")]
    BadClient,
    #[error("the user header stands there more than once or is not plain ASCII")]
    BadUser,
}

/// What is known of the other end of a connection besides its head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerFacts {
    pub(crate) address: Option<IpAddr>,
    /// Whether it is a process of this host: loopback, or one of the host's own addresses.
    pub(crate) is_local: bool,
    /// The uid of a local process, by the kernel's word.
    pub(crate) uid: Option<u32>,
    /// Whether it showed a certificate of the configured authority.
    pub(crate) has_certificate: bool,
}

impl ProxyRules {
    /// Whether this peer is a trusted proxy. On this host an address proves nothing: there it takes a uid or a
    /// certificate (GHSA-rggc-m335-3wvj).
    pub(crate) fn is_proxy(&self, peer: &PeerFacts) -> bool {
        if peer.uid.is_some_and(|uid| self.uids.contains(&uid)) {
            return true;
        }
        let named =
            peer.address.is_some_and(|ip| self.networks.iter().any(|network| network.contains(&ip.to_canonical())));
        named && (peer.has_certificate || !(peer.is_local || self.shows_certificate))
    }

    /// Reads what a proxy says. `values` gives every value of a header, in order.
    ///
    /// # Errors
    /// Where it says nothing, or two things at once.
    pub(crate) fn read<'h>(&self, values: &dyn Fn(&str) -> Vec<&'h [u8]>) -> Result<Proxied, ProxyFault> {
        let chain = values("x-forwarded-for");
        if chain.is_empty() {
            return Err(ProxyFault::NoClient);
        }
        let user = match values(&self.user_header).as_slice() {
            [] => None,
            [one] => Some(std::str::from_utf8(one).map_err(|_| ProxyFault::BadUser)?.to_owned()),
            _ => return Err(ProxyFault::BadUser),
        };
        let user = user.filter(|name| !name.is_empty());
        if user.as_ref().is_some_and(|name| normal(name).is_none()) {
            return Err(ProxyFault::BadUser);
        }
        Ok(Proxied { client: self.client(&chain)?, user })
    }

    /// The last hop that is no proxy of ours: everything left of it is what the client wrote itself.
    fn client(&self, chain: &[&[u8]]) -> Result<IpAddr, ProxyFault> {
        let mut hops = chain.iter().rev().flat_map(|value| value.rsplit(|b| *b == b','));
        for hop in hops.by_ref().take(32) {
            let text = std::str::from_utf8(hop).map_err(|_| ProxyFault::BadClient)?.trim();
            let address = hop_address(text).ok_or(ProxyFault::BadClient)?;
            if self.networks.iter().any(|network| network.contains(&address)) {
                continue;
            }
            // A proxy that says it speaks for loopback would make a stranger look like us.
            let odd = address.is_loopback() || address.is_unspecified() || address.is_multicast();
            return if odd { Err(ProxyFault::BadClient) } else { Ok(address) };
        }
        Err(ProxyFault::BadClient)
    }
}

/// An address, in brackets or with a port as some proxies write it.
fn hop_address(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip().to_canonical());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Whatever stands in these headers, the client's address is never loopback and a user never two.
#[cfg(fuzzing)]
pub(crate) fn fuzz(first: &[u8], second: &[u8], user: &[u8]) {
    let rules = ProxyRules {
        networks: vec!["10.0.0.0/24".parse().expect("a network")],
        uids: vec![],
        shows_certificate: false,
        user_header: "x-forwarded-user".into(),
        users: AllowedUsers::Everybody,
        scopes: ScopeSet::operator(),
    };
    let values = |name: &str| if name == "x-forwarded-for" { vec![first, second] } else { vec![user] };
    if let Ok(read) = rules.read(&values) {
        assert!(!read.client.is_loopback());
        let named = read.user.and_then(|user| rules.users.admit(&user));
        assert!(named.is_none_or(|user| user.is_ascii() && !user.contains([',', ' '])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> ProxyRules {
        ProxyRules {
            networks: vec!["10.0.0.0/24".parse().unwrap(), "127.0.0.1/32".parse().unwrap()],
            uids: vec![33],
            shows_certificate: false,
            user_header: "x-forwarded-user".into(),
            users: AllowedUsers::parse(&["Ada@Example.org".into()]).unwrap(),
            scopes: ScopeSet::operator(),
        }
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Proxied, ProxyFault> {
        let values = |name: &str| pairs.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.as_bytes()).collect();
        rules().read(&values)
    }

    #[test]
    fn a_proxy_is_one_that_was_named_and_on_this_host_one_that_proves_it() {
        let rules = rules();
        let at = |ip: &str, is_local| PeerFacts { address: ip.parse().ok(), is_local, ..Default::default() };
        assert!(rules.is_proxy(&at("10.0.0.7", false)));
        assert!(rules.is_proxy(&at("::ffff:10.0.0.7", false)));
        assert!(!rules.is_proxy(&at("10.0.1.7", false)));
        assert!(!rules.is_proxy(&at("127.0.0.1", true)), "PRX-03: any local process could say so");
        assert!(!rules.is_proxy(&at("10.0.0.7", true)), "the host's own address is no other host");
        assert!(rules.is_proxy(&PeerFacts { has_certificate: true, ..at("127.0.0.1", true) }));
        assert!(rules.is_proxy(&PeerFacts { uid: Some(33), ..at("127.0.0.1", true) }));
        assert!(!rules.is_proxy(&PeerFacts { uid: Some(34), ..at("127.0.0.1", true) }));
        let strict = ProxyRules { shows_certificate: true, ..rules };
        assert!(!strict.is_proxy(&at("10.0.0.7", false)));
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_ours() {
        for (chain, client) in [
            ("203.0.113.9", "203.0.113.9"),
            ("127.0.0.1, 198.51.100.7", "198.51.100.7"),
            ("1.2.3.4, 198.51.100.7, 10.0.0.5", "198.51.100.7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("198.51.100.7:80", "198.51.100.7"),
            ("10.9.9.9", "10.9.9.9"),
        ] {
            assert_eq!(read(&[("x-forwarded-for", chain)]).unwrap().client.to_string(), client, "{chain}");
        }
        for chain in [
            "",
            "unknown",
            "203.0.113.9, ",
            "203.0.113.9, _hidden",
            "10.0.0.5",
            "127.0.0.2",
            "203.0.113.9, ::1",
            "0.0.0.0",
        ] {
            assert_eq!(read(&[("x-forwarded-for", chain)]), Err(ProxyFault::BadClient), "{chain:?}");
        }
        let two = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(read(&two).unwrap().client.to_string(), "203.0.113.9");
        assert_eq!(read(&[("forwarded", "for=1.2.3.4")]), Err(ProxyFault::NoClient));
    }

    #[test]
    fn a_user_is_one_name_in_plain_ascii() {
        let user = |name: &str| read(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-user", name)]);
        let users = rules().users;
        for name in ["ada@example.org", "ADA@example.ORG"] {
            assert_eq!(users.admit(&user(name).unwrap().user.unwrap()).as_deref(), Some("ada@example.org"));
        }
        assert_eq!(user("").unwrap().user, None);
        for name in ["аda@example.org", "ada@example.org%00", "ada@example.org,root", "ada example", "a\u{7f}"] {
            assert_eq!(user(name), Err(ProxyFault::BadUser), "{name}");
        }
        assert_eq!(users.admit("eve@example.org"), None);
        let twice = read(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-user", "ada@example.org"),
            ("x-forwarded-user", "eve"),
        ]);
        assert_eq!(twice, Err(ProxyFault::BadUser));
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused() {
        for list in [vec![], vec![""], vec!["*", "ada"], vec!["аda"], vec!["a b"]] {
            let list: Vec<String> = list.into_iter().map(str::to_owned).collect();
            assert!(AllowedUsers::parse(&list).is_err(), "{list:?}");
        }
        assert_eq!(AllowedUsers::parse(&["*".into()]), Ok(AllowedUsers::Everybody));
    }

    proptest! {
        /// Whatever a client writes, what the proxy appends on the right is the client.
        #[test]
        fn nothing_a_client_writes_moves_its_address(junk in "[ -~]{0,80}", user in "[ -~]{0,40}") {
            let chain = format!("{junk}, 198.51.100.7");
            let read = read(&[("x-forwarded-for", &chain), ("x-real-ip", &junk), ("x-forwarded-user", &user)]);
            match read {
                Ok(found) => prop_assert_eq!(found.client.to_string(), "198.51.100.7"),
                Err(fault) => prop_assert_eq!(fault, ProxyFault::BadUser),
            }
        }

        #[test]
        fn no_head_panics(chain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let values = |_: &str| chain.iter().map(Vec::as_slice).collect();
            let _ = rules().read(&values);
        }
    }
}
