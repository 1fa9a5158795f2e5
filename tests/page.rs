//! Orzo's page in a real browser: `tests/page/run`, where `tests/run` has installed one.

use std::process::Command;

#[test]
fn every_view_of_the_page_works_in_a_browser() {
    if std::env::var_os("ORZO_TEST_PAGE").is_none() {
        return;
    }
    // Nothing is left out quietly: without Node, a browser or the page in the binary this fails.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/run");
    let run = Command::new(script).env("ORZO", env!("CARGO_BIN_EXE_orzo")).output().expect("tests/page/run starts");
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{told}");
    assert!(told.contains(" 0 failed"), "{told}");
}
