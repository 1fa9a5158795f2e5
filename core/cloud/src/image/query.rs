//! Lists of images: a client's query parameters become one SQL query, with paging that does not skip or repeat when
//! images come and go between pages. Pure but for the marker, which the caller looks up.

use orzo_database::{Row, Value as Cell};
use orzo_model::{Caller, Timestamp};

use super::{error::ImageError, record::COLUMNS};

/// Images in one answer at most (Glance's `api_limit_max`).
const LIMIT_MAX: i64 = 1000;
/// Images in one answer if the client does not say (Glance's `limit_param_default`).
const LIMIT_DEFAULT: i64 = 25;
/// Query parameters at most; a client that lists ids uses one.
const PARAMETERS_MAX: usize = 64;
/// Values of one `in:` at most.
const IN_VALUES_MAX: usize = 1000;
/// What can be sorted by, and whether it is text.
const SORT_KEYS: &[(&str, bool)] = &[
    ("name", true),
    ("status", true),
    ("container_format", true),
    ("disk_format", true),
    ("size", false),
    ("id", true),
    ("created_at", false),
    ("updated_at", false),
];

/// A list request, understood.
#[derive(Debug, Default)]
pub(super) struct ListQuery {
    /// Images wanted.
    pub limit: i64,
    /// Id of the last image of the page before.
    pub marker: Option<String>,
    /// The client's parameters but `marker`, to build the link to the next page from.
    pub kept: Vec<(String, String)>,
    clauses: Vec<String>,
    values: Vec<Cell>,
    sort: Vec<Sort>,
}

#[derive(Debug, Clone, Copy)]
struct Sort {
    column: &'static str,
    text: bool,
    ascending: bool,
}

impl ListQuery {
    /// Reads the parameters for this caller.
    pub(super) fn parse(parameters: &[(String, String)], caller: &Caller) -> Result<Self, ImageError> {
        if parameters.len() > PARAMETERS_MAX {
            return Err(ImageError::bad_request(format!("More than {PARAMETERS_MAX} query parameters.")));
        }
        let mut query = Self { limit: LIMIT_DEFAULT, ..Self::default() };
        let value_of =
            |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        query.visible_to(caller, value_of("visibility"), value_of("member_status"))?;
        if value_of("os_hidden").is_none() {
            query.clauses.push("i.os_hidden = 0".to_owned());
        }
        for (name, value) in parameters {
            query.filter(name, value)?;
            if name != "marker" {
                query.kept.push((name.clone(), value.clone()));
            }
        }
        query.sort = sorting(parameters)?;
        Ok(query)
    }

    /// The SQL text and its values. `after` is the marker's row.
    pub(super) fn to_sql(&self, after: Option<&Row>) -> (String, Vec<Cell>) {
        let mut values = self.values.clone();
        let mut clauses = self.clauses.clone();
        if let Some(row) = after {
            clauses.push(after_clause(&self.sort, row, &mut values));
        }
        let conditions = if clauses.is_empty() { "1 = 1".to_owned() } else { clauses.join(" AND ") };
        let order: Vec<String> = self
            .sort
            .iter()
            .map(|sort| format!("{} {}", sort.expression(), if sort.ascending { "ASC" } else { "DESC" }))
            .collect();
        values.push(self.limit.into());
        let sql = format!(
            "SELECT {COLUMNS} FROM image_images i WHERE {conditions} ORDER BY {} LIMIT ${}",
            order.join(", "),
            values.len()
        );
        (sql, values)
    }

