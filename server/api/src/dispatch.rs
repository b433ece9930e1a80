//! From a request to the service that answers it: which method, who may, until when.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use garboard_node::Node;
use garboard_node::PeersService;
use garboard_proto::etcdserverpb::auth_server::AuthServer;
use garboard_proto::etcdserverpb::cluster_server::ClusterServer;
use garboard_proto::etcdserverpb::kv_server::KvServer;
use garboard_proto::etcdserverpb::lease_server::LeaseServer;
use garboard_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use garboard_runtime::clock;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::codegen::Service;

use crate::auth::AuthService;
use crate::body::Body;
use crate::cluster::ClusterService;
use crate::grpc::body::RequestBody;
use crate::grpc::call;
use crate::grpc::call::Call;
use crate::grpc::timeout;
use crate::grpc_health;
use crate::http::HttpService;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::listen::Handler;
use crate::listen::Surface;
use crate::listen::peer::Peer;
use crate::maintenance::MaintenanceService;
use crate::method::Kind;
use crate::method::Method;
use crate::metrics::Metrics;
use crate::range::RangeService;
use crate::status;
use crate::status::Status;
use crate::watch::WatchService;

/// A leader is missed this many election timeouts before streams that require one are ended, as in etcd: to reconnect costs more than to wait.
const LEADERLESS_ELECTIONS: u32 = 3;

/// Everything a client can reach.
pub struct Api {
    pub node: Node,
    pub metrics: Arc<Metrics>,
    pub http: HttpService,
    pub kv: KvServer<KvService>,
    pub range: RangeService,
    pub watch: WatchService,
    pub lease: LeaseServer<LeaseService>,
    pub cluster: ClusterServer<ClusterService>,
    pub maintenance: MaintenanceServer<MaintenanceService>,
    pub auth: AuthServer<AuthService>,
    pub peers: PeersService,
    pub message_bytes_max: usize,
    pub election_timeout: Duration,
    pub stop: watch::Receiver<bool>,
    pub peer_stop: watch::Receiver<bool>,
}

impl Handler for Api {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        if peer.surface() == Surface::Client && is_grpc(&request) {
            self.call(request, peer).await
        } else if peer.surface() == Surface::Peer && is_grpc(&request) {
            match self.peers.clone().call(request).await {
                Ok(answer) => answer.map(|body| Body::peer(body, self.peer_stop.clone())),
                Err(infallible) => match infallible {},
            }
        } else {
            // Rare next to calls, and larger: boxed, so that calls need not make room for it.
            Box::pin(self.http.respond(request, peer.surface())).await
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    request.version() == http::Version::HTTP_2
        && content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

impl Api {
    async fn call(&self, mut request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let Some(method) = Method::find(request.uri().path()) else {
            return call::refusal(unknown(request.uri().path()));
        };
        let call = Call::start(&self.metrics, &peer, method);
        let (deadline, ending) = match self.admit(request.headers(), method, &peer) {
            Ok(admitted) => admitted,
            Err(status) => return call.refuse(status),
        };
        let body = |body| RequestBody::new(body, self.message_bytes_max, method, &self.metrics, &peer);
        request.extensions_mut().insert(Arc::clone(&peer));
        let answer = self.route(method, request.map(body));
        let answer = match deadline {
            None => answer.await,
            // Timers have ticks of a millisecond, in which much can be done.
            Some(deadline) if deadline <= clock::now() => return call.refuse(call::DEADLINE_EXCEEDED),
            Some(deadline) => match clock::timeout_at(deadline, answer).await {
                Ok(answer) => answer,
                Err(_) => return call.refuse(call::DEADLINE_EXCEEDED),
            },
        };
        call.answer(answer, ending)
    }

    /// What the headers ask for: a leader, a deadline; and for streams, what will end them.
    fn admit(
        &self,
        headers: &HeaderMap,
        method: Method,
        peer: &Peer,
    ) -> Result<(Option<clock::Instant>, Option<crate::grpc::body::Ending>), Status> {
        let version = headers.get("client-api-version").map_or(&b"unknown"[..], |value| value.as_bytes());
        let text = std::str::from_utf8(version).map_err(|_| status::INVALID_CLIENT_API_VERSION)?;
        let unary = method.kind() == Kind::Unary;
        let resolve = || self.metrics.client_version(text);
        peer.count_version(version, resolve, |counters| if unary { &counters.unary } else { &counters.stream }.inc());
        let leader_required = headers.get("hasleader").is_some_and(|value| value == "true");
        if leader_required && self.node.leadership().borrow().leader == 0 {
            return Err(status::NO_LEADER);
        }
        if self.node.is_learner() && !method.is_for_learners() {
            return Err(status::NOT_SUPPORTED_FOR_LEARNER);
        }
        let deadline = timeout::deadline(headers)?;
        if unary {
            return Ok((deadline, None));
        }
        let leaderless =
            leader_required.then(|| leader_lost(self.node.leadership(), self.election_timeout * LEADERLESS_ELECTIONS));
        Ok((deadline, Some(Box::pin(ending(self.stop.clone(), leaderless, deadline)))))
    }

    async fn route(&self, method: Method, request: Request<RequestBody<Incoming>>) -> Response<tonic::body::Body> {
        let answered = match method {
            Method::Range => Ok(self.range.call(request).await),
            Method::Put | Method::Txn | Method::DeleteRange | Method::RangeStream | Method::Compact => {
                self.kv.clone().call(request).await
            }
            Method::Watch => Ok(self.watch.call(request).await),
            Method::LeaseGrant
            | Method::LeaseRevoke
            | Method::LeaseKeepAlive
            | Method::LeaseTimeToLive
            | Method::LeaseLeases => self.lease.clone().call(request).await,
            Method::MemberAdd
            | Method::MemberRemove
            | Method::MemberUpdate
            | Method::MemberList
            | Method::MemberPromote => self.cluster.clone().call(request).await,
            Method::Alarm
            | Method::Status
            | Method::Defragment
            | Method::Hash
            | Method::HashKv
            | Method::Snapshot
            | Method::MoveLeader
            | Method::Downgrade => self.maintenance.clone().call(request).await,
            Method::HealthCheck => Ok(grpc_health::check(request).await),
            Method::HealthList => Ok(grpc_health::list(request).await),
            Method::HealthWatch => Ok(grpc_health::watch(request).await),
            _ => self.auth.clone().call(request).await,
        };
        match answered {
            Ok(answer) => answer,
            Err(infallible) => match infallible {},
        }
    }
}

fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path));
    let text = if Method::ALL.iter().any(|known| known.service() == service) {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    };
    Status::new(tonic::Code::Unimplemented, text)
}

