//! Nothing gets into the network behind us, in whatever spelling, by whatever name, whenever a name changes.

use std::sync::atomic::{AtomicUsize, Ordering};

use orzo_model::ManualClock;
use tokio::net::TcpListener;

use super::*;

/// A listener on every address of this machine that counts connections and answers each with a 204.
struct Inside {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Inside {
    async fn start() -> Self {
        let v6 = TcpListener::bind("[::1]:0").await.ok();
        let port = v6.as_ref().and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port());
        let v4 = TcpListener::bind(("0.0.0.0", port)).await.expect("a port");
        let port = v4.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        for listener in [Some(v4), v6].into_iter().flatten() {
            let count = connections.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                while let Ok((mut socket, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(async move {
                        let _ = socket.read(&mut [0u8; 4096]).await;
                        let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                    });
                }
            });
        }
        Self { port, connections }
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Names and what they resolve to, one answer after the other; the last is repeated.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Lookup for Names {
    async fn addresses(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        let place = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[place.min(self.answers.len() - 1)].clone())
    }
}

fn names(answers: &[&[&str]]) -> Arc<Names> {
    let address = |text: &&str| text.parse().expect("an address");
    let answers = answers.iter().map(|answer| answer.iter().map(address).collect()).collect();
    Arc::new(Names { answers, asked: AtomicUsize::new(0) })
}

fn sender(allowed: &[&str], lookup: Arc<dyn Lookup>) -> Webhook {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allowed = AllowList::parse(&allowed.iter().map(|s| s.to_string()).collect::<Vec<_>>()).expect("ranges");
    let keys = SigningKeys::new("key".to_owned().into(), None);
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let deadline = Duration::from_millis(500);
    Webhook::with_lookup(allowed, keys, deadline, deadline, clock, lookup).expect("a client")
}

async fn send(webhook: &Webhook, text: &str) -> Option<Outcome> {
    let url = Url::parse(text).ok()?;
    Some(webhook.send(&url, &Letter { id: "i", project_id: "p", body: "{}", token: None }).await)
}

