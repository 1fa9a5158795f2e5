//! `orzo config check|example|explain`.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::Value;

use super::output::{Format, Rows};
use crate::settings::{KEYS, Settings, example, nearest};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read a settings file and say what is wrong with it, by file and line.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print a settings file with every key at its default and its meaning.
    Example,
    /// Explain one key, such as `server.listen`; or list all of them.
    Explain {
        /// The key.
        key: Option<String>,
        /// Form of the list.
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
    },
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Check { file } => {
            Settings::read(&file)?;
            println!("{}: fine", file.display());
        }
        Command::Example => print!("{}", example()),
        Command::Explain { key: None, format } => {
            let rows = KEYS.iter().map(|key| {
                [Some(key.name), key.default, Some(key.meaning)]
                    .map(|cell| cell.map_or(Value::Null, Value::from))
                    .to_vec()
            });
            Rows { columns: vec!["key", "default", "meaning"], rows: rows.collect() }.print(format)?;
        }
        Command::Explain { key: Some(name), .. } => {
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                match nearest(&name) {
                    Some(near) => bail!("no key `{name}`; did you mean `{}`?", near.name),
                    None => bail!("no key `{name}`; `orzo config explain` lists all"),
                }
            };
            println!("{}\n  {}", key.name, key.meaning);
            match key.default {
                Some(default) => println!("  default: {default}"),
                None => println!("  unset by default; for example: {}", key.sample),
            }
        }
    }
    Ok(())
}
