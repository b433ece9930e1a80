//! The names that openraft uses of the crate `base2histogram`, for statistics that nobody reads: they count nothing and hold nothing.
//!
//! The real one builds tables of 25 MiB, for each of its sixteen widths, as soon as one histogram is made (`docs/adr/0007`).
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// A histogram without values.
#[derive(Debug)]
pub struct Histogram<T = ()>(PhantomData<fn() -> T>);

// Derived ones would ask the same of T.
impl<T> Clone for Histogram<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PartialEq for Histogram<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Histogram<T> {}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self(PhantomData)
    }

    pub fn record(&mut self, _value: u64) {}

    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// No samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not recorded]")
    }
}

/// Draws nothing.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart;

impl AsciiChart {
    pub fn new() -> Self {
        Self
    }

    pub fn add<T>(self, _name: impl ToString, _histogram: Histogram<T>) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
