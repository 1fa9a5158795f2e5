//! Every key with its default and what it means: the one list behind `config example`, `config explain` and the hint
//! at a wrong key.

/// One key.
pub(crate) struct Key {
    /// `section.key`
    pub(crate) name: &'static str,
    /// The default as it would be written in the file; `None` if the key is unset by default.
    pub(crate) default: Option<&'static str>,
    /// A value to show for a key that is unset by default.
    pub(crate) sample: &'static str,
    /// What it means.
    pub(crate) meaning: &'static str,
}

const fn set(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default: Some(default), sample: default, meaning }
}

const fn unset(name: &'static str, sample: &'static str, meaning: &'static str) -> Key {
    Key { name, default: None, sample, meaning }
}

/// All keys, in the order of the file.
#[rustfmt::skip] // a table reads best with one key on one line
pub(crate) const KEYS: &[Key] = &[
    set("server.listen", r#""127.0.0.1:8041""#, "Address and port of all HTTP services."),
    unset("server.public_url", r#""https://cloud.example.org""#, "How clients reach it, if not by `listen`; the catalog's URLs are made from it."),
    set("server.data_directory", r#""orzo-data""#, "Everything that is kept on disk is below it."),
    set("server.roles", r#"["cloud", "agents", "collector", "alarms", "api", "rating"]"#, "What this process does."),
    set("server.drain", r#""30s""#, "How long a stop may take in all to finish what was begun."),
    unset("server.threads", "4", "Threads that take requests, 1 to 1024; one less than there are cores if unset."),
    set("server.metrics_public", "false", "Whether /metrics answers others than this machine and operators."),
    set("log.level", r#""info""#, "error, warn, info, debug or trace; or a filter such as `orzo_collector=debug,info`."),
    set("log.format", r#""text""#, "text or json."),
    unset("database.url", r#""postgres://orzo:PASSWORD@db.example.org/orzo""#, "State of index, alarms and cloud; SQLite in the data directory if unset."),
    unset("bus.url", r#""amqp://orzo:PASSWORD@rabbit.example.org:5672/%2f""#, "RabbitMQ for samples and notifications; within the process if unset."),
    set("cloud.enabled", "true", "Whether the embedded identity, image and compute services run."),
    set("cloud.hypervisor", r#""auto""#, "libvirt, simulated, or auto: libvirt if it answers at the first start, and from then on what the guests have."),
    set("cloud.libvirt_uri", r#""qemu:///system""#, "Which libvirt."),
    set("cloud.demo_servers", "true", "With simulated guests: a demo project with a few servers at the first start."),
    unset("cloud.admin_password", r#""at least 8 characters""#, "Password of the user admin when it is first made; generated and printed once if unset."),
    set("cloud.region", r#""RegionOne""#, "Region in the catalog."),
    set("cloud.token_life", r#""1h""#, "How long a token is valid."),
    set("cloud.exists_period", r#""1h""#, "How often compute.instance.exists is sent for each server."),
    set("cloud.simulated_seed", "1", "Simulated guests with the same seed and id behave the same."),
    unset("identity.url", r#""https://keystone.example.org/v3""#, "A Keystone elsewhere that checks credentials; the embedded one if unset."),
    set("identity.username", r#""orzo""#, "This service's own user."),
    unset("identity.password", r#""PASSWORD""#, "Its password; generated for the embedded identity."),
    set("identity.user_domain", r#""Default""#, "Domain of that user."),
    set("identity.project", r#""service""#, "Project of that user."),
    set("identity.project_domain", r#""Default""#, "Domain of that project."),
    set("metrics.path", r#""/metric""#, "Where the metric API (Gnocchi's) is; the catalog follows."),
    set("metrics.credentials", r#""identity""#, "identity: tokens and passwords, both checked; remote-user: a proxy says who asks; any-password: nothing is checked, for Gnocchi's own tests only."),
    set("metrics.remote_user_header", r#""x-remote-user""#, "With remote-user: the header that has the user's name."),
    set("metrics.remote_user_from", "[]", "With remote-user: addresses or networks of the proxies that may set it."),
    set("metrics.limit_max", "1000", "Longest page of a list."),
    set("metrics.cors_origins", "[]", "Origins whose pages may use the metric API from a browser, such as https://grafana.example.org."),
    set("metrics.proxy_headers", "false", "Whether Forwarded and X-Forwarded-* say how clients reach this server; only behind a proxy that sets them."),
    set("metrics.purge_after", r#""1m""#, "How long a deleted metric is listed as such before it and its points are removed."),
    set("metrics.make_defaults", "true", "Whether an empty index gets Gnocchi's archive policies and Ceilometer's policies and resource types."),
    unset("metrics.policy_file", r#""/etc/gnocchi/policy.yaml""#, "Who may do what, in oslo.policy's YAML with Gnocchi's names; what it does not name keeps Gnocchi's default."),
    set("agents.compute", "true", "Poll the guests of this machine."),
    set("agents.host", "true", "Poll the machine itself (hardware.*)."),
    set("agents.central", "true", "Poll services by their APIs (image.size ...)."),
    set("agents.notifications", "true", "Turn the services' notifications into samples and events."),
    unset("agents.polling_file", r#""/etc/ceilometer/polling.yaml""#, "What is polled and how often, in Ceilometer's format."),
    set("agents.meters_files", "[]", "Meter definitions (Ceilometer's meters.d/*.yaml) before the shipped ones."),
    unset("agents.events_file", r#""/etc/ceilometer/event_definitions.yaml""#, "Event definitions instead of the shipped ones."),
    set("agents.spool_bytes_max", "268435456", "What an agent may keep on disk while nobody takes its samples."),
    set("agents.exchanges", r#"["nova", "glance", "neutron", "cinder", "heat", "keystone", "trove", "zaqar", "swift", "ceilometer", "magnum", "dns", "ironic", "aodh"]"#, "Exchanges that the notification listener binds."),
    unset("agents.host_name", r#""compute1""#, "Name of this machine in samples; the system's if unset."),
    unset("collector.resources_file", r#""/etc/ceilometer/gnocchi_resources.yaml""#, "How meters become metrics of resources, instead of the shipped file."),
    set("collector.future_max", r#""10m""#, "Samples that are further in the future are refused."),
    set("collector.past_max", r#""30d""#, "Samples that are older are refused."),
    set("collector.quarantine_bytes_max", "268435456", "What cannot be decoded is kept up to this size; beyond it the bus holds."),
    set("store.head_bytes_max", "134217728", "Points in memory before they are written to files."),
    set("store.flush_after", r#""10m""#, "Points are written to files at the latest after this time."),
    unset("store.retention", r#""365d""#, "Raw points older than this are removed, whole files at a time; kept for ever if unset."),
    set("store.retention_rules", "[]", "Points that are kept shorter, such as { meter = \"network.*\", keep = \"30d\" } or { policy = \"ceilometer-*\", project = \"PROJECT_ID\", keep = \"policy\" } (as long as the archive policy answers from them). The first rule that fits a metric decides; days leave the files within an hour, what is not rated stays."),
    set("store.rollups", "true", "Keep what archive policies ask for of days that are over, so that months are read fast; answers are the same without, and points stay."),
    set("store.removed_grace", r#""1h""#, "Files that were merged stay on disk for so long, for other engines that read an older version of the table."),
    set("store.series_table_every", r#""60s""#, "How often the table `series`, which gives other engines the names, is brought up to date; twenty times as long as that takes at least."),
    set("store.disk_reserve_bytes", "268435456", "With less free disk than this nothing more is accepted; reads go on."),
    unset("store.url", r#""s3://bucket/orzo""#, "Where the table of points is, an object store that refuses to overwrite (If-None-Match); the log stays in the data directory, and copies. In the data directory if unset."),
    unset("store.s3_endpoint", r#""https://s3.example.org""#, "Address of the object store; Amazon's for the region if unset. http:// is taken as said."),
    unset("store.s3_region", r#""eu-central-1""#, "Its region."),
    unset("store.s3_access_key", r#""ID""#, "Who reads and writes there; from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, a role of the machine) if unset."),
    unset("store.s3_secret_key_file", r#""/etc/orzo/s3.secret""#, "File with the secret to it, readable by its owner only."),
    set("store.cache_bytes_max", "10737418240", "Bytes of files of the table that are kept on this machine, too, if the table is elsewhere."),
    unset("store.backup_directory", r#""/srv/backups/orzo""#, "Where backups go, best another disk; `backups` in the data directory if unset."),
    set("labels.project_series_max", "1000000", "Series with labels that one project may have; about 300 bytes of memory each."),
    set("labels.series_max", "2000000", "Series with labels of all projects together."),
    set("labels.new_series_per_minute_max", "1000000", "New series with labels that one project may make within a minute."),
    set("labels.labels_max", "64", "Labels of one series."),
    set("scrape.targets", "[]", "Exporters that are scraped, such as { name = \"node\", url = \"http://host:9100/metrics\", project = \"PROJECT_ID\", interval = \"30s\", labels = { rack = \"7\" }, token = \"BEARER\" }; interval, labels and token may be missing."),
    set("scrape.interval", r#""15s""#, "How often a target is scraped that does not say so itself."),
    set("scrape.timeout", r#""10s""#, "How long a page may take."),
    set("scrape.samples_max", "100000", "Samples of one page; a page with more is refused whole."),
    set("scrape.body_bytes_max", "16777216", "Bytes of one page; a larger one is refused whole."),
    set("alarms.interval", r#""1s""#, "How often closed windows are looked for."),
    set("alarms.lag", r#""5s""#, "A window is judged this long after its end, or earlier when a newer sample says that it is complete; a late sample has it judged again."),
    set("alarms.lease", r#""15s""#, "Another evaluator takes the alarms over when this one was not heard of for so long."),
    unset("alarms.reader_url", r#""https://telemetry.example.org:8041""#, "With the role alarms and not api: the process with the api, whose samples and events are judged here."),
    unset("alarms.prometheus_url", r#""http://prometheus.example.org:9090""#, "The Prometheus that alarms of type prometheus ask; Orzo itself if unset."),
    set("alarms.prometheus_project_label", r#""project""#, "The label of its series that names the project; queries of who is not an operator are bound to it."),
    set("alarms.webhook_allow", "[]", "Address ranges that webhooks may reach although they are private, such as 10.0.0.0/8."),
    unset("alarms.webhook_ca_file", r#""/etc/orzo/private-ca.pem""#, "Authorities whose certificates are good for receivers of notices, beside the system's; PEM."),
    set("alarms.webhook_timeout", r#""15s""#, "How long one delivery may take."),
    set("alarms.retry_first", r#""5s""#, "First wait after a failed delivery; doubles, with jitter."),
    set("alarms.retry_max", r#""2h""#, "Longest wait between deliveries."),
    set("alarms.give_up_after", r#""27h""#, "A notice that was not accepted for so long is parked."),
    unset("alarms.signing_secret", r#""whsec_BASE64""#, "Each project's key of the webhook-signature header is made from it; generated in the data directory if unset."),
    unset("alarms.signing_secret_previous", r#""whsec_BASE64""#, "The key before; while it is set, notices carry both signatures."),
    set("alarms.project_quota", "-1", "Alarms that a project may have, unless its own quota says otherwise; -1: any number."),
    set("alarms.user_quota", "-1", "Alarms that a user may have; -1: any number."),
    set("alarms.noauth", "false", "The alarm API believes X-User-Id, X-Project-Id and X-Roles (Aodh's noauth); only on a loopback address."),
    set("alarms.evaluation_metrics", "false", "Whether /v2/metrics tells how often each alarm was evaluated to which state."),
    set("alarms.announcements", "false", "Whether changes of alarms are told to the exchange `aodh` of RabbitMQ, as Aodh does (alarm.creation, alarm.state_transition ...)."),
    set("rating.mode", r#""exact""#, "exact: usage is charged to the second, by what happened; cloudkitty: whole periods, by aggregates of what was polled."),
    set("rating.period", r#""1h""#, "Length of a rating period; must divide a day."),
    set("rating.wait_periods", "2", "A period is rated when so many more are over."),
    set("rating.interval", r#""1m""#, "How often it is looked whether a period can be rated."),
    set("rating.slot", r#""5m""#, "One point of each polled metric is expected in each such time; what is missing is told."),
    set("rating.again_after", r#""12h""#, "Each day is rated a second time when it is over for so long, so that samples that came late correct it; 0s: never."),
    set("rating.exports", "[]", "Profiles (focus-1.2-csv ...) of which each month is exported by itself, once all of it was rated, into `exports` in the data directory."),
    set("rating.deliveries", "[]", "Where exports are sent, such as { name = \"openmeter\", profile = \"openmeter-cloudevents\", schedule = \"hourly\", url = \"https://HOST/api/v1/events\", token_file = \"/etc/orzo/openmeter.token\" } (events: hourly, daily or monthly) or { name = \"finance\", profile = \"focus-1.2-csv\", schedule = \"monthly\", url = \"s3://BUCKET/PREFIX\", endpoint = \"https://HOST\", region = \"REGION\", access_key = \"ID\", secret_key_file = \"/etc/orzo/s3.secret\" } (tables: monthly; to s3, https or file:///DIRECTORY). Without a schedule: when it is asked for."),
    unset("rating.catalogue_file", r#""/etc/orzo/catalogue.toml""#, "What exports and invoices say that the ledger does not know: issuer, names of projects, categories of services."),
    unset("rating.metrics_file", r#""/etc/orzo/metrics.yml""#, "What is charged, in the format of CloudKitty's metrics.yml, instead of what is shipped."),
    set("sql.enabled", "true", "Whether administrators may ask in SQL (POST /v1/sql, `orzo sql`)."),
    set("sql.deadline", r#""30s""#, "How long one query may take; its process is killed then."),
    set("sql.memory_bytes_max", "536870912", "Memory that the process of one query may have; it is killed beyond."),
    set("sql.rows_max", "100000", "Rows that one answer may have."),
    set("sql.answer_bytes_max", "33554432", "Bytes that one answer may have; it is held in memory until it is whole."),
    set("sql.at_once_max", "2", "Queries that run at the same time; more are told to come back."),
];

/// The key that a person may have meant.
pub(crate) fn nearest(text: &str) -> Option<&'static Key> {
    let wanted = text.rsplit('.').next().unwrap_or(text);
    KEYS.iter()
        .map(|key| {
            let own = key.name.rsplit('.').next().unwrap_or(key.name);
            (strsim::jaro_winkler(wanted, own).max(strsim::jaro_winkler(text, key.name)), key)
        })
        // Below this the two words have little in common.
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// The whole file with every key at its default; unset keys are comments.
pub(crate) fn example() -> String {
    let mut text = String::from("# Every key at its default. Keys that are commented out are unset by default.\n");
    let mut section = "";
    for key in KEYS {
        let (own_section, name) = key.name.split_once('.').expect("keys are section.key");
        if own_section != section {
            section = own_section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let comment = if key.default.is_none() { "# " } else { "" };
        text.push_str(&format!("# {}\n{comment}{name} = {}\n", key.meaning, key.sample));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_example_is_the_default() {
        let example = Settings::parse(&example(), "example").expect("the example is read");
        assert_eq!(format!("{example:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn every_key_is_known_and_every_sample_is_usable() {
        for key in KEYS {
            let (section, name) = key.name.split_once('.').expect("section.key");
            let mut text = format!("[{section}]\n{name} = {}\n", key.sample);
            if key.name == "identity.url" {
                text.push_str("password = \"secret\"\n");
            }
            Settings::parse(&text, "sample").unwrap_or_else(|error| panic!("{}: {error:#}", key.name));
        }
    }
}
