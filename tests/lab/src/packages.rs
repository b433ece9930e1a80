//! Programs of the system that a run needs, installed when they are missing.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;

use crate::process::run;

/// Where distributions keep what only root uses, whatever PATH says.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Makes sure that `program` is there; `package` is what Debian and its kin call it.
pub fn need(program: &str, package: &str) -> anyhow::Result<()> {
    need_one_of(&FOLDERS.map(|folder| Path::new(folder).join(program)), package)
}

/// The same for a file that is in one place only.
pub fn need_file(path: &str, package: &str) -> anyhow::Result<()> {
    need_one_of(&[PathBuf::from(path)], package)
}

fn need_one_of(paths: &[PathBuf], package: &str) -> anyhow::Result<()> {
    let present = || paths.iter().any(|path| path.exists());
    if present() {
        return Ok(());
    }
    let name = paths[0].file_name().unwrap_or_default().display();
    println!("{name} is missing: installing {package}");
    let apt = |args: &[&str]| run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    let install = ["install", "--yes", "--no-install-recommends", package];
    if !apt(&install)?.status.success() {
        // Lists that are missing or old are the usual reason.
        apt(&["update"])?.success("apt-get update")?;
        apt(&install)?.success("apt-get install")?;
    }
    if !present() {
        bail!("{package} is installed, and {name} is not there");
    }
    Ok(())
}
