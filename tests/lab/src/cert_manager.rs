//! cert-manager as its users install it, by its own chart. Its controller, webhook and cainjector are one program here, and one image.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use crate::images;
use crate::lab::Lab;
use crate::process::run;
use crate::process::run_with_input;
use crate::wait::until;

/// The program, its image, the release of its chart, and the namespace.
const NAME: &str = "cert-manager";
/// What the chart is told. A part is named among the arguments: the chart gives a container no command.
const VALUES: &[&str] = &[
    "crds.enabled=true",
    "extraArgs={controller}",
    "webhook.extraArgs={webhook}",
    "cainjector.extraArgs={cainjector}",
    "prometheus.enabled=false",
    // A Job with a program of its own. What it asks is asked below.
    "startupapicheck.enabled=false",
];
/// Of the chart, whose image each is.
const IMAGES: [&str; 3] = ["image", "webhook.image", "cainjector.image"];
/// From the start of its Pods until the API server knows by whom the webhook is signed.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Refused or taken by the webhook; nothing is kept.
const PROBE: &str = r#"{"apiVersion": "cert-manager.io/v1", "kind": "Issuer",
"metadata": {"name": "probe", "namespace": "cert-manager"}, "spec": {"selfSigned": {}}}"#;

pub fn install(lab: &Lab) -> anyhow::Result<()> {
    let programs = lab.programs();
    let chart = programs.join("charts").join(NAME);
    ensure!(programs.join(NAME).exists(), "there is no {NAME} in {}", programs.display());
    // helm warns of links.
    let chart = chart.canonicalize().with_context(|| chart.display().to_string())?;
    lab.load_image(&images::of_program(programs, NAME, &lab.home().join("images"))?)?;
    let mut helm = lab.command("helm", &["install", NAME]);
    helm.arg(chart).args(["--create-namespace", "--wait", "--timeout=240s"]).arg(format!("--namespace={NAME}"));
    for image in IMAGES {
        // A tag that looks like a number is none.
        helm.arg(format!("--set-string={image}.repository=localhost/{NAME},{image}.tag=1,{image}.pullPolicy=Never"));
    }
    for value in VALUES {
        helm.arg(format!("--set={value}"));
    }
    run(&mut helm)?.success("helm install")?;
    let mut last = String::new();
    until("answer of cert-manager's webhook", ANSWER_LIMIT, || {
        let mut create = lab.command("kubectl", &["create", "--dry-run=server", "--filename=-"]);
        let output = run_with_input(&mut create, PROBE)?;
        last = output.stderr;
        Ok(output.status.success().then_some(()))
    })
    .with_context(|| last.clone())
}
