//! What the stories need: servers that a test starts and kills, a running Orzo, clients, receivers.
//!
//! Nothing here sleeps to let things happen: it waits for a state, with a limit.

pub mod clients;
pub mod faulty_receiver;
pub mod orzo;
pub mod receiver;
pub mod servers;

use std::time::{Duration, Instant};

/// Waits until `probe` gives a value; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    #[allow(clippy::disallowed_methods)] // a test's own patience is not part of the product's time
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Two neighbouring free ports (RabbitMQ takes the second for itself).
pub fn free_port_pair() -> u16 {
    wait_for("two free ports", Duration::from_secs(10), || {
        let port = free_port();
        std::net::TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok().map(|_| port)
    })
}

/// Whether the test script provides the real parts; says so once per test if not.
pub fn has_real_parts(test: &str) -> bool {
    let provided = std::env::var_os("ORZO_TEST_CLIENTS").is_some();
    if !provided {
        eprintln!("{test}: the real parts are not here; run tests/run for them");
    }
    provided
}
