//! The tables, and the rows that are the backend's own.

use redb::TableDefinition;

/// A table of byte strings, ordered by key. Its rows are the state machine's; `docs/formats.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// etcd's keys: main and sub revision big-endian, `_` between, `t` behind for a tombstone. Appended in order.
    Revisions,
    Meta,
    Leases,
    Alarms,
    AuthUsers,
    AuthRoles,
    Members,
    IndexCheckpoint,
}

pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

impl Table {
    /// All of them, in the order a defragmentation copies them.
    pub const ALL: [Self; 8] = [
        Self::Revisions,
        Self::Meta,
        Self::Leases,
        Self::Alarms,
        Self::AuthUsers,
        Self::AuthRoles,
        Self::Members,
        Self::IndexCheckpoint,
    ];

    /// The table's name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revisions => "revisions",
            Self::Meta => "meta",
            Self::Leases => "leases",
            Self::Alarms => "alarms",
            Self::AuthUsers => "auth_users",
            Self::AuthRoles => "auth_roles",
            Self::Members => "members",
            Self::IndexCheckpoint => "index_checkpoint",
        }
    }

    pub(crate) const fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }
}

/// The backend's own rows: format version and sizes. Not a [`Table`], so that no scan or hash of the state sees them.
pub(crate) const STORE: TableDefinition<'static, &'static str, u64> = TableDefinition::new("store");
pub(crate) const STORE_VERSION: &str = "version";
pub(crate) const STORE_IN_USE: &str = "in_use_bytes";
pub(crate) const STORE_TOTAL: &str = "total_bytes";
/// The format this release writes, and the only one it opens.
pub const VERSION: u64 = 1;
