//! A bucket of an object store, as blocking calls with limits.
//!
//! Comes in: names and bytes. Goes out: the same to any [`ObjectStore`], on a thread of its own, each call with a deadline.
//! Whatever the store did not clearly do or refuse is [`Away`]: it may have been done. It does not know what the objects
//! mean, nor what is kept on this machine.

use std::{
    io,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart, path::Path as Name,
};

use super::{Away, DiskFile, Entry};

/// The longest that one call may take, all tries of it together: longer than the retries of [`super::s3`] and the body of
/// one piece over a slow line.
const CALL_DEADLINE: Duration = Duration::from_secs(90);
/// What is sent or fetched by one request: large enough that its latency is no matter, small enough to be repeated.
const PIECE_BYTES: u64 = 8 << 20;
/// Larger files go in pieces.
const WHOLE_BYTES_MAX: u64 = 2 * PIECE_BYTES;
/// Parts of one file that are on their way at once.
const UPLOADS_MAX: usize = 4;
/// The largest object that is taken into memory: a copy of a version of a table of half a million files.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// What of a foreign server's answer is told.
const TOLD_CHARACTERS_MAX: usize = 600;

/// A part of a bucket.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Name,
    /// `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Bucket {
    /// The objects of `store` whose names begin with `prefix`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        let prefix = Name::parse(prefix).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // One thread is enough: it waits for the network, and copies.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("orzo-store-bucket")
            .enable_all()
            .build()?;
        Ok(Self { store, prefix, runtime: Some(runtime) })
    }

    /// Puts an object unless there is one of that name. The same bytes under that name are our own, from a try whose answer
    /// was lost.
    pub fn put_new(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let (place, payload) = (self.name(name), PutPayload::from(bytes.clone()));
        let put = self.call(move |store| async move { store.put_opts(&place, payload, options).await });
        let Err(error) = put else { return Ok(()) };
        match self.get(name) {
            Ok(there) if there == bytes => Ok(()),
            Ok(_) => {
                let text = format!("{name} is there already, with other contents");
                Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
            }
            // Whether it will be there is not known: a request may still be on its way.
            Err(_) => Err(Away::error(error.kind(), error)),
        }
    }

    /// Puts an object in place of what has that name.
    pub fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (name, payload) = (self.name(name), PutPayload::from(bytes));
        self.call(move |store| async move { store.put(&name, payload).await }).map(drop)
    }

    /// Puts a file whose name was never used before, piece by piece if it is large.
    pub fn put_file(&self, name: &str, file: &dyn DiskFile) -> io::Result<()> {
        let length = file.length()?;
        if length <= WHOLE_BYTES_MAX {
            return self.put_new(name, file.read_at(0, length as usize)?);
        }
        let place = self.name(name);
        let mut upload = WriteMultipart::new(self.call({
            let place = place.clone();
            move |store| async move { store.put_multipart(&place).await }
        })?);
        let mut offset = 0;
        while offset < length {
            let piece = match file.read_at(offset, (length - offset).min(PIECE_BYTES) as usize) {
                Ok(piece) => piece,
                Err(error) => {
                    let _ = self.call(move |_| async move { upload.abort().await });
                    return Err(error);
                }
            };
            offset += piece.len() as u64;
            // Some are on their way while the next is read.
            upload = self.call(move |_| async move {
                match upload.wait_for_capacity(UPLOADS_MAX).await {
                    Ok(()) => {
                        upload.put(piece);
                        Ok(upload)
                    }
                    Err(error) => {
                        // Best effort: pieces that stay are for the bucket's own rule about unfinished uploads.
                        let _ = upload.abort().await;
                        Err(error)
                    }
                }
            })?;
        }
        match self.call(move |_| async move { upload.finish().await }) {
            Ok(_) => Ok(()),
            // It may be there all the same.
            Err(_) if self.length(name).is_ok_and(|there| there == length) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A whole object, in memory.
    pub fn get(&self, name: &str) -> io::Result<Bytes> {
        let place = self.name(name);
        self.call(move |store| async move {
            let got = store.get(&place).await?;
            if got.meta.size > MEMORY_BYTES_MAX {
                let text = format!("{place} has {} bytes, more than {MEMORY_BYTES_MAX}", got.meta.size);
                return Err(Error::NotSupported { source: text.into() });
            }
            got.bytes().await
        })
    }

    /// Hands an object to `take`, piece by piece, each with its offset.
    pub fn get_pieces(
        &self,
        name: &str,
        length: u64,
        mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut offset = 0;
        while offset < length {
            let (place, range) = (self.name(name), offset..(offset + PIECE_BYTES).min(length));
            let expected = range.end - range.start;
            let piece = self.call(move |store| async move { store.get_range(&place, range).await })?;
            if piece.len() as u64 != expected {
                let text = format!("{name} gave {} bytes where {expected} were asked for", piece.len());
                return Err(Away::error(io::ErrorKind::UnexpectedEof, text));
            }
            take(offset, &piece)?;
            offset += expected;
        }
        Ok(())
    }

    /// Length of an object.
    pub fn length(&self, name: &str) -> io::Result<u64> {
        self.look(name).map(|object| object.size)
    }

    /// When an object was put, in seconds since 1970.
    pub fn put_at(&self, name: &str) -> io::Result<i64> {
        self.look(name).map(|object| object.last_modified.timestamp())
    }

    fn look(&self, name: &str) -> io::Result<ObjectMeta> {
        let name = self.name(name);
        self.call(move |store| async move { store.head(&name).await })
    }

    /// What is directly below a name, sorted: objects, and what has more below it as directories.
    pub fn list(&self, name: &str) -> io::Result<Vec<Entry>> {
        let place = self.name(name);
        let found = self.call(move |store| async move { store.list_with_delimiter(Some(&place)).await })?;
        let last = |name: &Name| name.filename().unwrap_or_default().to_owned();
        let files = found.objects.iter().map(|object| Entry {
            name: last(&object.location),
            length: object.size,
            is_directory: false,
        });
        let directories =
            found.common_prefixes.iter().map(|name| Entry { name: last(name), length: 0, is_directory: true });
        let mut entries: Vec<_> = files.chain(directories).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// All objects below a name, however deep, by their names below it.
    pub fn list_below(&self, name: &str) -> io::Result<Vec<Entry>> {
        let place = self.name(name);
        let below = place.clone();
        let objects: Vec<ObjectMeta> =
            self.call(move |store| async move { store.list(Some(&place)).try_collect().await })?;
        let entry = |object: &ObjectMeta| {
            let parts: Vec<_> = object.location.prefix_match(&below)?.collect();
            let name = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
            Some(Entry { name, length: object.size, is_directory: false })
        };
        Ok(objects.iter().filter_map(entry).collect())
    }

    /// Removes an object; it need not be there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let name = self.name(name);
        let names = futures::stream::once(async move { Ok(name) }).boxed();
        let removed = self.call(move |store| async move { store.delete_stream(names).try_collect::<Vec<_>>().await });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    fn name(&self, name: &str) -> Name {
        // Both parts are of plain characters only: nothing is encoded, and nothing twice.
        Name::from(format!("{}/{name}", self.prefix))
    }

    /// Runs on our own thread and waits here, with a deadline.
    fn call<T, F>(&self, ask: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else { return Err(io::ErrorKind::NotConnected.into()) };
        let (reply, answer) = mpsc::sync_channel(1);
        let asked = ask(self.store.clone());
        runtime.spawn(async move {
            let _ = reply.send(tokio::time::timeout(CALL_DEADLINE, asked).await);
        });
        match answer.recv() {
            Ok(Ok(answer)) => answer.map_err(told),
            Ok(Err(_)) => Err(Away::error(io::ErrorKind::TimedOut, format!("no answer within {CALL_DEADLINE:?}"))),
            Err(_) => Err(Away::error(io::ErrorKind::Other, "the request was given up")),
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // Waiting for it is not allowed where the last owner may be a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The store's answer as an error of a disk.
fn told(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => {
            return io::Error::new(io::ErrorKind::NotFound, "there is no such object, or no such bucket");
        }
        Error::AlreadyExists { .. } | Error::Precondition { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    Away::error(kind, error.to_string().chars().take(TOLD_CHARACTERS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        faults::{
            SimulatedDisk,
            bucket::{SimulatedBucket, Weather},
        },
        files::Disk,
    };

    fn bucket() -> (SimulatedDisk, SimulatedBucket, Bucket) {
        let disk = SimulatedDisk::default();
        let objects = SimulatedBucket::new(&disk);
        let bucket = Bucket::new(Arc::new(objects.clone()), "a/b").expect("a thread");
        (disk, objects, bucket)
    }

    #[test]
    fn a_name_is_given_once_and_an_answer_that_was_lost_is_found() {
        let (_, objects, bucket) = bucket();
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        bucket.put_new("x/1", bytes("one")).expect("free");
        let taken = bucket.put_new("x/1", bytes("two")).expect_err("taken");
        assert!(taken.kind() == io::ErrorKind::AlreadyExists && !Away::is(&taken), "{taken}");
        bucket.put_new("x/1", bytes("one")).expect("our own");
        for seed in 0..100 {
            let name = format!("x/{seed}/2");
            objects.set_weather(Weather { lost: 300, unanswered: 300, ..Weather::default() }, seed);
            let put = bucket.put_new(&name, bytes("mine"));
            objects.set_weather(Weather::default(), 0);
            match put {
                Ok(()) => assert_eq!(bucket.get(&name).expect("there"), "mine"),
                Err(error) => assert!(Away::is(&error), "{error}"),
            }
            bucket.put_new(&name, bytes("mine")).expect("again");
        }
    }

    #[test]
    fn a_large_file_goes_and_comes_in_pieces() {
        let (disk, _, bucket) = bucket();
        let contents: Vec<u8> = (0..2 * WHOLE_BYTES_MAX + 12_345).map(|n| (n % 251) as u8).collect();
        let file = disk.create(Path::new("/large")).expect("new");
        file.write_at(0, &contents).expect("written");
        bucket.put_file("x/large", &*file).expect("put");
        let length = bucket.length("x/large").expect("there");
        assert_eq!(length, contents.len() as u64);
        let mut back = Vec::new();
        bucket
            .get_pieces("x/large", length, |offset, bytes| {
                assert_eq!(offset, back.len() as u64);
                assert!(bytes.len() as u64 <= PIECE_BYTES);
                back.extend_from_slice(bytes);
                Ok(())
            })
            .expect("got");
        assert!(back == contents);
    }

    #[test]
    fn lists_are_of_one_level_or_of_all() {
        let (_, _, bucket) = bucket();
        for name in ["x/b", "x/a", "x/d/1", "x/d/e/2", "y/z"] {
            bucket.put(name, Bytes::from_static(b"123")).expect("put");
        }
        let names = |entries: Vec<Entry>| -> Vec<String> { entries.into_iter().map(|entry| entry.name).collect() };
        assert_eq!(names(bucket.list("x").expect("listed")), ["a", "b", "d"]);
        assert_eq!(names(bucket.list_below("x").expect("listed")), ["a", "b", "d/1", "d/e/2"]);
        assert!(bucket.list("nothing").expect("listed").is_empty());
        bucket.remove("x/a").expect("removed");
        bucket.remove("x/a").expect("it need not be there");
        let missing = bucket.get("x/a").expect_err("gone");
        assert!(missing.kind() == io::ErrorKind::NotFound && !Away::is(&missing), "{missing}");
    }
}
