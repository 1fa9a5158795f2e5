//! The book's tables. A row of rules is in force from `since_version` until before `until_version` (NULL: it still is).

use orzo_database::Migration;

pub(super) const MIGRATIONS: &[Migration] = &[RULES, HELD, TOTALS];

/// What holds a scope; NULL where nothing does.
const HELD: Migration = Migration {
    name: "scopes that are held",
    sql: "ALTER TABLE rating_scopes ADD COLUMN made_until BIGINT;
      ALTER TABLE rating_scopes ADD COLUMN held_version BIGINT;
      ALTER TABLE rating_scopes ADD COLUMN held_reason TEXT;\n",
};

/// Sums of closed periods by currency: one column had room for one.
const TOTALS: Migration = Migration {
    name: "sums of closed periods by currency",
    sql: "CREATE TABLE rating_period_totals (
         scope_id TEXT NOT NULL, begin_at BIGINT NOT NULL, currency TEXT NOT NULL, total TEXT NOT NULL,
         PRIMARY KEY (scope_id, begin_at, currency));
       INSERT INTO rating_period_totals (scope_id, begin_at, currency, total)
         SELECT scope_id, begin_at, currency, total FROM rating_periods;
       ALTER TABLE rating_periods DROP COLUMN total;
       ALTER TABLE rating_periods DROP COLUMN currency;\n",
};

const RULES: Migration = Migration {
    name: "rules with versions, scopes, tasks, periods, modules",
    sql: "CREATE TABLE rating_versions (
        version BIGINT PRIMARY KEY, changed_at BIGINT NOT NULL, changed_by TEXT NOT NULL, change TEXT NOT NULL);
      CREATE TABLE rating_services (
        service_id TEXT NOT NULL, name TEXT NOT NULL, created_version BIGINT NOT NULL,
        since_version BIGINT NOT NULL, until_version BIGINT, PRIMARY KEY (service_id, since_version));
      CREATE UNIQUE INDEX rating_services_name ON rating_services (name) WHERE until_version IS NULL;
      CREATE TABLE rating_fields (
        field_id TEXT NOT NULL, service_id TEXT NOT NULL, name TEXT NOT NULL, created_version BIGINT NOT NULL,
        since_version BIGINT NOT NULL, until_version BIGINT, PRIMARY KEY (field_id, since_version));
      CREATE UNIQUE INDEX rating_fields_name ON rating_fields (service_id, name) WHERE until_version IS NULL;
      CREATE TABLE rating_groups (
        group_id TEXT NOT NULL, name TEXT NOT NULL, created_version BIGINT NOT NULL,
        since_version BIGINT NOT NULL, until_version BIGINT, PRIMARY KEY (group_id, since_version));
      CREATE UNIQUE INDEX rating_groups_name ON rating_groups (name) WHERE until_version IS NULL;
      CREATE TABLE rating_mappings (
        mapping_id TEXT NOT NULL, value TEXT, cost TEXT NOT NULL, map_type TEXT NOT NULL, service_id TEXT,
        field_id TEXT, group_id TEXT, tenant_id TEXT, start_at BIGINT NOT NULL, end_at BIGINT, name TEXT NOT NULL,
        description TEXT, created_at BIGINT NOT NULL, created_by TEXT NOT NULL, updated_by TEXT, deleted_at BIGINT,
        deleted_by TEXT, created_version BIGINT NOT NULL, since_version BIGINT NOT NULL, until_version BIGINT,
        PRIMARY KEY (mapping_id, since_version));
      CREATE INDEX rating_mappings_field ON rating_mappings (field_id, value) WHERE until_version IS NULL;
      CREATE INDEX rating_mappings_service ON rating_mappings (service_id) WHERE until_version IS NULL;
      CREATE INDEX rating_mappings_name ON rating_mappings (name) WHERE until_version IS NULL;
      CREATE TABLE rating_thresholds (
        threshold_id TEXT NOT NULL, level TEXT NOT NULL, cost TEXT NOT NULL, map_type TEXT NOT NULL, service_id TEXT,
        field_id TEXT, group_id TEXT, tenant_id TEXT, created_version BIGINT NOT NULL,
        since_version BIGINT NOT NULL, until_version BIGINT, PRIMARY KEY (threshold_id, since_version));
      CREATE INDEX rating_thresholds_field ON rating_thresholds (field_id) WHERE until_version IS NULL;
      CREATE INDEX rating_thresholds_service ON rating_thresholds (service_id) WHERE until_version IS NULL;
      CREATE TABLE rating_documents (
        kind TEXT NOT NULL, document_id TEXT NOT NULL, body TEXT NOT NULL, created_version BIGINT NOT NULL,
        since_version BIGINT NOT NULL, until_version BIGINT, PRIMARY KEY (kind, document_id, since_version));
      CREATE TABLE rating_modules (name TEXT PRIMARY KEY, enabled BIGINT NOT NULL, priority BIGINT NOT NULL);
      CREATE TABLE rating_collectors (name TEXT PRIMARY KEY, enabled BIGINT NOT NULL);
      CREATE TABLE rating_collector_mappings (service TEXT PRIMARY KEY, collector TEXT NOT NULL);
      CREATE TABLE rating_scopes (
        scope_id TEXT PRIMARY KEY, scope_key TEXT NOT NULL, fetcher TEXT NOT NULL, collector TEXT NOT NULL,
        rated_until BIGINT NOT NULL, active BIGINT NOT NULL, toggled_at BIGINT NOT NULL, created_at BIGINT NOT NULL,
        revision BIGINT NOT NULL);
      CREATE TABLE rating_tasks (
        task_id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, scope_id TEXT NOT NULL, reason TEXT NOT NULL,
        begin_at BIGINT NOT NULL, end_at BIGINT NOT NULL, done_until BIGINT, created_at BIGINT NOT NULL,
        created_by TEXT NOT NULL);
      CREATE INDEX rating_tasks_scope ON rating_tasks (scope_id, number);
      CREATE TABLE rating_periods (
        scope_id TEXT NOT NULL, begin_at BIGINT NOT NULL, end_at BIGINT NOT NULL, closed_at BIGINT NOT NULL,
        closed_by TEXT NOT NULL, rule_version BIGINT NOT NULL, lines BIGINT NOT NULL, total TEXT NOT NULL,
        currency TEXT NOT NULL, PRIMARY KEY (scope_id, begin_at));\n",
};
