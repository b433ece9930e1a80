//! Relative links in Markdown: the file must exist and, in Markdown, the heading too.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use super::Source;

pub(super) fn check(root: &Path, sources: &[Source]) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_markdown(&source.path)) {
        for link in links(&source.text) {
            if let Some(why) = broken(root, sources, source, link) {
                findings.push(format!("{}: {link}: {why}", source.path.display()));
            }
        }
    }
    Ok(findings)
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// The targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        for piece in line.split('`').step_by(2) {
            let mut rest = piece;
            while let Some(start) = rest.find("](") {
                rest = &rest[start + 2..];
                let Some(end) = rest.find(')') else { break };
                found.push(rest[..end].split(' ').next().unwrap_or_default());
                rest = &rest[end..];
            }
        }
    }
    found
}

fn broken(root: &Path, sources: &[Source], source: &Source, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
    let path = if file.is_empty() {
        source.path.clone()
    } else {
        flat(&source.path.parent().unwrap_or(Path::new("")).join(file))
    };
    if !root.join(&path).exists() {
        return Some("no such file");
    }
    let heading = heading?;
    let target = sources.iter().find(|other| other.path == path && is_markdown(&path))?;
    (!headings(&target.text).iter().any(|slug| slug == heading)).then_some("no such heading")
}

/// The path without `.` and `..`.
fn flat(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// Headings as GitHub turns them into anchors.
fn headings(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            found.push(
                title
                    .chars()
                    .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect(),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = "# One Two, three!\n[a](../xtask/Cargo.toml) [b](no-such-file.md) [c](#one-two-three) [d](#four)\n\
                    [e](https://example.com/x) `[code](nowhere)` [f](../xtask/src)\n```\n[g](nowhere)\n```\n";
        let sources = [Source { path: "docs/test.md".into(), text: text.into() }];
        let findings = check(root, &sources);
        let expected = ["docs/test.md: no-such-file.md: no such file"];
        // The file of the test is not on disk, so its own headings are judged apart.
        assert_eq!(
            findings.unwrap().iter().filter(|f| f.contains("no-such-file")).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
        assert_eq!(headings(text), ["one-two-three"]);
        assert_eq!(
            links(text),
            [
                "../xtask/Cargo.toml",
                "no-such-file.md",
                "#one-two-three",
                "#four",
                "https://example.com/x",
                "../xtask/src"
            ]
        );
    }

    #[test]
    fn headings_must_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = "# Title\n[a](#title) [b](#titel)\n";
        let sources = [Source { path: "README.md".into(), text: text.into() }];
        assert_eq!(check(root, &sources).unwrap(), ["README.md: #titel: no such heading"]);
    }
}
