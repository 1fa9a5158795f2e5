//! A bucket in memory that fails, for tests of stores whose table is in one.
//!
//! Each request is an operation of the machine's [`SimulatedDisk`], so that a test can stop the machine at it, before or after
//! it took effect; what is in the bucket stays when the machine loses its power. Besides, by a seed, requests fail before they
//! take effect, after, or long before: a put that was given up arrives later. It does not know what the objects mean.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use parking_lot::Mutex;

use super::{
    SimulatedDisk,
    state::{Chance, Verdict},
};

/// What goes wrong between the machine and the bucket, of a thousand requests each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Fail and have no effect.
    pub lost: u64,
    /// Fail although they took effect.
    pub unanswered: u64,
    /// Puts that fail and take effect later, among or after other requests.
    pub late: u64,
    /// Nothing gets through.
    pub is_down: bool,
    /// The bucket puts over what is there, whatever is asked of it.
    pub overwrites: bool,
}

/// The bucket. Clones are one.
#[derive(Clone)]
pub struct SimulatedBucket {
    objects: Arc<InMemory>,
    machine: SimulatedDisk,
    line: Arc<Mutex<Line>>,
}

/// Between the machine and the bucket.
struct Line {
    weather: Weather,
    chance: Chance,
    /// Puts that are on their way, and how many requests pass them.
    late: Vec<(u64, Path, PutPayload, PutOptions)>,
    requests: u64,
}

/// The most requests that pass a late put.
const LATE_MAX: u64 = 40;

enum Fate {
    Works,
    Fails(Error),
    FailsButApplies(Error),
    Late(Error),
}

fn failed(reason: impl ToString) -> Error {
    Error::Generic { store: "simulated", source: reason.to_string().into() }
}

impl SimulatedBucket {
    /// An empty bucket, reached from this machine.
    pub fn new(machine: &SimulatedDisk) -> Self {
        let line = Line { weather: Weather::default(), chance: Chance(0), late: Vec::new(), requests: 0 };
        Self { objects: Arc::default(), machine: machine.clone(), line: Arc::new(Mutex::new(line)) }
    }

    /// The same bucket as a process of this machine sees it, with a line of its own that works.
    pub fn reached_from(&self, machine: &SimulatedDisk) -> Self {
        Self { objects: self.objects.clone(), ..Self::new(machine) }
    }

    /// As a process sees it that starts on its machine now; puts that were on their way still are.
    pub fn booted(&self) -> Self {
        Self { machine: self.machine.booted(), ..self.clone() }
    }

    /// A copy that shares nothing with this one, reached from `machine`.
    pub fn copy(&self, machine: &SimulatedDisk) -> Self {
        Self { objects: Arc::new(self.objects.fork()), ..Self::new(machine) }
    }

    /// Says what goes wrong from now on.
    pub fn set_weather(&self, weather: Weather, seed: u64) {
        let mut line = self.line.lock();
        (line.weather, line.chance) = (weather, Chance(seed));
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.line.lock().requests
    }

    /// What is in it, behind the store's back.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        self.objects.clone()
    }

    /// Lets late puts arrive, and says what becomes of the request at hand.
    async fn fate(&self, is_put: bool) -> Fate {
        let arrived: Vec<_> = {
            let mut line = self.line.lock();
            line.requests += 1;
            line.late.iter_mut().for_each(|(left, ..)| *left = left.saturating_sub(1));
            line.late.extract_if(.., |(left, ..)| *left == 0).collect()
        };
        for (_, name, payload, options) in arrived {
            // Nobody waits for the answer any more.
            let _ = self.objects.put_opts(&name, payload, options).await;
        }
        let verdict = {
            let mut state = self.machine.state.lock();
            if state.boot != self.machine.boot { None } else { Some(state.verdict()) }
        };
        match verdict {
            None => return Fate::Fails(failed("the machine restarted")),
            Some(Verdict::Fails(error)) => return Fate::Fails(failed(error)),
            Some(Verdict::FailsButApplies(error)) => return Fate::FailsButApplies(failed(error)),
            Some(Verdict::Works) => {}
        }
        let mut line = self.line.lock();
        let Weather { lost, unanswered, late, is_down, .. } = line.weather;
        if is_down {
            return Fate::Fails(failed("no route to the bucket"));
        }
        let drawn = line.chance.below(1000);
        if drawn < lost {
            Fate::Fails(failed("the request was lost"))
        } else if drawn < lost + unanswered {
            Fate::FailsButApplies(failed("the answer was lost"))
        } else if is_put && drawn < lost + unanswered + late {
            Fate::Late(failed("no answer in time"))
        } else {
            Fate::Works
        }
    }

    async fn request<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate(false).await {
            Fate::Works => asked.await,
            Fate::Fails(error) | Fate::Late(error) => Err(error),
            Fate::FailsButApplies(error) => {
                let _ = asked.await;
                Err(error)
            }
        }
    }
}

impl fmt::Debug for SimulatedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedBucket")
    }
}

impl fmt::Display for SimulatedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedBucket")
    }
}

#[async_trait]
impl ObjectStore for SimulatedBucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let options = match self.line.lock().weather.overwrites {
            true => PutOptions { mode: PutMode::Overwrite, ..options },
            false => options,
        };
        match self.fate(true).await {
            Fate::Works => self.objects.put_opts(location, payload, options).await,
            Fate::Fails(error) => Err(error),
            Fate::FailsButApplies(error) => {
                let _ = self.objects.put_opts(location, payload, options).await;
                Err(error)
            }
            Fate::Late(error) => {
                let mut line = self.line.lock();
                let passed_by = 1 + line.chance.below(LATE_MAX);
                line.late.push((passed_by, location.clone(), payload, options));
                Err(error)
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request(self.objects.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(self.objects.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.request(self.objects.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let bucket = self.clone();
        let deleted = async move {
            let objects = bucket.objects.clone();
            bucket.request(async move { objects.delete_stream(locations).try_collect::<Vec<_>>().await }).await
        };
        futures::stream::once(deleted)
            .map_ok(|paths| futures::stream::iter(paths.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bucket, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            bucket.request(async { bucket.objects.list(prefix.as_ref()).try_collect::<Vec<_>>().await }).await
        };
        futures::stream::once(listed)
            .map_ok(|objects| futures::stream::iter(objects.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(self.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(self.objects.copy_opts(from, to, options)).await
    }
}
