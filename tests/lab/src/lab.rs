//! A lab as a whole: up, looked at, down.

use std::fs::DirBuilder;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;

use crate::cert_manager;
use crate::cgroup;
use crate::config;
use crate::control::Control;
use crate::control::Request;
use crate::images;
use crate::namespaces;
use crate::network;
use crate::network::Families;
use crate::node::Node;
use crate::packages;
use crate::process::Output;
use crate::process::run;
use crate::process::run_with_input;
use crate::services;
use crate::spec::CONTROL;
use crate::spec::Spec;
use crate::trace::Trace;
use crate::wait::until;

pub const NODES_MAX: usize = 9;
/// What a unix socket's path may be long.
const SOCKET_PATH_MAX: usize = 107;
const BASE: &str = include_str!("../manifests/base.yaml");
const RECORD: &str = "lab.json";

/// For a machine that does much else.
const FIRST_PROCESS_LIMIT: Duration = Duration::from_secs(60);
const API_LIMIT: Duration = Duration::from_secs(240);
const READY_LIMIT: Duration = Duration::from_secs(240);

/// What the API server stores in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Store {
    Garboard,
    /// The real one: a fault that it shows as well is not the store's.
    Etcd,
}

/// What a lab has only if it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    CertManager,
}

/// What a lab is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells labs on one machine apart: lower case letters, digits and hyphens.
    pub name: String,
    /// Besides the control plane.
    pub nodes: usize,
    pub families: Families,
    pub store: Store,
    /// The folder for all of it; none may be there yet.
    pub home: PathBuf,
    /// The program of the store, with etcd's flags.
    pub server: PathBuf,
    /// The folder with the programs of Kubernetes.
    pub programs: PathBuf,
}

/// What is written down about a lab for those who come later.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    nodes: usize,
    families: Families,
    store: Store,
    programs: PathBuf,
    /// Where the API server is reached from the machine.
    api: SocketAddr,
}

/// A node's processes as this one holds them: the parent of its first one, and the connection on which its life hangs.
struct Held {
    parent: Child,
    control: Control,
}

/// A Kubernetes that runs. One that this process has brought up ends with it, however that ends, unless it is kept.
pub struct Lab {
    home: PathBuf,
    record: Record,
    /// It does not end with this value.
    kept: bool,
    /// By the number of the node.
    held: Mutex<Vec<Option<Held>>>,
}

// === impl Store ===

impl FromStr for Store {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "garboard" => Ok(Self::Garboard),
            "etcd" => Ok(Self::Etcd),
            other => bail!("no store {other}: garboard or etcd"),
        }
    }
}

// === impl Extra ===

impl FromStr for Extra {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "cert-manager" => Ok(Self::CertManager),
            other => bail!("nothing called {other}: cert-manager"),
        }
    }
}

// === impl Options ===

impl Options {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "a lab needs root: it makes namespaces, mounts and cgroups");
        ensure!((1..=NODES_MAX).contains(&self.nodes), "{} nodes: 1 to {NODES_MAX} are possible", self.nodes);
        ensure!(self.families.possible(), "this machine has no IPv6");
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let named = !self.name.is_empty() && self.name.len() <= 40 && self.name.chars().all(fits);
        ensure!(named, "name {:?}: up to 40 lower case letters, digits and hyphens", self.name);
        let socket = self.home.join(config::node_name(self.nodes)).join(CONTROL);
        ensure!(
            socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "{} is too long for the path of a socket ({SOCKET_PATH_MAX} bytes)",
            socket.display()
        );
        ensure!(!self.home.starts_with("/run"), "{}: a node has a /run of its own", self.home.display());
        ensure!(!self.home.exists(), "{} is there: is the lab up already? `lab down` removes it", self.home.display());
        for (program, package) in [
            ("unshare", "util-linux"),
            ("losetup", "mount"),
            ("mkfs.xfs", "xfsprogs"),
            ("nsenter", "util-linux"),
            ("ip", "iproute2"),
            ("runc", "runc"),
            ("nft", "nftables"),
            ("iptables", "iptables"),
        ] {
            packages::need(program, package)?;
        }
        packages::need_file("/usr/lib/cni/bridge", "containernetworking-plugins")
    }
}

// === impl Lab ===

