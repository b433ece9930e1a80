//! Every gRPC method of the client API: its path, its labels, its place in the tables of counters.

/// Who streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

impl Kind {
    /// The `grpc_type` label, as go-grpc-prometheus spells it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($name:ident = $service:literal, $method:literal, $kind:ident;)*) => {
        /// A method of the client API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $($name),* }

        impl Method {
            /// All methods; a method stands at the index of its own number.
            pub const ALL: &[Method] = &[$(Method::$name),*];

            /// The method with this path.
            pub fn find(path: &str) -> Option<Method> {
                match path {
                    $(concat!("/", $service, "/", $method) => Some(Method::$name),)*
                    _ => None,
                }
            }

            /// The full name of the service.
            pub fn service(self) -> &'static str {
                match self { $(Method::$name => $service),* }
            }

            /// The name within the service.
            pub fn name(self) -> &'static str {
                match self { $(Method::$name => $method),* }
            }

            /// Who streams.
            pub fn kind(self) -> Kind {
                match self { $(Method::$name => Kind::$kind),* }
            }
        }
    };
}

// The often called ones first: a path is compared with one after the other.
methods! {
    Range = "etcdserverpb.KV", "Range", Unary;
    Put = "etcdserverpb.KV", "Put", Unary;
    Txn = "etcdserverpb.KV", "Txn", Unary;
    DeleteRange = "etcdserverpb.KV", "DeleteRange", Unary;
    RangeStream = "etcdserverpb.KV", "RangeStream", ServerStream;
    Compact = "etcdserverpb.KV", "Compact", Unary;
    Watch = "etcdserverpb.Watch", "Watch", BidiStream;
    LeaseGrant = "etcdserverpb.Lease", "LeaseGrant", Unary;
    LeaseRevoke = "etcdserverpb.Lease", "LeaseRevoke", Unary;
    LeaseKeepAlive = "etcdserverpb.Lease", "LeaseKeepAlive", BidiStream;
    LeaseTimeToLive = "etcdserverpb.Lease", "LeaseTimeToLive", Unary;
    LeaseLeases = "etcdserverpb.Lease", "LeaseLeases", Unary;
    MemberAdd = "etcdserverpb.Cluster", "MemberAdd", Unary;
    MemberRemove = "etcdserverpb.Cluster", "MemberRemove", Unary;
    MemberUpdate = "etcdserverpb.Cluster", "MemberUpdate", Unary;
    MemberList = "etcdserverpb.Cluster", "MemberList", Unary;
    MemberPromote = "etcdserverpb.Cluster", "MemberPromote", Unary;
    Alarm = "etcdserverpb.Maintenance", "Alarm", Unary;
    Status = "etcdserverpb.Maintenance", "Status", Unary;
    Defragment = "etcdserverpb.Maintenance", "Defragment", Unary;
    Hash = "etcdserverpb.Maintenance", "Hash", Unary;
    HashKv = "etcdserverpb.Maintenance", "HashKV", Unary;
    Snapshot = "etcdserverpb.Maintenance", "Snapshot", ServerStream;
    MoveLeader = "etcdserverpb.Maintenance", "MoveLeader", Unary;
    Downgrade = "etcdserverpb.Maintenance", "Downgrade", Unary;
    AuthEnable = "etcdserverpb.Auth", "AuthEnable", Unary;
    AuthDisable = "etcdserverpb.Auth", "AuthDisable", Unary;
    AuthStatus = "etcdserverpb.Auth", "AuthStatus", Unary;
    Authenticate = "etcdserverpb.Auth", "Authenticate", Unary;
    UserAdd = "etcdserverpb.Auth", "UserAdd", Unary;
    UserGet = "etcdserverpb.Auth", "UserGet", Unary;
    UserList = "etcdserverpb.Auth", "UserList", Unary;
    UserDelete = "etcdserverpb.Auth", "UserDelete", Unary;
    UserChangePassword = "etcdserverpb.Auth", "UserChangePassword", Unary;
    UserGrantRole = "etcdserverpb.Auth", "UserGrantRole", Unary;
    UserRevokeRole = "etcdserverpb.Auth", "UserRevokeRole", Unary;
    RoleAdd = "etcdserverpb.Auth", "RoleAdd", Unary;
    RoleGet = "etcdserverpb.Auth", "RoleGet", Unary;
    RoleList = "etcdserverpb.Auth", "RoleList", Unary;
    RoleDelete = "etcdserverpb.Auth", "RoleDelete", Unary;
    RoleGrantPermission = "etcdserverpb.Auth", "RoleGrantPermission", Unary;
    RoleRevokePermission = "etcdserverpb.Auth", "RoleRevokePermission", Unary;
    HealthCheck = "grpc.health.v1.Health", "Check", Unary;
    HealthList = "grpc.health.v1.Health", "List", Unary;
    HealthWatch = "grpc.health.v1.Health", "Watch", ServerStream;
}

impl Method {
    /// Whether a learner answers it, as in etcd; of ranges, the serializable ones.
    pub fn is_for_learners(self) -> bool {
        matches!(self, Method::Status | Method::Range | Method::Snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_found_by_its_path_and_stands_at_its_index() {
        assert_eq!(Method::ALL.len(), 45, "42 of etcdserverpb and 3 of the health service");
        for (index, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, index);
            assert_eq!(Method::find(&format!("/{}/{}", method.service(), method.name())), Some(*method));
        }
        assert_eq!(Method::find("/etcdserverpb.KV/Nothing"), None);
    }
}
