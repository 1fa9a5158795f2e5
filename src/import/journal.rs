//! What of an import is done: a file of lines, each with the window of a name that is durable on the other side.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::Tally;

/// The version of the lines.
const FORMAT: u32 = 1;

/// A window of a name, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) name: String,
    pub(crate) from: i64,
    pub(crate) until: i64,
    pub(crate) tally: Tally,
}

/// The first line: an import goes on only with what it began with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    format: u32,
    source: String,
    start_ms: i64,
    end_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    from: i64,
    until: i64,
    samples: u64,
    hash: String,
}

/// The file and what is in it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    windows: Vec<Window>,
    behind: HashMap<String, i64>,
}

impl Journal {
    /// Start and end of the import that this file belongs to, if it is there.
    pub(crate) fn times(path: &Path) -> Option<(i64, i64)> {
        let text = std::fs::read_to_string(path).ok()?;
        let head: Head = serde_json::from_str(text.lines().next()?).ok()?;
        Some((head.start_ms, head.end_ms))
    }

    /// Opens the journal of this import, or begins it.
    pub(crate) fn open(path: &Path, source: &str, start_ms: i64, end_ms: i64) -> anyhow::Result<Self> {
        let in_context = || format!("cannot use the journal {}", path.display());
        let head = Head { format: FORMAT, source: source.to_owned(), start_ms, end_ms };
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).with_context(in_context)?;
        let (mut windows, mut behind, mut whole) = (Vec::new(), HashMap::new(), 0_u64);
        let mut lines = BufReader::new(&file);
        let mut text = String::new();
        for number in 1.. {
            text.clear();
            // A line without an end was being written when the import was stopped: its window is read again.
            if lines.read_line(&mut text).with_context(in_context)? == 0 || !text.ends_with('\n') {
                break;
            }
            let wrong =
                || format!("{}:{number}: not a line of a journal; remove the file to begin anew", path.display());
            if number == 1 {
                let found: Head = serde_json::from_str(&text).with_context(wrong)?;
                if found != head {
                    bail!(
                        "{} is the journal of another import ({found:?}); say the same --from, --start and --end, or \
                         another --journal",
                        path.display()
                    );
                }
            } else {
                let line: Line = serde_json::from_str(&text).with_context(wrong)?;
                let hash = u128::from_str_radix(&line.hash, 16).with_context(wrong)?;
                let tally = Tally { samples: line.samples, hash };
                behind.insert(line.name.clone(), line.until);
                windows.push(Window { name: line.name, from: line.from, until: line.until, tally });
            }
            whole += text.len() as u64;
        }
        file.set_len(whole).with_context(in_context)?;
        let mut journal = Self { path: path.to_owned(), file, windows, behind };
        if whole == 0 {
            journal.put(&head)?;
        }
        Ok(journal)
    }

    /// What is done, name by name.
    pub(crate) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The end of what is done of a name.
    pub(crate) fn behind(&self, name: &str) -> Option<i64> {
        self.behind.get(name).copied()
    }

    /// A window is durable there.
    pub(crate) fn note(&mut self, window: &Window) -> anyhow::Result<()> {
        self.put(&Line {
            name: window.name.clone(),
            from: window.from,
            until: window.until,
            samples: window.tally.samples,
            hash: format!("{:032x}", window.tally.hash),
        })?;
        self.behind.insert(window.name.clone(), window.until);
        self.windows.push(window.clone());
        Ok(())
    }

    fn put(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line).context("a line is plain data")?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Makes it durable.
    pub(crate) fn sync(&mut self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("cannot sync {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(name: &str, from: i64, until: i64) -> Window {
        Window { name: name.to_owned(), from, until, tally: Tally { samples: 3, hash: u128::MAX - 5 } }
    }

    #[test]
    fn a_journal_goes_on_where_it_ended_and_only_with_the_same_import() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal");
        let open = |source: &str| Journal::open(&path, source, 5, 99);
        let mut journal = open("http://a/").expect("begun");
        assert_eq!(journal.behind("up"), None);
        journal.note(&window("up", 5, 50)).expect("noted");
        journal.note(&window("up", 51, 99)).expect("noted");
        drop(journal);
        // A process that was killed while it wrote.
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        file.write_all(b"{\"name\":\"down\",\"fr").expect("written");
        let mut journal = open("http://a/").expect("goes on");
        assert_eq!(journal.windows(), [window("up", 5, 50), window("up", 51, 99)]);
        assert_eq!((journal.behind("up"), journal.behind("down")), (Some(99), None));
        journal.note(&window("down", 5, 99)).expect("noted");
        assert_eq!(open("http://a/").expect("goes on").windows().len(), 3);
        let other = open("http://b/").expect_err("another one");
        assert!(other.to_string().contains("another import"), "{other}");
        file.write_all(b"nonsense\n").expect("written");
        let wrong = open("http://a/").expect_err("damaged");
        assert!(wrong.to_string().contains("journal:5: not a line"), "{wrong}");
    }
}
