//! Where a webhook may go: every address is refused that leads into the operator's own network, unless the operator
//! allows its range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Ranges that an operator allows although they are refused by default (webhooks within a private cloud).
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    ranges: Vec<IpNet>,
}

/// Why a URL or an address is refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum AddressError {
    /// Neither http nor https.
    #[error("scheme `{0}` is not allowed; use http or https")]
    Scheme(String),
    /// User or password in the URL.
    #[error("a webhook URL must not carry credentials")]
    Credentials,
    /// A port of something else than HTTP.
    #[error("port {0} is not one for webhooks")]
    Port(u16),
    /// No host.
    #[error("the webhook URL has no host")]
    NoHost,
    /// The address is in a refused range.
    #[error("address {0} is not allowed for webhooks (an operator can allow its range)")]
    Refused(IpAddr),
    /// A range in the settings that is none.
    #[error("`{0}` is not an address range such as 10.0.0.0/8")]
    BadRange(String),
}

impl AllowList {
    /// Reads ranges such as `10.0.0.0/8` or single addresses.
    pub fn parse(ranges: &[String]) -> Result<Self, AddressError> {
        let ranges = ranges
            .iter()
            .map(|text| {
                text.parse::<IpNet>()
                    .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| AddressError::BadRange(text.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { ranges })
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

/// Ports of services that a request could speak to without knowing HTTP (mail, shells, databases): the list that browsers
/// refuse (WHATWG Fetch, "bad port"), and databases' own.
const REFUSED_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3306, 3659, 4045, 4190,
    5060, 5061, 5432, 5672, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211, 27017,
];

/// Checks everything about a URL that needs no resolver: scheme, credentials, port, and an address written out (the URL
/// parser has turned `2130706433`, `0x7f.1` and the like into one).
pub(crate) fn check_url(url: &Url, allowed: &AllowList) -> Result<(), AddressError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(AddressError::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    if let Some(port) = url.port().filter(|port| REFUSED_PORTS.contains(port)) {
        return Err(AddressError::Port(port));
    }
    match url.host() {
        None => Err(AddressError::NoHost),
        Some(Host::Ipv4(address)) => check_address(address.into(), allowed),
        Some(Host::Ipv6(address)) => check_address(address.into(), allowed),
        Some(Host::Domain(_)) => Ok(()),
    }
}

/// Checks an address that a name was resolved to, or that a URL names.
pub fn check_address(address: IpAddr, allowed: &AllowList) -> Result<(), AddressError> {
    let plain = embedded_v4(address).map_or(address, IpAddr::V4);
    let is_refused = match plain {
        IpAddr::V4(address) => is_refused_v4(address),
        IpAddr::V6(address) => is_refused_v6(address),
    };
    if is_refused && !allowed.contains(plain) && !allowed.contains(address) {
        return Err(AddressError::Refused(address));
    }
    Ok(())
}

/// The IPv4 address inside a mapped, compatible, translated, NAT64, 6to4 or ISATAP address.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        // ::ffff:a.b.c.d and ::ffff:0:a.b.c.d (mapped, translated)
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        // ::a.b.c.d (compatible), but not :: and ::1, which are their own
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 0) && (high, low) != (0, 1) => Some(v4(high, low)),
        // 64:ff9b::a.b.c.d (NAT64)
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // 2002:ab:cd::/16 (6to4)
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // Any prefix with the interface ::[02]00:5efe:a.b.c.d (ISATAP)
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

fn is_refused_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 192 && b == 88 && c == 99) // relays of 6to4
        || (a == 198 && (18..20).contains(&b)) // benchmarks
}

/// Only what IANA has given out as global unicast is let through, and of that not what is special.
fn is_refused_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global = (first & 0xe000) == 0x2000;
    !is_global
        || (first == 0x2001 && second < 0x0200) // Teredo, benchmarks, ORCHID and the like: tunnels and no machines
        || (first == 0x2001 && second == 0x0db8) // documentation
        || (first == 0x3fff && second < 0x1000) // documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_inner_address_is_refused() {
        let inner = [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.0.0.1.:80/",
            "http://0/",
            "http://0.0.0.0/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.64.0.1/",
            "http://198.18.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://240.0.0.1/",
            "http://192.0.0.192/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::127.0.0.1]/",
            "http://[64:ff9b::a00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[2002:a00:1::1]/",
            "http://[fe80::1]/",
            "http://[fc00::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fec0::1]/",
            "http://[ff02::1]/",
            "http://[2001:0:1::1]/",
            "http://[::ffff:0:127.0.0.1]/",
            "http://１２７.０.０.１/",
            "http://127。0。0。1/",
            "http://①②⑦.⓪.⓪.①/",
        ];
        for text in inner {
            let url = Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(check_url(&url, &AllowList::default()).is_err(), "{text} got through as {url}");
        }
        for text in [
            "http://93.184.216.34/",
            "https://[2606:2800:220:1::1]/",
            "http://[64:ff9b::808:808]/",
            "http://8.8.8.8:8080/",
            "http://8.8.8.8/",
            "https://example.org/",
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!(check_url(&url, &AllowList::default()), Ok(()), "{text}");
        }
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        for (text, expected) in [
            ("ftp://8.8.8.8/", AddressError::Scheme("ftp".into())),
            ("file:///etc/passwd", AddressError::Scheme("file".into())),
            ("gopher://8.8.8.8/", AddressError::Scheme("gopher".into())),
            ("http://user@8.8.8.8/", AddressError::Credentials),
            ("http://user:pw@8.8.8.8/", AddressError::Credentials),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!(check_url(&url, &AllowList::default()), Err(expected), "{text}");
        }
    }

    #[test]
    fn an_operator_can_allow_a_range() {
        let allowed = AllowList::parse(&["10.1.0.0/16".into(), "127.0.0.1".into()]).expect("good ranges");
        let check = |text: &str| check_address(text.parse().expect(text), &allowed);
        assert_eq!(check("10.1.2.3"), Ok(()));
        assert_eq!(check("::ffff:10.1.2.3"), Ok(()));
        assert_eq!(check("127.0.0.1"), Ok(()));
        assert!(check("10.2.0.1").is_err());
        assert!(check("127.0.0.2").is_err());
        assert_eq!(AllowList::parse(&["intranet".into()]).err(), Some(AddressError::BadRange("intranet".into())));
    }
}
