//! The index's tables. Steps are added, never changed.
//!
//! Attributes of resources are kept twice: as one JSON text for reading, and as rows (`index_attributes`) for
//! searching and sorting in SQL. Revision -1 is the current one; older ones count up from 1 within each resource.

use orzo_database::Migration;

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "policies, types, resources, metrics, events",
        sql: "
CREATE TABLE index_counters (name TEXT PRIMARY KEY, next BIGINT NOT NULL);
INSERT INTO index_counters (name, next) VALUES ('series', 1), ('deletions', 0);
CREATE TABLE index_archive_policies (
    name TEXT PRIMARY KEY, back_window BIGINT NOT NULL, definition TEXT NOT NULL, aggregation_methods TEXT NOT NULL
);
CREATE TABLE index_archive_policy_rules (
    name TEXT PRIMARY KEY, metric_pattern TEXT NOT NULL,
    archive_policy_name TEXT NOT NULL REFERENCES index_archive_policies (name)
);
CREATE TABLE index_resource_types (name TEXT PRIMARY KEY, attributes TEXT NOT NULL);
CREATE TABLE index_resources (
    id TEXT PRIMARY KEY, type TEXT NOT NULL REFERENCES index_resource_types (name),
    original_resource_id TEXT NOT NULL, creator TEXT NOT NULL,
    created_by_user_id TEXT NOT NULL, created_by_project_id TEXT NOT NULL,
    project_id TEXT, user_id TEXT,
    started_at BIGINT NOT NULL, ended_at BIGINT, revision_start BIGINT NOT NULL, attributes TEXT NOT NULL,
    CHECK (ended_at IS NULL OR started_at <= ended_at)
);
CREATE INDEX index_resources_by_type ON index_resources (type, revision_start, started_at, id);
CREATE INDEX index_resources_by_start ON index_resources (revision_start, started_at, id);
CREATE INDEX index_resources_by_project ON index_resources (project_id);
CREATE INDEX index_resources_by_creator ON index_resources (created_by_project_id);
CREATE INDEX index_resources_by_original ON index_resources (original_resource_id);
CREATE INDEX index_resources_by_end ON index_resources (ended_at);
CREATE TABLE index_resource_history (
    id TEXT NOT NULL, revision BIGINT NOT NULL, type TEXT NOT NULL,
    original_resource_id TEXT NOT NULL, creator TEXT NOT NULL,
    created_by_user_id TEXT NOT NULL, created_by_project_id TEXT NOT NULL,
    project_id TEXT, user_id TEXT,
    started_at BIGINT NOT NULL, ended_at BIGINT, revision_start BIGINT NOT NULL, attributes TEXT NOT NULL,
    revision_end BIGINT NOT NULL,
    PRIMARY KEY (id, revision)
);
CREATE TABLE index_attributes (
    resource_id TEXT NOT NULL, revision BIGINT NOT NULL, name TEXT NOT NULL, text TEXT, number DOUBLE PRECISION,
    PRIMARY KEY (resource_id, revision, name)
);
CREATE INDEX index_attributes_by_text ON index_attributes (name, text);
CREATE INDEX index_attributes_by_number ON index_attributes (name, number);
CREATE TABLE index_metrics (
    id TEXT PRIMARY KEY, series BIGINT NOT NULL UNIQUE, name TEXT, unit TEXT, creator TEXT NOT NULL,
    created_by_user_id TEXT NOT NULL, created_by_project_id TEXT NOT NULL, resource_id TEXT,
    archive_policy_name TEXT NOT NULL REFERENCES index_archive_policies (name),
    status TEXT NOT NULL, deleted_at BIGINT
);
CREATE UNIQUE INDEX index_metrics_by_name ON index_metrics (resource_id, name) WHERE status = 'active';
CREATE INDEX index_metrics_by_policy ON index_metrics (archive_policy_name);
CREATE INDEX index_metrics_deleted ON index_metrics (deleted_at) WHERE status = 'delete';
CREATE TABLE index_events (
    message_id TEXT PRIMARY KEY, event_type TEXT NOT NULL, generated_at BIGINT NOT NULL,
    project_id TEXT, user_id TEXT, traits TEXT NOT NULL, raw TEXT
);
CREATE INDEX index_events_by_time ON index_events (generated_at, message_id);
CREATE INDEX index_events_by_type ON index_events (event_type, generated_at);
CREATE TABLE index_event_traits (
    message_id TEXT NOT NULL REFERENCES index_events (message_id) ON DELETE CASCADE,
    name TEXT NOT NULL, kind TEXT NOT NULL, text TEXT, number DOUBLE PRECISION,
    PRIMARY KEY (message_id, name)
);
CREATE INDEX index_event_traits_by_text ON index_event_traits (name, text);
",
    },
    Migration {
        name: "events in the order of their commits",
        sql: "
ALTER TABLE index_events ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
ALTER TABLE index_events ADD COLUMN stored_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX index_events_by_number ON index_events (number);
CREATE INDEX index_events_by_project ON index_events (project_id, generated_at);
INSERT INTO index_counters (name, next) VALUES ('events', 1);
",
    },
    Migration {
        // An order ends with the id, so that an index that ends with it gives pages without sorting.
        name: "indexes for the orders of lists and for who sees what",
        sql: "
DROP INDEX index_attributes_by_text;
DROP INDEX index_attributes_by_number;
CREATE INDEX index_attributes_by_text ON index_attributes (name, revision, text, resource_id) WHERE text IS NOT NULL;
CREATE INDEX index_attributes_by_number ON index_attributes (name, revision, number, resource_id)
    WHERE number IS NOT NULL;
DROP INDEX index_resources_by_project;
DROP INDEX index_resources_by_creator;
DROP INDEX index_resources_by_end;
CREATE INDEX index_resources_by_project ON index_resources (project_id, id);
CREATE INDEX index_resources_by_user ON index_resources (user_id, id);
CREATE INDEX index_resources_by_creator ON index_resources (creator, id);
CREATE INDEX index_resources_by_creating_project ON index_resources (created_by_project_id, id);
CREATE INDEX index_resources_by_beginning ON index_resources (started_at, id);
CREATE INDEX index_resources_by_end ON index_resources (ended_at, id);
CREATE INDEX index_metrics_named ON index_metrics (name, id) WHERE status = 'active';
CREATE INDEX index_metrics_by_creator ON index_metrics (created_by_project_id, created_by_user_id);
",
    },
    Migration {
        // A value is kept as the bits of its double: not every database has NaN.
        name: "metadata and exemplars of label sets",
        sql: "
CREATE TABLE index_metadata (
    project TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL,
    PRIMARY KEY (project, name)
);
CREATE TABLE index_exemplars (
    project TEXT NOT NULL, series BIGINT NOT NULL, at BIGINT NOT NULL, labels TEXT NOT NULL, value_bits BIGINT NOT NULL,
    PRIMARY KEY (series, at, labels)
);
CREATE INDEX index_exemplars_by_time ON index_exemplars (project, at);
",
    },
];
