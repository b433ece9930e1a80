//! `cargo xtask lab`: a Kubernetes to look around in.
#![forbid(unsafe_code)]
// A program for developers, not part of the server: it reads the clock and opens files as it likes.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use garboard_lab::Extra;
use garboard_lab::Families;
use garboard_lab::Lab;
use garboard_lab::Node;
use garboard_lab::Options;
use garboard_lab::Store;

const USAGE: &str = "cargo xtask lab [--name NAME] COMMAND

  up [--nodes N] [--store garboard|etcd] [--addresses ipv4|ipv6|dual] [--with cert-manager]
                                           a Kubernetes of N nodes (3) whose API server stores in garboard, or in real etcd
  down                                     ends it and removes all of it
  status                                   what runs
  kubectl ARGUMENTS...                     kubectl, as the administrator
  helm ARGUMENTS...                        the same for helm
  env                                      what a shell evaluates to have kubectl and helm: eval \"$(cargo xtask lab env)\"
  load-image FILE...                       gives every node images from archives (docker save, OCI layout, cargo xtask image)
  node NODE stop|start|cut|heal            a power cut, the end of one; its network cut, mended
  node NODE drain|uncordon                 its Pods go elsewhere; they may come again
  node NODE kill SERVICE                   SIGKILL; it comes back by itself
  node NODE stop-service|start-service SERVICE
  node NODE exec PROGRAM [ARGUMENTS...]    a program in the node's namespaces

NODE is node1, node2, ..., or control, which has the services store, kube-apiserver, kube-controller-manager, kube-scheduler,
local-path-provisioner, csi-driver and csi-resizer; a node has containerd, kubelet, kube-proxy, csi-driver and csi-provisioner. Labs of different names are apart; without --name it is `lab`.";

const DEFAULT_NAME: &str = "lab";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What `cargo xtask lab` puts before the arguments of its user: where labs are kept, and what they are made of.
struct Given {
    labs: PathBuf,
    server: Option<PathBuf>,
    programs: Option<PathBuf>,
    name: String,
}

fn run() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut args: &[String] = &args;
    let mut given = Given { labs: PathBuf::new(), server: None, programs: None, name: DEFAULT_NAME.to_owned() };
    while let [flag, value, rest @ ..] = args {
        match flag.as_str() {
            "--labs" => given.labs = PathBuf::from(value),
            "--server" => given.server = Some(std::path::absolute(value)?),
            "--programs" => given.programs = Some(std::path::absolute(value)?),
            "--name" => value.clone_into(&mut given.name),
            _ => break,
        }
        args = rest;
    }
    if given.labs.as_os_str().is_empty() {
        bail!("--labs says where labs are kept\n\n{USAGE}");
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    command(&given, &words)
}

