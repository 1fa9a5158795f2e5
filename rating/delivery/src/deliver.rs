//! One delivery after the other: takes, sends on from where it is, writes how far it came, and what follows from a failure.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use orzo_export::{Manifest, check};
use orzo_model::{Room, SharedClock};
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use crate::{
    copy::copy,
    error::DeliveryError,
    objects::{Outgoing, Store, files_of, put_file},
    outbox::{Delivery, Outbox, Parked},
    post::Poster,
    receiver::{Receiver, Verdict},
    target::{Place, Target, secret},
};

/// Nobody else sends what was taken within this time: longer than the longest request.
const LEASE: Duration = Duration::from_secs(1200);
/// The first wait after a failure; each further one is twice as long,
const WAIT_FIRST: Duration = Duration::from_secs(5);
/// up to this.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Without any success for so long a delivery is given up: somebody has to look, and to say that it shall go on.
const GIVE_UP_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Events of one delivery that are parked: where all are refused something is wrong with all of it.
const PARKED_MAX: u64 = 1000;
/// Longest event that is read.
const EVENT_BYTES_MAX: u64 = 1 << 20;
/// Longest failure that is kept.
const FAILURE_CHARACTERS_MAX: usize = 500;

/// What a look at a target came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing is to be sent now.
    Nothing,
    /// A delivery is done.
    Delivered(Delivery),
    /// It did not work, and is tried again.
    Later {
        /// Which.
        delivery_id: String,
        /// Why.
        reason: String,
    },
    /// It is given up, until somebody says that it shall go on.
    GivenUp {
        /// Which.
        delivery_id: String,
        /// Why.
        reason: String,
    },
}

/// Delivers what is in the outbox.
pub struct Deliverer {
    outbox: Outbox,
    poster: Poster,
    clock: SharedClock,
    room: Room,
    holder: String,
}

/// Events and their places in the run.
type Window = Vec<(u64, Value)>;

/// A run's events, file after file.
struct Events {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<(PathBuf, BufReader<File>)>,
    place: u64,
}

impl Events {
    fn next(&mut self) -> Result<Option<(u64, Value)>, DeliveryError> {
        loop {
            let Some((path, reader)) = &mut self.open else {
                let Some(path) = self.files.next() else { return Ok(None) };
                let file = File::open(&path).map_err(DeliveryError::file("read", &path))?;
                self.open = Some((path, BufReader::new(file)));
                continue;
            };
            let mut line = String::new();
            let count = reader.take(EVENT_BYTES_MAX).read_line(&mut line).map_err(DeliveryError::file("read", path))?;
            if count == 0 {
                self.open = None;
                continue;
            }
            let place = self.place;
            self.place += 1;
            let wrong = |what: String| DeliveryError::Hopeless(format!("event {place} in {}: {what}", path.display()));
            if count as u64 == EVENT_BYTES_MAX {
                return Err(wrong(format!("it has {EVENT_BYTES_MAX} bytes or more")));
            }
            return Ok(Some((place, serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?)));
        }
    }

    fn window(&mut self, count: usize) -> Result<Window, DeliveryError> {
        let mut window = Vec::with_capacity(count);
        while window.len() < count {
            let Some(event) = self.next()? else { break };
            window.push(event);
        }
        Ok(window)
    }
}

/// How long to wait after so many tries in a row.
fn wait_after(attempts: u32, asked: Option<Duration>) -> Duration {
    let doubled = WAIT_FIRST.saturating_mul(2_u32.saturating_pow(attempts.min(20)));
    doubled.min(WAIT_MAX).max(asked.unwrap_or_default())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeliveryError> + Send + 'static,
) -> Result<T, DeliveryError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| DeliveryError::again(error.to_string()))?
}

impl Deliverer {
    /// `holder`: the name under which leases are held over restarts; nobody else has it.
    pub fn new(outbox: Outbox, poster: Poster, clock: SharedClock, room: Room, holder: String) -> Self {
        Self { outbox, poster, clock, room, holder }
    }