/// Hosts that must not be reached. The first part leads to this machine and would be answered if it got through.
fn spellings() -> (Vec<String>, Vec<String>) {
    let mut here: Vec<String> = [
        // Dotted, short, decimal, octal, hexadecimal, mixed, with too many zeros
        "127.0.0.1",
        "127.0.0.2",
        "127.1.2.3",
        "127.255.255.254",
        "127.1",
        "127.0.1",
        "2130706433",
        "2130706434",
        "0x7f000001",
        "0x7F000001",
        "0X7F000001",
        "0x7f.1",
        "0x7f.0.1",
        "0x7f.0x0.0x0.0x1",
        "0x7f.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "0177.1",
        "0177.0.1",
        "0177.0.0.01",
        "0177.0x0.0.1",
        "127.0x1",
        "127.0.0x0.1",
        "00000177.0.0.1",
        "0000000000000177.0.0.01",
        "0x0000007f.0.0.1",
        "127.000.000.001",
        "127.0.0.01",
        "127.0.0.0x1",
        "0x7f.000001",
        // A dot at the end
        "127.0.0.1.",
        "127.1.",
        "2130706433.",
        "0x7f000001.",
        "017700000001.",
        // Unspecified: this machine
        "0",
        "0.0",
        "0.0.0",
        "0.0.0.0",
        "0x0",
        "00",
        "0.0.0.0.",
        "0x0.0x0",
        "[::]",
        "[0:0:0:0:0:0:0:0]",
        "[0::0]",
        // IPv6 loopback and IPv4 inside IPv6
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::0001]",
        "[0::1]",
        "[::0.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:7f00:0001]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::ffff:0:0]",
        "[::ffff:0.0.0.0]",
        "[::ffff:127.1.2.3]",
        // Full width digits, circled digits, ideographic and half width dots
        "１２７.０.０.１",
        "127。0。0。1",
        "127．0．0．1",
        "127｡0｡0｡1",
        "①②⑦.⓪.⓪.①",
        "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
        "１２７。１",
        "０x7f000001",
        "²1³⁰706433",
        // Percent-encoded, with tabs and new lines that URL parsers drop
        "%31%32%37.0.0.1",
        "127.0.0.%31",
        "127%2e0%2e0%2e1",
        "%30x7f000001",
        "12\t7.0.0.1",
        "127.0\n.0.1",
        "127.0.0.1\t",
        // Names of this machine
        "localhost",
        "LOCALHOST",
        "localhost.",
        "LocalHost.",
        "ｌｏｃａｌｈｏｓｔ",
        "%6cocalhost",
        "ⓛocalhost",
    ]
    .map(str::to_owned)
    .to_vec();
    here.extend((3..20).map(|last| format!("127.0.{last}.{last}")));
    let elsewhere = [
        // The networks behind us, metadata, multicast, reserved
        "10.0.0.1",
        "10.255.255.255",
        "012.0.0.1",
        "0xa.1",
        "167772161",
        "172.16.0.1",
        "172.31.255.255",
        "172.20.1",
        "192.168.0.1",
        "192.168.1",
        "0xc0a80001",
        "3232235521",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "198.18.0.1",
        "198.19.255.1",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "4294967295",
        "0xffffffff",
        "0.1.2.3",
        "100.100.100.200",
        "169.254.170.2",
        "[::127.0.0.1]",
        "[::7f00:1]",
        "[::10.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::ffff:169.254.169.254]",
        "[::ffff:0:127.0.0.1]",
        "[::ffff:0:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[64:ff9b:1:7f00:0:100::]",
        "[2002:7f00:1::]",
        "[2002:7f00:1::1]",
        "[2002:a00:1::1]",
        "[2002:a9fe:a9fe::]",
        "[2002:c0a8:1::1]",
        "[fe80::1]",
        "[febf::1]",
        "[fc00::1]",
        "[fd00::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "[ff02::1]",
        "[ff05::2]",
        "[ff0e::1]",
        "[2001:0:1::1]",
        "[2001:0:7f00:1::]",
        "[2001:2::1]",
        "[2001:10::1]",
        "[2001:20::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[100::1]",
        "[5f00::1]",
        "[4000::1]",
        "[2606:4700::5efe:7f00:1]",
        "[2606:4700::200:5efe:10.0.0.1]",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[::1%25lo]",
    ];
    (here, elsewhere.map(str::to_owned).to_vec())
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_gets_a_request() {
    let inside = Inside::start().await;
    let port = inside.port;
    let (here, elsewhere) = spellings();
    let mut urls: Vec<String> =
        here.iter().chain(&elsewhere).map(|host| format!("http://{host}:{port}/latest/meta-data/")).collect();
    // The host is not where it seems to be.
    for trick in [
        "http://example.org@127.0.0.1:PORT/",
        "http://example.org:80@127.0.0.1:PORT/",
        "http://example.org%40127.0.0.1:PORT@127.0.0.1:PORT/",
        "http://u:p@127.0.0.1:PORT/",
        "http://@127.0.0.1:PORT/",
        "http:127.0.0.1:PORT/",
        "http:/127.0.0.1:PORT/",
        "http:///127.0.0.1:PORT/",
        "http:\\\\127.0.0.1:PORT\\",
        "http://127.0.0.1:PORT\\@example.org/",
        "http://127.0.0.1:PORT#@example.org/",
        "http://127.0.0.1:PORT?@example.org/",
        "http://127.0.0.1:0PORT/",
        "http://127.0.0.1:00000PORT/",
        "HTTP://127.0.0.1:PORT/",
        " http://127.0.0.1:PORT/ ",
        "ht\ntp://127.0.0.1:PORT/",
        "https://127.0.0.1:PORT/",
        "https://localhost:PORT/",
        "ftp://127.0.0.1:PORT/",
        "file://127.0.0.1/etc/passwd",
        "gopher://127.0.0.1:PORT/_GET",
        "http://8.8.8.8:22/",
        "http://8.8.8.8:25/",
        "http://8.8.8.8:6379/",
    ] {
        urls.push(trick.replace("PORT", &port.to_string()));
    }
    assert!(urls.len() >= 120, "only {} spellings", urls.len());
    let webhook = sender(&[], Arc::new(SystemLookup));
    for text in &urls {
        match send(&webhook, text).await {
            // Not even a URL.
            None => {}
            Some(Outcome::Hopeless { failure: Failure::NoConnection, .. }) => {}
            Some(Outcome::Failed { failure: Failure::NoConnection, reason, .. }) => {
                // A name: refused by its address, or not resolved at all.
                let is_told = reason.contains("is not allowed") || reason.contains("dns error");
                assert!(is_told, "{text}: {reason}");
            }
            other => panic!("{text}: {other:?}"),
        }
        assert_eq!(inside.count(), 0, "{text} got through");
    }
    println!("{} spellings, 0 requests", urls.len());
}