impl Lab {
    /// Brings it up; `say` is told of each step that is done. What was begun is ended if it fails, but its folder stays.
    pub fn up(options: &Options, mut say: impl FnMut(&str)) -> anyhow::Result<Self> {
        options.check()?;
        DirBuilder::new().recursive(true).mode(0o700).create(&options.home)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for the API server")?;
        let record = Record {
            name: options.name.clone(),
            nodes: options.nodes,
            families: options.families,
            store: options.store,
            programs: options.programs.clone(),
            api: listener.local_addr()?,
        };
        std::fs::write(options.home.join(RECORD), serde_json::to_string_pretty(&record)?)?;
        let held = Mutex::new((0..=options.nodes).map(|_| None).collect());
        let lab = Self { home: options.home.clone(), record, kept: false, held };
        lab.prepare(&options.server)?;
        say("certificates and configuration");
        let images = images::build(&options.programs, &lab.home.join("images"))?;
        say("images of pause, CoreDNS and the toolbox");
        lab.boot_control(listener)?;
        for node in lab.nodes() {
            lab.boot(node.number)?;
        }
        say("namespaces");
        lab.load_all(&images)?;
        say("containerd, with the images");
        lab.wait_api()?;
        say("API server");
        for service in [services::CONTROLLER_MANAGER, services::SCHEDULER] {
            lab.control().start_service(service)?;
        }
        lab.apply(&BASE.replace("clusterIP: DNS", &format!("clusterIP: '{}'", options.families.dns())))?;
        lab.nodes().iter().try_for_each(Node::join)?;
        lab.wait_nodes()?;
        say(&format!("{} nodes Ready", lab.record.nodes));
        for service in [services::LOCAL_PATH, services::CSI_DRIVER, services::CSI_RESIZER] {
            lab.control().start_service(service)?;
        }
        lab.kubectl_ok(&["--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=240s"])?;
        say("CoreDNS");
        Ok(lab)
    }

    /// Installs what not every lab has.
    pub fn install(&self, extra: Extra) -> anyhow::Result<()> {
        match extra {
            Extra::CertManager => cert_manager::install(self).context("cert-manager"),
        }
    }

    /// The lab that another process has brought up.
    pub fn attach(home: &Path) -> anyhow::Result<Self> {
        let path = home.join(RECORD);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no lab in {}: `lab up` brings one up", home.display()))?;
        let record: Record = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let held = Mutex::new((0..=record.nodes).map(|_| None).collect());
        Ok(Self { home: home.to_owned(), record, kept: true, held })
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn store(&self) -> Store {
        self.record.store
    }

    /// For whatever runs on this machine: the administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("admin.kubeconfig")
    }

    /// Where kubectl, helm and the others are.
    pub fn programs(&self) -> &Path {
        &self.record.programs
    }

