//! Flavors: the sizes that servers come in.

use std::{collections::BTreeMap, sync::Arc};

use orzo_database::{Database, Row, Transaction, Value as Cell};
use orzo_model::Caller;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Compute, error::ComputeError, schedule::Amount};

/// A size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    /// Given by an admin, or a UUID.
    pub id: String,
    /// Running number: Nova's `instance_type_id`.
    pub number: i64,
    /// Unique.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Root disk, GiB.
    pub disk_gib: u64,
    /// Second disk, GiB.
    pub ephemeral_gib: u64,
    /// MiB.
    pub swap_mib: u64,
    /// Kept for clients; not used.
    pub rxtx_factor: f64,
    /// Everyone may use it.
    pub is_public: bool,
    /// Free text.
    pub description: Option<String>,
    /// Hints; kept and shown.
    pub extra_specs: BTreeMap<String, String>,
}

impl Flavor {
    /// What a server of it claims.
    pub fn amount(&self) -> Amount {
        Amount {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_gib: self.disk_gib.saturating_add(self.ephemeral_gib),
        }
    }

    fn from_row(row: &Row) -> Self {
        // Written by us alone, from this very type.
        serde_json::from_str(&row.string("record")).unwrap_or_default()
    }
}

/// (id, name, vCPUs, MiB, GiB): Devstack's, which every tutorial uses.
const DEFAULTS: &[(&str, &str, u64, u64, u64)] = &[
    ("1", "m1.tiny", 1, 512, 1),
    ("2", "m1.small", 1, 2048, 20),
    ("3", "m1.medium", 2, 4096, 40),
    ("4", "m1.large", 4, 8192, 80),
    ("5", "m1.xlarge", 8, 16384, 160),
];
/// Flavors at most: a list without paging must stay readable.
const FLAVORS_MAX: i64 = 1000;
/// Extra specs per flavor at most.
const EXTRA_SPECS_MAX: usize = 128;

/// What an admin asks for.
#[derive(Clone, Debug)]
pub struct NewFlavor {
    /// Without one, a UUID is made.
    pub id: Option<String>,
    /// All else, but for `id` and `number`.
    pub flavor: Flavor,
}

impl NewFlavor {
    /// Reads the body of `POST /flavors`.
    pub fn parse(body: &Value) -> Result<Self, ComputeError> {
        let given =
            body["flavor"].as_object().ok_or_else(|| ComputeError::bad_request("The body has no \"flavor\"."))?;
        // Old clients send numbers as text.
        let number = |name: &str, least: u64| -> Result<u64, ComputeError> {
            let found = match given.get(name) {
                None | Some(Value::Null) if least == 0 => Some(0),
                Some(Value::String(text)) if text.is_empty() && least == 0 => Some(0),
                Some(Value::String(text)) => text.parse().ok(),
                Some(value) => value.as_u64(),
                None => None,
            };
            found.filter(|number| (least..=i32::MAX as u64).contains(number)).ok_or_else(|| {
                ComputeError::bad_request(format!(
                    "Invalid input for field/attribute {name}: a number from {least} up is expected."
                ))
            })
        };
        let text = |name: &str| given.get(name).and_then(Value::as_str).map(|text| text.trim().to_owned());
        let name = text("name").filter(|name| !name.is_empty() && name.chars().count() <= 255);
        let name = name.ok_or_else(|| ComputeError::bad_request("Invalid input for field/attribute name."))?;
        let id = match given.get("id") {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(Value::String(id)) if id == "auto" || id.is_empty() => None,
            Some(Value::String(id)) => Some(id.trim().to_owned()),
            Some(_) => return Err(ComputeError::bad_request("Invalid input for field/attribute id.")),
        };
        let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, ' ' | '.' | '_' | '-');
        if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 255 || !id.chars().all(allowed)) {
            return Err(ComputeError::bad_request(
                "Flavor ids are letters, digits, periods, dashes, underscores and spaces.",
            ));
        }
        let flavor = Flavor {
            id: String::new(),
            number: 0,
            name,
            vcpus: number("vcpus", 1)?,
            memory_mib: number("ram", 1)?,
            disk_gib: number("disk", 0)?,
            ephemeral_gib: number("OS-FLV-EXT-DATA:ephemeral", 0)?,
            swap_mib: number("swap", 0)?,
            rxtx_factor: given.get("rxtx_factor").and_then(Value::as_f64).unwrap_or(1.0),
            is_public: given.get("os-flavor-access:is_public").and_then(Value::as_bool).unwrap_or(true),
            description: text("description"),
            extra_specs: BTreeMap::new(),
        };
        Ok(Self { id, flavor })
    }
}

