//! Modules of rating, on or off, and CloudKitty's old settings of collectors, which are kept and mean nothing here.

use orzo_database::Row;

use super::{BookError, RatingBook, check_name};

/// Who collects usage here: what Gnocchi's API would answer, without asking it.
pub const COLLECTOR_DEFAULT: &str = "gnocchi";

/// The modules: name, description, whether it is on at first, whether its rules can be changed while it runs.
pub const MODULES: [(&str, &str, bool, bool); 3] = [
    ("hashmap", "HashMap rating module.", true, true),
    ("noop", "Dummy test module.", false, false),
    ("pyscripts", "PyScripts rating module.", false, true),
];

/// A module as it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleState {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: &'static str,
    /// Whether it rates.
    pub enabled: bool,
    /// Whether its rules can be changed while it runs.
    pub hot_config: bool,
    /// Of several modules the one with more goes first.
    pub priority: i64,
}

/// Which collector a service's usage is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorMapping {
    /// The service.
    pub service: String,
    /// The collector.
    pub collector: String,
}

fn mapping_of(row: &Row) -> CollectorMapping {
    CollectorMapping { service: row.string("service"), collector: row.string("collector") }
}

impl RatingBook {
    /// All modules, by name.
    pub async fn modules(&self) -> Result<Vec<ModuleState>, BookError> {
        let rows = self.database.query("SELECT * FROM rating_modules", &[]).await?;
        let module = |(name, description, enabled, hot_config): (&str, &'static str, bool, bool)| {
            let row = rows.iter().find(|row| row.string("name") == name);
            ModuleState {
                name: name.to_owned(),
                description,
                enabled: row.map_or(enabled, |row| row.flag("enabled")),
                hot_config,
                priority: row.and_then(|row| row.int("priority")).unwrap_or(1),
            }
        };
        Ok(MODULES.into_iter().map(module).collect())
    }

    /// Turns a module on or off, or changes its priority; `false`: it is so already. `pyscripts` cannot be turned on: it
    /// runs whatever code it gets.
    pub async fn set_module(
        &self,
        name: &str,
        enabled: Option<bool>,
        priority: Option<i64>,
    ) -> Result<bool, BookError> {
        let modules = self.modules().await?;
        let Some(module) = modules.into_iter().find(|module| module.name == name) else {
            return Err(BookError::NotFound { what: format!("Module '{name}' not found") });
        };
        if name == "pyscripts" && enabled == Some(true) {
            let reason =
                "pyscripts run any Python inside the server, so there are none; write the price as an expression";
            return Err(BookError::refused(reason));
        }
        let sql = "INSERT INTO rating_modules (name, enabled, priority) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled, priority = excluded.priority";
        let enabled = enabled.unwrap_or(module.enabled);
        let priority = priority.unwrap_or(module.priority);
        if (enabled, priority) == (module.enabled, module.priority) {
            return Ok(false);
        }
        self.database.execute(sql, &[name.into(), enabled.into(), priority.into()]).await?;
        Ok(true)
    }

    /// Which collectors were named for services; of one collector only, if it is given.
    pub async fn collector_mappings(&self, collector: Option<&str>) -> Result<Vec<CollectorMapping>, BookError> {
        let rows = self.database.query("SELECT * FROM rating_collector_mappings ORDER BY service", &[]).await?;
        let mappings = rows.iter().map(mapping_of);
        Ok(mappings.filter(|mapping| collector.is_none_or(|own| own == mapping.collector)).collect())
    }

    /// Names the collector of a service.
    pub async fn set_collector_mapping(&self, service: &str, collector: &str) -> Result<CollectorMapping, BookError> {
        check_name("service", service)?;
        check_name("collector", collector)?;
        let sql = "INSERT INTO rating_collector_mappings (service, collector) VALUES ($1, $2) \
                   ON CONFLICT (service) DO UPDATE SET collector = excluded.collector";
        self.database.execute(sql, &[service.into(), collector.into()]).await?;
        Ok(CollectorMapping { service: service.to_owned(), collector: collector.to_owned() })
    }

    /// Forgets the collector of a service; whether there was one.
    pub async fn delete_collector_mapping(&self, service: &str) -> Result<bool, BookError> {
        let sql = "DELETE FROM rating_collector_mappings WHERE service = $1";
        Ok(self.database.execute(sql, &[service.into()]).await? == 1)
    }

    /// Whether a collector was turned on.
    pub async fn collector_state(&self, name: &str) -> Result<bool, BookError> {
        let row = self.database.query_one("SELECT * FROM rating_collectors WHERE name = $1", &[name.into()]).await?;
        Ok(row.map_or(name == COLLECTOR_DEFAULT, |row| row.flag("enabled")))
    }

    /// Notes whether a collector is on.
    pub async fn set_collector_state(&self, name: &str, enabled: bool) -> Result<(), BookError> {
        check_name("name", name)?;
        let sql = "INSERT INTO rating_collectors (name, enabled) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled";
        self.database.execute(sql, &[name.into(), enabled.into()]).await?;
        Ok(())
    }
}