/// The spellings of this machine are alive: with everything allowed they do get through, so that the test above tells
/// something.
#[tokio::test]
async fn with_everything_allowed_the_same_spellings_get_through() {
    let inside = Inside::start().await;
    let webhook = sender(&["0.0.0.0/0", "::/0"], Arc::new(SystemLookup));
    let (here, _) = spellings();
    let mut through = 0;
    for host in &here {
        if send(&webhook, &format!("http://{host}:{}/", inside.port)).await == Some(Outcome::Delivered) {
            through += 1;
        }
    }
    assert_eq!(inside.count(), through);
    assert!(through > 70, "only {through} of {} reach this machine at all", here.len());
}

#[tokio::test]
async fn a_name_is_resolved_once_for_a_connection_that_goes_where_it_was_checked() {
    let inside = Inside::start().await;
    // The first answer is allowed, the second is not: a check that resolves and a connection that resolves again would
    // connect to the second.
    let lookup = names(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let webhook = sender(&["127.0.0.2"], lookup.clone());
    let url = format!("http://rebinding.example:{}/", inside.port);
    assert_eq!(send(&webhook, &url).await, Some(Outcome::Delivered));
    assert_eq!((inside.count(), lookup.asked.load(Ordering::SeqCst)), (1, 1));
    let second = send(&webhook, &url).await;
    assert!(matches!(&second, Some(Outcome::Failed { reason, .. }) if reason.contains("is not allowed")), "{second:?}");
    assert_eq!(inside.count(), 1);
}

#[tokio::test]
async fn one_forbidden_address_among_good_ones_refuses_the_name() {
    let inside = Inside::start().await;
    for answer in [&["127.0.0.2", "127.0.0.1"], &["127.0.0.1", "127.0.0.2"], &["127.0.0.2", "::ffff:169.254.169.254"]] {
        let webhook = sender(&["127.0.0.2"], names(&[answer]));
        let outcome = send(&webhook, &format!("http://mixed.example:{}/", inside.port)).await;
        assert!(matches!(outcome, Some(Outcome::Failed { failure: Failure::NoConnection, .. })), "{answer:?}");
    }
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    use crate::notify::delivery_tests::{Does, Receiver};
    let inside = Inside::start().await;
    for status in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let head = format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:{}/", inside.port);
        let receiver = Receiver::start(&[Does::Answer(head.leak())]).await;
        let webhook = sender(&["127.0.0.0/8"], Arc::new(SystemLookup));
        let outcome = send(&webhook, &receiver.url).await;
        assert!(
            matches!(outcome, Some(Outcome::Failed { failure: Failure::NotAccepted, .. })),
            "{status}: {outcome:?}"
        );
    }
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_whatever_the_url_asks_for() {
    // A server that speaks no TLS stands for one whose certificate is wrong: in both cases no request may be sent.
    let inside = Inside::start().await;
    let webhook = sender(&["127.0.0.0/8"], Arc::new(SystemLookup));
    for query in ["", "?aodh-alarm-ssl-verify=0", "?aodh-alarm-ssl-verify=1"] {
        let outcome = send(&webhook, &format!("https://127.0.0.1:{}/{query}", inside.port)).await;
        assert!(matches!(outcome, Some(Outcome::Failed { .. })), "{query}: {outcome:?}");
    }
}

#[test]
fn only_a_2xx_is_delivered() {
    assert_eq!(outcome_of(StatusCode::NO_CONTENT, None), Outcome::Delivered);
    for status in [StatusCode::FOUND, StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR] {
        assert!(matches!(outcome_of(status, None), Outcome::Failed { .. }), "{status}");
    }
    assert!(matches!(outcome_of(StatusCode::GONE, None), Outcome::Hopeless { failure: Failure::Gone, .. }));
}

#[test]
fn retry_after_is_seconds_or_a_date_and_has_a_limit() {
    let now = Timestamp::from_secs(1_445_412_480); // Wed, 21 Oct 2015 07:28:00 GMT
    let read = |text: &str| {
        let mut headers = header::HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().expect("a header"));
        retry_after(&headers, now).map(|wait| wait.as_secs())
    };
    assert_eq!(read("120"), Some(120));
    assert_eq!(read(" 5 "), Some(5));
    assert_eq!(read("Wed, 21 Oct 2015 07:29:00 GMT"), Some(60));
    assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0));
    assert_eq!(read("99999999999"), Some(86_400));
    assert_eq!(read("Wed, 21 Oct 2065 07:28:00 GMT"), Some(86_400));
    assert_eq!(read("-1"), None);
    assert_eq!(read("soon"), None);
}
