//! What of an import from Gnocchi is done: a file of lines, each with a metric whose points are durable on the other side, and what they
//! add up to.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of the lines.
const FORMAT: u32 = 1;

/// The first line: an import goes on only with what it began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) source: String,
    pub(crate) aggregation: String,
}

/// A metric whose points are here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) id: Uuid,
    pub(crate) name: Option<String>,
    /// Points that were read there.
    pub(crate) points: u64,
    /// Sum of those that are numbers.
    pub(crate) sum: f64,
    /// Those that are none.
    pub(crate) not_numbers: u64,
    /// First and last time, microseconds.
    pub(crate) times: Option<(i64, i64)>,
    /// Which method was read; `None`: the policy has none that stands for values, so nothing was.
    pub(crate) method: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct First {
    format: u32,
    #[serde(flatten)]
    head: Head,
}

/// The file and what is in it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    pub(crate) done: Vec<Done>,
    known: HashSet<Uuid>,
}

impl Journal {
    /// Opens the journal of this import, or begins it.
    pub(crate) fn open(path: &Path, head: &Head) -> anyhow::Result<Self> {
        let in_context = || format!("cannot use the journal {}", path.display());
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).with_context(in_context)?;
        let (mut done, mut known, mut whole, mut text) = (Vec::<Done>::new(), HashSet::new(), 0_u64, String::new());
        let mut lines = BufReader::new(&file);
        for number in 1.. {
            text.clear();
            // A line without an end was being written when the import was stopped: its metric is read again.
            if lines.read_line(&mut text).with_context(in_context)? == 0 || !text.ends_with('\n') {
                break;
            }
            let wrong =
                || format!("{}:{number}: not a line of a journal; remove the file to begin anew", path.display());
            if number == 1 {
                let first: First = serde_json::from_str(&text).with_context(wrong)?;
                if first.format != FORMAT || first.head != *head {
                    bail!(
                        "{} is the journal of another import ({:?}); name another --journal",
                        path.display(),
                        first.head
                    );
                }
            } else {
                let line: Done = serde_json::from_str(&text).with_context(wrong)?;
                known.insert(line.id);
                done.push(line);
            }
            whole += text.len() as u64;
        }
        file.set_len(whole).with_context(in_context)?;
        let mut journal = Self { path: path.to_owned(), file, done, known };
        if whole == 0 {
            journal.put(&First { format: FORMAT, head: head.clone() })?;
        }
        Ok(journal)
    }

    /// Whether a metric's points are here.
    pub(crate) fn has(&self, id: Uuid) -> bool {
        self.known.contains(&id)
    }

    /// A metric's points are durable here.
    pub(crate) fn note(&mut self, done: Done) -> anyhow::Result<()> {
        self.put(&done)?;
        self.known.insert(done.id);
        self.done.push(done);
        Ok(())
    }

    fn put(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line).context("a line is plain data")?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Makes it durable.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("cannot sync {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_goes_on_where_it_ended_and_only_with_the_same_import() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal");
        let head = |aggregation: &str| Head { source: "http://a/".to_owned(), aggregation: aggregation.to_owned() };
        let done = |number: u128| Done {
            id: Uuid::from_u128(number),
            name: Some("cpu".to_owned()),
            points: 3,
            sum: 0.1 + 0.2,
            not_numbers: 1,
            times: Some((1, 9)),
            method: Some("mean".to_owned()),
        };
        let mut journal = Journal::open(&path, &head("mean")).expect("begun");
        journal.note(done(1)).expect("noted");
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        file.write_all(b"{\"id\":\"0000").expect("written");
        let mut journal = Journal::open(&path, &head("mean")).expect("goes on");
        assert_eq!(journal.done, [done(1)], "sums come back bit for bit");
        assert!(journal.has(Uuid::from_u128(1)) && !journal.has(Uuid::from_u128(2)));
        journal.note(done(2)).expect("noted");
        assert_eq!(Journal::open(&path, &head("mean")).expect("goes on").done.len(), 2);
        let other = Journal::open(&path, &head("last")).expect_err("another one");
        assert!(other.to_string().contains("another import"), "{other}");
    }
}
