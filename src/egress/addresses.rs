//! Which addresses a sandbox may be connected to: public unicast ones, and none of the host's own. Pure.
//!
//! A name is allowed, not where it leads: whoever answers for it could answer with the metadata service of a cloud or
//! a printer of the office (DNS rebinding). The networks of RFC 5737 (TEST-NET) count as public; nobody has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses kept for one name.
const MOST: usize = 16;

const LOOPBACK: &str = "a loopback address";
const PRIVATE: &str = "an address of a private network";
const LINK_LOCAL: &str = "a link-local address, where clouds answer for their machines";
const METADATA: &str = "an address at which a cloud answers for its machines";
const MULTICAST: &str = "a multicast address";
const RESERVED: &str = "an address that is reserved";
const TRANSLATED: &str = "an address that a translator or tunnel turns into another one";
const HOSTS: &str = "an address of this host";

/// IANA's special-purpose registry (RFC 6890), as far as it is not global unicast.
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, RESERVED),
    (Ipv4Addr::new(10, 0, 0, 0), 8, PRIVATE),
    (Ipv4Addr::new(100, 64, 0, 0), 10, PRIVATE),
    (Ipv4Addr::new(127, 0, 0, 0), 8, LOOPBACK),
    // Azure's, in the midst of public ones.
    (Ipv4Addr::new(168, 63, 129, 16), 32, METADATA),
    (Ipv4Addr::new(169, 254, 0, 0), 16, LINK_LOCAL),
    (Ipv4Addr::new(172, 16, 0, 0), 12, PRIVATE),
    (Ipv4Addr::new(192, 0, 0, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 88, 99, 0), 24, TRANSLATED),
    (Ipv4Addr::new(192, 168, 0, 0), 16, PRIVATE),
    (Ipv4Addr::new(198, 18, 0, 0), 15, RESERVED),
    (Ipv4Addr::new(224, 0, 0, 0), 4, MULTICAST),
    (Ipv4Addr::new(240, 0, 0, 0), 4, RESERVED),
];

const V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, RESERVED),
    (Ipv6Addr::LOCALHOST, 128, LOOPBACK),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, TRANSLATED),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, TRANSLATED),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, TRANSLATED),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, TRANSLATED),
    // AWS; before fc00::/7, so that it is called by its name.
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, PRIVATE),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK_LOCAL),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, PRIVATE),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, MULTICAST),
];

/// What is given out today (RFC 4291, 2.4); all else is reserved.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether an address is public unicast, or what else it is.
pub(crate) fn is_public(address: IpAddr) -> Result<(), &'static str> {
    match address {
        IpAddr::V4(v4) => {
            let special =
                V4.iter().find(|(net, length, _)| within(v4.to_bits().into(), net.to_bits().into(), 32 - length));
            special.map_or(Ok(()), |(_, _, why)| Err(why))
        }
        IpAddr::V6(v6) => {
            let is_in = |net: &Ipv6Addr, length: u32| within(v6.to_bits(), net.to_bits(), 128 - length);
            if let Some((_, _, why)) = V6.iter().find(|(net, length, _)| is_in(net, *length)) {
                return Err(why);
            }
            match v6.to_ipv4() {
                Some(embedded) => is_public(IpAddr::V4(embedded)),
                None if is_in(&GLOBAL_V6.0, GLOBAL_V6.1) => Ok(()),
                None => Err(RESERVED),
            }
        }
    }
}

/// Whether a sandbox may be connected to it, where these are the host's own.
pub(super) fn judge(address: IpAddr, hosts: &[IpAddr]) -> Result<(), &'static str> {
    is_public(address)?;
    let canonical = address.to_canonical();
    if hosts.iter().any(|host| host.to_canonical() == canonical) { Err(HOSTS) } else { Ok(()) }
}

/// Of the addresses of a name those that may be connected to, IPv4 first.
///
/// # Errors
/// Where there is none: what the first one is.
pub(super) fn sift(found: &[IpAddr], hosts: &[IpAddr]) -> Result<Vec<IpAddr>, &'static str> {
    let judged = |address: &IpAddr| judge(*address, hosts);
    let mut kept: Vec<IpAddr> = Vec::new();
    for address in found {
        if judged(address).is_ok() && !kept.contains(address) {
            kept.push(*address);
        }
    }
    kept.sort_by_key(IpAddr::is_ipv6);
    kept.truncate(MOST);
    match found.iter().find_map(|address| judged(address).err()) {
        Some(why) if kept.is_empty() => Err(why),
        _ if kept.is_empty() => Err("no address at all"),
        _ => Ok(kept),
    }
}

fn within(address: u128, net: u128, host_bits: u32) -> bool {
    let shift = |bits: u128| bits.checked_shr(host_bits).unwrap_or(0);
    shift(address) == shift(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn public_addresses_may_be_reached() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.2.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.100.1",
            "203.0.113.9",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:1::1",
            "2001:db8::1",
            "2000::",
            "3fff::1",
            "::ffff:1.1.1.1",
            "::8.8.8.8",
        ] {
            assert_eq!(is_public(ip(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn every_other_address_is_refused_by_its_name() {
        let rows = [
            (
                RESERVED,
                "0.0.0.0 0.255.255.255 192.0.0.1 192.0.0.192 198.18.0.2 198.19.255.255 240.0.0.1 255.255.255.255",
            ),
            (PRIVATE, "10.0.0.1 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 172.16.0.0 172.31.255.255"),
            (PRIVATE, "192.168.0.0 192.168.255.255 fc00::1 fdff::1 fec0::1 ::ffff:10.0.0.1 ::10.0.0.1"),
            (LOOPBACK, "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::127.0.0.1"),
            (LINK_LOCAL, "169.254.169.254 169.254.0.0 fe80::1 febf::1 ::ffff:169.254.169.254"),
            (METADATA, "168.63.129.16 fd00:ec2::254"),
            (MULTICAST, "224.0.0.1 239.255.255.255 ff02::1 ff0e::1"),
            (RESERVED, ":: ::2 1000::1 4000::1 5f00::1 100::1"),
            (TRANSLATED, "192.88.99.1 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 2002:7f00:1::1 2001:0:1::1"),
        ];
        for (why, list) in rows {
            for text in list.split(' ') {
                assert_eq!(is_public(ip(text)), Err(why), "{text}");
            }
        }
    }

    #[test]
    fn the_hosts_own_addresses_are_refused_in_either_spelling() {
        let hosts = [ip("192.0.2.1"), ip("::ffff:192.0.2.7"), ip("2001:db8::1")];
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.7", "2001:db8::1"] {
            assert_eq!(judge(ip(text), &hosts), Err(HOSTS), "{text}");
        }
        assert_eq!(judge(ip("192.0.2.2"), &hosts), Ok(()));
    }

    #[test]
    fn of_many_addresses_the_public_ones_are_kept_and_ipv4_goes_first() {
        let found = ["2001:db8::2", "10.0.0.1", "192.0.2.9", "2001:db8::2", "192.0.2.8"].map(ip);
        assert_eq!(sift(&found, &[]), Ok(["192.0.2.9", "192.0.2.8", "2001:db8::2"].map(ip).to_vec()));
        assert_eq!(sift(&[ip("10.0.0.1"), ip("::1")], &[]), Err(PRIVATE));
        assert_eq!(sift(&[], &[]), Err("no address at all"));
        let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        assert_eq!(sift(&many, &[]).map(|kept| kept.len()), Ok(MOST));
    }
}
