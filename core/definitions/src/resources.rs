//! `gnocchi_resources.yaml`: which resource and archive policy a sample belongs to, and which events make, change or
//! end a resource.
//!
//! `Sample → Placement`, `Event → ResourceAction`s. A meter may be named exactly or by a glob; exact names come first,
//! and of several the last definition is used, as in Ceilometer's publisher for Gnocchi. Other than there, a resource
//! ends at the time of the event, not at the time when somebody got round to it.

mod read;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap, collections::HashMap, time::Duration};

use orzo_model::{Event, Sample, Timestamp, TraitValue};
use serde_json::{Value, json};

use crate::{
    DefinitionError,
    field::{Field, text_of},
    path::Datum,
    pattern::Glob,
};

/// Where samples are put and what events do to resources.
#[derive(Clone, Debug)]
pub struct ResourceDefinitions {
    archive_policies: Vec<ArchivePolicyDefinition>,
    archive_policy_default: Option<String>,
    definitions: Vec<Definition>,
    exact: HashMap<String, Target>,
    globs: Vec<(Glob, Target)>,
}

/// An archive policy that the file brings along.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivePolicyDefinition {
    /// Its name.
    pub name: String,
    /// `mean`, `rate:mean` ...; empty means Gnocchi's default methods.
    pub aggregation_methods: Vec<String>,
    /// Buckets that may still change, of the coarsest granularity.
    pub back_window: u64,
    /// Granularities; two of granularity, timespan and points are given, or all.
    pub definition: Vec<ArchivePolicyItem>,
}

/// One granularity of an archive policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivePolicyItem {
    /// Bucket width.
    pub granularity: Option<Duration>,
    /// How far back buckets are kept.
    pub timespan: Option<Duration>,
    /// How many buckets are kept.
    pub points: Option<u64>,
}

/// Where a sample belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// `instance`, `instance_disk`, `image` ...
    pub resource_type: String,
    /// The metric's archive policy, if file or default say one.
    pub archive_policy_name: Option<String>,
    /// What the sample tells about its resource; without what it does not tell.
    pub attributes: BTreeMap<String, Value>,
}

/// What an event does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// The resource is there now; make it if it is not known.
    Create,
    /// Its attributes changed.
    Update,
    /// It has ended.
    Delete,
}

/// One thing to do because of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceAction {
    /// Create, update or end.
    pub kind: ActionKind,
    /// Type of the resource.
    pub resource_type: String,
    /// The resource's own id, as samples would name it.
    pub resource_id: String,
    /// Its project, if the event tells.
    pub project_id: Option<String>,
    /// Its user, if the event tells.
    pub user_id: Option<String>,
    /// Other attributes that the event tells.
    pub attributes: BTreeMap<String, Value>,
    /// When it happened: the start or end of the resource.
    pub at: Timestamp,
    /// Resources that end with it; only for [`ActionKind::Delete`].
    pub associated: Vec<AssociatedResources>,
}

/// Resources that end together with another one.
#[derive(Clone, Debug, PartialEq)]
pub struct AssociatedResources {
    /// Their type.
    pub resource_type: String,
    /// Gnocchi's search, JSON form, such as `{"=": {"instance_id": "…"}}`.
    pub search: Value,
}

#[derive(Clone, Debug)]
struct Definition {
    resource_type: String,
    attributes: Vec<(String, Field)>,
    event_create: Vec<Glob>,
    event_update: Vec<Glob>,
    event_delete: Vec<Glob>,
    /// (attribute, trait) pairs.
    event_attributes: Vec<(String, String)>,
    /// (type, search with `%s` where the id goes) pairs.
    associated: Vec<(String, Value)>,
}

/// A definition (by number) and the metric's archive policy.
#[derive(Clone, Debug)]
struct Target {
    definition: usize,
    archive_policy_name: Option<String>,
}

impl ResourceDefinitions {
    /// What this program ships.
    pub fn shipped() -> Self {
        let text = include_str!("../defaults/gnocchi_resources.yaml");
        Self::parse("gnocchi_resources.yaml", text).expect("the shipped definitions are tested")
    }

