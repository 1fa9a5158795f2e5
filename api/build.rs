//! Bundles Orzo's page (`page/`) into the crate, if Node and npm are there; else the crate serves a page that says how
//! to get the full one.
//!
//! In: `page/`, Node, npm and a registry that npm can reach. Out: `OUT_DIR/page.rs` with a list of files, compressed.
//! `ORZO_PAGE=off` leaves the page out, `ORZO_PAGE=required` fails where it would be left out. Packages are installed
//! below `OUT_DIR`, again only when `package-lock.json` has changed, and cargo runs this again only when `page/` has.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// What is copied beside `node_modules`.
const INPUTS: &[&str] =
    &["package.json", "package-lock.json", ".npmrc", "tsconfig.json", "bundle.mjs", "index.html", "src"];
/// The first version of Node that the bundler works with.
const NODE_MIN: u32 = 18;
/// How long npm may take; a registry that never answers must not hold a build for ever.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
/// The bundler takes about a second; the rest is for slow machines.
const BUNDLE_LIMIT: Duration = Duration::from_secs(120);
/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(50);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let page = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("page");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for input in INPUTS {
        println!("cargo:rerun-if-changed={}", page.join(input).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ORZO_PAGE");
    let wanted = env::var("ORZO_PAGE").unwrap_or_default();
    let (files, reason) = match wanted.as_str() {
        "off" => (Vec::new(), "it was built with ORZO_PAGE=off".to_owned()),
        _ => match bundled(&page, &out.join("page")) {
            Ok(files) => (files, String::new()),
            Err(error) if wanted == "required" => return Err(error),
            Err(error) => {
                println!("cargo:warning=Orzo's page is left out: {error}");
                (Vec::new(), error.to_string())
            }
        },
    };
    fs::write(out.join("page.rs"), listed(&files, &reason))?;
    Ok(())
}

/// The names of the bundle's files, each there with `.br` and `.gz`.
fn bundled(page: &Path, work: &Path) -> Outcome<Vec<PathBuf>> {
    let version = Command::new("node").arg("--version").output().map_err(|_| "Node was not found")?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < NODE_MIN) {
        return Err(format!("Node {NODE_MIN} or newer is needed, `node --version` says {version:?}").into());
    }
    fs::create_dir_all(work)?;
    let sources = work.join("src");
    if sources.exists() {
        fs::remove_dir_all(&sources)?;
    }
    for input in INPUTS {
        copy(&page.join(input), &work.join(input))?;
    }
    install(work)?;
    run(Command::new("node").arg("bundle.mjs"), work, BUNDLE_LIMIT)?;
    let mut files: Vec<PathBuf> = fs::read_dir(work.join("dist"))?
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.extension().is_some_and(|end| end == "br")))
        .map(|path| path.with_extension(""))
        .collect();
    files.sort();
    Ok(files)
}

/// Installs the locked packages, unless the same lock file's are there.
fn install(work: &Path) -> Outcome<()> {
    let lock = fs::read(work.join("package-lock.json"))?;
    let installed = work.join("installed.json");
    if fs::read(&installed).is_ok_and(|before| before == lock) && work.join("node_modules").is_dir() {
        return Ok(());
    }
    let options = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
    // Without these npm asks a registry that is not there for minutes.
    let patience =
        ["--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000", "--fetch-timeout=30000"];
    run(Command::new("npm").arg("ci").args(options).args(patience), work, INSTALL_LIMIT)?;
    fs::write(installed, lock)?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    if !from.is_dir() {
        fs::copy(from, to).map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Runs a command to its end, and gives the last line that it wrote if it fails.
fn run(command: &mut Command, work: &Path, limit: Duration) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let log = work.join(format!("{name}.log"));
    let file = fs::File::create(&log)?;
    let (out, err) = (file.try_clone()?, file);
    let command = command.current_dir(work).stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if waited >= limit {
            child.kill()?;
            child.wait()?;
            return Err(format!("{name} took longer than {} s", limit.as_secs()).into());
        }
        thread::sleep(LOOK);
        waited += LOOK;
    };
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    let telling = text.lines().map(str::trim).find(|line| line.contains("ERR") || line.contains("rror:"));
    Err(format!("{name} failed: {}; the rest is in {}", telling.unwrap_or("without a word"), log.display()).into())
}

/// The list as Rust.
fn listed(files: &[PathBuf], reason: &str) -> String {
    let mut text = String::from("static FILES: &[File] = &[\n");
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let [br, gz] = ["br", "gz"].map(|end| format!("{}.{end}", file.display()));
        let _ = writeln!(
            text,
            "    File {{ name: {name:?}, brotli: include_bytes!({br:?}), gzip: include_bytes!({gz:?}) }},"
        );
    }
    let _ = writeln!(text, "];\nconst LEFT_OUT_BECAUSE: &str = {reason:?};");
    text
}
