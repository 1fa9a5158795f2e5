//! Rules that CloudKitty has no words for (prices with tiers, taxes, discounts, credits, expressions): JSON documents by
//! kind and id, under the same versions as the hashmap. What a kind means is decided by who reads it.

use orzo_database::Row;
use serde_json::Value as Json;

use super::{BookError, RatingBook, begin_change, check_name};

/// Longest document.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// A rule of our own.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleDocument {
    /// What it is, such as `price` or `tax`.
    pub kind: String,
    /// Its id, unique in the kind.
    pub id: String,
    /// What it says.
    pub body: Json,
}

pub(super) fn document_of(row: &Row) -> Result<RuleDocument, BookError> {
    let body = serde_json::from_str(&row.string("body"))
        .map_err(|_| BookError::Damaged { id: row.string("document_id"), column: "body" })?;
    Ok(RuleDocument { kind: row.string("kind"), id: row.string("document_id"), body })
}

impl RatingBook {
    /// Writes a document, instead of the one with its kind and id if there is one.
    pub async fn put_document(&self, author: &str, document: &RuleDocument) -> Result<(), BookError> {
        check_name("kind", &document.kind)?;
        check_name("id", &document.id)?;
        let body = document.body.to_string();
        if body.len() > DOCUMENT_BYTES_MAX {
            return Err(BookError::refused(format!("the document is larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, kind, id, body) =
                    (author.to_owned(), document.kind.clone(), document.id.clone(), body.clone());
                Box::pin(async move {
                    let version = begin_change(tx, now, &author, &format!("{kind} {id} written")).await?;
                    let sql = "UPDATE rating_documents SET until_version = $1 \
                               WHERE until_version IS NULL AND kind = $2 AND document_id = $3 RETURNING created_version";
                    let before = tx.query_one(sql, &[version.into(), kind.as_str().into(), id.as_str().into()]).await?;
                    let made = before.and_then(|row| row.int("created_version")).unwrap_or(version);
                    let sql = "INSERT INTO rating_documents (kind, document_id, body, created_version, since_version) \
                               VALUES ($1, $2, $3, $4, $5)";
                    let values = [
                        kind.as_str().into(),
                        id.as_str().into(),
                        body.as_str().into(),
                        made.into(),
                        version.into(),
                    ];
                    tx.execute(sql, &values).await?;
                    Ok(())
                })
            })
            .await
    }

    /// Removes a document.
    pub async fn delete_document(&self, author: &str, kind: &str, id: &str) -> Result<(), BookError> {
        let now = self.now();
        self.database
            .transact(|tx| {
                let (author, kind, id) = (author.to_owned(), kind.to_owned(), id.to_owned());
                Box::pin(async move {
                    let version = begin_change(tx, now, &author, &format!("{kind} {id} removed")).await?;
                    let sql = "UPDATE rating_documents SET until_version = $1 \
                               WHERE until_version IS NULL AND kind = $2 AND document_id = $3";
                    let values = [version.into(), kind.as_str().into(), id.as_str().into()];
                    match tx.execute(sql, &values).await? {
                        0 => Err(BookError::NotFound { what: format!("No such {kind}: {id}") }),
                        _ => Ok(()),
                    }
                })
            })
            .await
    }

    /// The documents of a kind that are in force now, in the order in which they were made.
    pub async fn documents(&self, kind: &str) -> Result<Vec<RuleDocument>, BookError> {
        let sql = "SELECT * FROM rating_documents WHERE until_version IS NULL AND kind = $1 \
                   ORDER BY created_version, document_id";
        self.database.query(sql, &[kind.into()]).await?.iter().map(document_of).collect()
    }
}
