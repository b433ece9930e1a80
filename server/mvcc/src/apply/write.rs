//! The changes of one command: all have the next main revision, none is visible before `publish`.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use garboard_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse};

use crate::counters::add;
use crate::error::Error;
use crate::index::{KeyRange, KeyVersion};
use crate::overlay::OverlayRow;
use crate::range::header;
use crate::revision::Revision;
use crate::row::{self, RowView};
use crate::store::{Store, View};
use crate::watch::{Event, PrevKv};

/// Keys deleted under one hold of the locks.
const DELETES_PER_STEP: usize = 1000;

pub(crate) struct Write<'a> {
    store: &'a Store,
    begin: i64,
    events: Vec<Event>,
}

impl<'a> Write<'a> {
    pub fn new(store: &'a Store) -> Write<'a> {
        Write { store, begin: store.revision(), events: Vec::new() }
    }

    pub fn has_changes(&self) -> bool {
        !self.events.is_empty()
    }

    /// The revision that a reader within the command sees.
    pub fn current(&self) -> i64 {
        self.begin + i64::from(self.has_changes())
    }

    pub fn view(&self) -> View<'a> {
        self.store.view_at(self.current())
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.begin + 1, sub: self.events.len() as i64 }
    }

    /// Puts a key; the request was checked.
    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        let (store, revision) = (self.store, self.next_revision());
        let (now, before) = store.index.write().keys.put(&request.key, revision);
        let watched = store.hub.wants_prev_kv(&request.key);
        let wants_previous = request.prev_kv || request.ignore_value || request.ignore_lease || watched;
        let previous = match before {
            Some(before) if wants_previous => store.rows(&[before.revision])?.pop(),
            _ => None,
        };
        // Without a previous row (deleted earlier in the same transaction) what is ignored is empty.
        let taken = previous.as_ref().map(|row| RowView::parse(row)).transpose()?.unwrap_or_default();
        let row = RowView {
            key: &request.key,
            create_revision: now.created,
            mod_revision: revision.main,
            version: now.version,
            value: if request.ignore_value { taken.value } else { &request.value },
            lease: if request.ignore_lease { taken.lease } else { request.lease },
        };
        if row.lease != 0 || before.is_some() {
            store.leases.write().attach(&request.key, row.lease);
        }
        let row = row.encode();
        store.append([(revision, false, row.clone(), before)]);
        add(&store.tally.puts, 1);
        let known = before.map_or(PrevKv::Absent, |before| self.prev_kv(before, previous.as_ref()));
        let key = row::key_slice(&row, request.key.len());
        self.events.push(Event::put(key, revision.main, revision.sub, row, now.version == 1, known));
        let prev_kv = match previous {
            Some(row) if request.prev_kv => Some(row::key_value(&row)?),
            _ => None,
        };
        Ok(PutResponse { header: header(revision.main), prev_kv })
    }

    /// Deletes the keys of a range that exist, in key order.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let at = self.current();
        let mut response = DeleteRangeResponse::default();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let mut found: Vec<(Box<[u8]>, KeyVersion)> = Vec::new();
            let next = self.store.index.read().keys.visit(
                range,
                after.as_deref(),
                at,
                DELETES_PER_STEP,
                &mut |key, version| {
                    found.push((key.into(), version));
                    ControlFlow::Continue(())
                },
            );
            response.deleted += found.len() as i64;
            let previous = self.delete(&found, request.prev_kv)?;
            for row in previous {
                response.prev_kvs.push(row::key_value(&row)?);
            }
            match next {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        response.header = header(self.current());
        Ok(response)
    }

    /// Deletes one key if it exists.
    pub fn delete_key(&mut self, key: &[u8]) -> Result<(), Error> {
        let Some(version) = self.store.index.read().keys.get(key, self.current()) else { return Ok(()) };
        self.delete(&[(key.into(), version)], false).map(drop)
    }

    /// Deletes keys that exist; returns their rows if `wants_previous`.
    fn delete(&mut self, keys: &[(Box<[u8]>, KeyVersion)], wants_previous: bool) -> Result<Vec<Bytes>, Error> {
        let store = self.store;
        let watched = keys.iter().any(|(key, _)| store.hub.wants_prev_kv(key));
        let previous = if wants_previous || watched {
            let revisions: Vec<Revision> = keys.iter().map(|(_, version)| version.revision).collect();
            store.rows(&revisions)?
        } else {
            Vec::new()
        };
        let first = self.next_revision();
        let mut rows = Vec::with_capacity(keys.len());
        {
            let mut index = store.index.write();
            for (offset, (key, _)) in keys.iter().enumerate() {
                let revision = Revision { main: first.main, sub: first.sub + offset as i64 };
                let before = index.keys.tombstone(key, revision);
                assert!(before.is_some(), "a key that was just seen exists");
                rows.push((revision, true, RowView { key, ..RowView::default() }.encode(), before));
            }
        }
        {
            let mut leases = store.leases.write();
            for (key, _) in keys {
                leases.attach(key, 0);
            }
        }
        for (offset, (revision, _, row, _)) in rows.iter().enumerate() {
            let (key, before) = &keys[offset];
            let known = self.prev_kv(*before, previous.get(offset));
            let key = row::key_slice(row, key.len());
            self.events.push(Event::delete(key, revision.main, revision.sub, known));
        }
        store.append(rows);
        add(&store.tally.deletes, keys.len());
        Ok(if wants_previous { previous } else { Vec::new() })
    }

    /// What an event tells of the value before it: that of the revision before, not of an earlier change in the same transaction.
    fn prev_kv(&self, before: KeyVersion, row: Option<&Bytes>) -> PrevKv {
        match row {
            Some(row) if before.revision.main <= self.begin => PrevKv::Known(row.clone()),
            _ => PrevKv::Unknown,
        }
    }

    /// Makes the changes visible, to readers first, then to watchers.
    pub fn publish(self) {
        if !self.has_changes() {
            return;
        }
        let revision = self.begin + 1;
        self.store.revision.store(revision, Ordering::Release);
        add(&self.store.tally.events, self.events.len());
        self.store.hub.publish(revision, self.events);
    }
}

impl Store {
    /// Takes new rows, each with what its key was before.
    fn append(&self, rows: impl IntoIterator<Item = (Revision, bool, Bytes, Option<KeyVersion>)>) {
        let mut cost = 0;
        let mut overlay = self.overlay.write();
        for (revision, tombstone, row, before) in rows {
            let row = OverlayRow { revision, tombstone, superseded: false, row };
            cost += row.cost();
            overlay.push(row);
            if let Some(before) = before
                && !overlay.supersede(before.revision)
            {
                self.cache.remove(before.revision);
            }
        }
        drop(overlay);
        self.pending_bytes.fetch_add(cost, Ordering::Relaxed);
    }
}
