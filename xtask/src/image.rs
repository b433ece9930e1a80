//! `cargo xtask image`: the product's programs, each static and alone in an image, cross-compiled without a builder of images.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use garboard_oci::Image;
use garboard_oci::Layer;
use garboard_oci::Owner;

use crate::cache;
use crate::step::must;
use crate::test;

/// What there is an image of: the program has its package's name.
const PRODUCTS: &[Product] = &[
    Product { package: "garboard", title: "An etcd-v3-compatible store", data: true },
    Product { package: "garboard-operator", title: "The operator of Garboard", data: false },
];

/// The release without its tables for debuggers.
const PROFILE: &str = "image";

/// The C compiler and linker for musl, as PyPI has it, and what makes cargo use it.
const ZIG: &str = "0.15.2";
const CARGO_ZIGBUILD: &str = "0.24.1";

/// Nobody in particular.
const USER: Owner = Owner { user: 65532, group: 65532 };
/// Where an image that keeps data does so, if it is not told otherwise.
const DATA: &str = "var/lib/garboard";

const USAGE: &str = "cargo xtask image [--arch amd64|arm64] [--package NAME] [--repository NAME] [--tag TAG]

Builds each program (--package: that one) for musl and writes target/images/NAME-ARCH.tar, an OCI image layout that docker load, skopeo,
ctr images import and cargo xtask lab load-image take. The reference in it is REPOSITORY/NAME:TAG (localhost, and the version).";

struct Product {
    package: &'static str,
    title: &'static str,
    data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

// === impl Arch ===

impl FromStr for Arch {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            other => bail!("no architecture {other}: amd64 or arm64"),
        }
    }
}

impl Arch {
    /// What this machine is.
    fn own() -> anyhow::Result<Self> {
        garboard_oci::architecture().parse()
    }

    /// The one that this machine is not.
    fn foreign() -> anyhow::Result<Self> {
        Ok(if Self::own()? == Self::Amd64 { Self::Arm64 } else { Self::Amd64 })
    }

    /// As Go and images name it.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// `e_machine` of an ELF header.
    fn machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }
}

pub fn run(root: &Path, mut args: &[&str]) -> anyhow::Result<bool> {
    if let ["help" | "-h" | "--help"] = args {
        println!("{USAGE}");
        return Ok(true);
    }
    let (mut arch, mut package) = (Arch::own()?, None);
    let (mut repository, mut tag) = ("localhost", env!("CARGO_PKG_VERSION"));
    while let [flag, value, rest @ ..] = args {
        match *flag {
            "--arch" => arch = value.parse()?,
            "--package" => package = Some(*value),
            "--repository" => repository = value,
            "--tag" => tag = value,
            other => bail!("unknown: {other}\n\n{USAGE}"),
        }
        args = rest;
    }
    ensure!(args.is_empty(), "{USAGE}");
    let products: Vec<_> =
        PRODUCTS.iter().filter(|product| package.is_none_or(|name| name == product.package)).collect();
    ensure!(!products.is_empty(), "no image of {}", package.unwrap_or_default());
    for product in products {
        let reference = format!("{repository}/{}:{tag}", product.package);
        let file = build(root, product, arch, &reference)?;
        let bytes = std::fs::metadata(&file)?.len();
        println!("{reference}, {}, {:.1} MiB: {}", arch.name(), bytes as f64 / 1_048_576.0, file.display());
    }
    Ok(true)
}

/// All products for this machine, in a folder.
pub fn all(root: &Path) -> anyhow::Result<PathBuf> {
    build_all(root, Arch::own()?)
}

/// The same for the architecture that this machine is not.
pub fn all_foreign(root: &Path) -> anyhow::Result<PathBuf> {
    build_all(root, Arch::foreign()?)
}

fn build_all(root: &Path, arch: Arch) -> anyhow::Result<PathBuf> {
    for product in PRODUCTS {
        build(root, product, arch, &format!("localhost/{}:{}", product.package, env!("CARGO_PKG_VERSION")))?;
    }
    folder(root)
}

/// The server as it is shipped: the program of its image.
pub fn server(root: &Path) -> anyhow::Result<PathBuf> {
    compile(root, "garboard", Arch::own()?)
}

fn folder(root: &Path) -> anyhow::Result<PathBuf> {
    Ok(test::target_dir(root)?.join("images"))
}

