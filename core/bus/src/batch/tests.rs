//! A batch on the wire: small, read as it was written, and refused with a reason when it is damaged.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::{Batch, Event, Sample, SampleKind, Timestamp, Trait, TraitValue};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;

/// A poll of `guests` guests with five meters each, as the compute agent sends it.
fn poll(guests: u128) -> Batch {
    let mut samples = Vec::new();
    for guest in 0..guests {
        let metadata = Arc::new(BTreeMap::from([
            ("display_name".to_owned(), json!(format!("guest-{guest}"))),
            ("flavor".to_owned(), json!({"name": "m1.small", "vcpus": 1, "ram": 2048})),
            ("cpu_number".to_owned(), json!(1)),
        ]));
        for meter in ["cpu", "memory.usage", "vcpus", "disk.device.read.bytes", "network.incoming.bytes"] {
            let resource_id = Uuid::from_u128(guest + 1).to_string();
            let timestamp = Timestamp::from_secs(1_795_000_000);
            samples.push(Sample {
                id: orzo_model::sample_id(meter, &resource_id, meter, timestamp),
                meter: meter.to_owned(),
                kind: SampleKind::Cumulative,
                unit: "B".to_owned(),
                value: guest as f64 * 1234.5,
                timestamp,
                resource_id,
                project_id: Some("p".repeat(32)),
                user_id: None,
                source: "openstack".to_owned(),
                metadata: metadata.clone(),
            });
        }
    }
    Batch { id: Uuid::from_u128(7), origin: "compute@host1".to_owned(), samples, events: Vec::new() }
}

#[test]
fn a_batch_is_small_on_the_wire() {
    let batch = poll(1000);
    let encoded = encode(&batch).unwrap();
    assert_eq!(decode(&encoded).unwrap(), batch);
    // 16 of these bytes are the sample's id, which does not compress.
    let per_sample = encoded.len() as f64 / batch.samples.len() as f64;
    println!("{per_sample:.1} bytes a sample");
    assert!(per_sample < 32.0, "{per_sample} bytes a sample");
}

#[test]
fn shared_metadata_stays_shared() {
    let decoded = decode(&encode(&poll(2)).unwrap()).unwrap();
    assert!(Arc::ptr_eq(&decoded.samples[0].metadata, &decoded.samples[4].metadata));
    assert!(!Arc::ptr_eq(&decoded.samples[0].metadata, &decoded.samples[5].metadata));
}

#[test]
fn garbage_is_refused_with_its_reason() {
    let good = encode(&poll(1)).unwrap().to_vec();
    assert_eq!(decode(b""), Err(BatchError::NotABatch));
    assert_eq!(decode(b"{\"oslo.version\": \"2.0\"}"), Err(BatchError::NotABatch));
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(decode(&newer), Err(BatchError::UnknownVersion { found: 2 }));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&flipped), Err(BatchError::Damaged));
    assert_eq!(decode(&good[..good.len() - 1]), Err(BatchError::Damaged));
}