async fn ending(
    mut stop: watch::Receiver<bool>,
    leaderless: Option<impl Future<Output = ()>>,
    deadline: Option<clock::Instant>,
) -> Status {
    let leaderless = async {
        match leaderless {
            Some(leaderless) => leaderless.await,
            None => std::future::pending().await,
        }
    };
    let late = async {
        match deadline {
            Some(deadline) => clock::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => status::STOPPED,
        () = leaderless => status::NO_LEADER,
        () = late => call::DEADLINE_EXCEEDED,
    }
}

/// Completes when there has been no leader for `patience` without a break.
async fn leader_lost(mut leadership: watch::Receiver<garboard_node::Leadership>, patience: Duration) {
    loop {
        if leadership.wait_for(|leadership| leadership.leader == 0).await.is_err() {
            return;
        }
        let found = leadership.wait_for(|leadership| leadership.leader != 0);
        match clock::timeout(patience, found).await {
            Ok(Ok(_)) => (),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use garboard_node::Leadership;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn led_by(leader: u64) -> Leadership {
        Leadership { leader, term: 1, is_leader: false }
    }

    #[tokio::test]
    async fn a_leader_found_in_time_keeps_streams_open() {
        let (leadership, watched) = watch::channel(led_by(1));
        let mut lost = std::pin::pin!(leader_lost(watched.clone(), PATIENCE));
        for leader in [1, 0, 2, 0, 3] {
            leadership.send_replace(led_by(leader));
            // Polled once: nothing is over yet.
            tokio::select! {
                biased;
                () = &mut lost => panic!("given up with leader {leader}"),
                () = std::future::ready(()) => (),
            }
        }
        leadership.send_replace(led_by(0));
        clock::timeout(PATIENCE, leader_lost(watched, Duration::from_millis(5))).await.expect("given up");
    }

    #[tokio::test]
    async fn what_ends_a_stream_gives_its_reason() {
        let (stopper, stop) = watch::channel(false);
        let never = || None::<std::future::Pending<()>>;
        let past = Some(clock::now());
        assert_eq!(ending(stop.clone(), never(), past).await, call::DEADLINE_EXCEEDED);
        assert_eq!(ending(stop.clone(), Some(std::future::ready(())), None).await, status::NO_LEADER);
        stopper.send_replace(true);
        assert_eq!(ending(stop, never(), None).await, status::STOPPED);
    }
}
