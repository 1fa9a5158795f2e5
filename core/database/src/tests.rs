//! The same behaviour on both databases: on SQLite always, on PostgreSQL when `ORZO_TEST_POSTGRES` names one.

use super::*;

async fn databases() -> Vec<(Database, Option<tempfile::TempDir>)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = Database::open_file(&directory.path().join("test.db")).await.expect("sqlite opens");
    let mut found = vec![(file, Some(directory))];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        // A schema of its own for each test: they run side by side.
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        found.push((Database::open_in_schema(&url, &schema).await.expect("postgresql opens"), None));
    }
    found
}

const STEPS: &[Migration] = &[
    Migration {
        name: "things",
        sql: "CREATE TABLE t_things (id TEXT PRIMARY KEY, n BIGINT, r DOUBLE PRECISION, b BYTEA);\n",
    },
    Migration { name: "more", sql: "ALTER TABLE t_things ADD COLUMN extra TEXT;\n" },
];

#[tokio::test]
async fn values_survive_the_way_there_and_back() {
    for (database, _guard) in databases().await {
        database.execute("DROP TABLE IF EXISTS t_things", &[]).await.expect("drop");
        let _ = database.execute("DELETE FROM orzo_migrations WHERE room = 'test'", &[]).await;
        database.migrate("test", &STEPS[..1]).await.expect("first step");
        database.migrate("test", STEPS).await.expect("second step");
        database.migrate("test", STEPS).await.expect("nothing to do");
        let values = [Value::from("a"), Value::from(i64::MIN), Value::from(0.1), Value::from(vec![0u8, 255])];
        database.execute("INSERT INTO t_things (id, n, r, b) VALUES ($1, $2, $3, $4)", &values).await.expect("insert");
        let nulls = [Value::from("b"), Value::Int(None), Value::Real(None), Value::Bytes(None)];
        database.execute("INSERT INTO t_things (id, n, r, b) VALUES ($1, $2, $3, $4)", &nulls).await.expect("nulls");
        let rows = database.query("SELECT * FROM t_things ORDER BY id", &[]).await.expect("select");
        assert_eq!(rows[0].int("n"), Some(i64::MIN));
        assert_eq!(rows[0].real("r"), Some(0.1));
        assert_eq!(rows[0].bytes("b"), Some(vec![0, 255]));
        assert_eq!((rows[1].int("n"), rows[1].real("r"), rows[1].bytes("b")), (None, None, None));
        let counted = database.query_one("SELECT count(*) AS n FROM t_things", &[]).await.expect("count");
        assert_eq!(counted.and_then(|row| row.int("n")), Some(2));
        let twice = database.execute("INSERT INTO t_things (id) VALUES ('a')", &[]).await;
        assert!(twice.expect_err("the key is taken").is_constraint());
        let newer = database.migrate("test", &STEPS[..1]).await;
        assert!(matches!(newer, Err(DatabaseError::TooNew { found: 2, known: 1, .. })));
    }
}

#[tokio::test]
async fn a_new_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open_file(&directory.path().join("test.db")).await.expect("sqlite opens");
    database.execute("CREATE TABLE t (n BIGINT)", &[]).await.expect("create");
    let files: Vec<_> = std::fs::read_dir(directory.path()).expect("readable").flatten().collect();
    assert!(files.len() > 1, "the write-ahead journal is there too");
    for file in files {
        let mode = file.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.path().display());
    }
}

#[tokio::test]
async fn a_text_with_nul_is_refused_the_same_by_both() {
    for (database, _guard) in databases().await {
        database.execute("DROP TABLE IF EXISTS t_nul", &[]).await.expect("drop");
        database.execute("CREATE TABLE t_nul (id TEXT PRIMARY KEY)", &[]).await.expect("create");
        let values = [Value::from("a\0b")];
        let outcomes = [
            database.execute("INSERT INTO t_nul VALUES ($1)", &values).await.map(drop),
            database.query("SELECT id FROM t_nul WHERE id = $1", &values).await.map(drop),
            database.query_each("SELECT id FROM t_nul WHERE id = $1", &values, |_| {}).await,
        ];
        for outcome in outcomes {
            assert!(outcome.expect_err("NUL cannot be stored").is_refusal());
        }
        let mut transaction = database.begin().await.expect("begin");
        assert!(matches!(transaction.execute("INSERT INTO t_nul VALUES ($1)", &values).await, Err(DatabaseError::Nul)));
        // The transaction goes on: the statement never reached the database.
        transaction.execute("INSERT INTO t_nul VALUES ('ok')", &[]).await.expect("insert");
        transaction.commit().await.expect("commit");
    }
}

#[tokio::test]
async fn concurrent_read_modify_write_loses_no_update() {
    for (database, _guard) in databases().await {
        database.execute("DROP TABLE IF EXISTS t_counter", &[]).await.expect("drop");
        database.execute("CREATE TABLE t_counter (n BIGINT NOT NULL)", &[]).await.expect("create");
        database.execute("INSERT INTO t_counter VALUES (0)", &[]).await.expect("insert");
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let database = database.clone();
                tokio::spawn(async move {
                    for _ in 0..10 {
                        let done: Result<(), DatabaseError> = database
                            .transact(|tx| {
                                Box::pin(async move {
                                    let row = tx.query_one("SELECT n FROM t_counter", &[]).await?;
                                    let n = row.and_then(|r| r.int("n")).unwrap_or(0);
                                    tx.execute("UPDATE t_counter SET n = $1", &[(n + 1).into()]).await?;
                                    Ok(())
                                })
                            })
                            .await;
                        done.expect("the transaction commits in the end");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let row = database.query_one("SELECT n FROM t_counter", &[]).await.expect("select");
        assert_eq!(row.and_then(|r| r.int("n")), Some(40));
    }
}

#[tokio::test]
async fn a_bad_url_is_refused_without_showing_its_password() {
    let error = Database::open("mysql://me:secret@host/db").await.expect_err("not one of ours");
    let text = error.to_string();
    assert!(text.contains("mysql://me@host/db") && !text.contains("secret"), "{text}");
}