/// Makes the default flavors in an empty database, once: an admin may remove them.
pub(super) async fn ensure_defaults(database: &Database) -> Result<(), ComputeError> {
    database
        .transact(|tx| {
            Box::pin(async move {
                if !super::once(tx, "default flavors").await? {
                    return Ok(());
                }
                for (id, name, vcpus, memory_mib, disk_gib) in DEFAULTS {
                    let flavor = Flavor {
                        id: (*id).to_owned(),
                        number: super::next_number(tx, "flavor").await?,
                        name: (*name).to_owned(),
                        vcpus: *vcpus,
                        memory_mib: *memory_mib,
                        disk_gib: *disk_gib,
                        rxtx_factor: 1.0,
                        is_public: true,
                        ..Flavor::default()
                    };
                    insert(tx, &flavor).await?;
                }
                Ok(())
            })
        })
        .await
}

async fn insert(tx: &mut Transaction<'_>, flavor: &Flavor) -> Result<(), ComputeError> {
    tx.execute(
        "INSERT INTO compute_flavors (id, name, number, is_public, record) VALUES ($1, $2, $3, $4, $5)",
        &[
            flavor.id.as_str().into(),
            flavor.name.as_str().into(),
            flavor.number.into(),
            flavor.is_public.into(),
            record(flavor),
        ],
    )
    .await?;
    Ok(())
}

fn record(flavor: &Flavor) -> Cell {
    serde_json::to_string(flavor).expect("a flavor has only text keys").into()
}

impl Compute {
    /// Flavors that the caller may use, by number; an admin may ask for the private ones as well (`None`: both).
    pub async fn flavors(&self, caller: &Caller, is_public: Option<bool>) -> Result<Vec<Flavor>, ComputeError> {
        let rows = self.database.query("SELECT record FROM compute_flavors ORDER BY number", &[]).await?;
        let mut flavors: Vec<Flavor> = rows.iter().map(Flavor::from_row).collect();
        if caller.is_admin() {
            flavors.retain(|flavor| is_public.is_none_or(|wanted| wanted == flavor.is_public));
            return Ok(flavors);
        }
        let project = caller.project_id.clone().unwrap_or_default();
        let rows = self
            .database
            .query("SELECT flavor_id FROM compute_flavor_access WHERE project_id = $1", &[project.into()])
            .await?;
        let granted: Vec<String> = rows.iter().map(|row| row.string("flavor_id")).collect();
        flavors.retain(|flavor| flavor.is_public || granted.contains(&flavor.id));
        Ok(flavors)
    }

    /// A flavor that the caller may use.
    pub async fn flavor(&self, caller: &Caller, id: &str) -> Result<Flavor, ComputeError> {
        let row = self.database.query_one("SELECT record FROM compute_flavors WHERE id = $1", &[id.into()]).await?;
        let flavor = row.map(|row| Flavor::from_row(&row));
        match flavor {
            Some(flavor) if flavor.is_public || caller.is_admin() => Ok(flavor),
            Some(flavor) => {
                let project = caller.project_id.clone().unwrap_or_default();
                if self.flavor_projects(&flavor.id).await?.contains(&project) { Ok(flavor) } else { Err(no_flavor(id)) }
            }
            None => Err(no_flavor(id)),
        }
    }

