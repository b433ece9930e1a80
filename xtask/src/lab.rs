//! `cargo xtask lab`: builds what a lab needs, then hands on to the program `lab` of `tests/lab`.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::cache;
use crate::image;
use crate::step::must;
use crate::test;
use crate::tools;

pub fn run(root: &Path, args: &[&str]) -> anyhow::Result<bool> {
    build(root)?;
    let mut lab = Command::new(test::target_dir(root)?.join("debug/lab"));
    lab.arg("--labs").arg(cache::dir()?.join("lab"));
    // Only what brings a lab up needs its parts; all else finds them in the lab.
    if args.contains(&"up") {
        let server = match args.windows(2).any(|pair| pair == ["--store", "etcd"]) {
            true => tools::build_etcd(root)?,
            false => image::server(root)?,
        };
        let cert_manager = args.windows(2).any(|pair| pair == ["--with", "cert-manager"]);
        lab.arg("--server").arg(server).arg("--programs").arg(parts(root, cert_manager)?);
    }
    Ok(lab.args(args).status().context("start lab")?.success())
}

/// Builds the programs of a lab, our own and others', and returns the folder of the latter.
pub fn parts(root: &Path, cert_manager: bool) -> anyhow::Result<PathBuf> {
    build(root)?;
    let programs = tools::build_for_lab(root)?;
    if cert_manager {
        tools::build_cert_manager(root, &programs)?;
    }
    Ok(programs)
}

fn build(root: &Path) -> anyhow::Result<()> {
    must(test::cargo(root).args(["build", "--quiet", "--locked", "--package", "garboard-lab"]))
}
