//! A kube-apiserver on a store with TLS, and kubectl's proxy, which gives plain HTTP with the administrator's rights.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use super::store::StoreCerts;
use crate::certs::Authority;
use crate::certs::Identity;
use crate::certs::signing_key;
use crate::http::Http;
use crate::process::Process;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::server::free_port;

/// What must run beside the store.
pub struct ControlPlane<'a> {
    lab: &'a Lab,
    apiserver: Option<Process>,
    args: Vec<String>,
    port: u16,
    kubeconfig: PathBuf,
    proxy: Option<Process>,
    proxy_port: u16,
    starts: u32,
    pub http: Http,
}

// === impl ControlPlane ===

impl<'a> ControlPlane<'a> {
    /// Stores at `urls`, with what `store` certifies.
    pub fn start(lab: &'a Lab, store: &StoreCerts, urls: &[&str]) -> anyhow::Result<Self> {
        let ca = Authority::new(&lab.dir, "ca")?;
        let serving = ca.issue(&lab.dir, "apiserver", "kube-apiserver", None)?;
        let admin = ca.issue(&lab.dir, "admin", "admin", Some("system:masters"))?;
        let service_account = signing_key(&lab.dir, "service-account")?;
        let (port, proxy_port) = (free_port()?, free_port()?);
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let args = vec![
            flag("etcd-servers", &urls.join(",")),
            flag("etcd-cafile", &store.authority.cert.display()),
            flag("etcd-certfile", &store.client.cert.display()),
            flag("etcd-keyfile", &store.client.key.display()),
            flag("secure-port", &port),
            flag("bind-address", &"127.0.0.1"),
            flag("advertise-address", &"192.0.2.1"),
            flag("tls-cert-file", &serving.cert.display()),
            flag("tls-private-key-file", &serving.key.display()),
            flag("client-ca-file", &ca.cert.display()),
            flag("service-account-key-file", &service_account.cert.display()),
            flag("service-account-signing-key-file", &service_account.key.display()),
            flag("service-account-issuer", &"https://kubernetes.default.svc"),
            flag("service-cluster-ip-range", &"10.96.0.0/16"),
            flag("authorization-mode", &"RBAC"),
            // There are no controllers that would make service accounts for pods.
            flag("disable-admission-plugins", &"ServiceAccount"),
            flag("max-requests-inflight", &"0"),
            flag("max-mutating-requests-inflight", &"0"),
            flag("enable-priority-and-fairness", &"false"),
        ];
        let kubeconfig = write_kubeconfig(lab, port, &ca, &admin)?;
        let mut plane = Self {
            lab,
            apiserver: None,
            args,
            port,
            kubeconfig,
            proxy: None,
            proxy_port,
            starts: 0,
            http: Http::new(),
        };
        plane.start_apiserver()?;
        Ok(plane)
    }

    pub fn start_apiserver(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let mut command = Command::new(self.lab.kubernetes("kube-apiserver")?);
        command.args(&self.args);
        self.apiserver = Some(Process::spawn(command, &self.lab.path(&format!("kube-apiserver-{}.log", self.starts)))?);
        if self.proxy.is_none() {
            let mut command = self.kubectl_command()?;
            command.args(["proxy", &format!("--port={}", self.proxy_port)]);
            self.proxy = Some(Process::spawn(command, &self.lab.path("proxy.log"))?);
        }
        self.wait_ready(Duration::from_secs(90))
    }

    /// The API server keeps nothing but the store: a new one must show the same.
    pub fn restart_apiserver(&mut self) -> anyhow::Result<()> {
        drop(self.apiserver.take());
        self.start_apiserver()
    }

    pub fn wait_ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let url = self.url("/readyz");
        loop {
            if self.http.get(&url).is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let apiserver = self.apiserver.as_mut().context("kube-apiserver does not run")?;
            ensure!(
                start.elapsed() < limit,
                "kube-apiserver on port {} is not ready after {limit:?}:\n{}",
                self.port,
                crate::process::tail(&apiserver.output())
            );
            apiserver
                .wait(Duration::ZERO)
                .map_or(Ok(()), |status| anyhow::bail!("kube-apiserver ended with {status}"))?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The address of an API path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.proxy_port)
    }

    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with_input(args, "")
    }

    pub fn kubectl_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let output = run_with_input(self.kubectl_command()?.args(args), input)?;
        Ok(output.success(&format!("kubectl {}", args.join(" ")))?.stdout)
    }

    pub fn kubectl_spawn(&self, log: &str, args: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.kubectl_command()?;
        command.args(args);
        Process::spawn(command, &self.lab.path(log))
    }

    fn kubectl_command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(self.lab.kubernetes("kubectl")?);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.lab.dir);
        Ok(command)
    }
}

fn write_kubeconfig(lab: &Lab, port: u16, ca: &Authority, admin: &Identity) -> anyhow::Result<PathBuf> {
    let path = lab.path("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: e2e\n\
         clusters: [{{name: e2e, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: '{}'}}}}]\n\
         users: [{{name: admin, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n\
         contexts: [{{name: e2e, context: {{cluster: e2e, user: admin}}}}]\n",
        ca.cert.display(),
        admin.cert.display(),
        admin.key.display()
    );
    std::fs::write(&path, text)?;
    Ok(path)
}
