//! Where the gateway listens and whom it lets in, from what a person wrote: what cannot be meant, or would leave a
//! door open by a slip, is refused by its key.

use super::file::{AuthMode, ConfigFault, File, LocalTrustFile, Operator, TailnetFile, TrustedProxyFile};
use crate::auth::{AllowedUsers, LocalTrust, Mode, ProxyRules, TailnetRules, is_tailnet};
use crate::model::{Scope, ScopeSet};
use crate::os;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where tailscaled listens on Linux.
const TAILSCALED: &str = "/run/tailscale/tailscaled.sock";

/// Everything about doors.
#[derive(Debug, Clone)]
pub(crate) struct DoorSettings {
    pub(crate) address: SocketAddr,
    pub(crate) mode: Mode,
    pub(crate) local_trust: LocalTrust,
    /// Root, ourselves and those named.
    pub(crate) operators: Vec<u32>,
    /// Whether there are others than root and ourselves among them.
    pub(crate) has_named_operators: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) public_url: Option<String>,
    pub(crate) tls: Option<TlsSource>,
    /// PEM of the authority of proxies.
    pub(crate) client_ca: Option<PathBuf>,
}

impl DoorSettings {
    /// Whether a process of this host can come in without showing anything.
    pub(super) fn asks_nothing_of_local_processes(&self) -> bool {
        self.mode == Mode::None || matches!(self.local_trust, LocalTrust::SameUser | LocalTrust::Loopback)
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsSource {
    /// Made at the first start, kept in the state folder.
    Own,
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
}

/// Reads one part of the file; knows its path for faults.
pub(super) struct DoorReader<'a> {
    pub(super) path: &'a Path,
}

type Read<T> = Result<T, ConfigFault>;

impl DoorReader<'_> {
    fn fault<T>(&self, key: &str, message: impl Into<String>, hint: &str) -> Read<T> {
        Err(ConfigFault::at_key(self.path, key, message, hint))
    }

    /// Everything about doors.
    pub(super) fn read(&self, file: &File, bind: &str, port: u16) -> Read<DoorSettings> {
        let gateway = &file.gateway;
        let auth = &gateway.auth;
        let operators = self.users("gateway.auth.operators", &auth.operators)?;
        let own = [0, os::process::uid()].into_iter().chain(operators.iter().copied()).collect::<Vec<_>>();
        let local_trust = match auth.local_trust {
            None | Some(LocalTrustFile::Socket) => LocalTrust::Socket,
            Some(LocalTrustFile::SameUser) => LocalTrust::SameUser,
            Some(LocalTrustFile::Loopback) => LocalTrust::Loopback,
            Some(LocalTrustFile::Off) => LocalTrust::Off,
        };
        let settings = DoorSettings {
            address: SocketAddr::new(self.bind(bind)?, port),
            mode: self.mode(file, &own)?,
            local_trust,
            has_named_operators: !auth.operators.is_empty(),
            operators: own,
            hosts: gateway.hosts.iter().map(|host| self.host(host)).collect::<Read<_>>()?,
            origins: gateway.allowed_origins.iter().map(|origin| self.origin(origin)).collect::<Read<_>>()?,
            public_url: gateway.public_url.as_deref().map(|url| self.public_url(url)).transpose()?,
            tls: self.tls(file)?,
            client_ca: auth.trusted_proxy.as_ref().and_then(|p| p.client_ca.clone()),
        };
        self.check(&settings)?;
        Ok(settings)
    }

    /// What only shows when all of it is seen together.
    fn check(&self, settings: &DoorSettings) -> Read<()> {
        let wide = !settings.address.ip().is_loopback();
        let proxies = matches!(&settings.mode, Mode::TrustedProxy(rules) if !rules.networks.is_empty());
        if wide && settings.mode == Mode::None {
            let hint = "choose another mode, or bind = \"loopback\"";
            return self.fault("gateway.auth.mode", "\"none\" is for loopback alone", hint);
        }
        if wide && settings.tls.is_none() && !proxies {
            let why = format!(
                "{} is not a loopback address, and there is neither TLS nor a trusted proxy",
                settings.address.ip()
            );
            let hint = "set gateway.tls.enabled = true, or stay on loopback and come through ssh -L";
            return self.fault("gateway.bind", why, hint);
        }
        if settings.client_ca.is_some() && settings.tls.is_none() {
            let hint = "set gateway.tls.enabled = true, or name the proxy's user in `users`";
            return self.fault("gateway.auth.trusted_proxy.client_ca", "a certificate is only shown in TLS", hint);
        }
        let second_door = matches!(settings.local_trust, LocalTrust::SameUser | LocalTrust::Loopback);
        if second_door && matches!(settings.mode, Mode::TrustedProxy(_) | Mode::Tailnet(_)) {
            let why = "beside a trusted proxy or a tailnet it would be a second door for processes of this host";
            return self.fault(
                "gateway.auth.local_trust",
                why,
                "leave it at \"socket\": the unix socket is the operator's door",
            );
        }
        Ok(())
    }

