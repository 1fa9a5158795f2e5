//! What a backup says of itself: `manifest.json`, written last.

use std::path::Path;

use anyhow::{Context, bail};
use orzo_store::BackupReport;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::secrets;

/// The version of this page; a higher one is refused.
pub(crate) const FORMAT: u32 = 1;
const NAME: &str = "manifest.json";
/// No manifest is larger: an entry for each image, record and segment of labels.
const BYTES_MAX: u64 = 256 << 20;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// The version that made it.
    pub(crate) orzo: String,
    pub(crate) made_at: String,
    /// `sqlite`, which is in it, or `postgresql`, which is not.
    pub(crate) database: String,
    pub(crate) points: BackupReport,
    /// Everything but the points, whose files the table's own log describes.
    pub(crate) files: Vec<File>,
    /// What people must know.
    pub(crate) notes: Vec<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Within the backup.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// 32 hexadecimal digits.
    pub(crate) xxh3: String,
}

impl Manifest {
    /// Writes it, with its own checksum as the last line.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("a manifest is plain data")?;
        let checksum = xxh3_128(text.as_bytes());
        secrets::write(&directory.join(NAME), &format!("{text}\n{checksum:032x}\n"))
    }

    /// Reads that of a backup.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(NAME);
        let in_context = || format!("{} is not a whole backup: cannot read {NAME}", directory.display());
        if std::fs::metadata(&path).with_context(in_context)?.len() > BYTES_MAX {
            bail!("{} is larger than a manifest can be", path.display());
        }
        let text = std::fs::read_to_string(&path).with_context(in_context)?;
        let (body, checksum) = text.trim_end().rsplit_once('\n').with_context(in_context)?;
        if checksum != format!("{:032x}", xxh3_128(body.as_bytes())) {
            bail!("{} is damaged: its checksum does not match", path.display());
        }
        let version: serde_json::Value = serde_json::from_str(body).with_context(in_context)?;
        match version["format"].as_u64() {
            Some(format) if format <= u64::from(FORMAT) => {}
            format => bail!("{} has format {format:?}, this program knows up to {FORMAT}", path.display()),
        }
        serde_json::from_value(version).with_context(in_context)
    }
}