fn command(given: &Given, words: &[&str]) -> anyhow::Result<ExitCode> {
    let home = given.labs.join(&given.name);
    let attach = || Lab::attach(&home);
    match words {
        ["up", rest @ ..] => up(given, rest)?,
        ["down", "--name", name] => down(&given.labs.join(name))?,
        ["down"] => down(&home)?,
        ["status"] => status(&attach()?)?,
        ["kubectl", rest @ ..] => return passed_on(&attach()?, "kubectl", rest),
        ["helm", rest @ ..] => return passed_on(&attach()?, "helm", rest),
        ["env"] => env(&attach()?),
        ["load-image", files @ ..] if !files.is_empty() => {
            let lab = attach()?;
            files.iter().try_for_each(|file| lab.load_image(Path::new(file)))?;
        }
        ["node", name, rest @ ..] => {
            let lab = attach()?;
            return node(&find(&lab, name)?, rest);
        }
        _ => bail!("unknown: {}\n\n{USAGE}", words.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(given: &Given, mut words: &[&str]) -> anyhow::Result<()> {
    let (mut nodes, mut store, mut name) = (3, Store::Garboard, given.name.clone());
    let (mut families, mut extras) = (Families::Ipv4, Vec::new());
    while let [flag, value, rest @ ..] = words {
        match *flag {
            "--nodes" => nodes = value.parse().with_context(|| format!("--nodes {value}"))?,
            "--store" => store = value.parse()?,
            "--addresses" => families = value.parse()?,
            "--with" => extras.push(value.parse::<Extra>()?),
            "--name" => (*value).clone_into(&mut name),
            other => bail!("unknown: {other}\n\n{USAGE}"),
        }
        words = rest;
    }
    if let [left] = words {
        bail!("unknown, or without a value: {left}\n\n{USAGE}");
    }
    let programs = given.programs.clone().context("--programs names no folder")?;
    let server = given.server.clone().context("--server names no program")?;
    let home = given.labs.join(&name);
    let options = Options { name, nodes, families, store, home, server, programs };
    let begin = Instant::now();
    let say = |step: &str| println!("{:>6.1} s  {step}", begin.elapsed().as_secs_f64());
    let lab = Lab::up(&options, say)?;
    for extra in extras {
        lab.install(extra)?;
        say(&format!("{extra:?}"));
    }
    let ours = match lab.name() {
        DEFAULT_NAME => "cargo xtask lab".to_owned(),
        name => format!("cargo xtask lab --name {name}"),
    };
    println!("\nThe lab is up. From here:   {ours} kubectl get nodes");
    println!("From any program:           export KUBECONFIG={}", lab.kubeconfig().display());
    println!("kubectl and helm are in:    {}", lab.programs().display());
    println!("Logs:                       {}/*/log", lab.home().display());
    println!("Its end:                    {ours} down");
    lab.keep()
}

fn down(home: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    Lab::attach(home)?.down()?;
    std::fs::remove_dir_all(home).with_context(|| format!("remove {}", home.display()))?;
    println!("{:>6.1} s  ended, and removed {}", begin.elapsed().as_secs_f64(), home.display());
    Ok(())
}

fn status(lab: &Lab) -> anyhow::Result<()> {
    println!("lab {} in {}, stores in {:?}", lab.name(), lab.home().display(), lab.store());
    for node in [vec![lab.control()], lab.nodes()].concat() {
        println!("{:<8} {}", node.name(), if node.runs() { "runs" } else { "is stopped" });
    }
    print!("{}", lab.kubectl(&["get", "nodes,pods", "--all-namespaces"])?.success("kubectl get")?.stdout);
    Ok(())
}

fn env(lab: &Lab) {
    println!("export KUBECONFIG='{}'", lab.kubeconfig().display());
    println!("export PATH='{}':\"$PATH\"", lab.programs().display());
}

fn passed_on(lab: &Lab, program: &str, args: &[&str]) -> anyhow::Result<ExitCode> {
    ended(lab.command(program, args).status().with_context(|| format!("start {program}"))?)
}

fn ended(status: std::process::ExitStatus) -> anyhow::Result<ExitCode> {
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn find<'a>(lab: &'a Lab, name: &str) -> anyhow::Result<Node<'a>> {
    let all = [vec![lab.control()], lab.nodes()].concat();
    let names: Vec<String> = all.iter().map(Node::name).collect();
    let found = all.into_iter().find(|node| node.name() == name);
    found.with_context(|| format!("no node {name}: there are {}", names.join(", ")))
}

fn node(node: &Node<'_>, words: &[&str]) -> anyhow::Result<ExitCode> {
    match words {
        ["stop"] => node.stop()?,
        ["start"] => node.start()?,
        ["cut"] => node.cut()?,
        ["heal"] => node.heal()?,
        ["drain"] => node.drain(None)?,
        ["uncordon"] => node.uncordon()?,
        ["kill", service] => node.kill_service(service)?,
        ["stop-service", service] => node.stop_service(service)?,
        ["start-service", service] => node.start_service(service)?,
        ["exec", program, args @ ..] => return ended(node.command(program, args)?.status()?),
        other => bail!("unknown: {}\n\n{USAGE}", other.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}