    fn bind(&self, bind: &str) -> Read<IpAddr> {
        let key = "gateway.bind";
        match bind {
            "loopback" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "lan" => Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            "tailnet" => match os::host::addresses().into_iter().find(|ip| is_tailnet(*ip)) {
                Some(ip) => Ok(ip),
                None => {
                    self.fault(key, "no interface has a tailnet address", "is tailscaled up? `tailscale ip` shows it")
                }
            },
            text => match text.parse::<IpAddr>() {
                Ok(ip) => Ok(ip),
                Err(_) => {
                    let why = format!("{text:?} is neither `loopback`, `tailnet`, `lan` nor an address");
                    self.fault(key, why, "a name could resolve to anything, so it takes an address")
                }
            },
        }
    }

    fn mode(&self, file: &File, operators: &[u32]) -> Read<Mode> {
        let auth = &file.gateway.auth;
        let mode = auth.mode.unwrap_or(AuthMode::Token);
        let unused = |section: &str| {
            let why = format!("it is set, but gateway.auth.mode is not {:?}", section.replace('_', "-"));
            self.fault(
                &format!("gateway.auth.{section}"),
                why,
                "one way in at a time: set the mode, or remove the section",
            )
        };
        if auth.trusted_proxy.is_some() && mode != AuthMode::TrustedProxy {
            return unused("trusted_proxy");
        }
        if auth.tailnet.is_some() && mode != AuthMode::Tailnet {
            return unused("tailnet");
        }
        Ok(match mode {
            AuthMode::Token => Mode::Token,
            AuthMode::Password => Mode::Password,
            AuthMode::None => Mode::None,
            AuthMode::TrustedProxy => {
                Mode::TrustedProxy(self.proxy(&auth.trusted_proxy.clone().unwrap_or_default(), operators)?)
            }
            AuthMode::Tailnet => Mode::Tailnet(self.tailnet(&auth.tailnet.clone().unwrap_or_default())?),
        })
    }

    fn proxy(&self, file: &TrustedProxyFile, operators: &[u32]) -> Read<ProxyRules> {
        let key = |name: &str| format!("gateway.auth.trusted_proxy.{name}");
        let networks = file.proxies.iter().map(|text| self.network(text)).collect::<Read<Vec<_>>>()?;
        let uids = self.users(&key("users"), &file.users)?;
        if networks.is_empty() && uids.is_empty() {
            return self.fault(&key("proxies"), "names nobody", "name the proxy's address, or its user in `users`");
        }
        if uids.iter().any(|uid| operators.contains(uid)) {
            let why = "names root, the gateway's own user or an operator, who would be two people at once";
            return self.fault(&key("users"), why, "run the proxy as a user of its own, e.g. www-data");
        }
        let local = networks.iter().any(|n| n.addr().is_loopback());
        if local && uids.is_empty() && file.client_ca.is_none() {
            let why = "on loopback an address proves nothing: every process of this host has it";
            return self.fault(
                &key("proxies"),
                why,
                "name the proxy's user in `users`, or an authority in `client_ca`",
            );
        }
        let header = file.user_header.as_deref().unwrap_or("x-forwarded-user").to_ascii_lowercase();
        let taken = ["host", "authorization", "cookie", "origin", "x-forwarded-for", "x-forwarded-host", "forwarded"];
        let is_name = !header.is_empty() && header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_name || taken.contains(&header.as_str()) {
            return self.fault(
                &key("user_header"),
                format!("{header:?} cannot name a user"),
                "e.g. \"x-forwarded-user\"",
            );
        }
        Ok(ProxyRules {
            networks,
            uids,
            shows_certificate: file.client_ca.is_some(),
            user_header: header,
            users: self.allowed(&key("allow_users"), &file.allow_users)?,
            scopes: self.scopes(&key("scopes"), file.scopes.as_deref())?,
        })
    }

