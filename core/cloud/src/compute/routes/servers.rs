//! Requests about servers.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use orzo_database::Value as Cell;
use orzo_model::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Parameters, Service, Who, parameter, read_json};
use crate::compute::{
    Compute, ComputeError, NewServer,
    create::{read_metadata, read_name, reference},
    server::{Action, SELECT, Server},
};

/// Servers in one answer at most (Nova's `max_limit`).
const LIMIT_MAX: i64 = 1000;
/// Parameters of one list; a database takes only so many conditions in one question, and people use a few.
const FILTERS_MAX: usize = 64;

pub(super) fn routes() -> Router<Arc<Compute>> {
    Router::new()
        .route("/servers", get(list).post(create))
        .route("/servers/detail", get(list_detail))
        .route("/servers/{id}", get(show).put(change).delete(delete))
        .route("/servers/{id}/action", post(act))
        .route("/servers/{id}/metadata", get(metadata).post(add_metadata).put(replace_metadata))
        .route("/servers/{id}/metadata/{key}", get(metadata_item).put(set_metadata_item).delete(remove_metadata_item))
        .route("/servers/{id}/ips", get(addresses))
        .route("/servers/{id}/tags", get(tags))
        .route("/servers/{id}/os-interface", get(interfaces))
        .route("/servers/{id}/os-volume_attachments", get(volumes))
        .route("/servers/{id}/os-security-groups", get(security_groups))
        .route("/servers/{id}/os-instance-actions", get(actions))
}

/// A list request as SQL.
struct ServerQuery {
    /// Whose servers; `None`: everyone's.
    project: Option<String>,
    clauses: Vec<String>,
    values: Vec<Cell>,
    limit: i64,
    ascending: bool,
    sort_column: &'static str,
}

impl ServerQuery {
    fn parse(parameters: &[(String, String)], who: &Who) -> Result<Self, ComputeError> {
        if parameters.len() > FILTERS_MAX {
            return Err(ComputeError::bad_request(format!("A list takes {FILTERS_MAX} filters at most.")));
        }
        let mut query = Self {
            project: None,
            clauses: Vec::new(),
            values: Vec::new(),
            limit: LIMIT_MAX,
            ascending: parameter(parameters, "sort_dir") == Some("asc"),
            sort_column: "created_at",
        };
        let admin = who.caller().is_admin();
        let all = parameter(parameters, "all_tenants").is_some_and(is_true);
        if all {
            who.check_admin("os_compute_api:servers:index:get_all_tenants")?;
        } else {
            let project = who.caller().project_id.clone().unwrap_or_default();
            query.equals("project_id", project.as_str());
            query.project = Some(project);
        }
        let deleted = admin && parameter(parameters, "deleted").is_some_and(is_true);
        let changes_since = parameter(parameters, "changes-since");
        match (deleted, changes_since) {
            (true, _) => query.clauses.push("s.deleted_at IS NOT NULL".to_owned()),
            // A client that follows changes wants to know about deletions as well.
            (false, Some(_)) => {}
            (false, None) => query.clauses.push("s.deleted_at IS NULL".to_owned()),
        }
        for (name, value) in parameters {
            query.filter(name, value, admin, all)?;
        }
        Ok(query)
    }

