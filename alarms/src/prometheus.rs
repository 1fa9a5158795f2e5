//! Instant queries to a Prometheus: one GET with deadlines and a bounded answer.

use std::time::Duration;

use async_trait::async_trait;
use orzo_model::{InstantQueries, ReadError, Scope, Timestamp};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use url::Url;

use crate::promql;

/// A query that takes longer keeps the other alarms waiting.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A host that does not answer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// 100,000 series of an instant vector; a rule over more is a mistake.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How much of an error's text is told.
const ERROR_CHARACTERS_MAX: usize = 200;

/// A Prometheus, or what speaks like one.
#[derive(Clone)]
pub struct Prometheus {
    client: Client,
    base: Url,
    label: String,
}

impl Prometheus {
    /// `base` such as `http://prometheus:9090`; `label` names the project in its series.
    pub fn new(base: Url, label: impl Into<String>) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("orzo/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, base, label: label.into() })
    }
}

#[async_trait]
impl InstantQueries for Prometheus {
    /// A project's query is bound to its label, whatever it says.
    async fn instant(&self, scope: &Scope, query: &str, at: Timestamp) -> Result<Vec<f64>, ReadError> {
        let query = match scope {
            Scope::All => query.to_owned(),
            Scope::Project(project) => {
                promql::scoped(query, &self.label, project).map_err(|reason| ReadError::Invalid { reason })?
            }
            _ => return Err(ReadError::Invalid { reason: "a Prometheus knows only projects".to_owned() }),
        };
        self.query(&query, at).await.map_err(|reason| ReadError::Unavailable { reason })
    }
}

impl Prometheus {
    async fn query(&self, query: &str, at: Timestamp) -> Result<Vec<f64>, String> {
        let mut url = self.base.clone();
        let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let time = format!("{:.3}", at.secs_f64());
        let request = self.client.get(url).query(&[("query", query), ("time", time.as_str())]);
        let mut response = request.send().await.map_err(|error| format!("Prometheus: {}", error.without_url()))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| format!("Prometheus: {}", error.without_url()))?
        {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("Prometheus answers more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status != StatusCode::OK || answer["status"] != "success" {
            let told: String =
                answer["error"].as_str().unwrap_or("no reason").chars().take(ERROR_CHARACTERS_MAX).collect();
            return Err(format!("Prometheus answers {}: {told}", status.as_u16()));
        }
        values_of(&answer["data"])
    }
}

fn values_of(data: &Value) -> Result<Vec<f64>, String> {
    let value = |pair: &Value| pair.get(1).and_then(Value::as_str).and_then(number);
    let broken = || "Prometheus gives an answer that is none".to_owned();
    match (data["resultType"].as_str(), &data["result"]) {
        (Some("vector"), Value::Array(items)) => {
            items.iter().map(|item| value(&item["value"]).ok_or_else(broken)).collect()
        }
        (Some("scalar"), pair) => value(pair).map(|value| vec![value]).ok_or_else(broken),
        (Some(other), _) => Err(format!("Prometheus gives a {other}; an alarm needs an instant vector or a scalar")),
        (None, _) => Err(broken()),
    }
}

/// Prometheus writes `+Inf`, `-Inf` and `NaN`, which Rust reads too.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn vectors_and_scalars_are_read_and_other_answers_refused() {
        let vector = json!({"resultType": "vector", "result": [
            {"metric": {}, "value": [1, "2.5"]}, {"metric": {}, "value": [1, "+Inf"]}]});
        assert_eq!(values_of(&vector), Ok(vec![2.5, f64::INFINITY]));
        assert_eq!(values_of(&json!({"resultType": "scalar", "result": [1, "7"]})), Ok(vec![7.0]));
        assert_eq!(values_of(&json!({"resultType": "vector", "result": []})), Ok(vec![]));
        assert!(values_of(&json!({"resultType": "matrix", "result": []})).is_err());
        assert!(values_of(&json!({"resultType": "vector", "result": [{"value": [1, 2]}]})).is_err());
        assert!(values_of(&Value::Null).is_err());
    }

    /// A server for one request, which it gives back.
    async fn served(status: &str, body: &str) -> (Url, tokio::task::JoinHandle<String>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/prom/", listener.local_addr().expect("bound")).parse().expect("a URL");
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a request");
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await.expect("it is sent");
            stream.write_all(answer.as_bytes()).await.expect("it is read");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        });
        (url, task)
    }

    #[tokio::test]
    async fn a_query_is_asked_at_its_time_and_an_error_is_told() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"3"]}]}}"#;
        // As the program does at its start; another test may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, task) = served("200 OK", body).await;
        let prometheus = Prometheus::new(url, "project").expect("a client");
        assert_eq!(prometheus.query("up == 1", Timestamp::from_secs(60)).await, Ok(vec![3.0]));
        let request = task.await.expect("served");
        assert!(request.starts_with("GET /prom/api/v1/query?query=up+%3D%3D+1&time=60.000 "), "{request}");
        let (url, _task) = served("400 Bad Request", r#"{"status":"error","error":"parse error"}"#).await;
        let prometheus = Prometheus::new(url, "project").expect("a client");
        let error = prometheus.query("(", Timestamp::from_secs(60)).await.expect_err("refused");
        assert_eq!(error, "Prometheus answers 400: parse error");
    }

    #[tokio::test]
    async fn a_projects_query_is_bound_to_its_label() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        for (scope, query) in [(Scope::Project("p1".into()), "up+%7Bproject%3D%22p1%22%7D&"), (Scope::All, "up&")] {
            let (url, task) = served("200 OK", body).await;
            let prometheus = Prometheus::new(url, "project").expect("a client");
            let answer = prometheus.instant(&scope, "up", Timestamp::from_secs(60)).await;
            assert!(answer.is_ok_and(|values| values.is_empty()));
            let request = task.await.expect("served");
            assert!(request.starts_with(&format!("GET /prom/api/v1/query?query={query}time=60.000 ")), "{request}");
        }
        let prometheus = Prometheus::new("http://192.0.2.1".parse().expect("a URL"), "project").expect("a client");
        let nothing = prometheus.instant(&Scope::Nothing, "up", Timestamp::from_secs(60)).await;
        assert!(matches!(nothing, Err(ReadError::Invalid { .. })));
    }
}
