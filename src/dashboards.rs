//! The dashboards that come with Orzo, as Grafana's JSON, and the files that have Grafana load them.
//!
//! `tables of panels → JSON`. What is shown stands in `dashboards/panels.rs`; this file knows Grafana's form of it. Every
//! query is in the tables as it is asked, so that a test can ask it.

mod panels;

use serde_json::{Value, json};

pub(crate) use panels::DASHBOARDS;

/// The version of Grafana's dashboard schema that this is written in; later ones read it.
const SCHEMA_VERSION: u32 = 39;
/// Columns of a dashboard.
const COLUMNS: u32 = 24;
/// The data source that the panels ask: a variable, so that it is chosen at the top of each dashboard.
const SOURCE: &str = "${source}";

/// A dashboard.
pub(crate) struct Dashboard {
    /// Its name in URLs and files.
    pub(crate) uid: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) variables: &'static [Variable],
    pub(crate) panels: &'static [Panel],
}

/// Something to choose at its top.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Which series have the values, and in which label.
    pub(crate) series: &'static str,
    pub(crate) label: &'static str,
    /// Whether it follows from the others, so that nobody needs to see it.
    pub(crate) hidden: bool,
    /// Whether all values together are a choice.
    pub(crate) all: bool,
}

/// How a panel shows its series.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines over time.
    Lines,
    /// Areas upon each other.
    Stack,
    /// One large number each.
    Number,
    /// A bar for each.
    Bars,
    /// The alarms that are on; asks the data source's alerts, no query.
    Alarms,
}

/// A panel.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    /// Grafana's id of a unit.
    pub(crate) unit: &'static str,
    /// Columns and rows.
    pub(crate) size: (u32, u32),
    /// Queries, and how their series are called.
    pub(crate) queries: &'static [(&'static str, &'static str)],
}

impl Dashboard {
    /// What Grafana reads.
    pub(crate) fn json(&self) -> Value {
        let source = json!({
            "name": "source", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
            "current": {}, "hide": 0,
        });
        let variables = std::iter::once(source).chain(self.variables.iter().map(Variable::json));
        let (mut x, mut y, mut row_height) = (0, 0, 0);
        let mut panels = Vec::new();
        for (place, panel) in self.panels.iter().enumerate() {
            let (width, height) = panel.size;
            if x + width > COLUMNS {
                (x, y, row_height) = (0, y + row_height, 0);
            }
            let mut shown = panel.json();
            shown["id"] = json!(place + 1);
            shown["gridPos"] = json!({"x": x, "y": y, "w": width, "h": height});
            panels.push(shown);
            x += width;
            row_height = row_height.max(height);
        }
        json!({
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["orzo"],
            "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": true, "graphTooltip": 1,
            "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "",
            "templating": {"list": variables.collect::<Vec<_>>()}, "panels": panels,
            "links": [{"type": "dashboards", "tags": ["orzo"], "asDropdown": true, "title": "Orzo", "keepTime": true,
                       "includeVars": true}],
            "annotations": {"list": []},
        })
    }
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": SOURCE})
}

impl Variable {
    /// As a person would ask for its values.
    pub(crate) fn query(&self) -> String {
        format!("label_values({}, {})", self.series, self.label)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "label": self.title, "type": "query", "datasource": source(),
            "query": {"query": self.query(), "refId": "values"}, "definition": self.query(),
            // Again when the time changes.
            "refresh": 2, "sort": 1, "includeAll": self.all, "allValue": if self.all { json!(".*") } else { json!(null) },
            "multi": false, "current": {}, "hide": if self.hidden { 2 } else { 0 },
        })
    }
}

impl Panel {
    fn json(&self) -> Value {
        if self.kind == Kind::Alarms {
            return json!({
                "title": self.title, "type": "alertlist",
                "options": {
                    "viewMode": "list", "datasource": "${source}", "groupMode": "default", "maxItems": 100, "sortOrder": 3,
                    "stateFilter": {"firing": true, "pending": true, "noData": false, "normal": false, "error": true},
                },
            });
        }
        let targets = self.queries.iter().enumerate().map(|(place, (query, legend))| {
            let letter = char::from(b'A' + u8::try_from(place).unwrap_or(25));
            json!({
                "refId": letter.to_string(), "datasource": source(), "expr": query, "legendFormat": legend,
                "instant": matches!(self.kind, Kind::Number | Kind::Bars),
                "range": matches!(self.kind, Kind::Lines | Kind::Stack), "editorMode": "code",
            })
        });
        let drawn = match self.kind {
            Kind::Stack => json!({"fillOpacity": 30, "stacking": {"mode": "normal"}, "showPoints": "never"}),
            _ => json!({"fillOpacity": 5, "showPoints": "never"}),
        };
        let options = match self.kind {
            Kind::Lines | Kind::Stack => json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            _ => json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "auto", "displayMode": "basic"}),
        };
        let kind = match self.kind {
            Kind::Lines | Kind::Stack => "timeseries",
            Kind::Number => "stat",
            Kind::Bars | Kind::Alarms => "bargauge",
        };
        json!({
            "title": self.title, "type": kind, "datasource": source(), "targets": targets.collect::<Vec<_>>(),
            "fieldConfig": {"defaults": {"unit": self.unit, "custom": drawn, "min": 0}, "overrides": []},
            "options": options,
        })
    }
}

/// The file from which Grafana makes the data source; the token comes from its environment.
pub(crate) fn data_source(url: &str) -> String {
    format!(
        "# Grafana reads this from conf/provisioning/datasources. Make the token with `orzo token create grafana`, and give it\n\
         # to Grafana as the variable ORZO_TOKEN.\n\
         apiVersion: 1\n\
         datasources:\n\
         \x20 - name: Orzo\n\
         \x20   type: prometheus\n\
         \x20   access: proxy\n\
         \x20   url: {url}\n\
         \x20   basicAuth: true\n\
         \x20   basicAuthUser: token\n\
         \x20   secureJsonData:\n\
         \x20     basicAuthPassword: $ORZO_TOKEN\n\
         \x20   jsonData:\n\
         \x20     httpMethod: POST\n\
         \x20     prometheusType: Prometheus\n\
         \x20     timeInterval: 10s\n"
    )
}

/// The file that tells Grafana where the dashboards lie.
pub(crate) fn provider(directory: &str) -> String {
    format!(
        "# Grafana reads this from conf/provisioning/dashboards.\n\
         apiVersion: 1\n\
         providers:\n\
         \x20 - name: Orzo\n\
         \x20   folder: Orzo\n\
         \x20   type: file\n\
         \x20   options:\n\
         \x20     path: {directory}\n"
    )
}

#[cfg(test)]
mod tests;