fn build(root: &Path, product: &Product, arch: Arch, reference: &str) -> anyhow::Result<PathBuf> {
    let program = compile(root, product.package, arch)?;
    let bytes = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    check_static(&bytes, arch).with_context(|| program.display().to_string())?;
    let mut layer = Layer::new();
    layer.file(product.package, 0o755, &bytes)?;
    if product.data {
        layer.folder_of(DATA, 0o700, USER)?;
    }
    let image = Image {
        reference: reference.to_owned(),
        architecture: arch.name().to_owned(),
        entrypoint: vec![format!("/{}", product.package)],
        user: format!("{}:{}", USER.user, USER.group),
        folder: if product.data { format!("/{DATA}") } else { String::new() },
        labels: [
            ("title", product.title),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", env!("CARGO_PKG_LICENSE")),
        ]
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
        .to_vec(),
        ..Image::default()
    };
    let folder = folder(root)?;
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let file = folder.join(format!("{}-{}.tar", product.package, arch.name()));
    image.write(layer, &file)?;
    Ok(file)
}

/// The build for musl.
fn compile(root: &Path, package: &str, arch: Arch) -> anyhow::Result<PathBuf> {
    let python = zig()?;
    let tools = zigbuild(root)?;
    must(Command::new("rustup").current_dir(root).args(["target", "add", arch.target()]))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools).chain(std::env::split_paths(&path));
    let mut cargo = test::cargo(root);
    cargo
        .args(["zigbuild", "--profile", PROFILE, "--locked", "--package", package, "--target", arch.target()])
        .env("PATH", std::env::join_paths(paths)?)
        .env("CARGO_ZIGBUILD_PYTHON_PATH", python);
    if arch == Arch::Arm64 {
        // Kernels for arm64 have pages of 4, 16 or 64 KiB; jemalloc serves those up to what it was built for.
        cargo.env("JEMALLOC_SYS_WITH_LG_PAGE", "16");
    }
    must(&mut cargo)?;
    Ok(test::target_dir(root)?.join(arch.target()).join(PROFILE).join(package))
}

/// The Python that has zig as a module; installed into the cache.
fn zig() -> anyhow::Result<PathBuf> {
    let folder = cache::dir()?.join(format!("zig-{ZIG}"));
    let (python, done) = (folder.join("bin/python"), folder.join("installed"));
    if !done.exists() {
        println!("zig {ZIG} is missing: installing it into {}", folder.display());
        venv(&folder).context("python3 with venv is needed")?;
        must(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("ziglang=={ZIG}")]))?;
        std::fs::write(&done, "")?;
    }
    Ok(python)
}

fn venv(folder: &Path) -> anyhow::Result<()> {
    let make = || must(Command::new("python3").args(["-m", "venv"]).arg(folder));
    if make().is_ok() {
        return Ok(());
    }
    println!("python3 makes no venv: installing Debian's python3-venv");
    let apt = |args: &[&str]| must(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    apt(&["update"])?;
    apt(&["install", "--yes", "--no-install-recommends", "python3-venv"])?;
    make()
}

/// The folder with cargo-zigbuild; installed into the cache.
fn zigbuild(root: &Path) -> anyhow::Result<PathBuf> {
    let own = cache::dir()?.join("cargo-tools").join(format!("zigbuild-{CARGO_ZIGBUILD}"));
    let bin = own.join("bin");
    if !bin.join("cargo-zigbuild").exists() {
        println!("cargo-zigbuild {CARGO_ZIGBUILD} is missing: installing it into {}", own.display());
        test::cargo_install(root, &["cargo-zigbuild", "--version", CARGO_ZIGBUILD], &own)?;
    }
    Ok(bin)
}

/// A program that asks for no loader and no library, for the right processor.
fn check_static(elf: &[u8], arch: Arch) -> anyhow::Result<()> {
    const INTERPRETER: u32 = 3;
    let u16_at = |at: usize| elf.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    let u32_at = |at: usize| elf.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let u64_at = |at: usize| elf.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "no 64-bit little-endian ELF file");
    ensure!(u16_at(18) == Some(arch.machine()), "built for another processor than {}", arch.name());
    let headers = usize::try_from(u64_at(32).context("cut short")?)?;
    let (size, count) = (u16_at(54).context("cut short")?, u16_at(56).context("cut short")?);
    for n in 0..count {
        let kind = u32_at(headers + usize::from(n) * usize::from(size)).context("cut short")?;
        ensure!(kind != INTERPRETER, "it asks for a dynamic loader");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_told_from_one_that_does_not() {
        // This very test is linked dynamically.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = check_static(&own, Arch::own().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "it asks for a dynamic loader");
        assert!(check_static(&own, Arch::foreign().unwrap()).unwrap_err().to_string().contains("another processor"));
        assert!(check_static(b"#!/bin/sh", Arch::Amd64).is_err());
    }
}
