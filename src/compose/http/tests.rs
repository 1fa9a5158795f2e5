//! What clumsy and hostile clients do to a connection, over real sockets.

use axum::routing::{get, post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// Short enough for a test, long enough for a busy machine.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(30);

async fn house(waits: Waits) -> (SocketAddr, CancellationToken) {
    let router = Router::new()
        .route("/get", get(|| async { "got" }))
        .route("/echo", post(|body: axum::body::Bytes| async move { body }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    tokio::spawn(serve_with(listener, router, stop.clone(), LONG, waits));
    (address, stop)
}

/// Reads until `end` has come; what has come until then if the peer closes.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    text
}

#[tokio::test]
async fn a_refusal_before_the_body_has_come_does_not_cost_the_connection() {
    let (address, stop) = house(WAITS).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"POST /get HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n").await.expect("written");
    // What was written so far reaches the server before the rest: a client sends head and body separately.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"body").await.expect("written");
    let refusal = tokio::time::timeout(LONG, read_until(&mut stream, "\r\n\r\n")).await;
    assert!(refusal.expect("an answer").starts_with("HTTP/1.1 405"));
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await.expect("still open");
    let answer = tokio::time::timeout(LONG, read_until(&mut stream, "abc")).await;
    assert!(answer.expect("an answer").starts_with("HTTP/1.1 200"), "the connection goes on");
    stop.cancel();
}

#[tokio::test]
async fn a_client_is_told_when_its_unread_body_ends_the_connection() {
    let (address, stop) = house(WAITS).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!("POST /get HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", READ_FIRST_BYTES_MAX + 1);
    stream.write_all(head.as_bytes()).await.expect("written");
    let refusal = tokio::time::timeout(LONG, read_until(&mut stream, "\r\n\r\n")).await.expect("an answer");
    assert!(refusal.starts_with("HTTP/1.1 405") && refusal.contains("connection: close"), "{refusal}");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let body = "x".repeat(READ_FIRST_BYTES_MAX as usize + 1);
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.expect("written");
    let answer = tokio::time::timeout(LONG, read_until(&mut stream, "\r\n\r\n")).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "it was read: {answer:.300}");
    stop.cancel();
}

#[tokio::test]
async fn connections_that_bring_no_request_are_closed() {
    let (address, stop) = house(Waits { headers: LONG, first_request: SHORT, body: SHORT }).await;
    let mut silent_one = TcpStream::connect(address).await.expect("a connection");
    let mut half_preface = TcpStream::connect(address).await.expect("a connection");
    half_preface.write_all(b"PRI * HTTP/2.0\r\n").await.expect("written");
    let mut no_body = TcpStream::connect(address).await.expect("a connection");
    no_body.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await.expect("written");
    assert_eq!(read_until(&mut silent_one, "never").await, "");
    assert_eq!(read_until(&mut half_preface, "never").await, "");
    assert!(read_until(&mut no_body, "\r\n\r\n").await.starts_with("HTTP/1.1 408"));
    stop.cancel();
}
