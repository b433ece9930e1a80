//! Talking to members, as any client of etcd does.

use std::error::Error as _;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::cluster_client::ClusterClient;
use garboard_proto::etcdserverpb::kv_client::KvClient;
use garboard_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::time::timeout;
use tonic::Code;
use tonic::Status;
use tonic::transport::Certificate;
use tonic::transport::Channel;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;
use tonic::transport::Identity;

/// No answer in so long is none.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same for what goes through the whole store before it is answered.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two messages of a snapshot.
const GAP: Duration = Duration::from_secs(30);
/// How often a connection is tried on which an answer is awaited, and how long that may take.
const PING: Duration = Duration::from_secs(10);

/// What a client shows and trusts, as PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    pub ca: Vec<u8>,
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// One member's client URL. Connects with the first call.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// Why a member gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("{} ({:?})", .0.message(), .0.code())]
    Status(Box<Status>),
}

impl From<Status> for StoreError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

// === impl StoreError ===

impl StoreError {
    /// Whether the member itself said so, in etcd's words.
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Self::Status(status) if status.message().contains(text))
    }

    /// With all that it comes from: of a connection the first word says little.
    pub fn in_full(&self) -> String {
        let mut said = self.to_string();
        let mut cause = match self {
            Self::Transport(error) => error.source(),
            Self::Status(status) => status.source(),
        };
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        said
    }
}

fn endpoint(address: &str, host: &str, credentials: Option<&Credentials>) -> Result<Endpoint, StoreError> {
    let scheme = if credentials.is_some() { "https" } else { "http" };
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}:{}", crate::names::CLIENT_PORT))?;
    let mut endpoint = endpoint.connect_timeout(TIMEOUT);
    if let Some(credentials) = credentials {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&credentials.ca))
            .identity(Identity::from_pem(&credentials.cert, &credentials.key))
            .domain_name(host);
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint)
}

// === impl Client ===

impl Client {
    /// `address` is the Pod's, or a name; its certificate is held against `host`.
    ///
    /// # Errors
    /// The address or the credentials cannot be used.
    pub fn new(address: &str, host: &str, credentials: Option<&Credentials>) -> Result<Self, StoreError> {
        Ok(Self { channel: endpoint(address, host, credentials)?.timeout(TIMEOUT).connect_lazy() })
    }

    /// As [`Client::new`], for requests that go through the whole store. A member that is gone is noticed all the same.
    ///
    /// # Errors
    /// The address or the credentials cannot be used.
    pub fn patient(address: &str, host: &str, credentials: Option<&Credentials>) -> Result<Self, StoreError> {
        let endpoint = endpoint(address, host, credentials)?.timeout(PATIENCE);
        let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub async fn status(&self) -> Result<pb::StatusResponse, StoreError> {
        Ok(self.maintenance().status(pb::StatusRequest {}).await?.into_inner())
    }

    /// Proved by a quorum.
    pub async fn members(&self) -> Result<pb::MemberListResponse, StoreError> {
        Ok(self.cluster().member_list(pb::MemberListRequest { linearizable: true }).await?.into_inner())
    }

    /// A linearizable read: it succeeds when the cluster serves.
    pub async fn read(&self) -> Result<(), StoreError> {
        let request = pb::RangeRequest { key: "garboard.dev/probe".into(), count_only: true, ..Default::default() };
        KvClient::new(self.channel.clone()).range(request).await?;
        Ok(())
    }

    pub async fn put(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let request =
            pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        KvClient::new(self.channel.clone()).put(request).await?;
        Ok(())
    }

    /// The value of a key as of now, if there is one.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let response = KvClient::new(self.channel.clone()).range(request).await?.into_inner();
        Ok(response.kvs.into_iter().next().map(|kv| kv.value.to_vec()))
    }

    pub async fn alarms(&self) -> Result<Vec<pb::AlarmMember>, StoreError> {
        Ok(self.maintenance().alarm(pb::AlarmRequest::default()).await?.into_inner().alarms)
    }

    /// Takes back the NOSPACE alarm of one member.
    pub async fn disarm_no_space(&self, id: u64) -> Result<(), StoreError> {
        let request = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate.into(),
            member_id: id,
            alarm: pb::AlarmType::Nospace.into(),
        };
        self.maintenance().alarm(request).await?;
        Ok(())
    }

    /// Returns when it is agreed upon; each member frees what it can afterwards.
    pub async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let request = pb::CompactionRequest { revision, physical: false };
        KvClient::new(self.channel.clone()).compact(request).await?;
        Ok(())
    }

    /// Returns after the usual time at the latest: a member goes on with it when nobody waits, and does not begin another one beside it.
    pub async fn defragment(&self) -> Result<(), StoreError> {
        match self.maintenance().defragment(pb::DefragmentRequest {}).await {
            Err(status) if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) => Ok(()),
            answered => Ok(answered.map(drop)?),
        }
    }

    /// Adds a learner; returns its id. One of the same peer URL is the same one.
    pub async fn add_learner(&self, peer_url: &str) -> Result<u64, StoreError> {
        let request = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let response = self.cluster().member_add(request).await?.into_inner();
        response.member.map(|member| member.id).ok_or_else(|| Status::internal("the answer names no member").into())
    }

    pub async fn promote(&self, id: u64) -> Result<(), StoreError> {
        self.cluster().member_promote(pb::MemberPromoteRequest { id }).await?;
        Ok(())
    }

    pub async fn remove(&self, id: u64) -> Result<(), StoreError> {
        self.cluster().member_remove(pb::MemberRemoveRequest { id }).await?;
        Ok(())
    }

    /// Only the leader takes this.
    pub async fn move_leader(&self, to: u64) -> Result<(), StoreError> {
        self.maintenance().move_leader(pb::MoveLeaderRequest { target_id: to }).await?;
        Ok(())
    }

    /// A snapshot, message by message; etcd's hash of the file comes last. Of a [`Client::patient`] one.
    ///
    /// # Errors
    /// None is begun. In the stream: it broke, or nothing came for [`GAP`]; nothing comes behind it.
    pub async fn snapshot(
        &self,
    ) -> Result<impl Stream<Item = Result<pb::SnapshotResponse, StoreError>> + use<>, StoreError> {
        let messages = self.maintenance().snapshot(pb::SnapshotRequest {}).await?.into_inner();
        Ok(stream::try_unfold(messages, |mut messages| async {
            let silent = |_| Status::deadline_exceeded(format!("silent for {} s", GAP.as_secs()));
            let message = timeout(GAP, messages.message()).await.map_err(silent)??;
            Ok(message.map(|message| (message, messages)))
        }))
    }

    /// The member's own hash of all up to the revision. Of a [`Client::patient`] one.
    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, StoreError> {
        Ok(self.maintenance().hash_kv(pb::HashKvRequest { revision }).await?.into_inner())
    }

    /// How many keys this member has at the revision. Of a [`Client::patient`] one.
    pub async fn count(&self, revision: i64) -> Result<i64, StoreError> {
        // From the first possible key to the end.
        let (key, range_end) = (vec![0].into(), vec![0].into());
        let request =
            pb::RangeRequest { key, range_end, revision, count_only: true, serializable: true, ..Default::default() };
        Ok(KvClient::new(self.channel.clone()).range(request).await?.into_inner().count)
    }
}
