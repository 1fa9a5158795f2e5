//! What memory comes from, and how soon it goes back.

use std::{
    env::{args_os, current_exe, var_os},
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
};

/// glibc keeps the 19 MiB blocks of password hashes once they are freed: after two hundred logins it held 250 MiB of
/// anonymous memory where this one holds 58.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's setting for how long it keeps memory that nothing uses, in milliseconds. It reads its environment before
/// `main` and has no safe function for this.
const KEPT_FOR: &str = "MIMALLOC_PURGE_DELAY";
/// Its default is ten times as long: a million series then take a tenth more while they come, and nothing is faster. A fifth
/// of this costs remote write 5 % more of the processor's time.
const KEPT_FOR_MS: &str = "100";

/// Begins this process anew, in its place and with its number, with the setting in its environment. Returns if it is there
/// already, whoever put it there, or if that cannot be done: it is no reason not to serve.
pub(crate) fn give_back_soon() {
    let Some((program, exe)) = args_os().next().zip(current_exe().ok()) else { return };
    if var_os(KEPT_FOR).is_none() && is_itself(&program, &exe) {
        // It returns only if it failed.
        let _ = Command::new(exe).arg0(program).args(args_os().skip(1)).env(KEPT_FOR, KEPT_FOR_MS).exec();
    }
}

/// Whether the file that runs is the one that was asked for, and not a loader or an emulator that was told to run it.
fn is_itself(program: &OsStr, exe: &Path) -> bool {
    Path::new(program).file_name().is_some_and(|name| exe.file_name() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_another_was_told_to_run_is_not_begun_anew() {
        let is_itself = |program: &str, exe: &str| is_itself(OsStr::new(program), Path::new(exe));
        assert!(is_itself("orzo", "/usr/bin/orzo"));
        assert!(is_itself("target/release/orzo", "/srv/target/release/orzo"));
        assert!(!is_itself("./orzo", "/lib64/ld-linux-x86-64.so.2"));
        assert!(!is_itself("orzo", "/usr/bin/orzo (deleted)"));
        assert!(!is_itself("", "/usr/bin/orzo"));
    }
}