    pub fn control(&self) -> Node<'_> {
        Node { lab: self, number: 0 }
    }

    /// Node `n`, of 1 and up.
    pub fn node(&self, n: usize) -> anyhow::Result<Node<'_>> {
        ensure!((1..=self.record.nodes).contains(&n), "no node {n}: there are {}", self.record.nodes);
        Ok(Node { lab: self, number: n })
    }

    pub fn nodes(&self) -> Vec<Node<'_>> {
        (1..=self.record.nodes).map(|number| Node { lab: self, number }).collect()
    }

    /// The nodes and the control plane, on which they depend.
    pub(crate) fn everything(&self) -> Vec<Node<'_>> {
        let mut all = self.nodes();
        all.push(self.control());
        all
    }

    /// The API server, as nodes and Pods reach it.
    pub fn api_url(&self) -> String {
        self.record.families.api_url()
    }

    /// A program of the lab's on this machine, as the administrator.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.record.programs.join(program));
        command.env("KUBECONFIG", self.kubeconfig()).args(args);
        command
    }

    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        run(&mut self.command("kubectl", args))
    }

    /// Runs what must succeed and returns what it printed.
    pub fn kubectl_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.kubectl(args)?.success(&format!("kubectl {}", args.join(" ")))?.stdout)
    }

    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        run_with_input(&mut self.command("kubectl", &["apply", "--filename=-"]), manifest)?.success("kubectl apply")?;
        Ok(())
    }

    /// Gives every node that runs an image from an archive.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        at_once(self.nodes(), |node| if node.runs() { node.load_image(archive) } else { Ok(()) })
    }

    /// Waits until all nodes are Ready.
    pub fn wait_nodes(&self) -> anyhow::Result<()> {
        for node in self.nodes() {
            self.wait_node(&node.name(), "True")?;
        }
        Ok(())
    }

    /// Waits until a node's condition Ready is `status`: `True`, `False`, or `Unknown` when nothing is heard of it.
    pub fn wait_node(&self, name: &str, status: &str) -> anyhow::Result<()> {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        until(&format!("{name} with Ready {status}"), READY_LIMIT, || {
            let output = self.kubectl(&["get", "node", name, "--output", path])?;
            Ok((output.stdout == status).then_some(()))
        })
    }

    /// Waits until the API server serves and sees its store.
    pub fn wait_api(&self) -> anyhow::Result<()> {
        until("API server that is ready", API_LIMIT, || {
            Ok(self.kubectl(&["get", "--raw=/readyz"])?.status.success().then_some(()))
        })
        .with_context(|| self.control().log(services::API_SERVER))
    }

    /// Lets it go on when this process ends.
    pub fn keep(mut self) -> anyhow::Result<()> {
        self.kept = true;
        for held in self.held.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Some(mut held) = held.take() {
                held.control.ask(&Request::Release)?;
            }
        }
        Ok(())
    }

    /// Ends it; an error if anything of it is left but its folder, with the logs.
    pub fn down(mut self) -> anyhow::Result<()> {
        let trace = Trace::of(&self);
        self.end()?;
        self.kept = true;
        let left = trace.left()?;
        ensure!(left.is_empty(), "left of the lab: {}", left.join(", "));
        Ok(())
    }

    fn end(&self) -> anyhow::Result<()> {
        at_once(self.everything(), |node| {
            if let Ok(first) = node.first() {
                first.end()?;
            }
            self.let_go(node.number);
            cgroup::remove(&node.cgroup())
        })
    }

    /// Files that the services find when they start.
    fn prepare(&self, server: &Path) -> anyhow::Result<()> {
        let authorities = config::Authorities::new(self.record.families)?;
        authorities.admin(&self.home, &format!("https://{}", self.record.api))?;
        for node in self.everything() {
            let (folder, etc) = (node.folder(), node.folder().join("etc"));
            for path in [&etc, &folder.join("log")] {
                std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
            }
            let (control, services) = match node.number {
                0 => (true, services::control(self.record.store, self.record.families)),
                n => (false, services::node(n, self.record.families)),
            };
            let spec = Spec {
                name: node.name(),
                folder,
                programs: self.record.programs.clone(),
                services,
                forward: control.then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, network::API_PORT))),
            };
            std::fs::write(spec_file(&node), serde_json::to_string_pretty(&spec)?)?;
            match node.number {
                0 => authorities.control(&etc)?,
                n => authorities.node(&etc, n, &node.cgroup())?,
            }
        }
        // A copy: what is built meanwhile does not get into a lab that runs.
        let store = self.control().folder().join(services::STORE);
        std::fs::copy(server, &store).with_context(|| format!("copy {}", server.display()))?;
        Ok(())
    }

    fn boot_control(&self, listener: TcpListener) -> anyhow::Result<()> {
        self.spawn(0, Stdio::from(OwnedFd::from(listener)))?;
        network::make_bridge(self.control().first()?.id, self.record.nodes, self.record.families)?;
        self.control().start_service(services::STORE)?;
        self.control().start_service(services::API_SERVER)
    }

    /// Starts a node as far as its network.
    pub(crate) fn boot(&self, number: usize) -> anyhow::Result<()> {
        let node = self.node(number)?;
        ensure!(!node.runs(), "{} runs already", node.name());
        cgroup::create(&node.cgroup())?;
        self.spawn(number, Stdio::null())?;
        let (control, id) = (self.control().first()?.id, node.first()?.id);
        network::plug(control, id, number, self.record.nodes, self.record.families)
    }

    fn spawn(&self, number: usize, stdin: Stdio) -> anyhow::Result<()> {
        let node = Node { lab: self, number };
        let log = node.folder().join("log/lab-node.log");
        // The socket of an earlier start would be taken for the new one's.
        let _ = std::fs::remove_file(node.folder().join(CONTROL));
        let parent = Mutex::new(namespaces::spawn(&spec_file(&node), stdin, &log)?);
        let met = node.meet(FIRST_PROCESS_LIMIT, || {
            let ended = parent.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
            ensure!(ended.is_none(), "its first process has ended: {}", node.log("lab-node"));
            Ok(())
        });
        let mut parent = parent.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut control = match met {
            Ok(control) => control,
            Err(error) => {
                let _ = parent.kill();
                let _ = parent.wait();
                return Err(error);
            }
        };
        if self.kept {
            return Ok(());
        }
        control.ask(&Request::Hold)?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(Held { parent, control });
        Ok(())
    }

    /// Forgets a node that has ended.
    pub(crate) fn let_go(&self, number: usize) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner)[number].take();
        if let Some(mut held) = held {
            let _ = held.parent.wait();
        }
    }

    fn load_all(&self, images: &[PathBuf]) -> anyhow::Result<()> {
        at_once(self.nodes(), |node| {
            node.start_containerd()?;
            images.iter().try_for_each(|image| node.load_image(image))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.end() {
            eprintln!("lab: {error:#}");
        }
    }
}

fn spec_file(node: &Node<'_>) -> PathBuf {
    node.folder().join("spec.json")
}

/// Does the same to several nodes at once; all are done when it returns, and the first error counts.
fn at_once<'a>(nodes: Vec<Node<'a>>, act: impl Fn(&Node<'a>) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = nodes.into_iter().map(|node| scope.spawn(move || act(&node))).collect();
        let results = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread for one of the nodes panicked")))
        });
        results.collect::<Vec<_>>().into_iter().collect()
    })
}
