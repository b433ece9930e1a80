//! The images that every node has: what holds a Pod's namespaces, the cluster's DNS, and a box of tools for tests.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use garboard_oci::Image;
use garboard_oci::Layer;

use crate::packages;
use crate::process::run;

pub const TOOLBOX: &str = "localhost/toolbox:1";

/// Statically linked: it needs nothing beside it in an image.
const BUSYBOX: &str = "/bin/busybox";

/// Writes all of them into `folder` and returns their files.
pub fn build(programs: &Path, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let one = |name: &str| -> anyhow::Result<Layer> {
        let mut layer = Layer::new();
        layer.program(name, &programs.join(name))?;
        Ok(layer)
    };
    let images = [("pause", "65535:65535", one("pause")?), ("coredns", "", one("coredns")?)];
    let mut files = Vec::new();
    for (name, user, layer) in images {
        let entrypoint = vec![format!("/{name}")];
        files.push(write(folder, name, Image { entrypoint, user: user.to_owned(), ..Image::default() }, layer)?);
    }
    let image = Image { cmd: vec!["sh".to_owned()], ..Image::default() };
    files.push(write(folder, "toolbox", image, toolbox(programs)?)?);
    Ok(files)
}

/// The image `localhost/NAME:1` of one program, which runs as nobody in particular.
pub fn of_program(programs: &Path, name: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let mut layer = Layer::new();
    layer.program(name, &programs.join(name))?;
    let (entrypoint, user) = (vec![format!("/{name}")], "65532:65532".to_owned());
    write(folder, name, Image { entrypoint, user, ..Image::default() }, layer)
}

fn write(folder: &Path, name: &str, image: Image, layer: Layer) -> anyhow::Result<PathBuf> {
    let file = folder.join(format!("{name}.tar"));
    let image = Image {
        reference: format!("localhost/{name}:1"),
        architecture: garboard_oci::architecture().to_owned(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        ..image
    };
    image.write(layer, &file)?;
    Ok(file)
}

/// busybox, and `toolbox`, whose client and resolver need no libraries, as busybox's do.
fn toolbox(programs: &Path) -> anyhow::Result<Layer> {
    packages::need("busybox", "busybox-static")?;
    let applets = run(Command::new(BUSYBOX).arg("--list"))?.success("busybox --list")?.stdout;
    let mut layer = Layer::new();
    layer.program("bin/busybox", Path::new(BUSYBOX))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.program("usr/bin/toolbox", &programs.join("toolbox"))?;
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    layer.folder("root", 0o700)?;
    layer.folder("tmp", 0o1777)?;
    Ok(layer)
}