    fn tailnet(&self, file: &TailnetFile) -> Read<TailnetRules> {
        Ok(TailnetRules {
            socket: file.socket.clone().unwrap_or_else(|| TAILSCALED.into()),
            users: self.allowed("gateway.auth.tailnet.allow_users", &file.allow_users)?,
            scopes: self.scopes("gateway.auth.tailnet.scopes", file.scopes.as_deref())?,
        })
    }

    fn allowed(&self, key: &str, names: &[String]) -> Read<AllowedUsers> {
        AllowedUsers::parse(names).or_else(|why| self.fault(key, why, "e.g. [\"ada@example.org\"]"))
    }

    fn network(&self, text: &str) -> Read<IpNet> {
        let key = "gateway.auth.trusted_proxy.proxies";
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match parsed {
            Err(_) => self.fault(
                key,
                format!("{text:?} is no address and no network"),
                "e.g. \"10.0.0.2\" or \"10.0.0.0/24\"",
            ),
            Ok(network) if network.prefix_len() == 0 => {
                self.fault(key, format!("{text:?} is everybody"), "name the proxies and nobody else")
            }
            Ok(network) => Ok(network),
        }
    }

    fn scopes(&self, key: &str, names: Option<&[String]>) -> Read<ScopeSet> {
        let Some(names) = names else { return Ok(ScopeSet::operator()) };
        let known = |name: &String| Scope::parse(name).filter(|s| ScopeSet::operator().has(*s));
        match names.iter().map(known).collect::<Option<ScopeSet>>() {
            Some(scopes) => Ok(scopes),
            None => {
                let hint = format!("there are {}", ScopeSet::operator().names().join(", "));
                self.fault(key, "names a scope that there is not", &hint)
            }
        }
    }

    fn users(&self, key: &str, named: &[Operator]) -> Read<Vec<u32>> {
        let hint = "`vambrace config schema` describes every key";
        let uid = |operator: &Operator| match operator {
            Operator::Uid(uid) => Ok(*uid),
            Operator::Name(name) => match os::host::uid_of(name) {
                Ok(Some(uid)) => Ok(uid),
                Ok(None) => self.fault(key, format!("there is no user {name:?}"), hint),
                Err(e) => self.fault(key, e.to_string(), hint),
            },
        };
        named.iter().map(uid).collect()
    }

    fn host(&self, host: &str) -> Read<String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_name = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
            && !host.starts_with(['.', '-'])
            && !host.ends_with('.');
        if is_name || bare.parse::<IpAddr>().is_ok() {
            return Ok(bare.to_ascii_lowercase());
        }
        self.fault(
            "gateway.hosts",
            format!("{host:?} is no host name"),
            "a name without scheme, port or \"*\", e.g. \"gateway.example.org\"",
        )
    }

    fn origin(&self, origin: &str) -> Read<String> {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let good = rest.is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b))
        });
        if good {
            return Ok(origin.to_owned());
        }
        let why = format!("{origin:?} is no origin");
        self.fault(
            "gateway.allowed_origins",
            why,
            "as browsers write it, in lower case and without a path: \"https://ui.example.org\"",
        )
    }

    fn public_url(&self, url: &str) -> Read<String> {
        let rest = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://")).unwrap_or("");
        let good = !rest.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'@' | b'?' | b'#' | b'"' | b'<' | b'>' | b'\\'));
        if good {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        self.fault(
            "gateway.public_url",
            format!("{url:?} is no address of a gateway"),
            "e.g. \"wss://gateway.example.org\"",
        )
    }

    fn tls(&self, file: &File) -> Read<Option<TlsSource>> {
        let tls = &file.gateway.tls;
        match (tls.enabled, &tls.certificate, &tls.key) {
            (false, None, None) => Ok(None),
            (false, _, _) => {
                let why = "a certificate is given, but TLS is off";
                self.fault("gateway.tls.enabled", why, "set enabled = true, or remove certificate and key")
            }
            (true, None, None) => Ok(Some(TlsSource::Own)),
            (true, Some(certificate), Some(key)) => {
                Ok(Some(TlsSource::Files { certificate: certificate.clone(), key: key.clone() }))
            }
            (true, None, Some(_)) => {
                self.fault("gateway.tls.certificate", "is missing beside the key", "give both or neither")
            }
            (true, Some(_), None) => {
                self.fault("gateway.tls.key", "is missing beside the certificate", "give both or neither")
            }
        }
    }
}
