//! Alarms that are made through the API of another process, just before the events that they wait for.

use std::sync::Arc;

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{
    Clock, Event, EventFeed, ManualClock, Measure, NumberedEvent, ReadError, Rooms, Scope, SeriesId, Target, Timestamp,
    Trait, TraitValue, WindowRead, WindowReader,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::{AlarmBook, AlarmRequest, Evaluator, EvaluatorParts, EvaluatorSettings, alarm::AlarmState};

/// Events and nothing else.
#[derive(Default)]
struct Events(Mutex<Vec<NumberedEvent>>);

impl Events {
    fn arrive(&self, clock: &ManualClock) {
        let event = Event {
            message_id: "m".to_owned(),
            event_type: "tick".to_owned(),
            generated_at: clock.now(),
            traits: vec![Trait { name: "project_id".into(), value: TraitValue::Text("p".to_owned()) }],
            raw: None,
        };
        let mut events = self.0.lock();
        let number = events.len() as i64 + 1;
        events.push(NumberedEvent { number, stored_at: clock.now(), event });
    }
}

#[async_trait]
impl EventFeed for Events {
    async fn events_after(&self, number: i64, limit: usize) -> Result<Vec<NumberedEvent>, ReadError> {
        Ok(self.0.lock().iter().filter(|event| event.number > number).take(limit).cloned().collect())
    }

    async fn newest_event(&self) -> Result<i64, ReadError> {
        Ok(self.0.lock().len() as i64)
    }

    async fn events_between(&self, _: &str, _: Timestamp, _: Timestamp, _: usize) -> Result<Vec<Event>, ReadError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl WindowReader for Events {
    async fn find_series(&self, _: &Scope, _: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        Ok(Arc::from([]))
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        reads.iter().map(|_| Ok(Vec::new())).collect()
    }
}

struct House {
    clock: Arc<ManualClock>,
    events: Arc<Events>,
    evaluator: Arc<Evaluator>,
    /// The book of the process with the API: it tells this evaluator nothing.
    elsewhere: AlarmBook,
}

async fn house() -> House {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let own = AlarmBook::open(database.clone(), clock.clone()).await.expect("the book opens");
    let elsewhere = AlarmBook::open(database, clock.clone()).await.expect("the book opens again");
    let events = Arc::new(Events::default());
    let parts = EvaluatorParts {
        book: own,
        reader: events.clone(),
        events: Some(events.clone()),
        prometheus: None,
        members: None,
        arrivals: None,
        clock: clock.clone(),
        room: Rooms::new(&prometheus::Registry::new()).room("alarms"),
        notices: Arc::default(),
    };
    House { clock, events, evaluator: Evaluator::new(parts, EvaluatorSettings::default()), elsewhere }
}

impl House {
    async fn make(&self) -> String {
        let body = json!({"name": "ticks", "type": "event", "event_rule": {"event_type": "tick"}});
        let request = AlarmRequest::parse(&body, false).expect("a good request");
        self.elsewhere.create(&request, "u", "p", false).await.expect("created").alarm_id
    }

    async fn state(&self, alarm_id: &str) -> AlarmState {
        self.elsewhere.get(&Scope::All, alarm_id).await.expect("there").state
    }
}

#[tokio::test]
async fn an_alarm_made_elsewhere_misses_no_event_that_came_after_it() {
    let house = house().await;
    house.evaluator.tick().await.expect("evaluated");
    // Long before changes of other processes are looked for again.
    house.clock.advance(std::time::Duration::from_secs(1));
    let alarm_id = house.make().await;
    house.events.arrive(&house.clock);
    house.evaluator.tick().await.expect("evaluated");
    assert_eq!(house.state(&alarm_id).await, AlarmState::Alarm);
}

#[tokio::test]
async fn an_alarm_that_was_there_before_its_first_evaluator_misses_no_event_either() {
    let house = house().await;
    // Before there was an alarm: it tells nobody anything.
    house.events.arrive(&house.clock);
    house.clock.advance(std::time::Duration::from_secs(1));
    let early = house.make().await;
    house.evaluator.tick().await.expect("evaluated");
    assert_ne!(house.state(&early).await, AlarmState::Alarm, "of an event before the alarm");

    let house = self::house().await;
    let alarm_id = house.make().await;
    house.events.arrive(&house.clock);
    house.evaluator.tick().await.expect("evaluated");
    assert_eq!(house.state(&alarm_id).await, AlarmState::Alarm);
}