    /// Projects that may use a private flavor.
    pub async fn flavor_projects(&self, id: &str) -> Result<Vec<String>, ComputeError> {
        let sql = "SELECT project_id FROM compute_flavor_access WHERE flavor_id = $1 ORDER BY project_id";
        let rows = self.database.query(sql, &[id.into()]).await?;
        Ok(rows.iter().map(|row| row.string("project_id")).collect())
    }

    /// Makes a flavor; the caller is an admin.
    pub async fn create_flavor(self: &Arc<Self>, new: NewFlavor) -> Result<Flavor, ComputeError> {
        let name = new.flavor.name.clone();
        let outcome = self
            .database
            .transact(move |tx| {
                let new = new.clone();
                Box::pin(async move {
                    let row = tx.query_one("SELECT count(*) AS n FROM compute_flavors", &[]).await?;
                    if row.and_then(|row| row.int("n")).unwrap_or(0) >= FLAVORS_MAX {
                        return Err(ComputeError::conflict(format!("There are {FLAVORS_MAX} flavors already.")));
                    }
                    let mut flavor = new.flavor;
                    flavor.id = new.id.unwrap_or_else(|| Uuid::new_v4().to_string());
                    flavor.number = super::next_number(tx, "flavor").await?;
                    insert(tx, &flavor).await?;
                    Ok(flavor)
                })
            })
            .await;
        match outcome {
            Err(ComputeError::Database(error)) if error.is_constraint() => {
                Err(ComputeError::conflict(format!("Flavor with name {name} or the same ID already exists.")))
            }
            outcome => outcome,
        }
    }

    /// Removes a flavor; servers keep what they were made from.
    pub async fn delete_flavor(&self, id: &str) -> Result<(), ComputeError> {
        self.database.execute("DELETE FROM compute_flavor_access WHERE flavor_id = $1", &[id.into()]).await?;
        match self.database.execute("DELETE FROM compute_flavors WHERE id = $1", &[id.into()]).await? {
            0 => Err(no_flavor(id)),
            _ => Ok(()),
        }
    }

    /// Changes description or extra specs.
    pub async fn edit_flavor<F>(&self, id: &str, edit: F) -> Result<Flavor, ComputeError>
    where
        F: Fn(&mut Flavor) -> Result<(), ComputeError> + Send + Sync + 'static,
    {
        let (id, edit) = (id.to_owned(), Arc::new(edit));
        self.database
            .transact(move |tx| {
                let (id, edit) = (id.clone(), edit.clone());
                Box::pin(async move {
                    let row =
                        tx.query_one("SELECT record FROM compute_flavors WHERE id = $1", &[id.as_str().into()]).await?;
                    let mut flavor = row.map(|row| Flavor::from_row(&row)).ok_or_else(|| no_flavor(&id))?;
                    edit(&mut flavor)?;
                    if flavor.extra_specs.len() > EXTRA_SPECS_MAX {
                        return Err(ComputeError::bad_request(format!("More than {EXTRA_SPECS_MAX} extra specs.")));
                    }
                    let cells = [id.as_str().into(), record(&flavor)];
                    tx.execute("UPDATE compute_flavors SET record = $2 WHERE id = $1", &cells).await?;
                    Ok(flavor)
                })
            })
            .await
    }

    /// Lets a project use a private flavor, or no longer.
    pub async fn grant_flavor(&self, id: &str, project: &str, granted: bool) -> Result<(), ComputeError> {
        if granted {
            let sql =
                "INSERT INTO compute_flavor_access (flavor_id, project_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            self.database.execute(sql, &[id.into(), project.into()]).await?;
        } else {
            let sql = "DELETE FROM compute_flavor_access WHERE flavor_id = $1 AND project_id = $2";
            self.database.execute(sql, &[id.into(), project.into()]).await?;
        }
        Ok(())
    }
}

fn no_flavor(id: &str) -> ComputeError {
    ComputeError::not_found(format!("Flavor {id:.64} could not be found."))
}
