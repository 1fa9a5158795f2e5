//! The evaluator by scripts (`tests/scripts`), each of which is also seen failing: with every expectation made wrong, and
//! with an evaluator that never looks.

mod apart;
mod behind;
mod bench;
mod dry;
mod script;
mod slow;
mod told;

use script::{Mutation, Script, scripts};

/// All files of scripts.
const FILES: [&str; 10] = [
    "threshold.txt",
    "groups.txt",
    "missing.txt",
    "composite.txt",
    "event.txt",
    "instant.txt",
    "retired.txt",
    "constraints.txt",
    "time.txt",
    "changes.txt",
];
/// Fewer scripts than this would leave a rule or an edge without one.
const SCRIPTS_MIN: usize = 150;

fn all() -> Vec<Script> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/evaluator/tests/scripts");
    let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).expect("the file is there");
    FILES.iter().flat_map(|file| scripts(file, &read(file))).collect()
}

async fn failures(mutate: impl Fn(&Script) -> Vec<Mutation>, must_hold: bool) -> Vec<String> {
    let mut failures = Vec::new();
    for script in all() {
        for mutation in mutate(&script) {
            match (script.run(mutation).await, must_hold) {
                (Err(error), true) => failures.push(error),
                (Ok(()), false) => {
                    failures.push(format!("{} ({}) holds with {mutation:?}", script.file, script.name));
                }
                _ => {}
            }
        }
    }
    failures
}

#[tokio::test]
async fn every_script_holds() {
    let count = all().len();
    assert!(count >= SCRIPTS_MIN, "{count} scripts");
    let failures = failures(|_| vec![Mutation::None], true).await;
    assert!(failures.is_empty(), "{} of {count} scripts:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn every_expectation_of_every_script_was_seen_failing() {
    let flips = |script: &Script| -> Vec<Mutation> { script.expectations().into_iter().map(Mutation::Flip).collect() };
    let failures = failures(flips, false).await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn every_script_fails_with_an_evaluator_that_never_looks() {
    let failures = failures(|_| vec![Mutation::Idle], false).await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn names_of_scripts_differ() {
    let mut names: Vec<String> = all().into_iter().map(|script| script.name).collect();
    names.sort();
    let repeated: Vec<&String> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}
