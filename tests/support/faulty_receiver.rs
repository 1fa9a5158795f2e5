//! A receiver of notices that misbehaves at the first try of every fourth notice, and keeps what it was sent, when, and
//! whether it answered with a 2xx.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use orzo_model::{Clock, SystemClock, Timestamp};
use serde_json::Value;

/// What is wrong with a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// Reads everything and never answers.
    Hangs,
    /// Closes the connection before it reads the body.
    Drops,
    /// 500.
    Fails,
    /// 429 with Retry-After.
    IsBusy,
    /// Reads everything and closes the connection: its 2xx is lost.
    LosesAnswer,
}

pub const FAULTS: [Fault; 6] =
    [Fault::Nothing, Fault::Hangs, Fault::Drops, Fault::Fails, Fault::IsBusy, Fault::LosesAnswer];

/// A sender that does not hang up is hung up on.
const PATIENCE: Duration = Duration::from_secs(30);

/// One notice that was read to its end.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub notice_id: String,
    pub body: Value,
    pub at: Timestamp,
    /// Whether a 2xx was sent; it may still not have arrived.
    pub is_accepted: bool,
}

pub struct FaultyReceiver {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    clock: SystemClock,
    fault: Fault,
    is_well: AtomicBool,
    tried: Mutex<HashSet<String>>,
    receipts: Mutex<Vec<Receipt>>,
}

impl FaultyReceiver {
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/{fault:?}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            clock: SystemClock::new(),
            fault,
            is_well: AtomicBool::new(false),
            tried: Mutex::default(),
            receipts: Mutex::default(),
        });
        let own = shared.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = own.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { url, shared }
    }

    /// From now on it takes everything.
    pub fn heal(&self) {
        self.shared.is_well.store(true, Ordering::Relaxed);
    }

    pub fn receipts(&self) -> Vec<Receipt> {
        self.shared.receipts.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut notice_id = String::new();
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.trim().split_once(':') else { continue };
            match name.to_lowercase().as_str() {
                "webhook-id" => notice_id = value.trim().to_owned(),
                "content-length" => length = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        let is_first = self.tried.lock().unwrap().insert(notice_id.clone());
        let is_chosen = notice_id.ends_with(['0', '4', '8', 'c']);
        let is_ill = is_first && is_chosen && !self.is_well.load(Ordering::Relaxed);
        let fault = if is_ill { self.fault } else { Fault::Nothing };
        if fault == Fault::Drops {
            return;
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let answer: &[u8] = match fault {
            Fault::Nothing => b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
            Fault::Fails => b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            Fault::IsBusy => b"HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            Fault::Hangs | Fault::Drops | Fault::LosesAnswer => b"",
        };
        let receipt = Receipt {
            notice_id,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            at: self.clock.now(),
            is_accepted: fault == Fault::Nothing,
        };
        // Before the answer: who has the answer may look here.
        self.receipts.lock().unwrap().push(receipt);
        let _ = stream.write_all(answer);
        if fault == Fault::Hangs {
            // Until the other side has had enough.
            let _ = stream.read(&mut [0; 1]);
        }
    }
}
