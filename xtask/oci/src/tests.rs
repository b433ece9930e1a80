//! What comes out is read again with the means of whoever loads it.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;

fn image() -> Image {
    Image {
        reference: "example.org/store:1.2".into(),
        architecture: "arm64".into(),
        entrypoint: vec!["/store".into()],
        user: "65532:65532".into(),
        ..Image::default()
    }
}

fn layer() -> Layer {
    let mut layer = Layer::new();
    layer.file("usr/bin/store", 0o755, b"binary").unwrap();
    layer.link("usr/bin/ctl", "store").unwrap();
    layer.folder("tmp", 0o1777).unwrap();
    layer.folder_of("data", 0o700, Owner { user: 65532, group: 1 }).unwrap();
    layer
}

fn entries(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), (entry.header().mode().unwrap(), bytes))
    });
    entries.collect()
}

/// The value that a descriptor leads to, its digest and size checked.
fn follow(files: &BTreeMap<String, (u32, Vec<u8>)>, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = files[&format!("blobs/sha256/{digest}")].1.clone();
    assert_eq!(hex(&Sha256::digest(&bytes)), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

#[test]
fn from_the_index_every_digest_leads_to_its_bytes() {
    let mut archive = Vec::new();
    image().write_to(layer(), &mut archive).unwrap();
    let files = entries(&archive);
    let index: Value = serde_json::from_slice(&files["index.json"].1).unwrap();
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "example.org/store:1.2");
    let manifest: Value = serde_json::from_slice(&follow(&files, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&follow(&files, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let inside = entries(&follow(&files, &manifest["layers"][0]));
    let names: Vec<&str> = inside.keys().map(String::as_str).collect();
    assert_eq!(names, ["data/", "tmp/", "usr/", "usr/bin/", "usr/bin/ctl", "usr/bin/store"]);
    assert_eq!(inside["usr/bin/store"], (0o755, b"binary".to_vec()));
    assert_eq!(inside["tmp/"].0, 0o1777);
    let layer = follow(&files, &manifest["layers"][0]);
    let mut owners = tar::Archive::new(&layer[..]);
    let owners: Vec<_> = owners.entries().unwrap().map(|e| e.unwrap().header().uid().unwrap()).collect();
    assert_eq!(owners.iter().filter(|owner| **owner == 65532).count(), 1);
}

#[test]
fn what_docker_saves_names_the_same_blobs() {
    let mut archive = Vec::new();
    image().write_to(layer(), &mut archive).unwrap();
    let files = entries(&archive);
    let docker: Value = serde_json::from_slice(&files["manifest.json"].1).unwrap();
    assert_eq!(docker[0]["RepoTags"][0], "example.org/store:1.2");
    for path in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        assert!(files.contains_key(path.as_str().unwrap()), "{path}");
    }
}

#[test]
fn the_same_input_gives_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let written = ["a.tar", "b.tar"].map(|name| {
        let path = dir.path().join(name);
        image().write(layer(), &path).unwrap();
        std::fs::read(path).unwrap()
    });
    assert!(written[0] == written[1]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_reference_without_a_tag_is_refused() {
    let image = Image { reference: "store".into(), ..image() };
    assert!(image.write_to(layer(), Vec::new()).is_err());
}
