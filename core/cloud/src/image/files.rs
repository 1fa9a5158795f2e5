//! Image data on disk: streamed to a temporary file, hashed and looked into on the way, renamed only when it is whole.
//!
//! Files are named by the image's UUID, which we made; no user's text ever becomes part of a path. It knows no
//! database and no formats but through [`super::format`].

use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use md5::Md5;
use sha2::{Digest, Sha512};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};
use uuid::Uuid;

use super::{
    error::ImageError,
    format::{self, HEAD_BYTES, TAIL_BYTES},
};

/// A client that sends nothing for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes read at once when an image is sent.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// Where image files live.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

/// What came in, now durable under its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Hexadecimal.
    pub md5: String,
    /// Hexadecimal.
    pub sha512: String,
}

impl Files {
    /// Makes the directory and removes what an interrupted upload left.
    pub async fn open(directory: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir_all(&directory).await.map_err(|source| failed("make", &directory, source))?;
        let mut entries = fs::read_dir(&directory).await.map_err(|source| failed("list", &directory, source))?;
        while let Some(entry) = entries.next_entry().await.map_err(|source| failed("list", &directory, source))? {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                remove(&entry.path()).await?;
            }
        }
        Ok(Self { directory })
    }

    /// The file of an image. Only for UUIDs: anything else is a mistake in our own code.
    pub fn path(&self, id: Uuid) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// UUIDs that have a file.
    pub async fn list(&self) -> Result<Vec<Uuid>, ImageError> {
        let mut found = Vec::new();
        let list = |source| failed("list", &self.directory, source);
        let mut entries = fs::read_dir(&self.directory).await.map_err(list)?;
        while let Some(entry) = entries.next_entry().await.map_err(list)? {
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<Uuid>().ok()));
        }
        Ok(found)
    }

    /// Takes a stream of at most `bytes_max` bytes. Whatever goes wrong, nothing is left behind.
    pub async fn receive<S, E>(
        &self,
        id: Uuid,
        declared_format: &str,
        bytes_max: u64,
        stream: S,
    ) -> Result<Received, ImageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        // Named by a UUID of its own: two uploads of one image never share a file.
        let part = self.directory.join(format!("{}.part", Uuid::new_v4()));
        let outcome = self.write(&part, declared_format, bytes_max, stream).await;
        match outcome {
            Ok(received) => {
                let path = self.path(id);
                let renamed = async {
                    fs::rename(&part, &path).await.map_err(|source| failed("rename", &part, source))?;
                    sync_directory(&self.directory).await
                };
                match renamed.await {
                    Ok(()) => Ok(received),
                    Err(error) => {
                        let _ = fs::remove_file(&part).await;
                        let _ = fs::remove_file(&path).await;
                        Err(error)
                    }
                }
            }
            Err(error) => {
                // If this fails as well, `open` removes it at the next start.
                let _ = fs::remove_file(&part).await;
                Err(error)
            }
        }
    }

    async fn write<S, E>(
        &self,
        part: &Path,
        declared_format: &str,
        bytes_max: u64,
        mut stream: S,
    ) -> Result<Received, ImageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let write = |source| failed("write", part, source);
        let mut file =
            fs::OpenOptions::new().write(true).read(true).create_new(true).open(part).await.map_err(write)?;
        let (mut md5, mut sha512, mut size) = (Md5::new(), Sha512::new(), 0u64);
        loop {
            let next = tokio::time::timeout(IDLE_MAX, stream.next()).await;
            let next = next.map_err(|_| ImageError::bad_request("The upload stalled."))?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|error| ImageError::bad_request(format!("The upload broke off: {error}")))?;
            size += chunk.len() as u64;
            if size > bytes_max {
                return Err(ImageError::too_large(format!("The image is larger than the {bytes_max} bytes allowed.")));
            }
            md5.update(&chunk);
            sha512.update(&chunk);
            file.write_all(&chunk).await.map_err(write)?;
        }
        file.flush().await.map_err(write)?;
        let head = read_at(&mut file, 0, HEAD_BYTES).await.map_err(write)?;
        let tail = read_at(&mut file, size.saturating_sub(TAIL_BYTES as u64), TAIL_BYTES).await.map_err(write)?;
        let virtual_size = format::inspect(declared_format, &head, &tail, size)?;
        file.sync_all().await.map_err(write)?;
        Ok(Received { size, virtual_size, md5: hex::encode(md5.finalize()), sha512: hex::encode(sha512.finalize()) })
    }

    /// Opens an image's data at an offset.
    pub async fn read(&self, id: Uuid, offset: u64) -> Result<fs::File, ImageError> {
        let path = self.path(id);
        let open = |source| failed("open", &path, source);
        let mut file = fs::File::open(&path).await.map_err(open)?;
        file.seek(SeekFrom::Start(offset)).await.map_err(open)?;
        Ok(file)
    }

    /// Removes an image's data, if there is any.
    pub async fn delete(&self, id: Uuid) -> Result<(), ImageError> {
        remove(&self.path(id)).await
    }
}

async fn read_at(file: &mut fs::File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset)).await?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

async fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path, error)),
    }
}

/// Makes a rename durable.
async fn sync_directory(directory: &Path) -> Result<(), ImageError> {
    let sync = |source| failed("sync", directory, source);
    fs::File::open(directory).await.map_err(sync)?.sync_all().await.map_err(sync)
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> ImageError {
    ImageError::File { action, path: path.to_owned(), source }
}