    /// Appends a value and returns its placeholder.
    fn bind(&mut self, value: impl Into<Cell>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn visible_to(
        &mut self,
        caller: &Caller,
        visibility: Option<&str>,
        member_status: Option<&str>,
    ) -> Result<(), ImageError> {
        if caller.is_admin() {
            return Ok(());
        }
        let project = caller.project_id.clone().unwrap_or_default();
        let status = match member_status.unwrap_or("accepted") {
            status @ ("accepted" | "pending" | "rejected" | "all") => status,
            other => return Err(ImageError::bad_request(format!("Invalid member_status '{other:.40}'."))),
        };
        let owner = self.bind(project.clone());
        let member = self.bind(project);
        let mut shared = format!(
            "i.visibility = 'shared' AND EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = i.id AND m.member_id = {member}"
        );
        if status != "all" {
            let status = self.bind(status);
            shared.push_str(&format!(" AND m.status = {status}"));
        }
        shared.push(')');
        // Community images of others are found only by those who ask for them.
        let public = match visibility {
            Some("community" | "all") => "i.visibility IN ('public', 'community')",
            _ => "i.visibility = 'public'",
        };
        self.clauses.push(format!("(i.owner = {owner} OR {public} OR ({shared}))"));
        Ok(())
    }

    fn filter(&mut self, name: &str, value: &str) -> Result<(), ImageError> {
        match name {
            "limit" => {
                let limit: i64 = value
                    .parse()
                    .ok()
                    .filter(|limit| *limit >= 0)
                    .ok_or_else(|| ImageError::bad_request("limit param must be a number from 0 up"))?;
                self.limit = limit.min(LIMIT_MAX);
            }
            "marker" => self.marker = Some(value.to_owned()),
            "sort" | "sort_key" | "sort_dir" | "member_status" => {}
            "visibility" if value == "all" => {}
            "id" | "name" | "status" | "container_format" | "disk_format" => self.is_one_of(name, value)?,
            "visibility" | "owner" | "checksum" | "os_hash_value" => {
                let column = if name == "os_hash_value" { "hash" } else { name };
                let place = self.bind(value);
                self.clauses.push(format!("i.{column} = {place}"));
            }
            "protected" | "os_hidden" => {
                let flag = match value.to_ascii_lowercase().as_str() {
                    "true" | "1" => 1i64,
                    "false" | "0" => 0,
                    _ => {
                        return Err(ImageError::bad_request(format!(
                            "Invalid value '{value:.40}' for '{name}' filter."
                        )));
                    }
                };
                let place = self.bind(flag);
                self.clauses.push(format!("i.{name} = {place}"));
            }
            "size_min" | "size_max" | "min_disk" | "min_ram" => {
                let number: i64 = value.parse().map_err(|_| {
                    ImageError::bad_request(format!("Invalid value '{value:.40}' for '{name}' filter."))
                })?;
                let place = self.bind(number);
                self.clauses.push(match name {
                    "size_min" => format!("i.size >= {place}"),
                    "size_max" => format!("i.size <= {place}"),
                    _ => format!("i.{name} = {place}"),
                });
            }
            "created_at" | "updated_at" => self.at_time(name, value)?,
            "tag" => self.marked("tag", value, None),
            property => self.marked("property", property, Some(value)),
        }
        Ok(())
    }

    /// `name=a` or `name=in:a,b,"c,d"`.
    fn is_one_of(&mut self, column: &str, value: &str) -> Result<(), ImageError> {
        let Some(list) = value.strip_prefix("in:") else {
            let place = self.bind(value);
            self.clauses.push(format!("i.{column} = {place}"));
            return Ok(());
        };
        let words = split_quoted(list)?;
        if words.len() > IN_VALUES_MAX {
            return Err(ImageError::bad_request(format!("More than {IN_VALUES_MAX} values in '{column}'.")));
        }
        let places: Vec<String> = words.into_iter().map(|word| self.bind(word)).collect();
        if places.is_empty() {
            self.clauses.push("1 = 0".to_owned());
        } else {
            self.clauses.push(format!("i.{column} IN ({})", places.join(", ")));
        }
        Ok(())
    }

    /// `created_at=gte:2026-11-21T00:00:00Z`; without an operator: equal.
    fn at_time(&mut self, column: &str, value: &str) -> Result<(), ImageError> {
        let operators = [("gt:", ">"), ("gte:", ">="), ("lt:", "<"), ("lte:", "<="), ("eq:", "="), ("neq:", "<>")];
        let (operator, text) = operators
            .iter()
            .find_map(|(prefix, operator)| value.strip_prefix(prefix).map(|rest| (*operator, rest)))
            .unwrap_or(("=", value));
        let time: Timestamp =
            text.parse().map_err(|error: orzo_model::TimeError| ImageError::bad_request(error.to_string()))?;
        // Clients see whole seconds, so whole seconds are compared.
        let place = self.bind(time.secs());
        self.clauses.push(format!("i.{column} / 1000000 {operator} {place}"));
        Ok(())
    }

    fn marked(&mut self, kind: &str, name: &str, value: Option<&str>) {
        let kind = self.bind(kind);
        let name = self.bind(name);
        let value = value.map_or(String::new(), |value| format!(" AND k.value = {}", self.bind(value)));
        self.clauses.push(format!(
            "EXISTS (SELECT 1 FROM image_marks k WHERE k.image_id = i.id AND k.kind = {kind} AND k.name = {name}{value})"
        ));
    }
}

impl Sort {
    /// Missing values sort as the smallest, the same on both databases.
    fn expression(&self) -> String {
        format!("coalesce(i.{}, {})", self.column, if self.text { "''" } else { "0" })
    }

