//! Topic matching and the routes of our own samples. Pure.
//!
//! Words are separated by dots; `*` stands for one word, `#` for any number of words, none included (AMQP 0-9-1,
//! section 3.1.3.3).

use crate::{QueueKind, QueueSpec};

/// Exchange of our own messages.
pub const ORZO_EXCHANGE: &str = "orzo";
/// Queues that samples are spread over, unless the settings say otherwise: one collector needs one.
pub const SHARDS_DEFAULT: u16 = 1;
/// A batch that cannot be stored is held, not sent back, so deliveries count lost connections and restarts: at one
/// every ten minutes this is more than a day of trouble before the broker sets a batch aside in the dead-letter queue.
pub const SAMPLE_DELIVERIES_MAX: u32 = 200;
/// Batches that wait in a queue at most; beyond it publishers spool. A batch is some 100 kB, so this is some 10 GB.
pub const SAMPLE_BATCHES_MAX: u32 = 100_000;
/// What the name of a dead-letter queue ends with.
pub const DEAD_SUFFIX: &str = ".dead";

/// Whether a binding's pattern takes a routing key.
pub fn matches(pattern: &str, routing_key: &str) -> bool {
    fn words(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => words(rest, key) || (!key.is_empty() && words(pattern, &key[1..])),
            (Some((&"*", rest)), Some((_, key_rest))) => words(rest, key_rest),
            (Some((word, rest)), Some((key_word, key_rest))) => word == key_word && words(rest, key_rest),
            _ => false,
        }
    }
    let pattern: Vec<&str> = pattern.split('.').collect();
    let key: Vec<&str> = routing_key.split('.').collect();
    words(&pattern, &key)
}

/// Routing key of batches of a shard.
pub fn samples_key(shard: u16) -> String {
    format!("samples.{shard}")
}

/// The queue of a shard's batches.
pub fn samples_queue(shard: u16) -> QueueSpec {
    QueueSpec {
        name: format!("orzo.samples.{shard}"),
        kind: QueueKind::QuorumSingleActive,
        bindings: vec![(ORZO_EXCHANGE.to_owned(), samples_key(shard))],
        delivery_limit: SAMPLE_DELIVERIES_MAX,
        length_max: SAMPLE_BATCHES_MAX,
    }
}

/// Name of a queue's dead-letter queue; a dead-letter queue has none itself.
pub fn dead_queue(name: &str) -> Option<String> {
    (!name.ends_with(DEAD_SUFFIX)).then(|| format!("{name}{DEAD_SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_amqp() {
        for (pattern, key, expected) in [
            ("notifications.info", "notifications.info", true),
            ("notifications.*", "notifications.info", true),
            ("notifications.*", "notifications", false),
            ("notifications.*", "notifications.info.more", false),
            ("notifications.#", "notifications", true),
            ("notifications.#", "notifications.info.more", true),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("#.c", "a.b.c", true),
            ("#.b", "a.b.c", false),
            ("*.b.#", "a.b", true),
            ("a.#.#.d", "a.d", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
