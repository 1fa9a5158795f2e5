//! Lines as columns, and columns as lines; the schema that other engines see. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Decimal128Array, Decimal128Builder, Int32Array,
        Int32Builder, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
        TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, Decimal128Type, Field, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType},
};
use bigdecimal::{BigDecimal, ToPrimitive, num_bigint::BigInt};
use orzo_model::Timestamp;
use orzo_rating::{COST_SCALE, LedgerError, LineKind, RatedLine, line::Facts};
use uuid::Uuid;

/// Digits of a decimal: the most that 128 bits hold.
pub(crate) const PRECISION: u8 = 38;
/// Digits after the point.
pub(crate) const SCALE: i8 = COST_SCALE as i8;
/// Longest text of a line, all facts of one kind together: far above what a resource says, far below what fills memory.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// What 38 digits hold.
const LARGEST: i128 = 10_i128.pow(PRECISION as u32) - 1;

/// Name, Arrow's type, Delta's type, whether it may be null, what it says.
const COLUMNS: &[(&str, Kind, bool, &str)] = &[
    ("id", Kind::Text, false, "UUIDv5 of what makes it this line"),
    ("scope", Kind::Text, false, "project id"),
    ("service", Kind::Text, false, "metric type"),
    ("resource", Kind::Text, false, "resource id; empty where grouped away"),
    ("begin", Kind::Time, false, "used from"),
    ("end", Kind::Time, false, "used until"),
    ("period", Kind::Time, false, "begin of the rating period it belongs to"),
    ("unit", Kind::Text, false, "of quantity"),
    ("quantity", Kind::Decimal, false, "after factor, offset and mutation"),
    ("unit_price", Kind::Decimal, false, "of one unit"),
    ("cost", Kind::Decimal, false, "before tax, rounded half-even"),
    ("currency", Kind::Text, false, "ISO 4217"),
    ("kind", Kind::Text, false, "Usage, Purchase, Tax, Credit, Adjustment"),
    ("corrects", Kind::Text, true, "id of the line that it takes back or replaces"),
    ("reverses", Kind::Flag, false, "it takes the line back that it corrects"),
    ("rule", Kind::Text, false, "id of the rule that priced it"),
    ("rule_version", Kind::Long, false, "version of the rules"),
    ("sequence", Kind::Int, false, "tells steps of one rule apart"),
    ("groupby", Kind::Text, false, "JSON object"),
    ("metadata", Kind::Text, false, "JSON object"),
    ("samples", Kind::Long, false, "how many samples or events it rests on"),
    ("rated_at", Kind::Time, false, "when it was made"),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Time,
    Decimal,
    Flag,
    Long,
    Int,
}

impl Kind {
    fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal => DataType::Decimal128(PRECISION, SCALE),
            Self::Flag => DataType::Boolean,
            Self::Long => DataType::Int64,
            Self::Int => DataType::Int32,
        }
    }

    fn delta(self) -> String {
        match self {
            Self::Text => "string".to_owned(),
            Self::Time => "timestamp".to_owned(),
            Self::Decimal => format!("decimal({PRECISION},{SCALE})"),
            Self::Flag => "boolean".to_owned(),
            Self::Long => "long".to_owned(),
            Self::Int => "integer".to_owned(),
        }
    }
}

/// The columns of a file; the partition's is in the log.
pub(crate) fn arrow_schema() -> Arc<Schema> {
    Arc::new(Schema::new(
        COLUMNS.iter().map(|(name, kind, nullable, _)| Field::new(*name, kind.arrow(), *nullable)).collect::<Vec<_>>(),
    ))
}

/// The columns of the table as Delta's protocol writes them.
pub(crate) fn delta_schema() -> String {
    let field = |name: &str, kind: String, nullable: bool, comment: &str| serde_json::json!({"name": name, "type": kind, "nullable": nullable, "metadata": {"comment": comment}});
    let mut fields: Vec<_> =
        COLUMNS.iter().map(|(name, kind, nullable, comment)| field(name, kind.delta(), *nullable, comment)).collect();
    fields.push(field("month", "string".to_owned(), true, "month of the period, such as 2026-11"));
    serde_json::json!({"type": "struct", "fields": fields}).to_string()
}

/// A decimal as the table keeps it; `None` if it has more digits than fit.
fn integer_of(number: &BigDecimal) -> Option<i128> {
    let (digits, scale) = number.as_bigint_and_exponent();
    let integer = match digits.to_i128() {
        Some(digits) => {
            let by = u32::try_from(scale.abs_diff(COST_SCALE)).ok().and_then(|places| 10_i128.checked_pow(places));
            match (scale <= COST_SCALE, by) {
                _ if digits == 0 => Some(0),
                (true, by) => by.and_then(|by| digits.checked_mul(by)),
                (false, by) => by.filter(|by| digits % by == 0).map(|by| digits / by),
            }
        }
        // Many digits, of which many may be zeros at the end.
        None => {
            let scaled = number.with_scale(COST_SCALE);
            (scaled == *number).then(|| scaled.into_bigint_and_exponent().0.to_i128()).flatten()
        }
    };
    integer.filter(|integer| (-LARGEST..=LARGEST).contains(integer))
}