    /// Reads a file's text; the name is for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DefinitionError> {
        read::read(file, text)
    }

    /// Archive policies that the file brings along, to be made if they are missing.
    pub fn archive_policies(&self) -> &[ArchivePolicyDefinition] {
        &self.archive_policies
    }

    /// The policy of metrics for which the file says none.
    pub fn archive_policy_default(&self) -> Option<&str> {
        self.archive_policy_default.as_deref()
    }

    /// Resource types with the names of the attributes that samples and events give them, sorted.
    pub fn resource_types(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for definition in &self.definitions {
            let names = types.entry(&definition.resource_type).or_default();
            names.extend(definition.attributes.iter().map(|(name, _)| name.as_str()));
            let own = |name: &&str| !["id", "project_id", "user_id"].contains(name);
            names.extend(definition.event_attributes.iter().map(|(name, _)| name.as_str()).filter(own));
            names.sort_unstable();
            names.dedup();
        }
        types
    }

    /// The resource type of a meter, if a definition knows it.
    pub fn resource_type(&self, meter: &str) -> Option<&str> {
        self.target(meter).map(|target| self.definitions[target.definition].resource_type.as_str())
    }

    /// Where a sample belongs; `None` if no definition knows its meter.
    pub fn place(&self, sample: &Sample) -> Option<Placement> {
        let target = self.target(&sample.meter)?;
        let definition = &self.definitions[target.definition];
        let mut attributes = BTreeMap::new();
        if !definition.attributes.is_empty() {
            let fields = fields_of(sample);
            let root = Datum::Record(&fields);
            for (name, field) in &definition.attributes {
                if let Some(value) = field.first(&root) {
                    attributes.insert(name.clone(), value);
                }
            }
        }
        Some(Placement {
            resource_type: definition.resource_type.clone(),
            archive_policy_name: target.archive_policy_name.clone(),
            attributes,
        })
    }

    /// What an event does to resources, in the order of the file.
    pub fn actions(&self, event: &Event) -> Vec<ResourceAction> {
        self.definitions.iter().filter_map(|definition| definition.action(event)).collect()
    }

    /// A resource's id as the index knows it: `/` cannot be part of a path in the API, so it becomes `_`.
    pub fn resource_id(id: &str) -> Cow<'_, str> {
        if id.contains('/') { Cow::Owned(id.replace('/', "_")) } else { Cow::Borrowed(id) }
    }

    fn target(&self, meter: &str) -> Option<&Target> {
        self.exact
            .get(meter)
            .or_else(|| self.globs.iter().rev().find(|(glob, _)| glob.is_match(meter)).map(|(_, target)| target))
    }
}

impl Definition {
    fn action(&self, event: &Event) -> Option<ResourceAction> {
        let is = |globs: &[Glob]| globs.iter().any(|glob| glob.is_match(&event.event_type));
        let kind = if is(&self.event_create) {
            ActionKind::Create
        } else if is(&self.event_delete) {
            ActionKind::Delete
        } else if is(&self.event_update) {
            ActionKind::Update
        } else {
            return None;
        };
        let mut attributes = BTreeMap::new();
        for (attribute, name) in &self.event_attributes {
            if let Some(found) = event.traits.iter().find(|t| t.name == *name) {
                attributes.insert(attribute.clone(), json_of(&found.value));
            }
        }
        // Without an id nobody can say which resource is meant.
        let resource_id = text_of(&attributes.remove("id")?);
        let project_id = attributes.remove("project_id").map(|value| text_of(&value));
        let user_id = attributes.remove("user_id").map(|value| text_of(&value));
        let associated = match kind {
            ActionKind::Delete => self
                .associated
                .iter()
                .map(|(resource_type, search)| AssociatedResources {
                    resource_type: resource_type.clone(),
                    search: filled_in(search, &resource_id),
                })
                .collect(),
            ActionKind::Create | ActionKind::Update => Vec::new(),
        };
        Some(ResourceAction {
            kind,
            resource_type: self.resource_type.clone(),
            resource_id: ResourceDefinitions::resource_id(&resource_id).into_owned(),
            project_id,
            user_id,
            attributes,
            at: event.generated_at,
            associated,
        })
    }
}

/// A sample as paths see it: with the names of Ceilometer's sample, and those of its messages.
fn fields_of(sample: &Sample) -> [(&'static str, Datum<'_>); 14] {
    fn text(text: &Option<String>) -> Datum<'_> {
        text.as_deref().map_or(Datum::Made(Value::Null), Datum::Text)
    }
    let kind = match sample.kind {
        orzo_model::SampleKind::Gauge => "gauge",
        orzo_model::SampleKind::Delta => "delta",
        orzo_model::SampleKind::Cumulative => "cumulative",
    };
    [
        ("resource_metadata", Datum::Map(&sample.metadata)),
        ("name", Datum::Text(&sample.meter)),
        ("counter_name", Datum::Text(&sample.meter)),
        ("type", Datum::Text(kind)),
        ("counter_type", Datum::Text(kind)),
        ("unit", Datum::Text(&sample.unit)),
        ("counter_unit", Datum::Text(&sample.unit)),
        ("volume", Datum::Made(json!(sample.value))),
        ("counter_volume", Datum::Made(json!(sample.value))),
        ("resource_id", Datum::Text(&sample.resource_id)),
        ("project_id", text(&sample.project_id)),
        ("user_id", text(&sample.user_id)),
        ("source", Datum::Text(&sample.source)),
        ("timestamp", Datum::Made(sample.timestamp.isoformat().into())),
    ]
}

fn json_of(value: &TraitValue) -> Value {
    match value {
        TraitValue::Text(text) => text.clone().into(),
        TraitValue::Integer(number) => (*number).into(),
        TraitValue::Float(number) => json!(number),
        TraitValue::Datetime(time) => time.isoformat().into(),
    }
}

/// The search with the id in place of `%s`; in the parsed form, so that no id can change the question.
fn filled_in(search: &Value, id: &str) -> Value {
    match search {
        Value::String(text) => Value::String(text.replace("%s", id)),
        Value::Array(list) => list.iter().map(|value| filled_in(value, id)).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), filled_in(value, id))).collect())
        }
        other => other.clone(),
    }
}