    /// Sends the next delivery of a target, if there is one whose time has come. An error is one of the outbox.
    pub async fn deliver_next(&self, target: &Target) -> Result<Outcome, DeliveryError> {
        let Some(mut delivery) = self.outbox.take(&target.name, &self.holder, LEASE).await? else {
            return Ok(Outcome::Nothing);
        };
        let sent = self.send(target, &mut delivery).await;
        let (reason, asked, is_hopeless) = match sent {
            Ok(()) => {
                self.outbox.delivered(&delivery).await?;
                return Ok(Outcome::Delivered(delivery));
            }
            // Whoever has it now goes on.
            Err(DeliveryError::TakenOver(_)) => return Ok(Outcome::Nothing),
            Err(DeliveryError::Database(error)) => return Err(error.into()),
            Err(DeliveryError::Again { reason, retry_after }) => (reason, retry_after, false),
            Err(error @ (DeliveryError::Hopeless(_) | DeliveryError::Export(_) | DeliveryError::Refused(_))) => {
                (error.to_string(), None, true)
            }
            Err(error) => (error.to_string(), None, false),
        };
        let reason: String = reason.chars().take(FAILURE_CHARACTERS_MAX).collect();
        let (now, delivery_id) = (self.clock.now(), delivery.delivery_id.clone());
        if is_hopeless || now.since(delivery.began_at) > GIVE_UP_AFTER {
            self.outbox.failed(&delivery, &reason, None).await?;
            return Ok(Outcome::GivenUp { delivery_id, reason });
        }
        let next_at = now.plus(wait_after(delivery.attempts, asked));
        self.outbox.failed(&delivery, &reason, Some(next_at)).await?;
        Ok(Outcome::Later { delivery_id, reason })
    }

    async fn send(&self, target: &Target, delivery: &mut Delivery) -> Result<(), DeliveryError> {
        let directory = PathBuf::from(&delivery.directory);
        let checked = directory.clone();
        let manifest = blocking(move || Ok(check(&checked, None)?)).await?;
        if manifest.run.to_string() != delivery.run_id || manifest.profile != target.profile.name() {
            let reason = format!("{} is not run {} of {}", delivery.directory, delivery.run_id, target.profile.name());
            return Err(DeliveryError::Hopeless(reason));
        }
        match (&target.place, Receiver::of(target.profile)) {
            (Place::Http { url, token_file }, Some(receiver)) => {
                let token = token_file.as_deref().map(secret).transpose()?;
                self.send_events(receiver, (url, token.as_ref()), &directory, &manifest, delivery).await
            }
            (place, _) => self.send_files(place, &directory, &manifest, delivery).await,
        }
    }

    async fn send_files(
        &self,
        place: &Place,
        directory: &Path,
        manifest: &Manifest,
        delivery: &mut Delivery,
    ) -> Result<(), DeliveryError> {
        let files = files_of(manifest);
        let all = files.len() as u64;
        if let Place::Directory(into) = place {
            let (run, manifest, into) = (directory.to_owned(), manifest.clone(), into.clone());
            self.room.received(all);
            match blocking(move || copy(&run, &manifest, &into)).await {
                Ok(_) => self.room.stored(all),
                Err(error) => {
                    self.room.returned(all);
                    return Err(error);
                }
            }
            return self.outbox.came_to(delivery, all, all, &[], LEASE).await;
        }
        let store = match place {
            Place::S3(s3) => Some(Store::new(s3, &secret(&s3.secret_key_file)?)?),
            _ => None,
        };
        let token = match place {
            Place::Http { token_file: Some(path), .. } => Some(secret(path)?),
            _ => None,
        };
        let folder = format!("{}-{}", manifest.profile, manifest.run);
        for (number, (name, entry)) in files.into_iter().enumerate().skip(delivery.done as usize) {
            let path = directory.join(&name);
            let sha256 = match entry {
                Some(entry) => entry.sha256.clone(),
                None => {
                    let path = path.clone();
                    blocking(move || orzo_export::digest_of(&path).map_err(DeliveryError::file("read", &path))).await?
                }
            };
            let file = Outgoing { path: &path, name: format!("{folder}/{name}"), sha256 };
            self.outbox.trying(delivery, number as u64 + 1, LEASE).await?;
            self.room.received(1);
            let put = match (&store, place) {
                (Some(store), _) => store.put(&self.poster, &file, self.clock.now().micros()).await,
                (None, Place::Http { url, .. }) => put_file(&self.poster, url, token.as_ref(), &file).await,
                (None, _) => Err(DeliveryError::Hopeless("this target takes no files".to_owned())),
            };
            match &put {
                Ok(()) => self.room.stored(1),
                Err(_) => self.room.returned(1),
            }
            put?;
            self.outbox.came_to(delivery, number as u64 + 1, 1, &[], LEASE).await?;
        }
        Ok(())
    }

    async fn send_events(
        &self,
        receiver: Receiver,
        to: (&Url, Option<&SecretString>),
        directory: &Path,
        manifest: &Manifest,
        delivery: &mut Delivery,
    ) -> Result<(), DeliveryError> {
        let files: Vec<PathBuf> = manifest.files.iter().map(|file| directory.join(&file.name)).collect();
        let mut events = Events { files: files.into_iter(), open: None, place: 0 };
        let done = delivery.done;
        events = blocking(move || {
            while events.place < done && events.next()?.is_some() {}
            Ok(events)
        })
        .await?;
        loop {
            let (window, rest) = blocking(move || Ok((events.window(receiver.batch_max())?, events))).await?;
            events = rest;
            if window.is_empty() {
                return Ok(());
            }
            self.send_window(receiver, to, window, delivery).await?;
            if delivery.parked > PARKED_MAX {
                let reason = format!("more than {PARKED_MAX} events were refused or may not be sent any more");
                return Err(DeliveryError::Hopeless(reason));
            }
        }
    }

