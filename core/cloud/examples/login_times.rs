//! Measures whether a refused login tells by its time why it was refused: `cargo run --release -p orzo-cloud --example
//! login_times -- 2000`.
//!
//! A whole cloud on a fresh database, behind real HTTP on loopback; every kind of refusal as often as asked for,
//! interleaved in random order, one request at a time. Out: quartiles per kind, and the probability (Mann-Whitney, two
//! sided) that a difference from "wrong password" as large as this one is chance. No test: other work on the machine may
//! make it slow, and only a person can judge a probability.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use orzo_bus::InProcessBus;
use orzo_cloud::{Cloud, CloudParts, CloudSettings};
use orzo_database::Database;
use orzo_hypervisor::Simulated;
use orzo_model::{Rooms, SystemClock};
use rand::seq::SliceRandom;
use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

const PASSWORD: &str = "the right password";
/// Tries from one address: the throttle lets five failures of an account and address pass.
const TRIES_PER_ADDRESS: usize = 4;

/// A kind of refusal: its name, and what is sent.
type Kind = (&'static str, Value);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tries: usize = std::env::args().nth(1).map_or(Ok(2000), |count| count.parse()).context("how many tries")?;
    // Another provider cannot be there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clock = SystemClock::shared();
    let directory = tempfile::tempdir()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = Url::parse(&format!("http://{}", listener.local_addr()?))?;
    let mut settings = CloudSettings::new(url.clone(), directory.path().to_owned());
    settings.admin_password = Some(SecretString::from(PASSWORD));
    let parts = CloudParts {
        database: Database::open_file(&directory.path().join("cloud.db")).await?,
        bus: Arc::new(InProcessBus::new(clock.clone())),
        hypervisor: Arc::new(Simulated::new("host", 1, clock.clone())),
        clock: clock.clone(),
        rooms: Rooms::new(&prometheus::Registry::new()),
    };
    let cloud = Cloud::open(settings, parts).await?;
    let service = cloud.router().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    tokio::spawn(cloud.clone().run(CancellationToken::new()));
    for name in ["right-user", "elsewhere", "lost", "off"] {
        cloud.ensure_user(name, &SecretString::from(PASSWORD), "project", &["member"]).await?;
    }
    switch_off(&url, "off").await?;

    let kinds: [Kind; 5] = [
        ("wrong password", login("right-user", "Default", "a wrong password", "project")),
        ("unknown user", login("wrong-user", "Default", PASSWORD, "project")),
        ("disabled user", login("off", "Default", PASSWORD, "project")),
        ("unknown domain", login("elsewhere", "Nowhere", PASSWORD, "project")),
        ("no such project", login("lost", "Default", PASSWORD, "nowhere")),
    ];
    let mut seconds = vec![Vec::with_capacity(tries); kinds.len()];
    let address = url.join("identity/v3/auth/tokens")?;
    for number in 0..tries.div_ceil(TRIES_PER_ADDRESS) {
        let number = u32::try_from(number).context("too many tries")?;
        let own = std::net::Ipv4Addr::from(0x7f01_0001 + number);
        let client = reqwest::Client::builder().local_address(Some(own.into())).build()?;
        // The connection is made before anything is measured.
        client.get(url.join("identity/v3")?).send().await?.bytes().await?;
        for _ in 0..TRIES_PER_ADDRESS {
            let mut order: Vec<usize> = (0..kinds.len()).collect();
            order.shuffle(&mut rand::rng());
            for kind in order {
                let started = clock.monotonic();
                let answer = client.post(address.clone()).json(&kinds[kind].1).send().await?;
                let status = answer.status();
                let waits = answer.headers().contains_key("retry-after");
                answer.bytes().await?;
                seconds[kind].push((clock.monotonic() - started).as_secs_f64());
                ensure!(status == StatusCode::UNAUTHORIZED && !waits, "{}: {status}, waits: {waits}", kinds[kind].0);
            }
        }
    }
    println!("{:<16} {:>7} {:>9} {:>9} {:>9}   p against wrong password", "refused", "tries", "25%", "median", "75%");
    for (place, (name, _)) in kinds.iter().enumerate() {
        let chance = mann_whitney(&seconds[0], &seconds[place]);
        let mut own = seconds[place].clone();
        own.sort_by(f64::total_cmp);
        let at = |share: f64| own[((own.len() - 1) as f64 * share) as usize] * 1e3;
        let chance = if place == 0 { "-".to_owned() } else { format!("{chance:.3}") };
        println!(
            "{name:<16} {:>7} {:>6.2} ms {:>6.2} ms {:>6.2} ms   {chance}",
            own.len(),
            at(0.25),
            at(0.5),
            at(0.75)
        );
    }
    Ok(())
}

fn login(user: &str, domain: &str, password: &str, project: &str) -> Value {
    let user = json!({"name": user, "domain": {"name": domain}, "password": password});
    json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                    "scope": {"project": {"name": project, "domain": {"id": "default"}}}}})
}

async fn switch_off(url: &Url, name: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let answer = client
        .post(url.join("identity/v3/auth/tokens")?)
        .json(&login("admin", "Default", PASSWORD, "admin"))
        .send()
        .await?
        .error_for_status()?;
    let token = answer.headers().get("x-subject-token").context("a token")?.clone();
    let users = client.get(url.join(&format!("identity/v3/users?name={name}"))?).header("x-auth-token", token.clone());
    let users: Value = users.send().await?.error_for_status()?.json().await?;
    let id = users["users"][0]["id"].as_str().context("the user")?;
    let user = client.patch(url.join(&format!("identity/v3/users/{id}"))?).header("x-auth-token", token);
    user.json(&json!({"user": {"enabled": false}})).send().await?.error_for_status()?;
    Ok(())
}

/// Two-sided probability that samples of one distribution rank as unevenly as these two; normal approximation, good
/// for more than twenty each.
fn mann_whitney(left: &[f64], right: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = left.iter().map(|value| (*value, true)).collect();
    all.extend(right.iter().map(|value| (*value, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Times in nanoseconds hardly ever tie, so ties need no correction.
    let ranks: f64 =
        all.iter().enumerate().filter(|(_, (_, is_left))| *is_left).map(|(rank, _)| rank as f64 + 1.0).sum();
    let (n, m) = (left.len() as f64, right.len() as f64);
    let larger = ranks - n * (n + 1.0) / 2.0;
    let z = (larger - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt();
    complementary_error(z.abs() / std::f64::consts::SQRT_2)
}

/// erfc for x >= 0 (Abramowitz and Stegun 7.1.26; off by less than 1.5e-7).
fn complementary_error(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    sum * (-x * x).exp()
}
