//! `orzo token`: read tokens, for Grafana and other programs that only look and speak no Keystone.

use anyhow::Context;
use orzo_model::{SystemClock, Timestamp};
use orzo_session::ServiceRequest;
use serde_json::{Value, json};

use super::{
    output::{Format, Rows},
    query::span_of,
};
use crate::client::Target;

/// What is shown of a token, in this order.
const COLUMNS: [&str; 8] =
    ["id", "name", "project_id", "all_projects", "user_name", "created_at", "expires_at", "last_used_at"];

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  orzo token create grafana --expires 365d\n  curl -u token:TOKEN 'http://127.0.0.1:8041/prometheus/api/v1/query?query=up'\n\nA token is taken as `Authorization: Bearer TOKEN` and as the password of the user `token`, for reading only."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a token and print it; it cannot be shown again.
    Create {
        /// What it is for.
        name: String,
        /// When it ends: a span from now such as 30d, or RFC 3339; never if not given.
        #[arg(long)]
        expires: Option<String>,
        /// Reads the metrics of all projects (administrators only).
        #[arg(long)]
        all: bool,
        /// Id of another project that it reads (administrators only).
        #[arg(long)]
        project: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List the project's tokens, with their makers and last uses.
    List {
        /// Of all projects (administrators only).
        #[arg(long)]
        all_projects: bool,
        #[command(flatten)]
        common: Common,
    },
    /// End a token at once.
    Revoke {
        /// Id of the token, as `list` shows it.
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(clap::Args)]
struct Common {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(arguments.command))
}

async fn answer(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create { name, expires, all, project, common } => {
            let expires_at =
                expires.map(|text| expiry(&text, SystemClock::shared().now())).transpose().context("--expires")?;
            let mut body = json!({"name": name, "all_projects": all});
            if let Some(expires_at) = expires_at {
                body["expires_at"] = expires_at.to_string().into();
            }
            if let Some(project) = project {
                body["project_id"] = project.into();
            }
            let made = ask(&common.target, "POST", "tokens", Some(&body)).await?;
            made["token"].as_str().context("the server's answer has no token")?;
            let fields = ["token"].into_iter().chain(COLUMNS).filter(|name| !made[*name].is_null());
            let rows = fields.map(|name| vec![json!(name), made[name].clone()]).collect();
            match common.format {
                // One object, as programs want it.
                Format::Json => println!("{}", serde_json::to_string_pretty(&made)?),
                format => Rows { columns: vec!["field", "value"], rows }.print(format)?,
            }
            Ok(())
        }
        Command::List { all_projects, common } => {
            let list = ask(&common.target, "GET", &format!("tokens?all_projects={all_projects}"), None).await?;
            let list = list["tokens"].as_array().context("the server's answer has no tokens")?.clone();
            let row = |token: &Value| COLUMNS.iter().map(|column| token[*column].clone()).collect();
            Rows { columns: COLUMNS.to_vec(), rows: list.iter().map(row).collect() }.print(common.format)
        }
        Command::Revoke { id, target } => {
            let segment: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
            ask(&target, "DELETE", &format!("tokens/{segment}"), None).await.map(|_| ())
        }
    }
}

async fn ask(target: &Target, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let session = target.session()?;
    let request = ServiceRequest {
        service_type: "prometheus",
        method: method.parse().context("a method")?,
        path,
        headers: &[],
        body,
    };
    session.request(&request, None).await.context("the server does not answer as it should")
}

fn expiry(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    match text.parse() {
        Ok(time) => Ok(time),
        Err(_) => {
            Timestamp::from_secs_f64(now.secs_f64() + span_of(text)?).context("that is after the end of all times")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_or_a_span() {
        let now = Timestamp::from_secs(1_700_000_000);
        assert_eq!(expiry("1d", now).expect("a span"), Timestamp::from_secs(1_700_086_400));
        assert_eq!(expiry("2023-11-14T22:13:20Z", now).expect("a time"), now);
        for wrong in ["", "soon", "1x", "9e300d"] {
            assert!(expiry(wrong, now).is_err(), "{wrong}");
        }
    }
}
