//! A scraper against a small server of the test's own, with a sink in memory.

use orzo_model::{Clock, ManualClock, Rooms};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

#[derive(Default)]
struct Memory {
    points: Mutex<Vec<(String, LabelledPoint)>>,
    fails: Mutex<bool>,
}

#[async_trait]
impl LabelledSink for Memory {
    async fn keep(
        &self,
        project: &str,
        points: Vec<LabelledPoint>,
        _: BTreeMap<String, MetricMetadata>,
    ) -> Result<Kept, SinkError> {
        if *self.fails.lock() {
            return Err(SinkError::unavailable("closed"));
        }
        let stored = points.len() as u64;
        self.points.lock().extend(points.into_iter().map(|point| (project.to_owned(), point)));
        Ok(Kept { stored, refused: Vec::new() })
    }
}

/// A server that gives one answer after the other, and then none.
async fn serve(answers: Vec<String>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/metrics").parse().expect("a URL")
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn target(url: Url) -> Target {
    Target {
        name: "node".to_owned(),
        url,
        project: "p1".to_owned(),
        interval: Duration::from_secs(15),
        labels: vec![("instance".to_owned(), "h1".to_owned())],
        token: None,
    }
}

fn scraper(url: Url, memory: &Arc<Memory>) -> (Arc<Scraper>, Rooms) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = ScrapeSettings { timeout: Duration::from_secs(10), samples_max: 3, body_bytes_max: 1000 };
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().expect("a client");
    let rooms = Rooms::new(&prometheus::Registry::new());
    let (room, slots) = (rooms.room("scrape"), rooms.room("scrape.slots"));
    let clock = ManualClock::new(Timestamp::from_secs(1000));
    (Scraper::new(vec![target(url)], settings, client, memory.clone(), clock, (room, slots)), rooms)
}

/// What was kept since the last time: `name value seconds`, without the durations.
fn kept(memory: &Memory) -> Vec<String> {
    let points = std::mem::take(&mut *memory.points.lock());
    let mut shown: Vec<String> = points
        .iter()
        .map(|(project, point)| {
            assert_eq!(project, "p1");
            let label = |name: &str| point.labels.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value);
            assert_eq!((label("job"), label("instance")), ("node", "h1"));
            let value = if point.value.to_bits() == page::STALE.to_bits() {
                "stale".to_owned()
            } else {
                point.value.to_string()
            };
            format!("{} {value} {}", label("__name__"), point.at.micros() / 1_000_000)
        })
        .filter(|row| !row.starts_with("scrape_duration") && !row.starts_with("scrape_samples_post"))
        .collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn samples_have_the_slots_time_and_what_vanishes_ends() {
    let memory = Arc::new(Memory::default());
    let url =
        serve(vec![ok("a 1\nb 2\n"), ok("b 3\n"), "HTTP/1.1 500 Oh\r\nconnection: close\r\n\r\n".to_owned()]).await;
    let (scraper, rooms) = scraper(url, &memory);
    assert_eq!(scraper.states()[0].is_up, None);
    let seen = scraper.scrape(0, Timestamp::from_secs(10), HashSet::new()).await;
    assert_eq!(
        kept(&memory),
        ["a 1 10", "b 2 10", "scrape_samples_scraped 2 10", "scrape_series_added 2 10", "up 1 10"]
    );
    let seen = scraper.scrape(0, Timestamp::from_secs(25), seen).await;
    assert_eq!(
        kept(&memory),
        ["a stale 25", "b 3 25", "scrape_samples_scraped 1 25", "scrape_series_added 0 25", "up 1 25"]
    );
    assert_eq!(scraper.states()[0].is_up, Some(true));
    let seen = scraper.scrape(0, Timestamp::from_secs(40), seen).await;
    assert_eq!(kept(&memory), ["b stale 40", "scrape_samples_scraped 0 40", "scrape_series_added 0 40", "up 0 40"]);
    assert_eq!(scraper.states()[0].last_error, "the target answers 500");
    // The server is gone.
    let seen = scraper.scrape(0, Timestamp::from_secs(55), seen).await;
    assert_eq!(kept(&memory), ["scrape_samples_scraped 0 55", "scrape_series_added 0 55", "up 0 55"]);
    assert!(seen.is_empty() && scraper.states()[0].last_error.starts_with("the target does not answer"));
    for room in ["scrape", "scrape.slots"] {
        let balance = rooms.room(room).balance();
        assert!(balance.is_conserved() && balance.waiting == 0, "{room}: {balance:?}");
    }
}

