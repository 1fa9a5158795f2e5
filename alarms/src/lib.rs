//! Alarms: the book that keeps them, the evaluator that judges them, the notices that tell about it.
//!
//! `window closed → read → judge → transition and notices in one transaction → deliver until a 2xx`
//!
//! Comes in: alarms from the API, measures through [`orzo_model::MeasureReader`]. Goes out: webhooks. This room knows
//! no store, no index and no HTTP server.
#![forbid(unsafe_code)]

mod address;
mod alarm;
mod arrivals;
mod book;
mod constraints;
mod dry_run;
mod evaluations;
mod evaluator;
mod fields;
mod notify;
mod prometheus;
mod promql;
mod python;
mod query;
mod readings;
mod rule;
mod signature;
mod verdict;
mod webhook;
mod windows;

pub use crate::prometheus::Prometheus;
pub use address::{AddressError, AllowList, check_address};
pub use alarm::{Alarm, AlarmError, AlarmRequest, AlarmState, Severity, TimeConstraint};
pub use arrivals::ArrivalBox;
pub use book::{
    AlarmBook, AlarmFilter, BookError, Change, ChangeKind, Notice, NoticeFilter, NoticeState, Page, QuotaDefaults,
    ROWS_MAX, Setback, UNLIMITED,
};
pub use dry_run::{DryRun, DryRunError, DryRunReaders, Timeline, TriedWindow, Turn, test_rule};
pub use evaluations::{Evaluated, EvaluationCount, Evaluations};
pub use evaluator::{Evaluator, EvaluatorParts, EvaluatorSettings, PoolMembers};
pub use notify::{
    CloudDoor, CloudRequest, Deliverer, DoorError, Failure, Notifier, NotifierSettings, Outcome, TopicDoor,
    action::{Action, ActionError, Trust, ZaqarQueue, scrubbed, with_trust},
};
pub use query::{Field, Filter, QueryError, Relation, Search, Sort, Subject, parse_order, parse_sorts, typed_value};
pub use rule::{
    CombinationRule, Comparison, Composite, Condition, EventQuery, EventRule, GroupRule, MemberHealthRule, MeterQuery,
    MeterRule, MeterStatistic, MetricsRule, Operator, PrometheusRule, ResourceRule, Rule, TYPES, Threshold,
};
pub use signature::SigningKeys;
pub use verdict::Judgement;
pub use webhook::Webhook;
