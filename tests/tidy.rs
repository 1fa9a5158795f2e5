//! The order of the house, held by the build: who may import whom, what must exist once, what must not be there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Which of our crates each of our crates may import. A new arrow is a decision: write it here and say why in the
/// commit.
const ARROWS: &[(&str, &[&str])] = &[
    ("orzo-model", &[]),
    ("orzo-bus", &["orzo-model"]),
    ("orzo-database", &["orzo-model"]),
    ("orzo-definitions", &["orzo-model"]),
    ("orzo-hypervisor", &["orzo-model"]),
    ("orzo-session", &["orzo-model"]),
    ("orzo-tokens", &["orzo-model", "orzo-database"]),
    ("orzo-cloud", &["orzo-model", "orzo-bus", "orzo-database", "orzo-hypervisor"]),
    ("orzo-agents", &["orzo-model", "orzo-bus", "orzo-definitions", "orzo-hypervisor", "orzo-session"]),
    ("orzo-scrape", &["orzo-model"]),
    ("orzo-collector", &["orzo-model", "orzo-bus"]),
    ("orzo-store", &["orzo-model"]),
    ("orzo-index", &["orzo-model", "orzo-database"]),
    // Its log stands on the store's disk, so that the same simulated disk breaks both.
    ("orzo-labels", &["orzo-model", "orzo-store"]),
    ("orzo-promql", &[]),
    ("orzo-query", &["orzo-model", "orzo-definitions", "orzo-store", "orzo-index", "orzo-labels", "orzo-promql"]),
    // Lines are the rating's word; the table's log and the disk are the store's.
    ("orzo-ledger", &["orzo-model", "orzo-store", "orzo-rating"]),
    // What series are called stands in two indexes; whoever reads points as tables walks both here. Its table is a Delta table
    // beside the store's, with the same log.
    ("orzo-names", &["orzo-model", "orzo-store", "orzo-index", "orzo-labels"]),
    // Tables are names from both indexes, points from the one scan, and lines from the rating's door to its ledger, whoever
    // keeps it; only the program imports it, so that nothing else waits for its build.
    ("orzo-sql", &["orzo-model", "orzo-store", "orzo-index", "orzo-labels", "orzo-names", "orzo-rating"]),
    ("orzo-alarms", &["orzo-model", "orzo-database"]),
    // Its book of rules, scopes and runs is in the one database.
    ("orzo-rating", &["orzo-model", "orzo-database"]),
    ("orzo-export", &["orzo-model", "orzo-rating"]),
    // Runs on disk are checked before they go out; the outbox is in the one database.
    ("orzo-delivery", &["orzo-model", "orzo-database", "orzo-export"]),
    (
        "orzo-api",
        &[
            "orzo-model",
            "orzo-bus",
            "orzo-session",
            "orzo-tokens",
            "orzo-index",
            "orzo-labels",
            "orzo-promql",
            "orzo-query",
            "orzo-alarms",
            "orzo-rating",
            // Runs are begun and invoices are shown over HTTP, too.
            "orzo-export",
            // Deliveries are asked for and listed.
            "orzo-delivery",
        ],
    ),
];

/// Heavy outside crates and their one home.
const HOMES: &[(&str, &[&str])] = &[
    ("lapin", &["orzo-bus"]),
    ("sqlx", &["orzo-database"]),
    ("virt-sys", &["orzo-hypervisor"]),
    ("libloading", &["orzo-hypervisor"]),
    ("datafusion", &["orzo-sql"]),
    ("parquet", &["orzo-store", "orzo-names", "orzo-ledger", "orzo-export"]),
    ("arrow", &["orzo-store", "orzo-names", "orzo-sql", "orzo-ledger", "orzo-export"]),
    ("rusty-s3", &["orzo-delivery"]),
    ("object_store", &["orzo-store"]),
    ("axum", &["orzo-api", "orzo-cloud", "orzo"]),
];

/// What must be in the lock file at most once: two of them cannot hand each other their types.
const ONCE: &[&str] =
    &["arrow", "arrow-array", "arrow-schema", "parquet", "datafusion", "object_store", "tokio", "rustls"];