    /// Sends some events that follow each other, together where that works, else one by one.
    async fn send_window(
        &self,
        receiver: Receiver,
        (url, token): (&Url, Option<&SecretString>),
        window: Window,
        delivery: &mut Delivery,
    ) -> Result<(), DeliveryError> {
        let (now, count) = (self.clock.now(), window.len() as u64);
        let end = window.last().map_or(delivery.done, |(place, _)| place + 1);
        let mut parked: Vec<Parked> = Vec::new();
        let mut outgoing: Window = Vec::with_capacity(window.len());
        for (place, event) in window {
            let tried_at = delivery.tried_at.filter(|_| place < delivery.tried_until);
            match receiver.objection(&event, tried_at, now) {
                Some(reason) => parked.push(Parked { place, reason: reason.to_owned() }),
                None => outgoing.push((place, event)),
            }
        }
        self.room.received(count);
        if !outgoing.is_empty() {
            if let Err(error) = self.outbox.trying(delivery, end, LEASE).await {
                self.room.returned(count);
                return Err(error);
            }
            let bodies: Vec<Value> = outgoing.iter().map(|(_, event)| event.clone()).collect();
            let answer = match self.poster.events(receiver, url, token, &bodies).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.room.returned(count);
                    return Err(error);
                }
            };
            let is_single = outgoing.len() == 1;
            match answer.verdict {
                Verdict::Taken if is_single || answer.status.is_success() => {}
                Verdict::Again => {
                    self.room.returned(count);
                    return Err(DeliveryError::Again {
                        reason: format!("the receiver answered with status {}", answer.status),
                        retry_after: answer.retry_after,
                    });
                }
                Verdict::Refused if is_single => {
                    let reason = format!("refused with status {}", answer.status);
                    parked.push(Parked { place: outgoing[0].0, reason });
                }
                // One of them is wrong, or was there before: each is asked for by itself.
                _ => return self.send_each(receiver, (url, token), outgoing, parked, (count, end), delivery).await,
            }
        }
        self.settle(delivery, end, count, parked).await
    }

    async fn send_each(
        &self,
        receiver: Receiver,
        (url, token): (&Url, Option<&SecretString>),
        outgoing: Window,
        mut parked: Vec<Parked>,
        (count, end): (u64, u64),
        delivery: &mut Delivery,
    ) -> Result<(), DeliveryError> {
        let begin = end - count;
        for (place, event) in outgoing {
            let answer = self.poster.events(receiver, url, token, std::slice::from_ref(&event)).await;
            let again = match answer {
                Ok(answer) => match answer.verdict {
                    Verdict::Taken => continue,
                    Verdict::Refused => {
                        parked.push(Parked { place, reason: format!("refused with status {}", answer.status) });
                        continue;
                    }
                    Verdict::Again => DeliveryError::Again {
                        reason: format!("the receiver answered with status {}", answer.status),
                        retry_after: answer.retry_after,
                    },
                },
                Err(error) => error,
            };
            // What came before has its answer.
            self.room.returned(end - place);
            parked.retain(|own| own.place < place);
            // Where nothing has one, this is a failure like another: waits grow, and end.
            if place > begin {
                self.settle(delivery, place, place - begin, parked).await?;
            }
            return Err(again);
        }
        self.settle(delivery, end, count, parked).await
    }

    /// `count` events before `done` have an answer.
    async fn settle(
        &self,
        delivery: &mut Delivery,
        done: u64,
        count: u64,
        mut parked: Vec<Parked>,
    ) -> Result<(), DeliveryError> {
        parked.sort_by_key(|own| own.place);
        let refused = parked.len() as u64;
        match self.outbox.came_to(delivery, done, count - refused, &parked, LEASE).await {
            Ok(()) => {
                self.room.stored(count - refused);
                self.room.refused("parked", refused);
                Ok(())
            }
            Err(error) => {
                self.room.returned(count);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_are_as_long_as_was_asked_for() {
        let waits: Vec<u64> = (0..12).map(|attempts| wait_after(attempts, None).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(wait_after(u32::MAX, None), WAIT_MAX);
        assert_eq!(wait_after(0, Some(Duration::from_secs(7200))).as_secs(), 7200);
    }
}
