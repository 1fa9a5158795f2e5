//! The life of tokens, on every database that there is.

use orzo_model::{Clock, ManualClock};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::*;

async fn databases() -> Vec<Database> {
    let mut databases = vec![Database::open("sqlite::memory:").await.expect("a database")];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        let schema = format!("test_{}", Uuid::new_v4().simple());
        databases.push(Database::open_in_schema(&url, &schema).await.expect("postgresql opens"));
    }
    databases
}

fn new(name: &str, project: &str) -> NewToken {
    NewToken {
        name: name.to_owned(),
        project_id: project.to_owned(),
        all_projects: false,
        user_id: "u".to_owned(),
        user_name: "ann".to_owned(),
        expires_at: None,
    }
}

#[tokio::test]
async fn a_token_is_good_until_it_is_revoked_or_has_expired() {
    for database in databases().await {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        let book = TokenBook::open(database.clone(), clock.clone()).await.expect("a book");
        let (token, text) = book.create(&new(" grafana ", "p1")).await.expect("made");
        assert_eq!((token.name.as_str(), token.last_used_at), ("grafana", None));
        let found = book.check(text.expose_secret(), "a").await.expect("checked").expect("good");
        assert_eq!(found, token);
        clock.advance(Duration::from_secs(61));
        book.check(text.expose_secret(), "a").await.expect("checked").expect("good");
        assert_eq!(book.list(&Scope::All).await.expect("a list")[0].last_used_at, Some(clock.now()));
        // Another process has no memory of it either.
        let other = TokenBook::open(database, clock.clone()).await.expect("a book");
        assert!(!book.revoke(&Scope::Project("p2".to_owned()), &token.id).await.expect("asked"));
        assert!(book.revoke(&Scope::Project("p1".to_owned()), &token.id).await.expect("asked"));
        assert!(!book.revoke(&Scope::All, &token.id).await.expect("asked"));
        for book in [&book, &other] {
            assert_eq!(book.check(text.expose_secret(), "a").await.expect("checked"), None);
        }
        let ending = NewToken { expires_at: Some(clock.now().plus(Duration::from_secs(10))), ..new("short", "p1") };
        let (_, text) = book.create(&ending).await.expect("made");
        assert!(book.check(text.expose_secret(), "a").await.expect("checked").is_some());
        clock.advance(Duration::from_secs(10));
        assert_eq!(book.check(text.expose_secret(), "a").await.expect("checked"), None);
        assert!(matches!(book.create(&ending).await, Err(TokenError::Expired { .. })));
        for wrong in ["", " ", &"x".repeat(NAME_CHARS_MAX + 1)] {
            assert!(matches!(book.create(&new(wrong, "p1")).await, Err(TokenError::Name)));
        }
    }
}

#[tokio::test]
async fn nobody_sees_or_ends_what_is_not_theirs_and_no_secret_is_kept() {
    for database in databases().await {
        let book = TokenBook::open(database.clone(), ManualClock::new(Timestamp::EPOCH)).await.expect("a book");
        let (_, text) = book.create(&new("one", "p1")).await.expect("made");
        let all = NewToken { all_projects: true, ..new("operators", "p1") };
        let (operators, _) = book.create(&all).await.expect("made");
        let p1 = Scope::Project("p1".to_owned());
        let names = |list: Vec<ReadToken>| list.into_iter().map(|token| token.name).collect::<Vec<_>>();
        assert_eq!(names(book.list(&Scope::All).await.expect("a list")).len(), 2);
        assert_eq!(names(book.list(&p1).await.expect("a list")), ["one"]);
        assert_eq!(book.list(&Scope::Project("p2".to_owned())).await.expect("a list"), []);
        assert_eq!(book.list(&Scope::Nothing).await.expect("a list"), []);
        assert!(!book.revoke(&p1, &operators.id).await.expect("asked"));
        let rows = database.query("SELECT * FROM read_tokens", &[]).await.expect("rows");
        // The secret's own letters may hold a `_`: it is what follows the second one, whole.
        let secret = text.expose_secret().splitn(3, '_').nth(2).expect("parts");
        assert_eq!(secret.len(), 43);
        assert!(!format!("{rows:?}").contains(secret));
    }
}

#[tokio::test]
async fn a_project_has_so_many_and_expired_ones_make_room() {
    for database in databases().await {
        let clock = ManualClock::new(Timestamp::EPOCH);
        let book = TokenBook::open(database, clock.clone()).await.expect("a book");
        let ending = NewToken { expires_at: Some(Timestamp::from_secs(5)), ..new("short", "p1") };
        book.create(&ending).await.expect("made");
        for _ in 1..TOKENS_MAX {
            book.create(&new("one", "p1")).await.expect("made");
        }
        assert!(matches!(book.create(&new("one more", "p1")).await, Err(TokenError::TooMany)));
        book.create(&new("another project's", "p2")).await.expect("made");
        clock.advance(Duration::from_secs(5));
        book.create(&new("one more", "p1")).await.expect("made");
    }
}

#[tokio::test]
async fn wrong_secrets_of_an_id_are_limited_by_address() {
    let clock = ManualClock::new(Timestamp::EPOCH);
    let database = Database::open("sqlite::memory:").await.expect("a database");
    let book = TokenBook::open(database, clock.clone()).await.expect("a book");
    let (_, right) = book.create(&new("one", "p1")).await.expect("made");
    let (other, _) = secret::generate();
    let (own, strange) = (right.expose_secret(), other.expose_secret());
    let wrong = format!("{}{}", &own[..own.len() - 43], &strange[strange.len() - 43..]);
    for _ in 0..5 {
        assert_eq!(book.check(&wrong, "a").await.expect("checked"), None);
    }
    assert!(matches!(book.check(&wrong, "a").await, Err(TokenError::Guessing { .. })));
    assert!(matches!(book.check(own, "a").await, Err(TokenError::Guessing { .. })));
    assert!(book.check(own, "b").await.expect("checked").is_some());
    clock.advance(Duration::from_secs(60));
    assert!(book.check(own, "a").await.expect("checked").is_some());
}
