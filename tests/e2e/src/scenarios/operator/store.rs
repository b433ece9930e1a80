//! One EtcdCluster, as its user sees it.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Lab as Kubernetes;
use garboard_oci::Image;
use garboard_oci::Layer;
use serde_json::Value;

use crate::process::Output;
use crate::process::run;
use crate::scenario::Lab;
use crate::wait::until;

pub const EXAMPLE: &str = include_str!("../../../../../docs/examples/kube-apiserver.yaml");
pub const SHORTEST: &str = include_str!("../../../../../docs/examples/cluster.yaml");
const CLIENT: &str = include_str!("client.yaml");
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/garboard-operator");
pub const NAMESPACE: &str = "garboard-system";
pub const OPERATOR: &str = "garboard-operator";
/// What one write to the log begins with, and a byte of what follows: `docs/formats.md`.
const GROUP_MAGIC: &[u8] = b"GbGr";
const GROUP_BYTE: usize = 40;
/// For what takes several Pods one after the other, on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(240);

/// Gives the nodes the product's images, and installs the operator.
pub fn install(lab: &Lab, cluster: &Kubernetes) -> anyhow::Result<()> {
    install_with(lab, cluster, &[])
}

/// The same, with more values of the chart.
pub fn install_with(lab: &Lab, cluster: &Kubernetes, values: &[&str]) -> anyhow::Result<()> {
    load_images(lab, cluster)?;
    helm(cluster, "install", CHART, values)
}

/// Gives the nodes the images of the product and of its clients.
pub fn load_images(lab: &Lab, cluster: &Kubernetes) -> anyhow::Result<()> {
    for archive in archives(lab.images.as_deref().context("--images names no folder")?)? {
        cluster.load_image(&archive)?;
    }
    let pause = lab.kubernetes.as_deref().context("--kubernetes names no folder")?.join("pause");
    cluster.load_image(&image(lab, "client", &[("etcdctl", lab.tool("etcdctl")), ("pause", pause)])?)?;
    cluster.load_image(&image(lab, "traffic", &[("traffic", lab.tool("traffic"))])?)
}

/// Makes the operator what a chart says: `install` or `upgrade`.
pub fn helm(cluster: &Kubernetes, command: &str, chart: &str, values: &[&str]) -> anyhow::Result<()> {
    let mut helm = cluster.command(
        "helm",
        &[
            command,
            OPERATOR,
            chart,
            &format!("--namespace={NAMESPACE}"),
            "--create-namespace",
            "--set=image.repository=localhost/garboard-operator,server.repository=localhost/garboard",
            "--set=image.pullPolicy=Never",
            "--wait",
            "--timeout=180s",
        ],
    );
    run(helm.args(values))?.success(&format!("helm {command}"))?;
    Ok(())
}

/// Makes the API server know what Prometheus' operator reads.
pub fn define_monitors(cluster: &Kubernetes) -> anyhow::Result<()> {
    for name in ["podmonitors", "prometheusrules", "servicemonitors"] {
        let file = cluster.programs().join("crds").join(format!("{name}.yaml"));
        let file = format!("--filename={}", file.display());
        cluster.kubectl_ok(&["apply", "--server-side", &file])?;
        let crd = format!("crd/{name}.monitoring.coreos.com");
        cluster.kubectl_ok(&["wait", "--for=condition=Established", &crd, "--timeout=60s"])?;
    }
    Ok(())
}

