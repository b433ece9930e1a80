//! What the chart makes of values: rights, security, and that its objects find one another.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use serde::Deserialize as _;
use serde_json::Value;

use super::calls::CALLS;
use super::calls::CALLS_ANYWHERE;
use super::calls::CALLS_AT_HOME;
use super::calls::CALLS_OF_TEST;
use super::calls::Call;
pub(super) use crate::scenarios::operator::CHART;
pub(super) use crate::scenarios::operator::NAMESPACE as HOME;
pub(super) use crate::scenarios::operator::OPERATOR as RELEASE;
use crate::scenarios::operator::rules;

const KUBERNETES: &str = "--kube-version=1.36.3";
const IMAGES: &str = "--set=image.repository=localhost/garboard-operator,server.repository=localhost/garboard";
const OPERATOR: &str = "app.kubernetes.io/name=garboard-operator";

/// Values, by what they are about.
pub(super) struct Set {
    pub name: &'static str,
    pub values: &'static [&'static str],
    watched: &'static [&'static str],
    /// Alerts that are left out.
    silent: &'static [&'static str],
}

const fn set(name: &'static str, values: &'static [&'static str]) -> Set {
    Set { name, values, watched: &[], silent: &[] }
}

pub(super) const SETS: &[Set] = &[
    set("the defaults", &[]),
    Set { watched: &["one", "two"], ..set("watchNamespaces", &["--set=watchNamespaces={one,two}"]) },
    set("networkPolicy", &["--set=networkPolicy.enabled=true"]),
    set("podMonitor, serviceMonitor", &["--set=podMonitor.enabled=true,serviceMonitor.enabled=true"]),
    set("monitoring", &["--set=monitoring.rules.enabled=true,monitoring.dashboard.enabled=true"]),
    set("deletionProtection", &["--set=deletionProtection.enabled=true"]),
    set("crds off", &["--set=crds.enabled=false"]),
    set("one replica", &["--set=replicas=1,podDisruptionBudget.enabled=false"]),
    Set {
        watched: &["one", "two"],
        silent: &["etcdGRPCRequestsSlow", "GarboardBackupUnverified"],
        ..set(
            "everything",
            &[
                "--set=watchNamespaces={one,two},replicas=3,deletionProtection.enabled=true,clusterDomain=corp.example",
                "--set=podMonitor.enabled=true,serviceMonitor.enabled=true,networkPolicy.enabled=true",
                "--set=image.tag=next,image.pullPolicy=Always,image.pullSecrets={a,b},test.timeoutSeconds=60",
                r#"--set-json=networkPolicy.from=[{"namespaceSelector":{"matchLabels":{"team":"monitoring"}}}]"#,
                r#"--set-json=podMonitor.labels={"release":"x"}"#,
                r#"--set-json=serviceMonitor.labels={"release":"x"}"#,
                "--set=monitoring.rules.enabled=true,monitoring.rules.runbookUrl=https://example.org/runbooks/",
                "--set=monitoring.rules.disabled={etcdGRPCRequestsSlow,GarboardBackupUnverified}",
                "--set=monitoring.dashboard.enabled=true,monitoring.dashboard.label=a/dashboard,monitoring.dashboard.labelValue=yes",
                r#"--set-json=monitoring.rules.labels={"release":"x"}"#,
                r#"--set-json=podAnnotations={"a":"b"}"#,
                r#"--set-json=podLabels={"c":"d"}"#,
                r#"--set-json=nodeSelector={"kubernetes.io/os":"linux"}"#,
                r#"--set-json=tolerations=[{"key":"e","operator":"Exists"}]"#,
                r#"--set-json=extraArgs=["--leader-elect=true"]"#,
            ],
        )
    },
];

/// What nobody may ask for, and what is said then.
const REFUSED: &[(&[&str], &str)] = &[
    (&[IMAGES, "--set=nonsense=1"], "nonsense"),
    (&[IMAGES, "--set=image.nonsense=1"], "nonsense"),
    (&[IMAGES, "--set=replicas=0"], "replicas"),
    (&[IMAGES, "--set=image.pullPolicy=Sometimes"], "pullPolicy"),
    (&[IMAGES, "--set=watchNamespaces={one,one}"], "watchNamespaces"),
    (&[IMAGES, "--set=monitoring.rules.nonsense=1"], "nonsense"),
    (&["--set=server.repository=x"], "image.repository: the operator's image is not published"),
    (&["--set=image.repository=x"], "server.repository: the server's image is not published"),
];

/// The objects of one rendering.
pub(super) struct Rendered {
    pub text: String,
    objects: Vec<Value>,
}

/// Renders the chart and looks at what comes out, without a Kubernetes.
pub(super) fn check(helm: &Path, set: &Set) -> anyhow::Result<Rendered> {
    let rendered = Rendered::new(helm, set)?;
    rendered.rights(set).context("rights")?;
    rendered.security().context("Pod security")?;
    rendered.found().context("selectors")?;
    rendered.spread().context("several operators")?;
    rendered.alerts(set).context("alerts")?;
    rendered.dashboard(set).context("dashboard")?;
    Ok(rendered)
}

pub(super) fn refusals(helm: &Path) -> anyhow::Result<()> {
    for (values, said) in REFUSED {
        for command in [&["lint"][..], &["template", RELEASE]] {
            // A linter lets required values be absent.
            if command == ["lint"] && !values.contains(&IMAGES) {
                continue;
            }
            let output = run(helm, command, values)?;
            let text = format!("{}{}", output.stdout, output.stderr);
            ensure!(!output.status.success(), "helm {} takes {values:?}", command[0]);
            ensure!(text.contains(said), "helm {} does not say {said:?}: {text}", command[0]);
        }
    }
    Ok(())
}

fn run(helm: &Path, command: &[&str], values: &[&str]) -> anyhow::Result<crate::process::Output> {
    crate::process::run(Command::new(helm).args(command).args([CHART, "--namespace", HOME, KUBERNETES]).args(values))
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether all labels of a selector are there.
fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().filter(|wanted| !wanted.is_empty());
    wanted.is_some_and(|wanted| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

// === impl Set ===

impl Set {
    fn enables(&self, what: &str) -> bool {
        let value = format!("{what}.enabled=true");
        self.values.iter().any(|values| values.contains(&value))
    }
}

// === impl Rendered ===

impl Rendered {
    fn new(helm: &Path, set: &Set) -> anyhow::Result<Self> {
        let values = [&[IMAGES], set.values].concat();
        run(helm, &["lint", "--strict"], &values)?.success("helm lint")?;
        let text = run(helm, &["template", RELEASE], &values)?.success("helm template")?.stdout;
        let documents = serde_yaml_ng::Deserializer::from_str(&text);
        let objects = documents.map(Value::deserialize).collect::<Result<Vec<_>, _>>().context("no YAML")?;
        let objects: Vec<_> = objects.into_iter().filter(|object| !object.is_null()).collect();
        ensure!(!objects.is_empty(), "nothing is rendered");
        Ok(Self { text, objects })
    }

    fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn one<'a>(&'a self, kind: &'a str) -> anyhow::Result<&'a Value> {
        let mut all = self.kind(kind);
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (first, _) => bail!("{} {kind}", if first.is_some() { "more than one" } else { "no" }),
        }
    }

    /// Nothing is allowed but what is used, nowhere but where it is used.
    fn rights(&self, set: &Set) -> anyhow::Result<()> {
        for role in self.kind("Role").chain(self.kind("ClusterRole")) {
            let rules = role["rules"].to_string();
            ensure!(!rules.contains('*'), "{} has a wildcard: {rules}", text(role, "/metadata/name"));
        }
        let anywhere = if set.watched.is_empty() { [CALLS_ANYWHERE, CALLS].concat() } else { CALLS_ANYWHERE.to_vec() };
        let mut wanted = BTreeMap::from([("".to_owned(), anywhere), (HOME.to_owned(), CALLS_AT_HOME.to_vec())]);
        for namespace in set.watched {
            wanted.entry((*namespace).to_owned()).or_default().extend(CALLS);
        }
        self.compare(RELEASE, &wanted)?;
        let tested = set.watched.first().unwrap_or(&HOME);
        let wanted = BTreeMap::from([((*tested).to_owned(), CALLS_OF_TEST.to_vec())]);
        self.compare("garboard-operator-test", &wanted)?;

        let in_no_namespace = |object: &&Value| object["metadata"]["namespace"].is_null();
        let found: BTreeSet<_> =
            self.objects.iter().filter(in_no_namespace).map(|object| text(object, "/kind")).collect();
        let mut allowed = BTreeSet::from(["ClusterRole", "ClusterRoleBinding"]);
        if !set.values.contains(&"--set=crds.enabled=false") {
            allowed.insert("CustomResourceDefinition");
        }
        if set.values.iter().any(|values| values.contains("deletionProtection.enabled=true")) {
            allowed.extend(["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]);
        }
        ensure!(found == allowed, "in no namespace: {found:?}, expected {allowed:?}");
        Ok(())
    }

    /// Holds what an account may do against what it does, by namespace; the name of none is empty.
    fn compare(&self, account: &str, wanted: &BTreeMap<String, Vec<Call>>) -> anyhow::Result<()> {
        let mut granted = BTreeSet::new();
        for binding in self.kind("RoleBinding").chain(self.kind("ClusterRoleBinding")) {
            let subjects = binding["subjects"].as_array().context("subjects")?;
            ensure!(
                subjects.iter().all(|s| s["kind"] == "ServiceAccount" && s["namespace"] == HOME),
                "others may, too: {binding}"
            );
            if !subjects.iter().any(|subject| subject["name"] == account) {
                continue;
            }
            let namespace = text(binding, "/metadata/namespace");
            let role = self
                .kind(text(binding, "/roleRef/kind"))
                .find(|role| {
                    role["metadata"]["name"] == binding["roleRef"]["name"]
                        && text(role, "/metadata/namespace") == namespace
                })
                .with_context(|| format!("no role for {binding}"))?;
            for rule in role["rules"].as_array().context("rules")? {
                let names = strings(&rule["resourceNames"]).join(",");
                for group in strings(&rule["apiGroups"]) {
                    for resource in strings(&rule["resources"]) {
                        for verb in strings(&rule["verbs"]) {
                            let right = format!("{namespace}: {verb} {group}/{resource} [{names}]");
                            ensure!(granted.insert(right.clone()), "granted twice: {right}");
                        }
                    }
                }
            }
        }
        let mut used = BTreeSet::new();
        for (namespace, calls) in wanted {
            for call in calls {
                let verbs = call.verbs.iter();
                used.extend(
                    verbs.map(|verb| format!("{namespace}: {verb} {}/{} [{}]", call.group, call.resource, call.name)),
                );
            }
        }
        let unused: Vec<_> = granted.difference(&used).collect();
        let missing: Vec<_> = used.difference(&granted).collect();
        ensure!(
            unused.is_empty() && missing.is_empty(),
            "{account}: granted, not used: {unused:?}; missing: {missing:?}"
        );
        Ok(())
    }

    /// The level `restricted`, and a root file system that cannot be written.
    fn security(&self) -> anyhow::Result<()> {
        let deployments = self.kind("Deployment").map(|object| &object["spec"]["template"]["spec"]);
        let pods: Vec<_> = deployments.chain(self.kind("Pod").map(|object| &object["spec"])).collect();
        ensure!(pods.len() == 2, "{} kinds of Pods: the operator and the test are expected", pods.len());
        for pod in pods {
            let whole = &pod["securityContext"];
            ensure!(whole["runAsNonRoot"] == true && whole["runAsUser"].as_u64() > Some(0), "{whole}");
            ensure!(whole["seccompProfile"]["type"] == "RuntimeDefault", "{whole}");
            for shared in ["hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"] {
                ensure!(pod[shared].is_null(), "{shared}: {}", pod[shared]);
            }
            let containers = pod["containers"].as_array().context("containers")?;
            ensure!(!containers.is_empty(), "no container");
            for container in containers {
                let own = &container["securityContext"];
                ensure!(own["readOnlyRootFilesystem"] == true && own["allowPrivilegeEscalation"] == false, "{own}");
                ensure!(own["capabilities"] == serde_json::json!({"drop": ["ALL"]}), "{own}");
                ensure!(own["privileged"].is_null() && own["runAsUser"].is_null(), "{own}");
                let resources = &container["resources"];
                ensure!(resources["requests"]["cpu"].is_string(), "{resources}");
                ensure!(resources["limits"]["memory"].is_string(), "{resources}");
            }
        }
        Ok(())
    }

    /// Whatever selects the operator's Pods selects them, and no others.
    fn found(&self) -> anyhow::Result<()> {
        let deployment = self.one("Deployment")?;
        let (pod, test) =
            (&deployment["spec"]["template"]["metadata"]["labels"], &self.one("Pod")?["metadata"]["labels"]);
        let service = self.one("Service")?;
        let mut selectors = vec![&deployment["spec"]["selector"]["matchLabels"], &service["spec"]["selector"]];
        selectors.extend(self.kind("PodDisruptionBudget").map(|object| &object["spec"]["selector"]["matchLabels"]));
        selectors.extend(self.kind("NetworkPolicy").map(|object| &object["spec"]["podSelector"]["matchLabels"]));
        selectors.extend(self.kind("PodMonitor").map(|object| &object["spec"]["selector"]["matchLabels"]));
        for selector in selectors {
            ensure!(matches(selector, pod), "{selector} does not select {pod}");
            ensure!(!matches(selector, test), "{selector} selects {test}");
        }
        for monitor in self.kind("ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            ensure!(matches(selector, &service["metadata"]["labels"]), "{selector} does not select the Service");
        }
        for policy in self.kind("NetworkPolicy") {
            self.policy(&policy["spec"], test)?;
        }
        Ok(())
    }

    /// In: metrics. Out: DNS, the API server, members.
    fn policy(&self, spec: &Value, test: &Value) -> anyhow::Result<()> {
        ensure!(spec["policyTypes"] == serde_json::json!(["Ingress", "Egress"]), "{spec}");
        let ports = |direction: &str| {
            let rules = spec[direction].as_array().into_iter().flatten();
            let ports = rules.flat_map(|rule| rule["ports"].as_array().into_iter().flatten());
            ports.map(|port| format!("{}/{}", port["port"], text(port, "/protocol"))).collect::<Vec<_>>()
        };
        ensure!(ports("ingress") == [r#""metrics"/TCP"#], "{:?}", ports("ingress"));
        let out = ["53/UDP", "53/TCP", "443/TCP", "6443/TCP", "2379/TCP", "2381/TCP"];
        ensure!(ports("egress") == out, "{:?}", ports("egress"));
        let from = &spec["ingress"][0]["from"];
        let lets_test_in = |peer: &Value| matches(&peer["podSelector"]["matchLabels"], test);
        ensure!(
            from.is_null() || from.as_array().is_some_and(|peers| peers.iter().any(lets_test_in)),
            "the Pod of helm test is kept out: {from}"
        );
        Ok(())
    }

    /// What keeps one of several operators alive.
    fn spread(&self) -> anyhow::Result<()> {
        let deployment = self.one("Deployment")?;
        let replicas = deployment["spec"]["replicas"].as_u64().context("replicas")?;
        let budgets: Vec<_> = self.kind("PodDisruptionBudget").collect();
        match (replicas, budgets.as_slice()) {
            (1, []) => {}
            (2.., [budget]) => ensure!(budget["spec"]["maxUnavailable"] == 1, "{budget}"),
            (replicas, budgets) => bail!("{replicas} replicas, {} budgets", budgets.len()),
        }
        let path = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm";
        let term = deployment.pointer(path).context("no anti-affinity")?;
        ensure!(term["topologyKey"] == "kubernetes.io/hostname", "{term}");
        let selected =
            matches(&term["labelSelector"]["matchLabels"], &deployment["spec"]["template"]["metadata"]["labels"]);
        ensure!(selected, "{term}");
        Ok(())
    }

    /// The alerts are those of the file, each with its runbook.
    fn alerts(&self, set: &Set) -> anyhow::Result<()> {
        if !set.enables("monitoring.rules") {
            ensure!(self.kind("PrometheusRule").next().is_none(), "alerts that nobody has asked for");
            return Ok(());
        }
        let mut wanted = rules::alerts()?;
        wanted.retain(|alert| !set.silent.contains(&text(alert, "/alert")));
        let mut found = rules::named(&self.one("PrometheusRule")?["spec"], "alert")?;
        for alert in &mut found {
            let annotations = alert["annotations"].as_object_mut().context("no annotations")?;
            let url = annotations.remove("runbook_url").context("no runbook")?;
            let url = url.as_str().context("a runbook without an address")?;
            let page = format!("/runbooks/{}.md", text(alert, "/alert"));
            ensure!(url.strip_suffix(&page).is_some_and(|base| !base.ends_with('/')), "{url}, not ...{page}");
        }
        ensure!(found == wanted, "{found:?}, not {wanted:?}");
        Ok(())
    }

    fn dashboard(&self, set: &Set) -> anyhow::Result<()> {
        if !set.enables("monitoring.dashboard") {
            ensure!(self.kind("ConfigMap").next().is_none(), "a dashboard that nobody has asked for");
            return Ok(());
        }
        let found: Value = serde_json::from_str(text(self.one("ConfigMap")?, "/data/garboard.json"))?;
        ensure!(found == rules::dashboard()?, "it is not the file's");
        Ok(())
    }

    /// The labels by which the NetworkPolicy lets the operator reach members.
    pub fn members(&self) -> anyhow::Result<String> {
        let rules = self.one("NetworkPolicy")?["spec"]["egress"].as_array().context("egress")?;
        let members = rules.iter().find_map(|rule| rule.pointer("/to/0/podSelector/matchLabels")?.as_object());
        let labels = members.context("no rule for members")?.iter();
        Ok(labels
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(","))
    }
}

pub(super) fn operators() -> String {
    format!("--selector={OPERATOR}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of values, with their defaults; lists and maps without keys are values themselves, and so is `resources`.
    fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value.as_object() {
            Some(fields) if !fields.is_empty() && path != "resources" => {
                for (name, field) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    leaves(&path, field, found);
                }
            }
            _ => {
                let shown =
                    value.as_str().filter(|text| !text.is_empty()).map_or_else(|| value.to_string(), str::to_owned);
                found.insert(path.to_owned(), shown);
            }
        }
    }

    fn paths_of_schema(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
        let Some(fields) = schema["properties"].as_object() else {
            found.insert(path.to_owned());
            return;
        };
        assert_eq!(schema["additionalProperties"], false, "{path:?} lets unknown values through");
        for (name, field) in fields {
            paths_of_schema(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, field, found);
        }
    }

    fn read(name: &str) -> String {
        std::fs::read_to_string(Path::new(CHART).join(name)).unwrap()
    }

    #[test]
    fn every_value_is_in_the_readme_with_its_default_and_in_the_schema() {
        let mut values = BTreeMap::new();
        leaves("", &serde_yaml_ng::from_str(&read("values.yaml")).unwrap(), &mut values);
        assert!(values.len() > 20, "{values:?}");
        let mut documented = BTreeMap::new();
        for row in read("README.md").lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (name, default) = (cells.nth(1).unwrap(), cells.next().unwrap());
            assert_eq!(documented.insert(name.to_owned(), default.to_owned()), None, "{name} twice");
        }
        assert_eq!(documented, values);
        let mut known = BTreeSet::new();
        paths_of_schema("", &serde_json::from_str(&read("values.schema.json")).unwrap(), &mut known);
        // Helm gives it to every chart.
        assert!(known.remove("global"));
        assert_eq!(known, values.into_keys().collect());
    }

    #[test]
    fn a_selector_without_labels_selects_nothing() {
        let labels = serde_json::json!({"a": "b", "c": "d"});
        assert!(matches(&serde_json::json!({"a": "b"}), &labels));
        assert!(!matches(&serde_json::json!({"a": "d"}), &labels));
        assert!(!matches(&serde_json::json!({}), &labels));
        assert!(!matches(&Value::Null, &labels));
    }
}
