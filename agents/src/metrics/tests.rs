//! The endpoint as a scraper and as an attacker meet it, over real sockets.

use orzo_model::{ManualClock, Rooms, SystemClock, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// Only a bug is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    address: SocketAddr,
    rooms: Rooms,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn world(clock: SharedClock) -> World {
    let rooms = Rooms::new(&Registry::new());
    let any_port = "127.0.0.1:0".parse().expect("an address");
    let metrics = Metrics::listen(any_port, rooms.registry().clone(), clock).await.expect("listens");
    let (address, stop) = (metrics.address().expect("bound"), CancellationToken::new());
    let ended = tokio::spawn(metrics.run(stop.clone()));
    World { address, rooms, stop, ended }
}

impl World {
    /// Everything that is answered to these bytes, until the other side closes.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        // A refusal may come while this is still being sent.
        let _ = stream.write_all(request.as_bytes()).await;
        rest(stream).await
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // Closed with bytes of ours unread is closed as well.
    let _ = read.expect("closed in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_scrape_finds_the_counts_of_every_room_and_the_connection_is_closed() {
    let world = world(SystemClock::shared()).await;
    let publisher = world.rooms.room("publisher");
    publisher.received(7);
    publisher.stored(4);
    publisher.dropped("spool full", 2);
    world.rooms.room("spool");
    let answer = world.send("GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for line in [
        "content-type: text/plain; version=0.0.4",
        "orzo_received_total{room=\"publisher\"} 7\n",
        "orzo_stored_total{room=\"publisher\"} 4\n",
        "orzo_dropped_total{reason=\"spool full\",room=\"publisher\"} 2\n",
        "orzo_waiting{room=\"publisher\"} 1\n",
        "orzo_received_total{room=\"spool\"} 0\n",
    ] {
        assert!(answer.contains(line), "no {line:?} in {answer}");
    }
    let healthy = world.send("GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n").await;
    assert!(healthy.starts_with("HTTP/1.1 200 OK\r\n") && healthy.ends_with("\r\n\r\nok\n"), "{healthy}");
    world.stop.cancel();
    tokio::time::timeout(PATIENCE, world.ended).await.expect("stops").expect("no panic");
}

#[tokio::test]
async fn anything_else_is_refused_and_the_next_scrape_is_answered() {
    let world = world(SystemClock::shared()).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_owned(), "404"),
        ("POST /metrics HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n".to_owned(), "405"),
        ("no http at all\r\n\r\n".to_owned(), "400"),
        (format!("GET /metrics HTTP/1.1\r\nHost: agent\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX)), "431"),
        (format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(2 * HEADER_BYTES_MAX)), "431"),
    ] {
        let answer = world.send(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.40}: {answer:.200}");
    }
    let answer = world.send("GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer:.200}");
}

#[tokio::test]
async fn silent_connections_hold_places_for_a_while_only() {
    let clock = ManualClock::new(Timestamp::EPOCH);
    let world = world(clock.clone()).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(world.address).await.expect("connects"));
    }
    let request = "GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n";
    let mut late = TcpStream::connect(world.address).await.expect("the kernel takes it");
    late.write_all(request.as_bytes()).await.expect("sent");
    let answer = tokio::spawn(rest(late));
    // Time passes until the silent ones are closed; how often is not what matters.
    let answered = async {
        while !answer.is_finished() {
            clock.advance(CONNECTION_MAX);
            tokio::task::yield_now().await;
        }
        answer.await.expect("no panic")
    };
    let answer = tokio::time::timeout(PATIENCE, answered).await.expect("a place becomes free");
    assert!(answer.ends_with("ok\n"), "{answer}");
    for stream in silent {
        assert_eq!(rest(stream).await, "");
    }
}
