//! Requests about the machine: hypervisors and services. For operators only, as in Nova.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use serde_json::{Value, json};

use super::{Answer, Parameters, Service, Who, parameter};
use crate::compute::{Compute, ComputeError, KnownNode, ZONE, server::Server};

pub(super) fn routes() -> Router<Arc<Compute>> {
    Router::new()
        .route("/os-hypervisors", get(list))
        .route("/os-hypervisors/detail", get(list_detail))
        .route("/os-hypervisors/statistics", get(statistics))
        .route("/os-hypervisors/{id}", get(show))
        .route("/os-hypervisors/{id}/uptime", get(uptime))
        .route("/os-services", get(services))
}

const RULE: &str = "os_compute_api:os-hypervisors";

/// What is promised of the machine.
struct Load {
    servers: i64,
    vcpus: i64,
    memory_mib: i64,
    disk_gib: i64,
}

impl Compute {
    async fn load(&self) -> Result<Load, ComputeError> {
        let sql = "SELECT count(*) AS servers, CAST(coalesce(sum(vcpus), 0) AS BIGINT) AS vcpus, \
                   CAST(coalesce(sum(memory_mib), 0) AS BIGINT) AS memory_mib, \
                   CAST(coalesce(sum(disk_gib), 0) AS BIGINT) AS disk_gib \
                   FROM compute_servers WHERE host = $1 AND deleted_at IS NULL";
        let row = self.database.query_one(sql, &[self.host().into()]).await?;
        let number = |name: &str| row.as_ref().and_then(|row| row.int(name)).unwrap_or(0);
        Ok(Load {
            servers: number("servers"),
            vcpus: number("vcpus"),
            memory_mib: number("memory_mib"),
            disk_gib: number("disk_gib"),
        })
    }
}

/// Before 2.53 a number, since then a UUID.
fn id_of(known: &KnownNode, who: &Who) -> Value {
    if who.version.0 < 53 { json!(known.number) } else { json!(known.id) }
}

fn reference(compute: &Compute, known: &KnownNode, who: &Who) -> Value {
    json!({
        "id": id_of(known, who),
        "hypervisor_hostname": compute.node_name(),
        "state": "up",
        "status": "enabled",
    })
}

async fn detail(compute: &Compute, known: &KnownNode, who: &Who) -> Result<Value, ComputeError> {
    let load = compute.load().await?;
    let node = &known.node;
    let mut body = reference(compute, known, who);
    let extra = json!({
        "hypervisor_type": node.hypervisor_type,
        "hypervisor_version": node.hypervisor_version,
        "host_ip": "127.0.0.1",
        "service": {"id": id_of(known, who), "host": node.hostname, "disabled_reason": Value::Null},
    });
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (memory, disk) = (signed(node.memory_mib), signed(node.disk_gib));
    // Nova took these away in 2.88, in favour of the placement service.
    let figures = json!({
        "vcpus": node.vcpus,
        "vcpus_used": load.vcpus,
        "memory_mb": memory,
        "memory_mb_used": load.memory_mib,
        "free_ram_mb": memory.saturating_sub(load.memory_mib),
        "local_gb": disk,
        "local_gb_used": load.disk_gib,
        "free_disk_gb": disk.saturating_sub(load.disk_gib),
        "disk_available_least": disk.saturating_sub(load.disk_gib),
        "running_vms": load.servers,
        "current_workload": 0,
        "cpu_info": if who.version.0 < 28 { json!("") } else { json!({}) },
    });
    let added = if who.version.0 >= 88 { json!({"uptime": Value::Null}) } else { figures };
    for source in [extra, added] {
        if let (Some(body), Value::Object(source)) = (body.as_object_mut(), source) {
            body.extend(source);
        }
    }
    Ok(body)
}

/// Whether the pattern of the query (a part of the name) meets this machine.
fn is_meant(compute: &Compute, parameters: &[(String, String)]) -> bool {
    parameter(parameters, "hypervisor_hostname_pattern").is_none_or(|pattern| compute.node_name().contains(pattern))
}

async fn list(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    who.check_admin(RULE)?;
    if !is_meant(&compute, &parameters) {
        return Err(no_hypervisor(parameter(&parameters, "hypervisor_hostname_pattern").unwrap_or_default()));
    }
    let known = compute.current_node().await;
    Ok(Json(json!({"hypervisors": [reference(&compute, &known, &who)]})))
}

async fn list_detail(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    who.check_admin(RULE)?;
    if !is_meant(&compute, &parameters) {
        return Err(no_hypervisor(parameter(&parameters, "hypervisor_hostname_pattern").unwrap_or_default()));
    }
    let known = compute.current_node().await;
    Ok(Json(json!({"hypervisors": [detail(&compute, &known, &who).await?]})))
}

async fn show(State(compute): Service, who: Who, Path(id): Path<String>, Query(parameters): Parameters) -> Answer {
    who.check_admin(RULE)?;
    let known = compute.current_node().await;
    if id != known.id.to_string() && id != known.number.to_string() {
        return Err(no_hypervisor(&id));
    }
    let mut body = detail(&compute, &known, &who).await?;
    if parameter(&parameters, "with_servers").is_some_and(|flag| flag.eq_ignore_ascii_case("true")) {
        let sql = format!("{} WHERE s.host = $1 AND s.deleted_at IS NULL", crate::compute::server::SELECT);
        let rows = compute.database.query(&sql, &[compute.host().into()]).await?;
        let servers: Vec<Server> = rows.iter().map(Server::from_row).collect::<Result<_, _>>()?;
        let list: Vec<Value> =
            servers.iter().map(|server| json!({"uuid": server.id, "name": server.domain()})).collect();
        body["servers"] = json!(list);
    }
    Ok(Json(json!({"hypervisor": body})))
}

/// As Nova answers for a driver that cannot tell.
async fn uptime(who: Who) -> Answer {
    who.check_admin(RULE)?;
    Err(ComputeError::refused(StatusCode::NOT_IMPLEMENTED, "Virt driver does not implement uptime function."))
}

async fn statistics(State(compute): Service, who: Who) -> Answer {
    who.check_admin(RULE)?;
    let known = compute.current_node().await;
    let load = compute.load().await?;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (memory, disk) = (signed(known.node.memory_mib), signed(known.node.disk_gib));
    Ok(Json(json!({"hypervisor_statistics": {
        "count": 1,
        "vcpus": known.node.vcpus,
        "vcpus_used": load.vcpus,
        "memory_mb": memory,
        "memory_mb_used": load.memory_mib,
        "free_ram_mb": memory.saturating_sub(load.memory_mib),
        "local_gb": disk,
        "local_gb_used": load.disk_gib,
        "free_disk_gb": disk.saturating_sub(load.disk_gib),
        "disk_available_least": disk.saturating_sub(load.disk_gib),
        "running_vms": load.servers,
        "current_workload": 0,
    }})))
}

async fn services(State(compute): Service, who: Who) -> Answer {
    who.check_admin("os_compute_api:os-services:list")?;
    let known = compute.current_node().await;
    Ok(Json(json!({"services": [{
        "id": id_of(&known, &who),
        "binary": "nova-compute",
        "host": known.node.hostname,
        "zone": ZONE,
        "status": "enabled",
        "state": "up",
        "updated_at": compute.clock.now().naive(),
        "disabled_reason": Value::Null,
        "forced_down": false,
    }]})))
}

fn no_hypervisor(id: &str) -> ComputeError {
    ComputeError::not_found(format!("Hypervisor {id:.64} could not be found."))
}
