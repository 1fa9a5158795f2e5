//! Every meter that this program makes by itself, in one table: for `orzo meters`, and for who asks what a name means.

use std::collections::BTreeMap;

use orzo_agents::{host::HOST_METERS, pollsters::POLLSTERS};
use orzo_definitions::{MeterDefinitions, help};
use orzo_model::{MetricMetadata, SampleKind};

/// A meter and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownMeter {
    /// Its name; of some notifications' meters the path to it.
    pub(crate) name: String,
    /// `gauge`, `cumulative` or `delta`; or the path to it.
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) origin: String,
}

/// The whole table; a meter that is both polled and told by notifications has two rows.
pub(crate) fn known() -> Vec<KnownMeter> {
    let mut rows = Vec::new();
    let mut add = |name: &str, kind: &str, unit: &str, origin: &str| {
        let [name, kind, unit, origin] = [name, kind, unit, origin].map(str::to_owned);
        rows.push(KnownMeter { name, kind, unit, origin });
    };
    for meter in POLLSTERS {
        add(meter.meter, word(meter.kind), meter.unit, "compute agent (hypervisor)");
    }
    for meter in HOST_METERS {
        add(meter.name, word(meter.kind), meter.unit, "host agent (/proc, /sys)");
    }
    add("cpu_util", "gauge", "%", "derived by the collector from cpu");
    for (meter, unit) in orzo_collector::derive::RATES {
        add(&format!("{meter}.rate"), "gauge", unit, &format!("derived by the collector from {meter}"));
    }
    for (name, unit) in orzo_agents::central::METERS {
        add(name, "gauge", unit, "central agent (service APIs)");
    }
    for (name, kind, unit) in MeterDefinitions::shipped().listed() {
        add(name, kind, unit, "notifications");
    }
    rows
}

/// What the meters mean, by name, in Prometheus' words: a counter grows; what was added since the last sample is a gauge.
pub(crate) fn described() -> BTreeMap<String, MetricMetadata> {
    let mut described = BTreeMap::new();
    for meter in known().into_iter().filter(|meter| meter.name.bytes().all(is_plain)) {
        let kind = match meter.kind.as_str() {
            "cumulative" => "counter",
            "gauge" | "delta" => "gauge",
            _ => "unknown",
        };
        let about = || MetricMetadata::new(kind, &explained(&meter.name), &meter.unit);
        described.entry(meter.name.clone()).or_insert_with(about);
    }
    described
}

/// Whether a name can have it; paths have more.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_')
}

fn explained(meter: &str) -> String {
    match (help(meter), meter.strip_suffix(".rate").and_then(help)) {
        (Some(help), _) => help.to_owned(),
        (None, Some(help)) => format!("{help}, per second"),
        (None, None) => String::new(),
    }
}

fn word(kind: SampleKind) -> &'static str {
    match kind {
        SampleKind::Gauge => "gauge",
        SampleKind::Delta => "delta",
        SampleKind::Cumulative => "cumulative",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_own_meter_has_a_type_a_help_and_its_unit() {
        let described = described();
        for (name, about) in &described {
            assert!(about.kind != "unknown" && !about.help.is_empty(), "{name}: {about:?}");
        }
        let about = |name: &str| described[name].clone();
        assert_eq!(about("cpu"), MetricMetadata::new("counter", "Processor time that the instance has used", "ns"));
        assert_eq!(about("memory"), MetricMetadata::new("gauge", "Memory of the instance", "MiB"));
        assert_eq!(about("bandwidth").kind, "gauge");
        let rate = MetricMetadata::new("gauge", "Bytes read from the device, per second", "B/s");
        assert_eq!(about("disk.device.read.bytes.rate"), rate);
    }
}