    fn value(&self, row: &Row) -> Cell {
        match self.text {
            true => row.string(self.column).into(),
            false => row.int(self.column).unwrap_or(0).into(),
        }
    }
}

/// `sort=name:asc,size`, or pairs of `sort_key` and `sort_dir`; Glance's default is the newest first. `id` and
/// `created_at` are always there at the end, so that the order is total.
fn sorting(parameters: &[(String, String)]) -> Result<Vec<Sort>, ImageError> {
    let all = |wanted: &str| -> Vec<&str> {
        parameters.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect()
    };
    let mut sort = Vec::new();
    if let Some(text) = all("sort").first() {
        if !all("sort_key").is_empty() || !all("sort_dir").is_empty() {
            return Err(ImageError::bad_request("Old and new sorting syntax cannot be combined"));
        }
        for part in text.split(',') {
            let (key, direction) = part.split_once(':').unwrap_or((part, "desc"));
            sort.push(sort_by(key, direction)?);
        }
    } else {
        let directions = all("sort_dir");
        for (place, key) in all("sort_key").iter().enumerate() {
            let direction = directions.get(place).or(directions.last()).copied().unwrap_or("desc");
            sort.push(sort_by(key, direction)?);
        }
        if sort.is_empty() && !directions.is_empty() {
            sort.push(sort_by("created_at", directions[0])?);
        }
    }
    for key in ["created_at", "id"] {
        if !sort.iter().any(|found: &Sort| found.column == key) {
            let direction = sort.first().map_or("desc", |first| if first.ascending { "asc" } else { "desc" });
            sort.push(sort_by(key, direction)?);
        }
    }
    Ok(sort)
}

fn sort_by(key: &str, direction: &str) -> Result<Sort, ImageError> {
    let (column, text) = SORT_KEYS
        .iter()
        .find(|(name, _)| *name == key.trim())
        .ok_or_else(|| ImageError::bad_request(format!("Unable to sort: invalid sort key '{key:.40}'")))?;
    let ascending = match direction.trim() {
        "asc" => true,
        "desc" => false,
        other => return Err(ImageError::bad_request(format!("Invalid sort direction: {other:.40}"))),
    };
    Ok(Sort { column, text: *text, ascending })
}

/// `(a > x) OR (a = x AND b > y) OR ...`
fn after_clause(sort: &[Sort], row: &Row, values: &mut Vec<Cell>) -> String {
    let mut alternatives = Vec::new();
    for place in 0..sort.len() {
        let mut parts = Vec::new();
        for (other, sort) in sort[..=place].iter().enumerate() {
            values.push(sort.value(row));
            let operator = match (other == place, sort.ascending) {
                (false, _) => "=",
                (true, true) => ">",
                (true, false) => "<",
            };
            parts.push(format!("{} {operator} ${}", sort.expression(), values.len()));
        }
        alternatives.push(format!("({})", parts.join(" AND ")));
    }
    format!("({})", alternatives.join(" OR "))
}

/// Splits at commas that are not inside double quotes.
fn split_quoted(text: &str) -> Result<Vec<String>, ImageError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    if quoted {
        return Err(ImageError::bad_request("Invalid filter value: a quote is missing."));
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_values_may_be_quoted() {
        assert_eq!(split_quoted("a,\"b,c\",d").expect("fine"), ["a", "b,c", "d"]);
        assert!(split_quoted("\"a").is_err());
    }

    #[test]
    fn sorting_is_total_and_refuses_what_it_does_not_know() {
        let parameters = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let sort = sorting(&parameters(&[("sort", "name:asc")])).expect("fine");
        assert_eq!(sort.iter().map(|sort| sort.column).collect::<Vec<_>>(), ["name", "created_at", "id"]);
        assert!(sort.iter().all(|sort| sort.ascending));
        assert!(sorting(&parameters(&[("sort", "name;drop table")])).is_err());
        assert!(sorting(&parameters(&[("sort", "name"), ("sort_key", "id")])).is_err());
    }
}
