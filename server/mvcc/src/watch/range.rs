//! The keys and kinds of events a watcher asked for.

use bytes::Bytes;
use garboard_proto::etcdserverpb::WatchCreateRequest;
use garboard_proto::etcdserverpb::watch_create_request::FilterType;

use super::event::EventKind;

/// Where a range ends, exclusively. `At` sorts before `Unbounded`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum RangeEnd {
    At(Bytes),
    Unbounded,
}

impl RangeEnd {
    pub(super) fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::At(end) => key < end.as_ref(),
            Self::Unbounded => true,
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum KeyRange {
    Key(Bytes),
    Range(Bytes, RangeEnd),
}

impl KeyRange {
    /// etcd's reading: an empty key is the smallest one, range_end "\0" means no end. `None` if the range is empty.
    pub(super) fn of(request: &WatchCreateRequest) -> Option<Self> {
        // Copied: a slice of the request would keep the whole receive buffer alive.
        let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { Bytes::copy_from_slice(&request.key) };
        match request.range_end.as_ref() {
            b"" => Some(Self::Key(key)),
            b"\0" => Some(Self::Range(key, RangeEnd::Unbounded)),
            end if key.as_ref() >= end => None,
            end => Some(Self::Range(key, RangeEnd::At(Bytes::copy_from_slice(end)))),
        }
    }
}

/// Which kinds of events pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    puts: bool,
    deletes: bool,
}

impl Filter {
    pub(super) fn of(request: &WatchCreateRequest) -> Self {
        let refuses = |kind: FilterType| request.filters.contains(&(kind as i32));
        Self { puts: !refuses(FilterType::Noput), deletes: !refuses(FilterType::Nodelete) }
    }

    pub(super) fn passes(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }
}
