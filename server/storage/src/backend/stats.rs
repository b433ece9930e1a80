//! Sizes, counted row by row in the transaction that changes them.
//!
//! A row counts what it takes in a page: its bytes and its offsets, in a page of its own (powers of two) when it does not fit one with
//! others. `total` is the most that was in use since the file was built: freed pages stay in the file until a defragmentation.

use std::sync::atomic::Ordering;

use super::Backend;

/// redb's page.
const PAGE_BYTES: u64 = 4096;
/// Two offsets of a row in its page.
const ROW_OVERHEAD_BYTES: u64 = 8;
/// Header and roots, before the first row.
const EMPTY_BYTES: u64 = 16 * PAGE_BYTES;

/// What clients see as the database's size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeStats {
    /// With what was freed and is kept for reuse.
    pub total_bytes: u64,
    /// What the live rows take.
    pub in_use_bytes: u64,
}

/// The counters as stored: bytes of rows, without what an empty file takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub in_use: u64,
    pub total: u64,
}

impl Sizes {
    pub(crate) fn add(&mut self, row: u64) {
        self.in_use = self.in_use.saturating_add(row);
        self.total = self.total.max(self.in_use);
    }

    pub(crate) fn subtract(&mut self, row: u64) {
        self.in_use = self.in_use.saturating_sub(row);
    }

    pub(crate) fn total_bytes(self) -> u64 {
        EMPTY_BYTES + self.total
    }

    pub(crate) fn in_use_bytes(self) -> u64 {
        EMPTY_BYTES + self.in_use
    }
}

/// What a row takes in the file.
pub(crate) fn row_bytes(key: &[u8], value_len: usize) -> u64 {
    let bytes = (key.len() + value_len) as u64 + ROW_OVERHEAD_BYTES;
    if bytes < PAGE_BYTES { bytes } else { bytes.next_power_of_two() }
}

pub(crate) fn publish(backend: &Backend, sizes: Sizes) {
    backend.total_bytes.store(sizes.total_bytes(), Ordering::Relaxed);
    backend.in_use_bytes.store(sizes.in_use_bytes(), Ordering::Relaxed);
}

pub(crate) fn size(backend: &Backend) -> SizeStats {
    let in_use_bytes = backend.in_use_bytes.load(Ordering::Relaxed);
    // Two loads are not one moment; the relation holds at every one of them.
    let total_bytes = backend.total_bytes.load(Ordering::Relaxed).max(in_use_bytes);
    SizeStats { total_bytes, in_use_bytes }
}
