//! kill -9 of the broker under load: every batch that it confirmed is in the store once.

use std::{sync::Arc, time::Duration};

use orzo_bus::{Bus, Message, RabbitBus, batch, topic};
use orzo_model::{Batch, Sample, SampleKind, SystemClock, Timestamp, sample_id};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    has_real_parts,
    orzo::{Orzo, runtime},
    servers::Server,
    wait_for,
};

const KILLS: usize = 10;

#[test]
fn every_confirmed_batch_survives_kills_of_the_broker() {
    if !has_real_parts("broker") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Server::rabbitmq(directory.path());
    let settings = format!(
        "[bus]\nurl = \"{}\"\n[collector]\npast_max = \"36500d\"\n[agents]\nhost = false\n[log]\nlevel = \"warn\"\n",
        broker.url()
    );
    let orzo = Orzo::start(directory.path(), &settings);
    let token = orzo.token();
    let url = broker.url();
    let clock = SystemClock::shared();
    let _inside = runtime().enter();
    let bus: Arc<dyn Bus> = Arc::new(RabbitBus::connect(&url, "ledger", clock.clone()).unwrap());

    let mut confirmed = 0i64;
    let mut sent = 0i64;
    for kill in 0..KILLS {
        // RabbitMQ 3.10 itself can lose the leader of a quorum queue that was declared a moment before the kill: the
        // queue must be on its disk first.
        let settled = if kill == 0 { 8_000 } else { 0 };
        let until = clock.now().plus(Duration::from_millis(settled + rand::random_range(500..2000)));
        while clock.now() < until {
            if publish(&bus, sent) {
                confirmed += 1;
            }
            sent += 1;
        }
        broker.kill();
        // While it is down nothing can be confirmed.
        broker.start();
        // The publisher and the collector come back by themselves.
        wait_for("a confirmed batch after the restart", Duration::from_secs(90), || {
            let done = publish(&bus, sent);
            sent += 1;
            confirmed += i64::from(done);
            done.then_some(())
        });
    }
    assert!(confirmed > KILLS as i64, "too little was confirmed: {confirmed}");

    // Every batch has one sample; unconfirmed ones may have arrived as well.
    let read = || -> Vec<Value> {
        let resources = 0..=(sent / PER_RESOURCE);
        resources
            .flat_map(|resource| {
                let path =
                    format!("/metric/v1/resource/generic/ledger-{resource}/metric/memory.usage/measures?granularity=1");
                let answer = orzo.try_request("GET", &path, &token, None).filter(|(status, _)| *status == 200);
                answer.and_then(|(_, body)| body.as_array().cloned()).unwrap_or_default()
            })
            .collect()
    };
    let mut present = Vec::new();
    wait_for("all confirmed batches in the store", Duration::from_secs(120), || {
        present = read();
        (present.len() as i64 >= confirmed).then_some(())
    });
    eprintln!("broker: {KILLS} kills, {sent} sent, {confirmed} confirmed, {} present", present.len());
    assert!(present.len() as i64 <= sent, "{} present, {sent} sent", present.len());
    for row in &present {
        let time: Timestamp = row[0].as_str().unwrap().parse().unwrap();
        assert_eq!(row[2], json!((time.secs() - FIRST) as f64 * 1.1), "a wrong value at {time}");
    }
    runtime().block_on(bus.close());
    orzo.assert_conserved();
}

const FIRST: i64 = 1_600_000_000;
/// The shipped policy keeps an hour of seconds.
const PER_RESOURCE: i64 = 3000;

fn publish(bus: &Arc<dyn Bus>, number: i64) -> bool {
    let timestamp = Timestamp::from_secs(FIRST + number);
    let sample = Sample {
        id: sample_id("ledger", "ledger", "memory.usage", timestamp),
        meter: "memory.usage".into(),
        kind: SampleKind::Gauge,
        unit: String::new(),
        value: number as f64 * 1.1,
        timestamp,
        resource_id: format!("ledger-{}", number / PER_RESOURCE),
        project_id: None,
        user_id: None,
        source: "test".into(),
        metadata: Arc::default(),
    };
    let id = Uuid::new_v4();
    let body = batch::encode(&Batch { id, origin: "ledger".into(), samples: vec![sample], events: vec![] }).unwrap();
    let message = Message {
        exchange: topic::ORZO_EXCHANGE.into(),
        routing_key: topic::samples_key(0),
        message_id: id.to_string(),
        content_type: batch::CONTENT_TYPE.into(),
        headers: Default::default(),
        body,
    };
    runtime().block_on(async {
        matches!(tokio::time::timeout(Duration::from_secs(3), bus.publish(message)).await, Ok(Ok(())))
    })
}
