//! Alarms: which member raised which. A raised alarm closes a part of the API on every member until it is taken back.

use std::collections::BTreeSet;

use bytes::Bytes;
use garboard_proto::etcdserverpb::{AlarmMember, AlarmType};
use prost::Message as _;

use crate::error::Error;

#[derive(Default)]
pub(crate) struct AlarmTable {
    /// By type, then member.
    alarms: BTreeSet<(i32, u64)>,
}

fn member((alarm, member_id): (i32, u64)) -> AlarmMember {
    AlarmMember { member_id, alarm }
}

impl AlarmTable {
    /// The alarms of one type; all of them if it is `None`.
    pub fn list(&self, of: i32) -> Vec<AlarmMember> {
        let wanted = |&&(alarm, _): &&(i32, u64)| of == AlarmType::None as i32 || of == alarm;
        self.alarms.iter().filter(wanted).copied().map(member).collect()
    }

    pub fn has(&self, of: AlarmType) -> bool {
        self.alarms.range((of as i32, 0)..=(of as i32, u64::MAX)).next().is_some()
    }

    /// False if it was raised already.
    pub fn activate(&mut self, alarm: AlarmMember) -> bool {
        self.alarms.insert((alarm.alarm, alarm.member_id))
    }

    /// False if it was not raised.
    pub fn deactivate(&mut self, alarm: AlarmMember) -> bool {
        self.alarms.remove(&(alarm.alarm, alarm.member_id))
    }

    pub fn restore(&mut self, key: &[u8]) -> Result<(), Error> {
        let alarm = AlarmMember::decode(key).map_err(|error| Error::Damaged(format!("alarm row: {error}")))?;
        // Written another way, it would be back after it was taken back.
        if row_key(&alarm) != key {
            return Err(Error::Damaged(format!("alarm row {}", key.escape_ascii())));
        }
        self.activate(alarm);
        Ok(())
    }
}

/// The key of an alarm's row; its value is empty.
pub(crate) fn row_key(alarm: &AlarmMember) -> Bytes {
    Bytes::from(alarm.encode_to_vec())
}