    fn bind(&mut self, value: impl Into<Cell>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn equals(&mut self, column: &str, value: impl Into<Cell>) {
        let place = self.bind(value);
        self.clauses.push(format!("s.{column} = {place}"));
    }

    fn filter(&mut self, name: &str, value: &str, admin: bool, all: bool) -> Result<(), ComputeError> {
        match name {
            "name" => self.named(value),
            "status" => match value.to_ascii_uppercase().as_str() {
                status @ ("ACTIVE" | "BUILD" | "SHUTOFF" | "ERROR" | "REBOOT" | "HARD_REBOOT" | "DELETED"
                | "RESIZE" | "VERIFY_RESIZE" | "REVERT_RESIZE") => {
                    self.equals("status", status);
                }
                // Nova's other states, which no server here is ever in.
                _ => self.clauses.push("1 = 0".to_owned()),
            },
            "image" => self.equals("image_id", value.rsplit('/').next().unwrap_or(value)),
            "flavor" => self.equals("flavor_id", value.rsplit('/').next().unwrap_or(value)),
            "uuid" => self.equals("id", value),
            "user_id" => self.equals("user_id", value),
            "vm_state" if admin => self.equals("vm_state", value),
            "task_state" if admin => self.equals("task_state", value),
            "host" if admin => self.equals("host", value),
            // Of another project only together with all_tenants, as in Nova.
            "project_id" | "tenant_id" if all => self.equals("project_id", value),
            "changes-since" | "changes-before" => {
                let time: Timestamp = value
                    .parse()
                    .map_err(|error: orzo_model::TimeError| ComputeError::bad_request(error.to_string()))?;
                let place = self.bind(time);
                let operator = if name == "changes-since" { ">=" } else { "<=" };
                self.clauses.push(format!("s.updated_at {operator} {place}"));
            }
            "limit" => {
                let limit: i64 = value
                    .parse()
                    .ok()
                    .filter(|limit| *limit >= 0)
                    .ok_or_else(|| ComputeError::bad_request("limit param must be a number from 0 up"))?;
                self.limit = if limit == 0 { LIMIT_MAX } else { limit.min(LIMIT_MAX) };
            }
            "sort_key" => {
                self.sort_column = match value {
                    "created_at" => "created_at",
                    "updated_at" => "updated_at",
                    "display_name" => "name",
                    "uuid" => "id",
                    "vm_state" => "vm_state",
                    _ => return Err(ComputeError::bad_request(format!("Sort key {value:.40} is not supported."))),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Nova matches a regular expression; here a part of the name, or the whole with `^` and `$`.
    fn named(&mut self, value: &str) {
        let text = value.strip_prefix('^').unwrap_or(value);
        let text = text.strip_suffix('$').unwrap_or(text);
        if value.len() == text.len() + 2 {
            return self.equals("name", text);
        }
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let place = self.bind(format!("%{escaped}%"));
        self.clauses.push(format!("s.name LIKE {place} ESCAPE '\\'"));
    }

    /// Starts behind this row.
    fn after(&mut self, row: &orzo_database::Row) {
        let cell: Cell = match self.sort_column {
            "created_at" | "updated_at" => row.int("sorted").unwrap_or(0).into(),
            _ => row.string("sorted").into(),
        };
        let value = self.bind(cell);
        let id = self.bind(row.string("id"));
        let operator = if self.ascending { ">" } else { "<" };
        let column = self.sort_column;
        self.clauses
            .push(format!("(s.{column} {operator} {value} OR (s.{column} = {value} AND s.id {operator} {id}))"));
    }

    fn finish(&mut self) -> String {
        let direction = if self.ascending { "ASC" } else { "DESC" };
        // One more than wanted tells whether there is a next page.
        let limit = self.bind(self.limit + 1);
        let column = self.sort_column;
        format!(
            "{SELECT} WHERE {} ORDER BY s.{column} {direction}, s.id {direction} LIMIT {limit}",
            self.clauses.join(" AND ")
        )
    }
}

fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "" | "1" | "true" | "t" | "yes" | "on")
}

/// A page of servers and the link to the next one.
async fn page(
    compute: &Compute,
    who: &Who,
    path: &str,
    parameters: &[(String, String)],
) -> Result<(Vec<Server>, Option<String>), ComputeError> {
    let mut query = ServerQuery::parse(parameters, who)?;
    if let Some(marker) = parameter(parameters, "marker") {
        // A marker may no longer pass the filters, but a server of another project looks as if it were not there.
        let mut sql = format!("SELECT s.id, s.{} AS sorted FROM compute_servers s WHERE s.id = $1", query.sort_column);
        let mut values: Vec<Cell> = vec![marker.into()];
        if let Some(project) = &query.project {
            sql.push_str(" AND s.project_id = $2");
            values.push(project.into());
        }
        let row = compute.database.query_one(&sql, &values).await?;
        let row = row.ok_or_else(|| ComputeError::bad_request(format!("marker [{marker:.64}] not found")))?;
        query.after(&row);
    }
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let rows = compute.database.query(&query.finish(), &query.values).await?;
    let mut servers: Vec<Server> = rows.iter().map(Server::from_row).collect::<Result<_, _>>()?;
    let more = servers.len() > limit;
    servers.truncate(limit);
    let next = servers.last().filter(|_| more).map(|last| {
        let mut link = url::form_urlencoded::Serializer::new(String::new());
        link.extend_pairs(parameters.iter().filter(|(name, _)| name != "marker"));
        link.append_pair("marker", &last.id.to_string());
        format!("{}/{path}?{}", compute.settings.url, link.finish())
    });
    Ok((servers, next))
}

fn list_body(servers: Vec<Value>, next: Option<String>) -> Json<Value> {
    let mut body = json!({"servers": servers});
    if let Some(href) = next {
        body["servers_links"] = json!([{"rel": "next", "href": href}]);
    }
    Json(body)
}

async fn list(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    let (servers, next) = page(&compute, &who, "servers", &parameters).await?;
    let frame = who.frame(&compute);
    Ok(list_body(servers.iter().map(|server| frame.server_reference(server)).collect(), next))
}

async fn list_detail(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    let (servers, next) = page(&compute, &who, "servers/detail", &parameters).await?;
    let frame = who.frame(&compute);
    Ok(list_body(servers.iter().map(|server| frame.server(server)).collect(), next))
}

async fn create(State(compute): Service, who: Who, body: Bytes) -> Result<Response, ComputeError> {
    let new = NewServer::parse(&read_json(&body)?)?;
    let servers = compute.create_servers(&who.asker, new).await?;
    let Some(first) = servers.first() else {
        return Err(ComputeError::conflict("No server could be made."));
    };
    let mut server = who.frame(&compute).server_reference(first);
    if let Some(server) = server.as_object_mut() {
        server.remove("name");
        server.insert("OS-DCF:diskConfig".to_owned(), json!("MANUAL"));
        server.insert("security_groups".to_owned(), json!([]));
    }
    let location = HeaderValue::from_str(&format!("{}/servers/{}", compute.settings.url, first.id))
        .map_err(|_| ComputeError::bad_request("The service's URL cannot be sent in a header."))?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(json!({"server": server}))).into_response())
}

async fn show(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    let server = compute.server(who.caller(), &id).await?;
    Ok(Json(json!({"server": who.frame(&compute).server(&server)})))
}

async fn change(State(compute): Service, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    let body = read_json(&body)?;
    let given = body["server"].as_object().ok_or_else(|| ComputeError::bad_request("The body has no \"server\"."))?;
    let name = given.contains_key("name").then(|| read_name(given.get("name"))).transpose()?;
    let description = given.get("description").map(|text| text.as_str().map(str::to_owned));
    let server = compute.rename(&who.asker, &id, name, description).await?;
    Ok(Json(json!({"server": who.frame(&compute).server(&server)})))
}

async fn delete(State(compute): Service, who: Who, Path(id): Path<String>) -> Result<StatusCode, ComputeError> {
    compute.act(&who.asker, &id, Action::Delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn act(
    State(compute): Service,
    who: Who,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ComputeError> {
    let body = read_json(&body)?;
    let (verb, value) = match body.as_object().map(|map| (map.len(), map.iter().next())) {
        Some((1, Some(only))) => only,
        _ => return Err(ComputeError::bad_request("The body names exactly one action.")),
    };
    let action = match verb.as_str() {
        "os-start" => Action::Start,
        "os-stop" => Action::Stop,
        "reboot" => match value["type"].as_str().map(str::to_ascii_uppercase).as_deref() {
            Some("SOFT") => Action::RebootSoft,
            Some("HARD") => Action::RebootHard,
            _ => return Err(ComputeError::bad_request("Argument 'type' for reboot is not HARD or SOFT")),
        },
        "resize" => {
            let flavor = reference(value.get("flavorRef"))
                .ok_or_else(|| ComputeError::bad_request("Invalid input for field/attribute flavorRef."))?;
            compute.resize(&who.asker, &id, &flavor).await?;
            return Ok(StatusCode::ACCEPTED);
        }
        "confirmResize" => Action::ConfirmResize,
        "revertResize" => Action::RevertResize,
        "forceDelete" => Action::Delete,
        other => {
            return Err(ComputeError::bad_request(format!(
                "There is no action {other:.40} in this cloud; there are os-start, os-stop, reboot, resize, \
                 confirmResize, revertResize and forceDelete."
            )));
        }
    };
    compute.act(&who.asker, &id, action).await?;
    // As in Nova.
    Ok(if action == Action::ConfirmResize { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

async fn metadata(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    Ok(Json(json!({"metadata": compute.server(who.caller(), &id).await?.metadata})))
}

async fn add_metadata(State(compute): Service, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    let added = read_metadata(Some(of_body(&read_json(&body)?, "metadata")?))?;
    let edit = move |metadata: &mut std::collections::BTreeMap<String, String>| {
        metadata.extend(added.clone());
        Ok(())
    };
    Ok(Json(json!({"metadata": compute.set_metadata(&who.asker, &id, edit).await?})))
}

async fn replace_metadata(State(compute): Service, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    let wanted = read_metadata(Some(of_body(&read_json(&body)?, "metadata")?))?;
    let edit = move |metadata: &mut std::collections::BTreeMap<String, String>| {
        metadata.clone_from(&wanted);
        Ok(())
    };
    Ok(Json(json!({"metadata": compute.set_metadata(&who.asker, &id, edit).await?})))
}

async fn metadata_item(State(compute): Service, who: Who, Path((id, key)): Path<(String, String)>) -> Answer {
    let server = compute.server(who.caller(), &id).await?;
    let value = server.metadata.get(&key).ok_or_else(no_item)?;
    Ok(Json(json!({"meta": {key: value}})))
}

async fn set_metadata_item(
    State(compute): Service,
    who: Who,
    Path((id, key)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let wanted = read_metadata(Some(of_body(&read_json(&body)?, "meta")?))?;
    let value = wanted.get(&key).cloned().ok_or_else(|| ComputeError::bad_request("Request body and URI mismatch"))?;
    let told = json!({"meta": {key.as_str(): value}});
    let edit = move |metadata: &mut std::collections::BTreeMap<String, String>| {
        metadata.insert(key.clone(), value.clone());
        Ok(())
    };
    compute.set_metadata(&who.asker, &id, edit).await?;
    Ok(Json(told))
}

async fn remove_metadata_item(
    State(compute): Service,
    who: Who,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ComputeError> {
    let edit = move |metadata: &mut std::collections::BTreeMap<String, String>| {
        metadata.remove(&key).map(drop).ok_or_else(no_item)
    };
    compute.set_metadata(&who.asker, &id, edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The object that a body is about. One without it is refused: an empty wish would take all metadata away.
fn of_body<'b>(body: &'b Value, name: &str) -> Result<&'b Value, ComputeError> {
    let given = body.get(name).filter(|given| given.is_object());
    given.ok_or_else(|| ComputeError::bad_request(format!("The body has no object \"{name}\".")))
}

fn no_item() -> ComputeError {
    ComputeError::not_found("Metadata item was not found")
}

async fn addresses(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    compute.server(who.caller(), &id).await?;
    Ok(Json(json!({"addresses": {}})))
}

async fn tags(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    Ok(Json(json!({"tags": compute.server(who.caller(), &id).await?.tags})))
}

async fn interfaces(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    let server = compute.server(who.caller(), &id).await?;
    let list: Vec<Value> = server
        .mac
        .iter()
        .map(|mac| {
            json!({"mac_addr": mac, "port_state": "ACTIVE", "fixed_ips": [], "net_id": Value::Null, "port_id": Value::Null})
        })
        .collect();
    Ok(Json(json!({"interfaceAttachments": list})))
}

async fn volumes(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    compute.server(who.caller(), &id).await?;
    Ok(Json(json!({"volumeAttachments": []})))
}

async fn security_groups(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    compute.server(who.caller(), &id).await?;
    Ok(Json(json!({"security_groups": []})))
}

/// What this cloud remembers of a server's history: that it was made.
async fn actions(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    let server = compute.server(who.caller(), &id).await?;
    Ok(Json(json!({"instanceActions": [{
        "action": "create",
        "instance_uuid": server.id,
        "request_id": server.request_id.clone().unwrap_or_else(|| format!("req-{}", Uuid::nil())),
        "user_id": server.user_id,
        "project_id": server.project_id,
        "start_time": server.created_at.naive(),
        "message": server.fault.as_ref().map(|fault| &fault.message),
    }]})))
}