#[tokio::test]
async fn hostile_pages_are_refused_whole() {
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n{}", "# x\n".repeat(300));
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n".to_owned();
    for (answer, error) in [
        (ok("a 1\nb 1\nc 1\nd 1\n"), "the page has more than 3 samples"),
        (ok("a 1\nb{ 1\n"), "line 2 cannot be read: a label has no value"),
        (endless, "the page is larger than 1000 bytes"),
        (moved, "the target answers 302"),
        ("nothing of HTTP\r\n\r\n".to_owned(), "the target does not answer"),
    ] {
        let memory = Arc::new(Memory::default());
        let (scraper, _) = scraper(serve(vec![answer]).await, &memory);
        scraper.scrape(0, Timestamp::from_secs(10), HashSet::new()).await;
        assert!(scraper.states()[0].last_error.starts_with(error), "{error}: {}", scraper.states()[0].last_error);
        assert_eq!(kept(&memory), ["scrape_samples_scraped 0 10", "scrape_series_added 0 10", "up 0 10"]);
    }
}

#[tokio::test]
async fn what_is_not_kept_is_told_and_gets_no_end() {
    let memory = Arc::new(Memory::default());
    *memory.fails.lock() = true;
    let (scraper, rooms) = scraper(serve(vec![ok("a 1\n"), ok("a 1\n")]).await, &memory);
    let seen = scraper.scrape(0, Timestamp::from_secs(10), HashSet::new()).await;
    assert!(seen.is_empty() && scraper.states()[0].last_error.contains("closed"), "{:?}", scraper.states());
    *memory.fails.lock() = false;
    assert_eq!(scraper.scrape(0, Timestamp::from_secs(25), seen).await.len(), 1);
    assert!(rooms.room("scrape").balance().is_conserved());
}

#[test]
fn slots_are_the_same_after_a_restart() {
    let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
    let own = target("http://h:9100/metrics".parse().expect("a URL"));
    let slot = next_slot(&own, clock.now());
    assert!(slot > clock.now() && slot.since(clock.now()) <= own.interval);
    assert_eq!(next_slot(&own, slot.minus(Duration::from_millis(1))), slot);
    assert_eq!(next_slot(&own, slot), slot.plus(own.interval));
    let other = Target { name: "other".to_owned(), ..own.clone() };
    assert_ne!(next_slot(&other, clock.now()), slot);
    assert_eq!(own.own_labels(), [("instance".to_owned(), "h1".to_owned()), ("job".to_owned(), "node".to_owned())]);
    let plain = Target { labels: Vec::new(), ..own };
    assert_eq!(plain.own_labels()[0].1, "h:9100");
}

#[tokio::test]
async fn what_names_mean_is_remembered_by_target_until_the_next_good_page() {
    let memory = Arc::new(Memory::default());
    let page = "# HELP a Things.\n# TYPE a counter\na 1\n";
    let failed = "HTTP/1.1 500 Oh\r\nconnection: close\r\n\r\n".to_owned();
    let url = serve(vec![ok(page), failed, ok("# TYPE b gauge\nb 1\n")]).await;
    let (scraper, _) = scraper(url, &memory);
    let known = || {
        let about = scraper.states()[0].metadata.clone();
        about.iter().map(|(name, about)| format!("{name} {} {}", about.kind, about.help)).collect::<Vec<_>>()
    };
    assert_eq!(known(), Vec::<String>::new());
    for (second, expected) in [(10, "a counter Things."), (25, "a counter Things."), (40, "b gauge ")] {
        scraper.scrape(0, Timestamp::from_secs(second), HashSet::new()).await;
        assert_eq!(known(), [expected]);
    }
}
