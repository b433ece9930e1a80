//! What a step of an input is.

use garboard_proto::etcdserverpb as pb;
use prost::DecodeError;
use prost::Message;

/// The requests that reach the state machine, the member's own doings, and all other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Compact,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    Alarm,
    HashKv,
    Watch,
    Flush,
    CompactionStep,
    Restart,
    Other,
}

const ALL: [Kind; 16] = [
    Kind::Range,
    Kind::RangeStream,
    Kind::Put,
    Kind::DeleteRange,
    Kind::Txn,
    Kind::Compact,
    Kind::LeaseGrant,
    Kind::LeaseRevoke,
    Kind::LeaseTimeToLive,
    Kind::Alarm,
    Kind::HashKv,
    Kind::Watch,
    Kind::Flush,
    Kind::CompactionStep,
    Kind::Restart,
    Kind::Other,
];

// === impl Kind ===

impl Kind {
    pub fn of(byte: u8) -> Kind {
        ALL[usize::from(byte) % ALL.len()]
    }
}

/// Decodes requests that never reach the state machine; the first byte says which. What decodes comes back from its own encoding.
pub fn decode_any(body: &[u8]) -> Result<(), DecodeError> {
    let Some((which, body)) = body.split_first() else { return Ok(()) };
    let decoders: &[fn(&[u8]) -> Result<(), DecodeError>] = &[
        decode::<garboard_proto::raft::Batch>,
        decode::<garboard_proto::raft::StoredMembership>,
        decode::<pb::MemberAddRequest>,
        decode::<pb::MemberRemoveRequest>,
        decode::<pb::MemberUpdateRequest>,
        decode::<pb::MemberListRequest>,
        decode::<pb::MemberPromoteRequest>,
        decode::<pb::StatusRequest>,
        decode::<pb::DefragmentRequest>,
        decode::<pb::HashRequest>,
        decode::<pb::SnapshotRequest>,
        decode::<pb::MoveLeaderRequest>,
        decode::<pb::DowngradeRequest>,
        decode::<pb::LeaseKeepAliveRequest>,
        decode::<pb::LeaseCheckpointRequest>,
        decode::<pb::LeaseLeasesRequest>,
        decode::<pb::AuthEnableRequest>,
        decode::<pb::AuthDisableRequest>,
        decode::<pb::AuthStatusRequest>,
        decode::<pb::AuthenticateRequest>,
        decode::<pb::AuthUserAddRequest>,
        decode::<pb::AuthUserGetRequest>,
        decode::<pb::AuthUserListRequest>,
        decode::<pb::AuthUserDeleteRequest>,
        decode::<pb::AuthUserChangePasswordRequest>,
        decode::<pb::AuthUserGrantRoleRequest>,
        decode::<pb::AuthUserRevokeRoleRequest>,
        decode::<pb::AuthRoleAddRequest>,
        decode::<pb::AuthRoleGetRequest>,
        decode::<pb::AuthRoleListRequest>,
        decode::<pb::AuthRoleDeleteRequest>,
        decode::<pb::AuthRoleGrantPermissionRequest>,
        decode::<pb::AuthRoleRevokePermissionRequest>,
    ];
    decoders[usize::from(*which) % decoders.len()](body)
}

fn decode<M: Message + Default + PartialEq + std::fmt::Debug>(body: &[u8]) -> Result<(), DecodeError> {
    let message = M::decode(body)?;
    assert_eq!(M::decode(&message.encode_to_vec()[..])?, message, "a message changes on its way through its encoding");
    Ok(())
}
