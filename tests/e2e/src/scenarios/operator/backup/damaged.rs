//! Archives that went bad on their volume: whoever unpacks one by hand, in a Pod with the operator's program, is told.

use std::path::Path;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;
use serde_json::json;

use super::super::archive::CLAIM;
use super::super::archive::FIRST;
use super::super::store::LIMIT;
use super::Scene;
use crate::wait::until;

const POD: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: unpack-BACKUP}
spec:
  restartPolicy: Never
  containers:
  - name: unpack
    image: IMAGE
    imagePullPolicy: Never
    args: [backup, unpack, --folder=/backup/store, --backup=BACKUP, --to=/scratch/snapshot.db]
    volumeMounts:
    - {name: backup, mountPath: /backup, readOnly: true}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - {name: backup, persistentVolumeClaim: {claimName: CLAIM}}
  - {name: scratch, emptyDir: {}}
---
";
/// The exit code that says that another try is of no use.
const USELESS: i32 = 64;

/// What has become of a copy of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    None,
    Flipped,
    Cut,
    /// By as many bytes of something else.
    Replaced,
    Gone,
    /// The manifest is that of another one.
    Foreign,
}

const ALL: [Harm; 6] = [Harm::None, Harm::Flipped, Harm::Cut, Harm::Replaced, Harm::Gone, Harm::Foreign];

// === impl Harm ===

impl Harm {
    /// Of the copy.
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn files(self) -> [String; 2] {
        [format!("{}.db.zst", self.name()), format!("{}.json", self.name())]
    }

    fn done_to(self, mut archive: Vec<u8>) -> Option<Vec<u8>> {
        let middle = archive.len() / 2;
        match self {
            Self::None | Self::Foreign => {}
            Self::Flipped => archive[middle] ^= 1,
            Self::Cut => drop(archive.pop()),
            Self::Replaced => archive.fill(b'x'),
            Self::Gone => return None,
        }
        Some(archive)
    }

    /// Why it is not unpacked.
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Flipped | Self::Cut | Self::Replaced => Some("Damaged"),
            Self::Gone => Some("Missing"),
            Self::Foreign => Some("Foreign"),
        }
    }
}

pub fn refused(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let folder = scene.volume()?.join(scene.store.name);
    let before = scene.files()?;
    ALL.iter().try_for_each(|harm| copy(&folder, *harm))?;
    let image = format!("localhost/garboard-operator:{}", env!("CARGO_PKG_VERSION"));
    let pod = |harm: &Harm| POD.replace("BACKUP", &harm.name()).replace("IMAGE", &image).replace("CLAIM", CLAIM);
    scene.cluster.apply(&ALL.iter().map(pod).collect::<String>())?;
    for harm in ALL {
        said(scene, harm).with_context(|| harm.name())?;
        scene.cluster.kubectl_ok(&["delete", "pod", &format!("unpack-{}", harm.name())])?;
        for file in harm.files().iter().filter(|file| folder.join(file).exists()) {
            std::fs::remove_file(folder.join(file))?;
        }
    }
    ensure!(scene.files()? == before, "files before: {before:?}, then {:?}", scene.files()?);
    scene.steps.held(
        "a bit flipped, a byte too few, another file, none, the manifest of another: none is unpacked, and why is said",
    );
    Ok(())
}

/// Makes a backup of the harm's name, from the files of the first one.
fn copy(folder: &Path, harm: Harm) -> anyhow::Result<()> {
    let (archive, manifest) = (folder.join(format!("{FIRST}.db.zst")), folder.join(format!("{FIRST}.json")));
    let [own_archive, own_manifest] = harm.files();
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    if harm != Harm::Foreign {
        manifest["backup"] = json!(harm.name());
        manifest["archive"]["file"] = json!(own_archive);
    }
    if let Some(bytes) = harm.done_to(std::fs::read(archive)?) {
        std::fs::write(folder.join(own_archive), bytes)?;
    }
    Ok(std::fs::write(folder.join(own_manifest), manifest.to_string())?)
}

/// Waits for the end of a copy's Pod, and holds it against what it should have come to.
fn said(scene: &Scene<'_>, harm: Harm) -> anyhow::Result<()> {
    let pod = format!("unpack-{}", harm.name());
    let ended = until(&format!("end of {pod}"), LIMIT, || {
        let pod: Value = serde_json::from_str(&scene.cluster.kubectl_ok(&["get", "pod", &pod, "--output=json"])?)?;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        Ok((!ended.is_null()).then(|| ended.clone()))
    })
    .with_context(|| scene.cluster.kubectl_ok(&["describe", "pod", &pod]).unwrap_or_default())?;
    let Some(reason) = harm.reason() else {
        ensure!(ended["exitCode"] == 0, "a sound one is not unpacked: {ended}");
        return Ok(());
    };
    let outcome: Value = serde_json::from_str(ended["message"].as_str().unwrap_or("null")).context("no outcome")?;
    ensure!(ended["exitCode"] == USELESS && outcome["reason"] == reason, "{reason} is not said: {ended}");
    ensure!(outcome["message"].as_str().is_some_and(|why| why.contains(&harm.name())), "which one? {ended}");
    Ok(())
}
