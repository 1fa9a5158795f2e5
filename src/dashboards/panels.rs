//! What the dashboards show. Meters are under the names that PromQL knows; sizes of Nova are in MiB, of the host in KiB.

use super::{Dashboard, Kind, Panel, Variable};

const fn panel(
    title: &'static str,
    kind: Kind,
    unit: &'static str,
    size: (u32, u32),
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, kind, unit, size, queries }
}

const fn variable(name: &'static str, title: &'static str, series: &'static str, label: &'static str) -> Variable {
    Variable { name, title, series, label, hidden: false, all: false }
}

const SMALL: (u32, u32) = (6, 4);
const HALF: (u32, u32) = (12, 8);

/// All of them.
#[rustfmt::skip] // a table reads best with one panel on one line
pub(crate) const DASHBOARDS: &[Dashboard] = &[
    Dashboard {
        uid: "orzo-cloud",
        title: "Cloud overview",
        description: "Guests, projects and hosts at a glance. With a token for all projects it is the whole cloud.",
        variables: &[],
        panels: &[
            panel("Guests", Kind::Number, "short", SMALL, &[("count(last_over_time(vcpus[15m]))", "guests")]),
            panel("Projects", Kind::Number, "short", SMALL, &[("count(count by (project_id) (last_over_time(vcpus[15m])))", "projects")]),
            panel("vCPUs", Kind::Number, "short", SMALL, &[("sum(last_over_time(vcpus[15m]))", "vCPUs")]),
            panel("Memory of the guests", Kind::Number, "mbytes", SMALL, &[("sum(last_over_time(memory[15m]))", "memory")]),
            panel("Cores in use, by host", Kind::Stack, "short", HALF, &[("sum by (host) (rate(cpu[5m])) / 1e9", "{{host}}")]),
            panel("Load of the hosts", Kind::Lines, "percent", HALF, &[("avg by (host_name) (hardware_cpu_util)", "{{host_name}}")]),
            panel("Memory of the hosts in use", Kind::Lines, "kbytes", HALF, &[("sum by (host_name) (hardware_memory_used)", "{{host_name}}"), ("sum by (host_name) (hardware_memory_total)", "{{host_name}}, all")]),
            panel("Guests by project", Kind::Stack, "short", HALF, &[("count by (project_id) (last_over_time(vcpus[15m]))", "{{project_id}}")]),
            panel("Network of the guests", Kind::Lines, "Bps", HALF, &[("sum(network_incoming_bytes_rate)", "in"), ("sum(network_outgoing_bytes_rate)", "out")]),
            panel("Disks of the guests", Kind::Lines, "Bps", HALF, &[("sum(disk_device_read_bytes_rate)", "read"), ("sum(disk_device_write_bytes_rate)", "written")]),
            panel("Busiest guests", Kind::Bars, "percent", HALF, &[("sort_desc(topk(10, cpu_util))", "{{display_name}}")]),
            panel("Most memory in use", Kind::Bars, "mbytes", HALF, &[("sort_desc(topk(10, memory_usage))", "{{display_name}}")]),
        ],
    },
    Dashboard {
        uid: "orzo-project",
        title: "Project",
        description: "What one project uses, and which of its guests use it.",
        variables: &[variable("project", "Project", "vcpus", "project_id")],
        panels: &[
            panel("Guests", Kind::Number, "short", SMALL, &[("count(last_over_time(vcpus{project_id=\"$project\"}[15m]))", "guests")]),
            panel("vCPUs", Kind::Number, "short", SMALL, &[("sum(last_over_time(vcpus{project_id=\"$project\"}[15m]))", "vCPUs")]),
            panel("Memory", Kind::Number, "mbytes", SMALL, &[("sum(last_over_time(memory{project_id=\"$project\"}[15m]))", "memory")]),
            panel("Images", Kind::Number, "bytes", SMALL, &[("sum(last_over_time(image_size{project_id=\"$project\"}[15m]))", "images")]),
            panel("Cores in use", Kind::Stack, "short", HALF, &[("sum by (display_name) (rate(cpu{project_id=\"$project\"}[5m])) / 1e9", "{{display_name}}")]),
            panel("Memory in use", Kind::Stack, "mbytes", HALF, &[("sum by (display_name) (memory_usage{project_id=\"$project\"})", "{{display_name}}")]),
            panel("Received from the network", Kind::Lines, "Bps", HALF, &[("sum by (instance_id) (network_incoming_bytes_rate{project_id=\"$project\"})", "{{instance_id}}")]),
            panel("Sent to the network", Kind::Lines, "Bps", HALF, &[("sum by (instance_id) (network_outgoing_bytes_rate{project_id=\"$project\"})", "{{instance_id}}")]),
            panel("Read from disks", Kind::Lines, "Bps", HALF, &[("sum by (instance_id) (disk_device_read_bytes_rate{project_id=\"$project\"})", "{{instance_id}}")]),
            panel("Written to disks", Kind::Lines, "Bps", HALF, &[("sum by (instance_id) (disk_device_write_bytes_rate{project_id=\"$project\"})", "{{instance_id}}")]),
            panel("Guests by flavor", Kind::Bars, "short", HALF, &[("sort_desc(count by (flavor_name) (last_over_time(vcpus{project_id=\"$project\"}[15m])))", "{{flavor_name}}")]),
            panel("Core hours in the chosen time, by flavor", Kind::Bars, "h", HALF, &[("sum by (flavor_name) (increase(cpu{project_id=\"$project\"}[$__range])) / 3.6e12", "{{flavor_name}}")]),
        ],
    },
    Dashboard {
        uid: "orzo-instance",
        title: "Instance",
        description: "One guest: processor, memory, disks and network.",
        variables: &[
            variable("project", "Project", "cpu_util", "project_id"),
            variable("instance", "Instance", "cpu_util{project_id=\"$project\"}", "display_name"),
            Variable { hidden: true, ..variable("id", "Id", "cpu_util{project_id=\"$project\",display_name=\"$instance\"}", "resource_id") },
        ],
        panels: &[
            panel("Processor", Kind::Number, "percent", SMALL, &[("cpu_util{resource_id=\"$id\"}", "processor")]),
            panel("Memory in use", Kind::Number, "mbytes", SMALL, &[("memory_usage{resource_id=\"$id\"}", "memory")]),
            panel("vCPUs", Kind::Number, "short", SMALL, &[("last_over_time(vcpus{resource_id=\"$id\"}[15m])", "vCPUs")]),
            panel("State of power", Kind::Number, "none", SMALL, &[("power_state{resource_id=\"$id\"}", "1 is running")]),
            panel("Processor over time", Kind::Lines, "percent", HALF, &[("cpu_util{resource_id=\"$id\"}", "{{display_name}}")]),
            panel("Memory over time", Kind::Lines, "mbytes", HALF, &[("memory_usage{resource_id=\"$id\"}", "in use"), ("memory_resident{resource_id=\"$id\"}", "on the host"), ("last_over_time(memory{resource_id=\"$id\"}[15m])", "of the flavor")]),
            panel("Disks, bytes", Kind::Lines, "Bps", HALF, &[("disk_device_read_bytes_rate{instance_id=\"$id\"}", "{{name}} read"), ("disk_device_write_bytes_rate{instance_id=\"$id\"}", "{{name}} written")]),
            panel("Disks, requests", Kind::Lines, "reqps", HALF, &[("disk_device_read_requests_rate{instance_id=\"$id\"}", "{{name}} read"), ("disk_device_write_requests_rate{instance_id=\"$id\"}", "{{name}} written")]),
            panel("Network, bytes", Kind::Lines, "Bps", HALF, &[("network_incoming_bytes_rate{instance_id=\"$id\"}", "{{name}} in"), ("network_outgoing_bytes_rate{instance_id=\"$id\"}", "{{name}} out")]),
            panel("Network, packets", Kind::Lines, "pps", HALF, &[("network_incoming_packets_rate{instance_id=\"$id\"}", "{{name}} in"), ("network_outgoing_packets_rate{instance_id=\"$id\"}", "{{name}} out")]),
            panel("Packets lost", Kind::Lines, "pps", HALF, &[("rate(network_incoming_packets_drop{instance_id=\"$id\"}[5m])", "{{name}} in, dropped"), ("rate(network_outgoing_packets_drop{instance_id=\"$id\"}[5m])", "{{name}} out, dropped")]),
            panel("Space on disks", Kind::Lines, "bytes", HALF, &[("disk_device_usage{instance_id=\"$id\"}", "{{name}} in use"), ("disk_device_capacity{instance_id=\"$id\"}", "{{name}}")]),
        ],
    },
    Dashboard {
        uid: "orzo-alarms",
        title: "Alarms",
        description: "The alarms that are on, and what alarms and their notices cost. The counters need Orzo's own /metrics to be scraped.",
        variables: &[Variable { all: true, ..variable("job", "Job", "orzo_received_total", "job") }],
        panels: &[
            panel("On now", Kind::Alarms, "", (24, 10), &[]),
            panel("Alarms judged", Kind::Lines, "ops", HALF, &[("sum(rate(orzo_stored_total{job=~\"$job\",room=\"alarms\"}[5m]))", "judged")]),
            panel("Notices delivered", Kind::Lines, "ops", HALF, &[("sum(rate(orzo_stored_total{job=~\"$job\",room=\"notices\"}[5m]))", "delivered")]),
            panel("Notices that wait", Kind::Number, "short", SMALL, &[("sum(orzo_waiting{job=~\"$job\",room=\"notices\"})", "waiting")]),
            panel("Notices refused or given up in a day", Kind::Bars, "short", (18, 4), &[("sum by (reason) (increase(orzo_dropped_total{job=~\"$job\",room=\"notices\"}[1d]))", "{{reason}}"), ("sum by (reason) (increase(orzo_refused_total{job=~\"$job\",room=\"notices\"}[1d]))", "{{reason}}")]),
        ],
    },
    Dashboard {
        uid: "orzo-itself",
        title: "Orzo itself",
        description: "Every room's counters: what came in is stored, refused, dropped or waiting. Needs Orzo's own /metrics to be scraped.",
        variables: &[Variable { all: true, ..variable("job", "Job", "orzo_received_total", "job") }],
        panels: &[
            panel("Lost", Kind::Number, "short", SMALL, &[("sum(orzo_received_total{job=~\"$job\"}) - sum(orzo_stored_total{job=~\"$job\"}) - (sum(orzo_refused_total{job=~\"$job\"}) or vector(0)) - (sum(orzo_dropped_total{job=~\"$job\"}) or vector(0)) - sum(orzo_waiting{job=~\"$job\"})", "neither stored nor refused nor waiting")]),
            panel("Memory", Kind::Number, "bytes", SMALL, &[("sum(process_resident_memory_bytes{job=~\"$job\"})", "resident")]),
            panel("Processor", Kind::Number, "short", SMALL, &[("sum(rate(process_cpu_seconds_total{job=~\"$job\"}[5m]))", "cores")]),
            panel("Up since", Kind::Number, "dateTimeAsIso", SMALL, &[("min(process_start_time_seconds{job=~\"$job\"}) * 1000", "start")]),
            panel("Samples stored", Kind::Lines, "cps", HALF, &[("sum by (room) (rate(orzo_stored_total{job=~\"$job\",room=~\"collector|engine|store|api\"}[5m]))", "{{room}}")]),
            panel("Refused, with the reason", Kind::Stack, "cps", HALF, &[("sum by (room, reason) (rate(orzo_refused_total{job=~\"$job\"}[5m]))", "{{room}}: {{reason}}")]),
            panel("Waiting", Kind::Lines, "short", HALF, &[("sum by (room) (orzo_waiting{job=~\"$job\"}) > 0", "{{room}}")]),
            panel("Dropped, with the reason", Kind::Stack, "cps", HALF, &[("sum by (room, reason) (rate(orzo_dropped_total{job=~\"$job\"}[5m]))", "{{room}}: {{reason}}")]),
            panel("Answers, 99 of 100 within", Kind::Lines, "s", HALF, &[("histogram_quantile(0.99, sum by (face, le) (rate(orzo_http_seconds_bucket{job=~\"$job\"}[5m])))", "{{face}}")]),
            panel("Answers by status", Kind::Stack, "reqps", HALF, &[("sum by (face, status) (rate(orzo_http_requests_total{job=~\"$job\"}[5m]))", "{{face}} {{status}}")]),
            panel("Steps of the rooms, 99 of 100 within", Kind::Lines, "s", HALF, &[("histogram_quantile(0.99, sum by (room, step, le) (rate(orzo_seconds_bucket{job=~\"$job\"}[5m])))", "{{room}}: {{step}}")]),
            panel("Open files", Kind::Lines, "short", HALF, &[("sum(process_open_fds{job=~\"$job\"})", "open"), ("sum(process_max_fds{job=~\"$job\"})", "limit")]),
        ],
    },
];
