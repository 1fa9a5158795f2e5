//! What an export has written: a file `manifest.json` beside the days, written anew after each of them, so that an export that was
//! stopped goes on behind the last day that is whole.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use orzo_names::{FlatForm, Tally};
use serde::{Deserialize, Serialize};

/// The version of the manifest.
const FORMAT: u32 = 1;
/// Its name.
pub(super) const NAME: &str = "manifest.json";
/// Files that are not whole begin so.
pub(super) const UNFINISHED: &str = ".unfinished-";

/// What was asked for; an export goes on only with the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) form: FlatForm,
    /// First microsecond; `None`: from the first point on.
    pub(super) from: Option<i64>,
    /// The microsecond behind the last; `None`: to the last point.
    pub(super) until: Option<i64>,
    pub(super) projects: Vec<String>,
    pub(super) meters: Vec<String>,
}

/// A day that is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Day {
    /// Such as `2026-11-21`.
    pub(super) day: String,
    /// Relative to the manifest; `None`: of that day there was nothing that is wanted.
    pub(super) path: Option<String>,
    pub(super) tally: Tally,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    pub(super) question: Question,
    pub(super) days: Vec<Day>,
    /// Rows of all days.
    pub(super) rows: u64,
    /// Whether the export has reached its end.
    pub(super) is_whole: bool,
}

impl Manifest {
    /// The manifest of a directory, which is made if it is not there. What is in it stays: another export, or files of somebody
    /// else, are an error unless they are to be overwritten; then an earlier export's own files go, and nothing else.
    pub(super) fn open(directory: &Path, question: Question, overwrite: bool) -> anyhow::Result<Self> {
        let shown = directory.display();
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {shown}"))?;
        let fresh = Self { format: FORMAT, question, days: Vec::new(), rows: 0, is_whole: false };
        let path = directory.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let is_empty =
                    std::fs::read_dir(directory).with_context(|| format!("cannot list {shown}"))?.next().is_none();
                if !is_empty && !overwrite {
                    bail!("{shown} has files and no {NAME}: name an empty directory, or say --overwrite");
                }
                fresh.write(directory)?;
                return Ok(fresh);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let found: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is no manifest of an export", path.display()))?;
        if found.format != FORMAT {
            bail!("{} was written by another version of Orzo", path.display());
        }
        if overwrite {
            for day in &found.days {
                if let Some(file) = &day.path {
                    remove(&within(directory, file)?)?;
                }
            }
            fresh.write(directory)?;
            return Ok(fresh);
        }
        if found.question != fresh.question {
            bail!("{shown} has another export ({:?}); name another directory, or say --overwrite", found.question);
        }
        if found.is_whole {
            bail!("{shown} has this export already, and it is whole; say --overwrite to make it anew");
        }
        for day in &found.days {
            let Some(file) = &day.path else { continue };
            let length = std::fs::metadata(within(directory, file)?).map(|metadata| metadata.len());
            if length.ok() != Some(day.tally.bytes) {
                bail!("{shown}/{file} is not as the manifest says; say --overwrite to begin anew");
            }
        }
        Ok(found)
    }

    /// A day is done.
    pub(super) fn note(&mut self, directory: &Path, day: Day) -> anyhow::Result<()> {
        self.rows += day.tally.rows;
        self.days.push(day);
        self.write(directory)
    }

    /// Writes it durably in place of the one before.
    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let (path, unfinished) = (directory.join(NAME), directory.join(format!("{UNFINISHED}{NAME}")));
        let mut text = serde_json::to_string_pretty(self).context("a manifest is plain data")?;
        text.push('\n');
        let written = std::fs::write(&unfinished, text).and_then(|()| {
            std::fs::File::open(&unfinished)?.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            std::fs::File::open(directory)?.sync_all()
        });
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A file of the manifest, which names none outside its directory.
fn within(directory: &Path, file: &str) -> anyhow::Result<PathBuf> {
    let is_ours = file.starts_with("day=") && !file.split('/').any(|part| part.is_empty() || part == "..");
    if !is_ours {
        bail!("the manifest names a file `{file}`, which no export writes");
    }
    Ok(directory.join(file))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(meters: &[&str]) -> Question {
        let meters = meters.iter().map(|&meter| meter.to_owned()).collect();
        Question { form: FlatForm::Csv, from: Some(1), until: None, projects: Vec::new(), meters }
    }

    #[test]
    fn an_export_goes_on_with_the_same_question_only_and_overwrites_only_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let mut manifest = Manifest::open(directory, question(&["a"]), false).expect("begun");
        std::fs::create_dir(directory.join("day=2026-11-21")).expect("made");
        let path = "day=2026-11-21/points.csv".to_owned();
        std::fs::write(directory.join(&path), "1234").expect("written");
        let tally = Tally { rows: 1, sum: 0.1 + 0.2, bytes: 4, ..Tally::default() };
        manifest.note(directory, Day { day: "2026-11-21".to_owned(), path: Some(path.clone()), tally }).expect("noted");
        let again = Manifest::open(directory, question(&["a"]), false).expect("goes on");
        assert_eq!(again, manifest, "sums come back bit for bit");
        let other = Manifest::open(directory, question(&["b"]), false).expect_err("another").to_string();
        assert!(other.contains("another export"), "{other}");
        std::fs::write(directory.join(&path), "12345").expect("written");
        let longer = Manifest::open(directory, question(&["a"]), false).expect_err("changed").to_string();
        assert!(longer.contains("not as the manifest says"), "{longer}");
        std::fs::write(directory.join("mine.txt"), "x").expect("written");
        let fresh = Manifest::open(directory, question(&["b"]), true).expect("anew");
        assert!(fresh.days.is_empty() && !directory.join(&path).exists() && directory.join("mine.txt").exists());
        let whole = Manifest { is_whole: true, ..fresh };
        whole.write(directory).expect("written");
        let done = Manifest::open(directory, question(&["b"]), false).expect_err("done").to_string();
        assert!(done.contains("is whole"), "{done}");
        std::fs::remove_file(directory.join(NAME)).expect("removed");
        let strange = Manifest::open(directory, question(&["b"]), false).expect_err("files of somebody").to_string();
        assert!(strange.contains("no manifest.json"), "{strange}");
        let evil = Manifest {
            days: vec![Day { path: Some("day=x/../../etc".to_owned()), ..manifest.days[0].clone() }],
            ..manifest
        };
        evil.write(directory).expect("written");
        assert!(Manifest::open(directory, question(&["a"]), true).is_err(), "a file outside");
    }
}