#[test]
fn a_small_message_cannot_take_much_memory() {
    // 64 KiB of text, named by as many samples as fit: 100,000 of them would be 6.5 GB.
    let mut batch = poll(1);
    let sample = Sample { resource_id: "x".repeat(60_000), ..batch.samples[0].clone() };
    batch.samples = vec![sample; 2_000];
    assert!(matches!(encode(&batch), Err(BatchError::TooLarge { what: "bytes in memory", .. })));
    // A declared length beyond the cap is refused before anything is allocated for it.
    let mut bomb = encode(&poll(1)).unwrap().to_vec();
    bomb[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    reseal(&mut bomb);
    assert!(matches!(decode(&bomb), Err(BatchError::TooLarge { what: "payload bytes", .. })));
    // And one that decompresses to more than it declares is not followed.
    let mut liar = encode(&poll(1)).unwrap().to_vec();
    liar[8..12].copy_from_slice(&10u32.to_le_bytes());
    reseal(&mut liar);
    assert!(matches!(decode(&liar), Err(BatchError::Malformed { .. })));
}

#[test]
fn a_large_batch_splits_the_same_way_each_time() {
    let whole = poll(3);
    let (first, second) = split(whole.clone()).unwrap();
    assert_eq!(split(whole.clone()).unwrap(), (first.clone(), second.clone()));
    assert_ne!(first.id, second.id);
    assert_eq!([first.samples, second.samples].concat(), whole.samples);
    assert!(split(Batch { samples: whole.samples[..1].to_vec(), ..whole }).is_none());
}

/// Puts the right checksum on changed bytes, so that what lies behind it is reached.
fn reseal(frame: &mut [u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame[..12]), &frame[HEADER_BYTES..]);
    frame[12..16].copy_from_slice(&checksum.to_le_bytes());
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

prop_compose! {
    fn sample()(
        id in any::<u128>(),
        meter in "[a-z.]{0,20}",
        kind in prop_oneof![Just(SampleKind::Gauge), Just(SampleKind::Delta), Just(SampleKind::Cumulative)],
        unit in "\\PC{0,4}",
        value in prop_oneof![any::<f64>().prop_filter("not a number is unequal to itself", |v| !v.is_nan())],
        timestamp in time(),
        resource_id in "\\PC{0,40}",
        owners in any::<(Option<String>, Option<String>)>(),
        metadata in proptest::collection::btree_map("[a-c]", "[a-z]{0,5}", 0..3),
    ) -> Sample {
        Sample {
            id: Uuid::from_u128(id), meter, kind, unit, value, timestamp, resource_id,
            project_id: owners.0, user_id: owners.1, source: "openstack".to_owned(),
            metadata: Arc::new(metadata.into_iter().map(|(key, value)| (key, json!(value))).collect()),
        }
    }
}

prop_compose! {
    fn event()(
        message_id in "[0-9a-f]{0,32}",
        event_type in "[a-z.]{0,20}",
        generated_at in time(),
        traits in proptest::collection::vec(("[a-z]{1,8}", prop_oneof![
            any::<String>().prop_map(TraitValue::Text),
            any::<i64>().prop_map(TraitValue::Integer),
            (-1e9..1e9f64).prop_map(TraitValue::Float),
            time().prop_map(TraitValue::Datetime),
        ]), 0..5),
        raw in proptest::option::of("\\PC{0,30}"),
    ) -> Event {
        let traits = traits.into_iter().map(|(name, value)| Trait { name, value }).collect();
        Event { message_id, event_type, generated_at, traits, raw }
    }
}

prop_compose! {
    fn any_batch()(
        id in any::<u128>(),
        origin in "\\PC{0,20}",
        samples in proptest::collection::vec(sample(), 0..20),
        events in proptest::collection::vec(event(), 0..5),
    ) -> Batch {
        Batch { id: Uuid::from_u128(id), origin, samples, events }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(batch in any_batch()) {
        prop_assert_eq!(decode(&encode(&batch).unwrap()).unwrap(), batch);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        // The same bytes as a payload behind a right frame, so that the parser is reached.
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&[VERSION, COMPRESSION_ZSTD, 0, 0]);
        frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&zstd::bulk::compress(&bytes, 1).unwrap());
        reseal(&mut frame);
        let _ = decode(&frame);
    }

    #[test]
    fn a_damaged_payload_never_panics(batch in any_batch(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut payload = write::payload(&batch).unwrap();
        let at = at.index(payload.len());
        payload[at] ^= with;
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&[VERSION, COMPRESSION_ZSTD, 0, 0]);
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&zstd::bulk::compress(&payload, 1).unwrap());
        reseal(&mut frame);
        let _ = decode(&frame);
    }

    #[test]
    fn a_flipped_bit_is_noticed(batch in any_batch(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut frame = encode(&batch).unwrap().to_vec();
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        prop_assert!(decode(&frame).is_err());
    }
}
