//! Names of OpenTelemetry as Prometheus' OTLP receiver writes them: characters that PromQL does not know become
//! underscores, units and `_total` become suffixes. Pure.

use std::borrow::Cow;

/// Units by their UCUM symbols.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];
/// What a rate is per.
const PER: &[(&str, &str)] =
    &[("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// What decides about a name's suffix besides its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suffix {
    /// A sum that only grows.
    Total,
    /// A gauge; without a dimension it is a ratio.
    Gauge,
    /// Neither.
    Plain,
}

/// The name of a metric.
pub(crate) fn metric_name(name: &str, unit: &str, suffix: Suffix) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut words: Vec<&str> = name.split(|c| !is_kept(c)).filter(|word| !word.is_empty()).collect();
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main.trim(), Some(per.trim())),
        None => (unit.trim(), None),
    };
    let main = known(main, UNITS);
    if !main.is_empty() && !words.contains(&main.as_ref()) {
        words.push(&main);
    }
    let per = per.map(|per| known(per, PER)).filter(|per| !per.is_empty());
    if let Some(per) = &per
        && !words.contains(&per.as_ref())
    {
        words.extend(["per", per.as_ref()]);
    }
    let last = match suffix {
        Suffix::Total => Some("total"),
        Suffix::Gauge if unit.trim() == "1" => Some("ratio"),
        Suffix::Gauge | Suffix::Plain => None,
    };
    if let Some(last) = last {
        words.retain(|word| *word != last);
        words.push(last);
    }
    let text = words.join("_");
    match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{text}"),
        false => text,
    }
}

/// A unit's word; one in braces is a remark, an unknown one is itself.
fn known<'a>(symbol: &'a str, table: &'static [(&str, &str)]) -> Cow<'a, str> {
    if symbol.contains(['{', '}']) {
        return Cow::Borrowed("");
    }
    match table.iter().find(|(own, _)| *own == symbol) {
        Some((_, word)) => Cow::Borrowed(word),
        None => {
            let is_kept = |c: char| c.is_ascii_alphanumeric() || c == ':';
            let words: Vec<&str> = symbol.split(|c| !is_kept(c)).filter(|word| !word.is_empty()).collect();
            Cow::Owned(words.join("_"))
        }
    }
}

/// The name of a label.
pub(crate) fn label_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match plain.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{plain}"),
        [b'_', next, ..] if *next != b'_' => format!("key{plain}"),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_units_once() {
        for (name, unit, suffix, expected) in [
            ("system.cpu.time", "s", Suffix::Total, "system_cpu_time_seconds_total"),
            ("http.server.request.duration", "s", Suffix::Plain, "http_server_request_duration_seconds"),
            ("system.memory.usage", "By", Suffix::Plain, "system_memory_usage_bytes"),
            ("system.cpu.utilization", "1", Suffix::Gauge, "system_cpu_utilization_ratio"),
            ("system.filesystem.bytes", "By", Suffix::Gauge, "system_filesystem_bytes"),
            ("requests_total", "1", Suffix::Total, "requests_total"),
            ("network.io", "By/s", Suffix::Gauge, "network_io_bytes_per_second"),
            ("requests", "{request}", Suffix::Total, "requests_total"),
            ("queue.size", "{item}/s", Suffix::Gauge, "queue_size_per_second"),
            ("5xx errors", "", Suffix::Plain, "_5xx_errors"),
            ("fan", "rpm", Suffix::Gauge, "fan_rpm"),
            ("job:cpu:rate", "", Suffix::Gauge, "job:cpu:rate"),
            ("load", "%", Suffix::Gauge, "load_percent"),
            ("", "", Suffix::Plain, ""),
        ] {
            assert_eq!(metric_name(name, unit, suffix), expected, "{name} {unit}");
        }
    }

    #[test]
    fn labels_are_plain() {
        for (name, expected) in [
            ("host.name", "host_name"),
            ("1st", "key_1st"),
            ("_own", "key_own"),
            ("__reserved", "__reserved"),
            ("ü", "_"),
            ("", ""),
        ] {
            assert_eq!(label_name(name), expected);
        }
    }
}