/// The product's images.
pub fn archives(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = files.map(|file| Ok(file?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let end = format!("-{}.tar", garboard_oci::architecture());
    Ok(paths.into_iter().filter(|path| path.to_string_lossy().ends_with(&end)).collect())
}

/// The image `localhost/NAME:1` of programs in its root.
pub fn image(lab: &Lab, name: &str, programs: &[(&str, PathBuf)]) -> anyhow::Result<PathBuf> {
    let mut layer = Layer::new();
    for (name, program) in programs {
        layer.program(name, program)?;
    }
    let image = Image {
        reference: format!("localhost/{name}:1"),
        architecture: garboard_oci::architecture().to_owned(),
        entrypoint: vec![format!("/{}", programs.first().context("an image of nothing")?.0)],
        ..Image::default()
    };
    let file = lab.path(&format!("{name}.tar"));
    image.write(layer, &file)?;
    Ok(file)
}

/// An EtcdCluster of the namespace `default`; one of them at a time has a Pod with etcdctl.
pub struct Store<'a> {
    pub cluster: &'a Kubernetes,
    pub name: &'static str,
    written: u32,
}

// === impl Store ===

impl<'a> Store<'a> {
    pub fn new(cluster: &'a Kubernetes, name: &'static str) -> Self {
        Self { cluster, name, written: 0 }
    }

    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        self.cluster.kubectl_ok(&["get", "etcdcluster", self.name, &format!("--output=jsonpath={path}")])
    }

    /// The status of a condition: `True`, `False`, `Unknown`.
    pub fn condition(&self, kind: &str) -> anyhow::Result<String> {
        self.get(&format!(r#"{{.status.conditions[?(@.type=="{kind}")].status}}"#))
    }

    /// Waits until `size` members are there, ready, and as they are wanted.
    pub fn wait(&self, size: usize) -> anyhow::Result<()> {
        let path = r#"{.status.observedGeneration} {.status.ready} {.status.memberCount} {.status.conditions[?(@.type=="Ready")].status}"#;
        until(&format!("cluster of {size} that is Ready"), LIMIT, || {
            // The API server itself may be away.
            let Ok(generation) = self.get("{.metadata.generation}") else { return Ok(None) };
            let Ok(seen) = self.get(path) else { return Ok(None) };
            Ok((seen == format!("{generation} {size}/{size} {size} True")).then_some(()))
        })
        .with_context(|| self.cluster.kubectl_ok(&["describe", "etcdcluster", self.name]).unwrap_or_default())
    }

    /// Asks until the API server has taken it.
    pub fn insist(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut last = String::new();
        until("answer of the API server", LIMIT, || {
            let output = self.cluster.kubectl(args)?;
            last = output.stderr;
            Ok(output.status.success().then_some(()))
        })
        .with_context(|| format!("kubectl {}: {last}", args.join(" ")))
    }

    pub fn patch(&self, patch: &str) -> anyhow::Result<()> {
        self.insist(&["patch", "etcdcluster", self.name, "--type=merge", "--patch", patch])
    }

    pub fn scale(&self, size: usize) -> anyhow::Result<()> {
        self.patch(&format!(r#"{{"spec":{{"size":{size}}}}}"#))
    }

    /// The Pod with etcdctl, with the certificate that the operator has made: on the first node, which is to stay.
    pub fn start_client(&self) -> anyhow::Result<()> {
        self.start_client_of(&format!("https://{}-client.default.svc:2379", self.name))
    }

    /// The same, of another endpoint: what its environment says no flag can change.
    pub fn start_client_of(&self, endpoint: &str) -> anyhow::Result<()> {
        self.cluster.kubectl_ok(&["delete", "pod", "client", "--ignore-not-found"])?;
        let client = CLIENT.replace("CLUSTER", self.name).replace("SERVER", endpoint);
        self.cluster.apply(&client.replace("NODE", &self.cluster.node(1)?.name()))?;
        self.cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/client", "--timeout=120s"])?;
        Ok(())
    }

    pub fn etcdctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.cluster.kubectl(&[&["exec", "client", "--", "/etcdctl"], args].concat())
    }

    pub fn etcdctl_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.etcdctl(args)?.success(&format!("etcdctl {}", args.join(" ")))?.stdout)
    }

    /// Writes one key more, and reads all of them.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.written += 1;
        let key = format!("key{:03}", self.written);
        until("acknowledged write", LIMIT, || {
            Ok(self.etcdctl(&["put", &key, "value"])?.status.success().then_some(()))
        })?;
        // The Service may lead to a member whose node has just been cut off; what is answered is right at once.
        let keys = until("answer to a read", LIMIT, || {
            let read = self.etcdctl(&["get", "key", "--prefix", "--keys-only"])?;
            Ok(read.status.success().then_some(read.stdout))
        })?;
        let count = keys.lines().filter(|line| !line.is_empty()).count();
        ensure!(count == usize::try_from(self.written)?, "{count} of {} keys", self.written);
        Ok(())
    }

    /// All members have the same history.
    pub fn agree(&self) -> anyhow::Result<()> {
        let mut seen = String::new();
        until("one hash of all members", LIMIT, || {
            let output = self.etcdctl(&["endpoint", "hashkv", "--cluster", "--write-out=json"])?;
            if !output.status.success() {
                seen = output.stderr;
                return Ok(None);
            }
            seen = output.stdout;
            let hashes: Value = serde_json::from_str(&seen)?;
            let all: Vec<_> = hashes.as_array().context("no list")?.iter().map(|of| &of["HashKV"]).collect();
            // Those that are a few entries behind hash an earlier revision.
            let at = |of: &Value| (of["hash_revision"].clone(), of["hash"].clone(), of["compact_revision"].clone());
            let first = all.first().map(|of| at(of)).context("nobody answers")?;
            Ok(all.iter().all(|of| at(of) == first).then_some(()))
        })
        .context(seen.clone())
    }

    /// What belongs to it, for kubectl.
    fn selector(&self) -> String {
        format!("--selector=garboard.dev/cluster={}", self.name)
    }

    /// Deletes all that it has of a kind.
    pub fn delete_all(&self, kind: &str) -> anyhow::Result<()> {
        self.insist(&["delete", kind, &self.selector()])
    }

    /// Deletes the EtcdCluster, and waits until its Pods are gone.
    pub fn delete(&self) -> anyhow::Result<()> {
        self.insist(&["delete", "etcdcluster", self.name, "--ignore-not-found"])?;
        self.wait_none("pods")
    }

    pub fn wait_none(&self, kind: &str) -> anyhow::Result<()> {
        until(&format!("end of the {kind}"), LIMIT, || {
            Ok(self.list(kind).is_ok_and(|list| list.is_empty()).then_some(()))
        })
    }

    /// Asks until the API server has taken a manifest.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        until("manifest that is applied", LIMIT, || Ok(self.cluster.apply(manifest).is_ok().then_some(())))
    }

    pub fn list(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let get = ["get", kind, &self.selector(), "--output=json"];
        let list: Value = serde_json::from_str(&self.cluster.kubectl_ok(&get)?)?;
        list["items"].as_array().cloned().context("no items")
    }

    pub fn uids(&self, kind: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.list(kind)?.iter().map(|item| item["metadata"]["uid"].to_string()).collect())
    }

    /// The uid of one object of the cluster.
    pub fn uid(&self, kind: &str, name: &str) -> anyhow::Result<String> {
        let list = self.list(kind)?;
        let item = list.iter().find(|item| item["metadata"]["name"] == name).context("it is gone")?;
        Ok(item["metadata"]["uid"].to_string())
    }

    pub fn first(&self, kind: &str) -> anyhow::Result<String> {
        self.names(kind)?.into_iter().next().context("there is none")
    }

    pub fn names(&self, kind: &str) -> anyhow::Result<Vec<String>> {
        let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
        Ok(self.list(kind)?.iter().filter_map(name).collect())
    }

    /// Waits until an object is gone.
    pub fn wait_gone(&self, kind: &str, name: &str) -> anyhow::Result<()> {
        until(&format!("end of {kind} {name}"), LIMIT, || {
            let Ok(names) = self.names(kind) else { return Ok(None) };
            Ok((!names.iter().any(|other| other == name)).then_some(()))
        })
    }

    /// Waits until there are `count` objects, none of which is one of `before`.
    pub fn wait_others(&self, kind: &str, before: &[String], count: usize) -> anyhow::Result<()> {
        until(&format!("{kind} made again"), LIMIT, || {
            let Ok(now) = self.uids(kind) else { return Ok(None) };
            Ok((now.len() == count && !now.iter().any(|uid| before.contains(uid))).then_some(()))
        })
    }

    /// Removes what a member has on its disk.
    pub fn wipe(&self, member: &str) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.folder(member)?.join("data"))?;
        Ok(())
    }

    /// Changes a bit of each group of records in a member's log.
    pub fn damage(&self, member: &str) -> anyhow::Result<()> {
        let folder = self.folder(member)?.join("data/member/wal");
        let mut groups = 0;
        for file in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let file = file?.path();
            let bytes = std::fs::read(&file)?;
            // In place: the member goes on to write.
            let open = std::fs::OpenOptions::new().write(true).open(&file)?;
            for at in (0..bytes.len().saturating_sub(GROUP_BYTE)).filter(|at| bytes[*at..].starts_with(GROUP_MAGIC)) {
                open.write_all_at(&[bytes[at + GROUP_BYTE] ^ 1], (at + GROUP_BYTE) as u64)?;
                groups += 1;
            }
        }
        ensure!(groups > 0, "no group of records in {}", folder.display());
        Ok(())
    }

    /// Where a member's volume is.
    pub fn folder(&self, member: &str) -> anyhow::Result<PathBuf> {
        volume_folder(self.cluster, member)
    }

    /// Leaves nothing of what the operator has noted in the status.
    pub fn wipe_status(&self) -> anyhow::Result<()> {
        let url = &format!("/apis/garboard.dev/v1alpha1/namespaces/default/etcdclusters/{}", self.name);
        until("status without anything", LIMIT, || {
            let mut object: Value = serde_json::from_str(&self.cluster.kubectl_ok(&["get", "--raw", url])?)?;
            object["status"] = serde_json::json!({});
            let mut replace =
                self.cluster.command("kubectl", &["replace", "--raw", &format!("{url}/status"), "--filename=-"]);
            let output = crate::process::run_with_input(&mut replace, &object.to_string())?;
            // The operator may have written in between.
            ensure!(output.status.success() || output.stderr.contains("Conflict"), "{}", output.stderr);
            Ok(output.status.success().then_some(()))
        })
    }
}

/// Where, on this machine, the volume of a claim is: some node has it, whether or not a Pod uses it just now.
pub fn volume_folder(cluster: &Kubernetes, claim: &str) -> anyhow::Result<PathBuf> {
    let volume = cluster.kubectl_ok(&["get", "pvc", claim, "--output=jsonpath={.spec.volumeName}"])?;
    ensure!(!volume.is_empty(), "{claim} has no volume yet");
    for node in cluster.nodes() {
        let volumes = node.volumes();
        let folders = match std::fs::read_dir(&volumes) {
            // It never had a volume.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            folders => folders.with_context(|| volumes.display().to_string())?,
        };
        for folder in folders {
            let folder = folder?;
            if folder.file_name().to_string_lossy().starts_with(&volume) {
                return Ok(folder.path());
            }
        }
    }
    anyhow::bail!("no node has a folder of {volume}")
}