/// A decimal as lines have it.
pub(crate) fn decimal_of(integer: i128) -> BigDecimal {
    BigDecimal::new(BigInt::from(integer), COST_SCALE)
}

/// Facts as text, by their place in memory: lines of a resource share them, and stand hours apart from each other.
#[derive(Default)]
struct FactTexts<'l> {
    known: HashMap<*const BTreeMap<String, String>, (&'l Facts, String)>,
}

impl<'l> FactTexts<'l> {
    fn of(&mut self, facts: &'l Facts) -> &str {
        // They are borrowed as long as this lives, so that no other facts can come to stand at the same place.
        let write = || (facts, serde_json::to_string(&**facts).expect("texts are JSON"));
        &self.known.entry(Arc::as_ptr(facts)).or_insert_with(write).1
    }
}

/// Columns under construction.
#[derive(Default)]
struct Builders {
    texts: [StringBuilder; 8],
    corrects: StringBuilder,
    times: [TimestampMicrosecondBuilder; 4],
    decimals: [Decimal128Builder; 3],
    reverses: BooleanBuilder,
    longs: [Int64Builder; 2],
    sequence: Int32Builder,
    groupby: StringBuilder,
    metadata: StringBuilder,
}

/// Sorted lines as one batch. Refuses what the columns cannot say exactly.
pub(crate) fn encode(lines: &[&RatedLine]) -> Result<RecordBatch, LedgerError> {
    let mut built = Builders::default();
    let (mut groupby, mut metadata) = (FactTexts::default(), FactTexts::default());
    let mut id_text = Uuid::encode_buffer();
    for line in lines {
        let wrong = |reason: String| LedgerError::Invalid { id: line.id, reason };
        let id = line.id.hyphenated().encode_lower(&mut id_text);
        let texts = [
            &*id,
            &line.scope,
            &line.service,
            &line.resource,
            &line.unit,
            &line.currency,
            line.kind.name(),
            &line.rule,
        ];
        for (builder, text) in built.texts.iter_mut().zip(texts) {
            if text.len() > TEXT_BYTES_MAX {
                return Err(wrong(format!("a text has more than {TEXT_BYTES_MAX} bytes")));
            }
            builder.append_value(text);
        }
        built.corrects.append_option(line.corrects.map(|id| id.to_string()));
        for (builder, time) in built.times.iter_mut().zip([line.begin, line.end, line.period, line.rated_at]) {
            builder.append_value(time.micros());
        }
        let decimals = [("quantity", &line.quantity), ("unit_price", &line.unit_price), ("cost", &line.cost)];
        for (builder, (name, number)) in built.decimals.iter_mut().zip(decimals) {
            let integer = integer_of(number).ok_or_else(|| {
                wrong(format!(
                    "{name} {} has more than {PRECISION} digits, {SCALE} of them after the point",
                    number.normalized()
                ))
            })?;
            builder.append_value(integer);
        }
        built.reverses.append_value(line.reverses);
        let long =
            |name: &str, number: u64| i64::try_from(number).map_err(|_| wrong(format!("{name} {number} is too large")));
        built.longs[0].append_value(long("rule_version", line.rule_version)?);
        built.longs[1].append_value(long("samples", line.samples)?);
        built
            .sequence
            .append_value(i32::try_from(line.sequence).map_err(|_| wrong("sequence is too large".to_owned()))?);
        for (builder, texts, facts) in
            [(&mut built.groupby, &mut groupby, &line.groupby), (&mut built.metadata, &mut metadata, &line.metadata)]
        {
            let text = texts.of(facts);
            if text.len() > TEXT_BYTES_MAX {
                return Err(wrong(format!("its facts have more than {TEXT_BYTES_MAX} bytes")));
            }
            builder.append_value(text);
        }
    }
    let [mut id, mut scope, mut service, mut resource, mut unit, mut currency, mut kind, mut rule] = built.texts;
    let [begin, end, period, rated_at] =
        built.times.map(|mut builder| Arc::new(builder.finish().with_timezone("UTC")) as ArrayRef);
    let [quantity, unit_price, cost] =
        built.decimals.map(|mut builder| -> Result<ArrayRef, arrow::error::ArrowError> {
            Ok(Arc::new(builder.finish().with_precision_and_scale(PRECISION, SCALE)?))
        });
    let [rule_version, samples] = built.longs.map(|mut builder| Arc::new(builder.finish()) as ArrayRef);
    let text = |builder: &mut StringBuilder| Arc::new(builder.finish()) as ArrayRef;
    let assembled = (|| {
        let columns = vec![
            text(&mut id),
            text(&mut scope),
            text(&mut service),
            text(&mut resource),
            begin,
            end,
            period,
            text(&mut unit),
            quantity?,
            unit_price?,
            cost?,
            text(&mut currency),
            text(&mut kind),
            text(&mut built.corrects),
            Arc::new(built.reverses.finish()) as ArrayRef,
            text(&mut rule),
            rule_version,
            Arc::new(built.sequence.finish()) as ArrayRef,
            text(&mut built.groupby),
            text(&mut built.metadata),
            samples,
            rated_at,
        ];
        RecordBatch::try_new(arrow_schema(), columns)
    })();
    assembled.map_err(|error| LedgerError::Unavailable { action: "encode", reason: error.to_string() })
}

