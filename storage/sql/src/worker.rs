//! The process of one query: takes it from the socket that is its standard input, plans and runs it over tables that ask
//! for their rows over the same socket, and writes the answer there.
//!
//! What it is given is all that it has: [`main`] sets its own limits and closes whatever else it was given before it
//! reads a byte of the query. It ends at the end of its socket, whatever it is doing.

use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
};

use datafusion::{
    common::{DataFusionError, config::Dialect},
    execution::{
        SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::{SQLOptions, SessionConfig, SessionContext},
    sql::sqlparser::{
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    },
};
use futures::StreamExt;
use rustix::process::{Resource, Rlimit};

use crate::{
    answer::Writer,
    error::SqlError,
    message::{self, Asked, Begin, Frame, Told},
    tables::Table,
};

mod scan;
use scan::{Scans, SqlTable};

/// Planning recurses over the query; execution over its expressions.
const STACK_BYTES: usize = 32 << 20;
/// What a process maps besides its data: the program, the stacks of its threads, what the allocator sets aside.
const ADDRESS_SPACE_BESIDE: u64 = 2 << 30;
/// Seconds of processor time beyond the deadline of every thread; the parent's watch is first.
const CPU_SECONDS_BESIDE: u64 = 5;
/// The socket, a directory that is being read, and what a runtime needs.
const DESCRIPTORS_MAX: u64 = 64;
/// A third of what others get of the processor where there is not enough for all; with much less, a query would end at its
/// deadline on a machine that is only busy.
const NICE: i32 = 5;
/// Of the memory, what operators may say that they need; the rest is for what they do not say.
const POOL_SHARE: f64 = 0.75;
/// Answers go in blocks of about this size.
const BLOCK_BYTES: usize = 1 << 20;
/// Nesting of a query.
const DEPTH_MAX: u64 = 50;

/// Runs the one query that comes over standard input, and ends. Meant for a process of its own.
pub fn main() -> Result<(), SqlError> {
    let socket = take_socket().map_err(|error| SqlError::unavailable(format!("no socket: {error}")))?;
    confine().map_err(|error| SqlError::unavailable(format!("cannot set the limits of this process: {error}")))?;
    run(socket, true)
}

/// Standard input as a socket; whatever else this process was given is closed.
fn take_socket() -> std::io::Result<UnixStream> {
    for number in foreign_descriptors()? {
        // The directory that was read is among them, and is closed already.
        let _ = nix::unistd::close(number);
    }
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // What is no socket has no peer.
    socket.peer_addr()?;
    Ok(socket)
}

/// Descriptors beyond the three that every process has. Nothing of this process has opened one yet.
fn foreign_descriptors() -> std::io::Result<Vec<i32>> {
    let mut foreign = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        foreign.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|number| *number > 2));
    }
    Ok(foreign)
}

/// What does not depend on the query: no files, no core, no new rights, behind everybody else.
fn confine() -> std::io::Result<()> {
    for (resource, most) in [(Resource::Fsize, 0), (Resource::Core, 0), (Resource::Nofile, DESCRIPTORS_MAX)] {
        limit(resource, most)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::nice(NICE)?;
    Ok(())
}

fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let most = Some(most);
    Ok(rustix::process::setrlimit(resource, Rlimit { current: most, maximum: most })?)
}

/// Reads the query and answers it; `is_own` if the process is for nothing else.
pub(crate) fn run(socket: UnixStream, is_own: bool) -> Result<(), SqlError> {
    let failed = |error: std::io::Error| SqlError::unavailable(error);
    let mut from = std::io::BufReader::new(socket.try_clone().map_err(failed)?);
    let begin = match message::read(&mut from).map_err(failed)? {
        Some(Frame::Message(Told::Begin(begin))) => begin,
        Some(_) => return Err(SqlError::unavailable("the first message is no query")),
        // Nobody asks.
        None => return Ok(()),
    };
    if is_own {
        let seconds = (begin.deadline.as_secs() + 1) * begin.threads.max(1) as u64 + CPU_SECONDS_BESIDE;
        limit(Resource::As, begin.memory_bytes_max.saturating_add(ADDRESS_SPACE_BESIDE)).map_err(failed)?;
        limit(Resource::Cpu, seconds).map_err(failed)?;
    }
    let scans = Scans::new(socket);
    let listener = scans.clone();
    let listen = move || {
        while let Ok(Some(frame)) = message::read::<Told>(&mut from) {
            listener.heard(frame);
        }
        // Whoever asked is gone, and so is the reason for this process.
        if is_own {
            std::process::exit(0);
        }
        listener.closed();
    };
    std::thread::Builder::new().name("sql-socket".to_owned()).spawn(listen).map_err(failed)?;
    let planner = {
        let scans = scans.clone();
        move || -> Result<u64, SqlError> {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime =
                builder.worker_threads(begin.threads.max(1)).thread_stack_size(STACK_BYTES).enable_time().build();
            runtime.map_err(SqlError::unavailable)?.block_on(answer(&begin, &scans))
        }
    };
    let thread = std::thread::Builder::new().name("sql-query".to_owned()).stack_size(STACK_BYTES).spawn(planner);
    let outcome = thread.map_err(failed)?.join().unwrap_or_else(|panic| Err(SqlError::Died { how: said(&*panic) }));
    let last = match outcome {
        Ok(rows) => Asked::Done { rows },
        Err(error) => Asked::Failed(error),
    };
    scans.ask(&last).map_err(failed)
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("without words"))
}

