//! Notification → samples and event, by the definitions. Pure.
//!
//! As Ceilometer's endpoints do: priority `sample` carries meter messages only, `info` makes samples and an event,
//! everything else an event only.

use orzo_definitions::{Definitions, Notification, Priority};
use orzo_model::{Event, Sample};

use super::{polled, settings::NotificationSettings};

/// What came of one notification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translated {
    /// Samples.
    pub samples: Vec<Sample>,
    /// The event, unless there is none.
    pub events: Vec<Event>,
    /// Reasons of what could not be made, one each, for counters.
    pub dropped: Vec<&'static str>,
}

impl Translated {
    /// Samples, events and reasons.
    pub fn len(&self) -> usize {
        self.samples.len() + self.events.len() + self.dropped.len()
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes samples and event. Never empty: a notification that makes nothing has a reason for that.
pub fn translate(
    definitions: &Definitions,
    settings: &NotificationSettings,
    notification: &Notification,
) -> Translated {
    let mut translated = Translated::default();
    if let Some(messages) = polled::messages(notification) {
        for message in messages {
            match polled::sample(message) {
                Ok(sample) => translated.samples.push(sample),
                Err(reason) => translated.dropped.push(reason),
            }
        }
    } else if notification.priority != Priority::Sample {
        if notification.priority == Priority::Info {
            let metered = definitions.meters.samples(notification, &settings.user_metadata());
            translated.samples = metered.samples;
            translated.dropped = metered.skipped.into_iter().map(|(_, reason)| reason.words()).collect();
        }
        let keep_raw = settings.keeps_raw(notification.priority);
        translated.events.extend(definitions.events.event(notification, keep_raw));
    }
    if translated.is_empty() {
        translated.dropped.push("no definition");
    }
    translated
}