/// Everything in the top folder that a user of the repository looks for there.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "ARCHITECTURE.md",
    "src",
    "core",
    "agents",
    "collector",
    "storage",
    "alarms",
    "rating",
    "api",
    "tests",
    "rustfmt.toml",
    "clippy.toml",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> cargo_metadata::Metadata {
    cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        // Without the filter, cargo wants to see crates of other systems, which nobody has downloaded here.
        .other_options(["--offline", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned))
        .exec()
        .expect("cargo metadata answers")
}

#[test]
fn arrows_between_our_crates_are_the_agreed_ones() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        if name == "orzo" {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("crate {name} has no row in ARROWS"));
            continue;
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let is_ours = to.starts_with("orzo-") || to == "orzo";
            if is_ours && dependency.kind == cargo_metadata::DependencyKind::Normal && !allowed.contains(to) {
                wrong.push(format!("{name} imports {to}: not an agreed arrow"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn heavy_crates_stay_in_their_home() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            let home = HOMES.iter().find(|(heavy, _)| *heavy == dependency.name);
            if let Some((heavy, homes)) = home
                && dependency.kind == cargo_metadata::DependencyKind::Normal
                && !homes.contains(&package.name.as_str())
            {
                wrong.push(format!("{} imports {heavy}, whose home is {}", package.name, homes.join(" or ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_must_be_one_is_one() {
    // The lock file has every system's crates.
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    let lock: toml::Table = lock.parse().expect("the lock file is TOML");
    let packages = lock["package"].as_array().expect("packages");
    let mut wrong = Vec::new();
    for name in ONCE {
        let own = packages.iter().filter(|package| package["name"].as_str() == Some(name));
        let versions: Vec<_> = own.filter_map(|package| package["version"].as_str()).collect();
        if versions.len() > 1 {
            wrong.push(format!("{name} is there {} times: {versions:?}", versions.len()));
        }
    }
    assert!(packages.len() > 100, "this is not our lock file");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_agent_is_small() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "orzo-agents", "-e", "normal", "--prefix", "none", "-f", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo tree answers");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.contains("orzo-bus"), "the tree is not that of the agent:\n{tree}");
    for heavy in ["arrow", "parquet", "datafusion", "axum", "sqlx"] {
        let found = tree.lines().find(|line| line.split(' ').next() == Some(heavy));
        assert_eq!(found, None, "orzo-agent must not carry {heavy}");
    }
}

#[test]
fn the_top_folder_holds_what_a_user_looks_for_there() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git answers");
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    let tops: BTreeSet<&str> = listed.lines().filter_map(|line| line.split('/').next()).collect();
    let strange: Vec<_> = tops.into_iter().filter(|top| !top.starts_with('.') && !TOP.contains(top)).collect();
    assert!(strange.is_empty(), "not in the list of top entries: {strange:?}");
}

#[test]
fn unsafe_code_is_forbidden_but_where_libvirt_needs_it() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let directory = package.manifest_path.parent().expect("a manifest has a folder").join("src");
        for entry in ["lib.rs", "main.rs"] {
            let path = directory.join(entry);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let exempt = package.name.as_str() == "orzo-hypervisor";
            assert!(exempt || text.contains("#![forbid(unsafe_code)]"), "{path} does not forbid unsafe code");
        }
    }
}

#[test]
fn every_room_has_a_readme() {
    let mut missing = Vec::new();
    for folder in ["core", "agents", "collector", "storage", "alarms", "api", "tests", "src"] {
        if !root().join(folder).join("README.md").is_file() {
            missing.push(folder);
        }
    }
    assert!(missing.is_empty(), "no README.md in {missing:?}");
}

#[test]
fn nothing_unfinished_and_no_skipped_test() {
    // Written in two parts, so that this file does not find itself.
    let unfinished = ["todo!", "unimplemented!", "#[ignore"]
        .map(|word| format!("{word}{}", if word.starts_with('#') { "" } else { "(" }));
    let mut found = Vec::new();
    visit(&root(), &mut |path, text| {
        for (number, line) in text.lines().enumerate() {
            let is_own = path.ends_with("tests/tidy.rs");
            if !is_own && unfinished.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Calls `each` for every Rust file of ours.
fn visit(directory: &Path, each: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(directory).expect("a readable folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path, &std::fs::read_to_string(&path).expect("readable text"));
        }
    }
}
