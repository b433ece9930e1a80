//! What the operator asks of the API server, as its sources have it: `operator/src/...` is named beside each. The chart allows this, and no more.

/// Requests for one kind of object.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub group: &'static str,
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
    /// Of the only object, where there is one.
    pub name: &'static str,
}

const fn call(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Call {
    Call { group, resource, verbs, name: "" }
}

/// In each namespace that is watched.
pub(super) const CALLS: &[Call] = &[
    // controller/clusters.rs: `control` lists and watches; controller.rs: `now` gets; cluster/act.rs: `finalizer` patches.
    call("garboard.dev", "etcdclusters", &["get", "list", "watch", "patch"]),
    // cluster.rs: `write`.
    call("garboard.dev", "etcdclusters/status", &["update"]),
    // names.rs: `owner` blocks the deletion of the owner, which OwnerReferencesPermissionEnforcement asks this for.
    call("garboard.dev", "etcdclusters/finalizers", &["update"]),
    // controller/backups.rs: `control`; controller.rs: `now`; cluster/act.rs: `finalizer` patches; schedule.rs: `act` makes and deletes them, cluster/deletion.rs, too; cluster/restore.rs: `file`;
    // in_place.rs: `take_safety_backup`.
    call("garboard.dev", "etcdbackups", &["get", "list", "watch", "create", "patch", "delete"]),
    // cluster.rs: `write`.
    call("garboard.dev", "etcdbackups/status", &["update"]),
    // controller/schedules.rs: `control`; controller.rs: `now`.
    call("garboard.dev", "etcdbackupschedules", &["get", "list", "watch"]),
    // cluster.rs: `write`.
    call("garboard.dev", "etcdbackupschedules/status", &["update"]),
    // controller/restores.rs: `control`; controller.rs: `now`; in_place.rs: `all` lists.
    call("garboard.dev", "etcdrestores", &["get", "list", "watch"]),
    // cluster.rs: `write`.
    call("garboard.dev", "etcdrestores/status", &["update"]),
    // in_place/build.rs: the owner of Jobs, as of a cluster's objects.
    call("garboard.dev", "etcdrestores/finalizers", &["update"]),
    // backup/build.rs: the owner of Jobs, as of a cluster's objects.
    call("garboard.dev", "etcdbackups/finalizers", &["update"]),
    // controller/backups.rs: `control`; backup/fetch.rs: `job`; backup.rs: `act`; in_place/survivors.rs: `job`; in_place.rs: `run`.
    call("batch", "jobs", &["get", "list", "watch", "create", "delete"]),
    // backup.rs: `act`; in_place.rs: `run`.
    call("", "serviceaccounts", &["create"]),
    // backup/fetch.rs: `progress`; in_place/survivors.rs: `inspected`.
    call("", "pods/log", &["get"]),
    // controller/clusters.rs: `control`; cluster/act.rs: `is_ours` gets, CreateMember, Identify, DeleteMember.
    call("garboard.dev", "etcdmembers", &["get", "list", "watch", "create", "patch", "delete"]),
    // controller/clusters.rs: `control`; cluster/act.rs: `is_ours`, CreatePod, DeletePod.
    call("", "pods", &["get", "list", "watch", "create", "delete"]),
    // controller/clusters.rs: `control`; cluster/act.rs: `is_ours`, CreateVolume, Identify, RetireVolume, PutAside, TakeBack; cluster/deletion.rs: `hold`, `forget`.
    call("", "persistentvolumeclaims", &["get", "list", "watch", "create", "patch", "delete"]),
    // cluster.rs: `services` applies, which is a patch that may create; cluster/act.rs: `is_ours`.
    call("", "services", &["get", "create", "patch"]),
    // cluster/certificates.rs: `ensure` applies, `forget` deletes; cluster/fetch.rs: `objects` lists.
    call("", "secrets", &["get", "list", "create", "patch", "delete"]),
    // The same.
    call("cert-manager.io", "certificates", &["get", "list", "create", "patch", "delete"]),
    // cluster.rs: `isolate` applies or deletes.
    call("networking.k8s.io", "networkpolicies", &["get", "create", "patch", "delete"]),
    // cluster.rs: `monitor`.
    call("monitoring.coreos.com", "podmonitors", &["get", "create", "patch", "delete"]),
    // cluster.rs: `budget` applies or deletes.
    call("policy", "poddisruptionbudgets", &["get", "create", "patch", "delete"]),
    // controller.rs: `tell`; a repeated Event is patched.
    call("events.k8s.io", "events", &["create", "patch"]),
];

/// Of what is in no namespace. cluster/fetch.rs: `objects` looks at the nodes of members and at the classes of volumes that are to grow.
pub(super) const CALLS_ANYWHERE: &[Call] =
    &[call("", "nodes", &["get"]), call("storage.k8s.io", "storageclasses", &["get"])];

/// Where the operator itself runs. leadership.rs.
pub(super) const CALLS_AT_HOME: &[Call] = &[
    call("coordination.k8s.io", "leases", &["create"]),
    Call { name: "garboard-operator", ..call("coordination.k8s.io", "leases", &["get", "update"]) },
];

/// Of `helm test`, where its cluster is made. smoke.rs.
pub(super) const CALLS_OF_TEST: &[Call] = &[
    call("garboard.dev", "etcdclusters", &["create"]),
    Call { name: "garboard-operator-test", ..call("garboard.dev", "etcdclusters", &["get", "delete"]) },
    Call { name: "garboard-operator-test-operator-client", ..call("", "secrets", &["get"]) },
];

/// Whether the operator or its test asks for this kind of object at all.
pub(super) fn asks_for(group: &str, resource: &str) -> bool {
    let mut all = [CALLS, CALLS_ANYWHERE, CALLS_AT_HOME, CALLS_OF_TEST].into_iter().flatten();
    // A subresource is counted under its resource.
    all.any(|call| call.group == group && call.resource.split('/').next() == Some(resource))
}
