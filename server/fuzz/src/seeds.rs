//! Where a search begins: small inputs that are accepted, made by the code that writes them in production.

mod bolt;
mod requests;
mod text;
mod wal;

use std::path::Path;

/// Names a folder that the seeds are written to before a search begins.
pub const FOLDER: &str = "GARBOARD_FUZZ_SEEDS";

/// The seeds of a target, each with a name.
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "bolt_read" => bolt::files(),
        "config" => text::configs(),
        "requests" => requests::sequences(),
        "wal_record" => wal::records(),
        "wal_segments" => wal::folders(),
        other => panic!("no target {other}"),
    }
}

/// Writes the seeds of a target, if a folder is named for them.
///
/// # Panics
/// They cannot be written: the search would begin from nothing.
// Seeds are files of the developer's, not of the product.
#[allow(clippy::disallowed_methods)]
pub fn write(target: &str) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    for (name, seed) in of(target) {
        std::fs::write(Path::new(&folder).join(format!("seed-{name}")), seed).expect("the seeds' folder is there");
    }
}
