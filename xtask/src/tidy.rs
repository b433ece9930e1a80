//! Checks on layout and style that no compiler makes: each is one check with all of its findings.

mod edges;
mod links;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use serde_json::Value;

use crate::step::Tally;
use crate::tools;

const LINES_MAX: usize = 800;

/// A file of the project, by its path from the root.
struct Source {
    path: PathBuf,
    text: String,
}

/// A check returns what it has found, or why it could not look.
type Check = fn(&Path, &[Source]) -> anyhow::Result<Vec<String>>;

const CHECKS: &[(&str, Check)] = &[
    ("crates depend on each other only as the plan allows", edges::check),
    ("no file is longer than 800 lines", long_files),
    ("modules are foo.rs, never mod.rs", mod_files),
    ("each crate root forbids unsafe code", crate_roots),
    ("links in documents lead somewhere", links::check),
    ("nothing is left to do later", unfinished),
    ("no test is ignored", ignored_tests),
    ("Go files are formatted", |root, _| {
        Ok(tools::formatted(root).err().map(|error| error.to_string()).into_iter().collect())
    }),
];

/// Runs all checks.
pub fn run(root: &Path) -> anyhow::Result<Tally> {
    let sources = sources(root)?;
    ensure!(!sources.is_empty(), "no source files below {}", root.display());
    let mut tally = Tally::default();
    for (what, check) in CHECKS {
        let findings = check(root, &sources).with_context(|| (*what).to_owned())?;
        println!("{} {what}", if findings.is_empty() { "ok    " } else { "FAILED" });
        findings.iter().for_each(|finding| println!("       {finding}"));
        tally = tally + Tally::one(findings.is_empty());
    }
    Ok(tally)
}

/// What cargo knows of the workspace's own packages.
pub fn metadata(root: &Path) -> anyhow::Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink()
                || (name.starts_with('.') && name != ".ci" && name != ".cargo")
                || name == "target"
                || name == "default.etcd"
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if is_text(&path) {
                let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                found.push(Source { path: path.strip_prefix(root)?.to_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn is_text(path: &Path) -> bool {
    let kinds = ["rs", "go", "md", "toml", "yaml", "yml", "sh", "proto"];
    path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension == *kind))
}

fn is_code(source: &Source) -> bool {
    source.path.extension().is_some_and(|extension| extension == "rs" || extension == "go")
}

fn long_files(_: &Path, sources: &[Source]) -> anyhow::Result<Vec<String>> {
    let long = sources.iter().filter(|source| is_code(source)).map(|source| (source, source.text.lines().count()));
    Ok(long
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path.display()))
        .collect())
}

fn mod_files(_: &Path, sources: &[Source]) -> anyhow::Result<Vec<String>> {
    Ok(sources
        .iter()
        .filter(|source| source.path.ends_with("mod.rs"))
        .map(|source| source.path.display().to_string())
        .collect())
}

fn crate_roots(root: &Path, _: &[Source]) -> anyhow::Result<Vec<String>> {
    let metadata = metadata(root)?;
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        for target in package["targets"].as_array().context("no targets")? {
            let kinds: Vec<&str> = target["kind"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let path = Path::new(target["src_path"].as_str().context("no src_path")?);
            if kinds.iter().any(|kind| ["lib", "bin", "proc-macro"].contains(kind))
                && !std::fs::read_to_string(path)?.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]")
            {
                findings.push(path.strip_prefix(root).unwrap_or(path).display().to_string());
            }
        }
    }
    Ok(findings)
}

fn unfinished(_: &Path, sources: &[Source]) -> anyhow::Result<Vec<String>> {
    // Written in halves, so that this file is not a finding.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    Ok(occurrences(sources, &marks))
}

fn ignored_tests(_: &Path, sources: &[Source]) -> anyhow::Result<Vec<String>> {
    Ok(occurrences(sources, &[concat!("#[ig", "nore"), concat!("t.Sk", "ip")]))
}

fn occurrences(sources: &[Source], marks: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                findings.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn long_files_are_found() {
        let files = [
            source("a.rs", &"x\n".repeat(801)),
            source("b.rs", &"x\n".repeat(800)),
            source("c.md", &"x\n".repeat(900)),
        ];
        assert_eq!(long_files(Path::new("."), &files).unwrap(), ["a.rs: 801 lines"]);
    }

    #[test]
    fn mod_files_are_found() {
        let files = [source("a/mod.rs", ""), source("a/model.rs", "")];
        assert_eq!(mod_files(Path::new("."), &files).unwrap(), ["a/mod.rs"]);
    }

    #[test]
    fn unfinished_work_and_ignored_tests_are_found() {
        let files = [source("a.rs", concat!("fine\n// TO", "DO later")), source("b.go", concat!("\tt.Sk", "ip()"))];
        assert_eq!(unfinished(Path::new("."), &files).unwrap().len(), 1);
        assert_eq!(ignored_tests(Path::new("."), &files).unwrap().len(), 1);
    }
}