/// Plans and runs a query and sends its answer; gives how many rows it has.
async fn answer(begin: &Begin, scans: &Arc<Scans>) -> Result<u64, SqlError> {
    check(begin)?;
    let context = context(begin, scans).map_err(|error| told(&error, begin))?;
    let plan = context.state().create_logical_plan(&begin.query).await.map_err(|error| wrong(&error))?;
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_reads.verify_plan(&plan).map_err(|error| wrong(&error))?;
    let frame = context.execute_logical_plan(plan).await.map_err(|error| told(&error, begin))?;
    let mut batches = frame.execute_stream().await.map_err(|error| told(&error, begin))?;
    let arrow = |error| told(&DataFusionError::from(error), begin);
    let mut writer = Writer::begin(begin.form, &batches.schema()).map_err(arrow)?;
    let mut bytes = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|error| told(&error, begin))?;
        // In pieces, so that a large batch is refused before all of it is text.
        for from in (0..batch.num_rows()).step_by(PIECE_ROWS) {
            let piece = batch.slice(from, PIECE_ROWS.min(batch.num_rows() - from));
            if writer.rows() + piece.num_rows() as u64 > begin.rows_max {
                return Err(SqlError::TooMuch { what: "rows in the answer".to_owned(), limit: begin.rows_max });
            }
            writer.add(&piece).map_err(arrow)?;
            if bytes + writer.waiting() as u64 > begin.answer_bytes_max {
                return Err(SqlError::TooMuch {
                    what: "bytes in the answer".to_owned(),
                    limit: begin.answer_bytes_max,
                });
            }
            if writer.waiting() >= BLOCK_BYTES {
                bytes += send(scans, &writer.take())?;
            }
        }
    }
    let rows = writer.rows();
    send(scans, &writer.end().map_err(arrow)?)?;
    Ok(rows)
}

/// Rows that are written at once.
const PIECE_ROWS: usize = 1024;

fn send(scans: &Scans, bytes: &[u8]) -> Result<u64, SqlError> {
    for part in bytes.chunks(BLOCK_BYTES) {
        scans.give(part).map_err(SqlError::unavailable)?;
    }
    Ok(bytes.len() as u64)
}

/// What can be refused before anybody plans.
fn check(begin: &Begin) -> Result<(), SqlError> {
    let tokens = Tokenizer::new(&GenericDialect {}, &begin.query).tokenize_with_location().map_err(|error| {
        let place = error.location;
        SqlError::Invalid { reason: error.message, line: Some(place.line), column: Some(place.column) }
    })?;
    let operators = tokens.iter().filter(|token| is_operator(&token.token)).count();
    match operators > begin.operators_max {
        true => Err(SqlError::TooMuch { what: "operators in the query".to_owned(), limit: begin.operators_max as u64 }),
        false => Ok(()),
    }
}

/// Whether a token joins two expressions, so that a chain of them is a tree as deep as it is long.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            let words = ["and", "or", "not", "union", "intersect", "except", "join", "is", "like", "between"];
            word.quote_style.is_none() && words.iter().any(|known| word.value.eq_ignore_ascii_case(known))
        }
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::SemiColon
        | Token::Period
        | Token::RParen
        | Token::RBracket
        | Token::EOF => false,
        _ => true,
    }
}

fn context(begin: &Begin, scans: &Arc<Scans>) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new()
        .with_target_partitions(begin.threads.max(1))
        .with_default_catalog_and_schema("orzo", "public")
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.dialect = Dialect::Generic;
    options.set("datafusion.sql_parser.recursion_limit", &DEPTH_MAX.to_string())?;
    let pool = GreedyMemoryPool::new((begin.memory_bytes_max as f64 * POOL_SHARE) as usize);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let state =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
    let context = SessionContext::new_with_state(state);
    for table in Table::ALL {
        context.register_table(table.name(), Arc::new(SqlTable::new(table, scans.clone())))?;
    }
    Ok(context)
}

/// An error of parsing or planning: the query is wrong.
fn wrong(error: &DataFusionError) -> SqlError {
    let reason = text_of(error);
    if reason.contains("RecursionLimitExceeded") {
        return SqlError::TooMuch { what: "levels of nesting in the query".to_owned(), limit: DEPTH_MAX };
    }
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let (line, column) = match span {
        Some(span) => (Some(span.start.line), Some(span.start.column)),
        None => (number_after(&reason, "Line: "), number_after(&reason, "Column: ")),
    };
    SqlError::Invalid { reason, line, column }
}

/// An error of optimising or running.
fn told(error: &DataFusionError, begin: &Begin) -> SqlError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => SqlError::Memory { bytes_max: begin.memory_bytes_max },
        DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) | DataFusionError::SchemaError(..) => {
            wrong(error)
        }
        _ => SqlError::Failed { reason: text_of(error) },
    }
}

/// An error's text without the engine's wrapping.
fn text_of(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.trim_start_matches("SQL error: ").trim_start_matches("Error during planning: ");
    let bare = text.strip_prefix("ParserError(\"").and_then(|text| text.strip_suffix("\")"));
    bare.unwrap_or(text).to_owned()
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
