//! `orzo`: telemetry and metering for clouds in one binary.
//!
//! This is the only crate that knows every room: it reads the settings, builds the rooms, hands each its parts, and
//! stops them in order. The command line is here too.
#![forbid(unsafe_code)]

mod backup;
mod client;
mod commands;
mod compose;
mod dashboards;
mod import;
mod log;
mod memory;
mod meters;
mod rating;
mod secrets;
mod settings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Telemetry and metering for clouds: Ceilometer's, Gnocchi's and Aodh's work in one binary.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the services. Without arguments: everything, on this machine, with data in ./orzo-data.
    Serve(commands::serve::Arguments),
    /// Check settings, show all of them, or explain one.
    Config(commands::config::Arguments),
    /// List every meter that is known, with unit, kind and origin.
    Meters(commands::meters::Arguments),
    /// Look after what is kept: backup and restore; verify, inspect, stats, compact while the server does not run.
    Store(commands::store::Arguments),
    /// Take over what another system has kept.
    Import(commands::import::Arguments),
    /// Read measures from a running Orzo (or Gnocchi), as a table, CSV, JSON or a plot.
    Measures(commands::measures::Arguments),
    /// Ask in PromQL, for a table, CSV, JSON or a plot.
    Query(commands::query::Arguments),
    /// Ask in SQL, for a table, CSV or JSON; for administrators.
    Sql(commands::sql::Arguments),
    /// The process of one SQL query, which `orzo serve` starts.
    #[command(name = compose::SQL_WORKER, hide = true)]
    SqlWorker,
    /// The busiest guests, refreshed until stopped.
    Top(commands::top::Arguments),
    /// Write Grafana's dashboards and the files that have it load them.
    Dashboards(commands::dashboards::Arguments),
    /// Read tokens, for Grafana and other programs that only look.
    Token(commands::token::Arguments),
    /// What usages cost under rules: CloudKitty's hashmap in exact decimals.
    Rating(commands::rating::Arguments),
    /// Bills: how far usage is rated, rating again, closing, explaining, verifying.
    Bill(commands::bill::Arguments),
    /// Rated lines as files that finance imports (FOCUS, CloudKitty, OpenMeter, Stripe, Lago), signed; invoices.
    Export(commands::export::Arguments),
    /// Alarms and their notices, of a running Orzo (or Aodh).
    Alarm(commands::alarm::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::SqlWorker) {
        return work();
    }
    // reqwest and lapin are built without a default; this is the one place that chooses.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("orzo: a TLS provider was installed twice");
        return ExitCode::FAILURE;
    }
    let outcome = match arguments.command {
        Command::Serve(arguments) => {
            memory::give_back_soon();
            commands::serve::run(arguments)
        }
        Command::Config(arguments) => commands::config::run(arguments),
        Command::Meters(arguments) => commands::meters::run(arguments),
        Command::Store(arguments) => commands::store::run(arguments),
        Command::Import(arguments) => commands::import::run(&arguments),
        Command::Measures(arguments) => commands::measures::run(arguments),
        Command::Query(arguments) => commands::query::run(arguments),
        Command::Sql(arguments) => commands::sql::run(arguments),
        // It has returned above.
        Command::SqlWorker => Ok(()),
        Command::Top(arguments) => commands::top::run(arguments),
        Command::Dashboards(arguments) => commands::dashboards::run(arguments),
        Command::Token(arguments) => commands::token::run(arguments),
        Command::Rating(arguments) => commands::rating::run(arguments),
        Command::Bill(arguments) => commands::bill::run(arguments),
        Command::Export(arguments) => commands::export::run(arguments),
        Command::Alarm(arguments) => commands::alarm::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain, once.
            eprintln!("orzo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one SQL query; before anything else is opened, so that the process has nothing else.
fn work() -> ExitCode {
    match orzo_sql::worker::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orzo: {error}");
            ExitCode::FAILURE
        }
    }
}