/// A batch whose rows are read as lines.
pub(crate) struct Lines {
    texts: [StringArray; 8],
    corrects: StringArray,
    times: [TimestampMicrosecondArray; 4],
    decimals: [Decimal128Array; 3],
    reverses: BooleanArray,
    longs: [Int64Array; 2],
    sequence: Int32Array,
    facts: [StringArray; 2],
    known: HashMap<String, Facts>,
    rows: usize,
}

impl Lines {
    /// The columns of a batch; refuses one that is not of our schema.
    pub(crate) fn new(batch: &RecordBatch) -> Result<Self, String> {
        if *batch.schema().fields() != *arrow_schema().fields() {
            return Err("its columns are not those of the ledger".to_owned());
        }
        let column = |name: &str| batch.column_by_name(name).expect("the schema was compared").clone();
        let text = |name: &str| column(name).as_string::<i32>().clone();
        let time = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().clone();
        let decimal = |name: &str| column(name).as_primitive::<Decimal128Type>().clone();
        let long = |name: &str| column(name).as_primitive::<Int64Type>().clone();
        Ok(Self {
            texts: ["id", "scope", "service", "resource", "unit", "currency", "kind", "rule"].map(text),
            corrects: text("corrects"),
            times: ["begin", "end", "period", "rated_at"].map(time),
            decimals: ["quantity", "unit_price", "cost"].map(decimal),
            reverses: column("reverses").as_boolean().clone(),
            longs: ["rule_version", "samples"].map(long),
            sequence: column("sequence").as_primitive::<Int32Type>().clone(),
            facts: ["groupby", "metadata"].map(text),
            known: HashMap::new(),
            rows: batch.num_rows(),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    fn facts(&mut self, which: usize, row: usize) -> Result<Facts, String> {
        let text = self.facts[which].value(row);
        if let Some(facts) = self.known.get(text) {
            return Ok(facts.clone());
        }
        let facts: BTreeMap<String, String> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let facts = Arc::new(facts);
        self.known.insert(text.to_owned(), facts.clone());
        Ok(facts)
    }

    /// Project of a row.
    pub(crate) fn scope(&self, row: usize) -> &str {
        self.texts[1].value(row)
    }

    /// One row.
    pub(crate) fn line(&mut self, row: usize) -> Result<RatedLine, String> {
        let (groupby, metadata) = (self.facts(0, row)?, self.facts(1, row)?);
        let text = |which: usize| self.texts[which].value(row).to_owned();
        let time = |which: usize| Timestamp::from_micros(self.times[which].value(row));
        let decimal = |which: usize| decimal_of(self.decimals[which].value(row));
        let long = |which: usize| u64::try_from(self.longs[which].value(row)).map_err(|error| error.to_string());
        let id = |text: &str| Uuid::from_str(text).map_err(|error| error.to_string());
        let corrects = self.corrects.is_valid(row).then(|| id(self.corrects.value(row))).transpose()?;
        let kind = self.texts[6].value(row);
        Ok(RatedLine {
            id: id(self.texts[0].value(row))?,
            scope: text(1),
            service: text(2),
            resource: text(3),
            begin: time(0),
            end: time(1),
            period: time(2),
            unit: text(4),
            quantity: decimal(0),
            unit_price: decimal(1),
            cost: decimal(2),
            currency: text(5),
            kind: LineKind::named(kind).ok_or_else(|| format!("a kind `{kind}` is not known"))?,
            corrects,
            reverses: self.reverses.value(row),
            rule: text(7),
            rule_version: long(0)?,
            sequence: u32::try_from(self.sequence.value(row)).map_err(|error| error.to_string())?,
            groupby,
            metadata,
            samples: long(1)?,
            rated_at: time(3),
        })
    }
}
