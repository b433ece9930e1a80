//! Which etcd this stands for.

use std::fmt::Write;

use garboard_node::ETCD_VERSION;

/// The commit this was built from, when the build was told.
const COMMIT: Option<&str> = option_env!("GARBOARD_COMMIT");

/// The four lines of `etcd --version`, which tools read by their beginnings.
pub fn text() -> String {
    let mut text = String::new();
    let _ = writeln!(text, "etcd Version: {ETCD_VERSION}");
    let _ = writeln!(text, "Git SHA: {}", COMMIT.unwrap_or("unknown"));
    let _ = writeln!(text, "Go Version: none (Garboard {}, in Rust)", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "Go OS/Arch: {}/{}", std::env::consts::OS, go_arch(std::env::consts::ARCH));
    text
}

/// Go's name of an architecture.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_lines_by_etcds_names() {
        let text = text();
        let heads: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(heads, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch"]);
        let version: Vec<_> = ETCD_VERSION.split('.').map(str::parse::<u32>).collect();
        assert!(matches!(version[..], [Ok(3), Ok(6), Ok(_)]), "{ETCD_VERSION}");
    }
}
