//! The release before this one, for the test of upgrades: its sources, and the images that they build. Built once, and kept in the cache.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cache;
use crate::step::must;
use crate::test;
use crate::tidy;

/// Its commit, as long as no tag is one.
const NAMED: &str = "tests/e2e/previous-release";

/// A folder with `images`, `source` and, in the file `version`, the images' tag.
pub fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let commit = commit(root)?;
    let folder = cache::dir()?.join("releases").join(&commit);
    let (source, target, version) = (folder.join("source"), folder.join("target"), folder.join("version"));
    // Written when all else is there.
    if version.exists() {
        return Ok(folder);
    }
    println!("building the images of the release before this one, {commit}, into {}", folder.display());
    unpack(root, &commit, &source).with_context(|| format!("the sources of {commit}"))?;
    let tag = format!("{}-{}", package_version(&source)?, commit.chars().take(7).collect::<String>());
    let image = ["run", "--quiet", "--locked", "--package", "xtask", "--", "image", "--tag", &tag];
    must(test::cargo(&source).args(image).env("CARGO_TARGET_DIR", &target))?;
    fresh(&folder.join("images"))?;
    std::fs::rename(target.join("images"), folder.join("images"))?;
    std::fs::remove_dir_all(&target)?;
    std::fs::write(&version, tag)?;
    Ok(folder)
}

/// The newest tag before this commit, or the commit that is named where there is none.
fn commit(root: &Path) -> anyhow::Result<String> {
    let before = ["--merged=HEAD", "--no-contains=HEAD", "--sort=-version:refname"];
    let tags = git(root, &[&["tag", "--list", "v*"], &before[..]].concat())?;
    let named = match tags.lines().next() {
        Some(tag) => tag.to_owned(),
        None => std::fs::read_to_string(root.join(NAMED)).context(NAMED)?.trim().to_owned(),
    };
    let commit = git(root, &["rev-parse", "--verify", &format!("{named}^{{commit}}")]).with_context(|| {
        format!("the release before this one, {named}, is not in the history that is here: git fetch --unshallow")
    })?;
    Ok(commit.trim().to_owned())
}

fn git(root: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").current_dir(root).args(args).output().context("start git")?;
    ensure!(output.status.success(), "git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

fn unpack(root: &Path, commit: &str, source: &Path) -> anyhow::Result<()> {
    fresh(source)?;
    std::fs::create_dir_all(source)?;
    let archive = source.with_extension("tar");
    must(Command::new("git").current_dir(root).args(["archive", "--output"]).args([&archive]).arg(commit))?;
    must(Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(source))?;
    Ok(std::fs::remove_file(archive)?)
}

/// Removes what one that was cut short has left.
fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// Of the server.
fn package_version(source: &Path) -> anyhow::Result<String> {
    let metadata = tidy::metadata(source)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let server = packages.iter().find(|package| package["name"] == "garboard");
    let version = server.and_then(|server| server["version"].as_str()).context("no package garboard")?;
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_commit_is_named_in_full() {
        let named = include_str!("../../tests/e2e/previous-release").trim_end();
        assert!(named.len() == 40 && named.bytes().all(|byte| byte.is_ascii_hexdigit()), "{named}");
    }
}
