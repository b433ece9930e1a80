//! Writes another text over one in the revisions of a member that does not run, as a fault of the machine would that no checksum of a page
//! notices: for tests of what compares members.
//!
//! `alter <member/db> <old text> <new text of the same length>`
#![forbid(unsafe_code)]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use garboard_storage::Backend;
use garboard_storage::RealDisk;
use garboard_storage::backend::BackendError;
use garboard_storage::backend::BackendOptions;
use garboard_storage::backend::Table;
use garboard_storage::backend::WriteBatch;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, old, new] = &args[..] else {
        eprintln!("usage: alter <member/db> <old text> <new text of the same length>");
        return ExitCode::from(2);
    };
    if old.len() != new.len() || old.is_empty() {
        eprintln!("alter: {old:?} and {new:?} are not of one length");
        return ExitCode::from(2);
    }
    match alter(Path::new(path), old.as_bytes(), new.as_bytes()) {
        Ok(0) => {
            eprintln!("alter: no row of {path} has {old:?}");
            ExitCode::FAILURE
        }
        Ok(rows) => {
            println!("{rows} rows altered");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("alter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn alter(path: &Path, old: &[u8], new: &[u8]) -> Result<usize, BackendError> {
    let backend = Backend::open(Arc::new(RealDisk), path, BackendOptions::default())?;
    let mut batch = WriteBatch::default();
    backend.scan(Table::Revisions, &[], None, &mut |key, value| {
        if let Some(at) = value.windows(old.len()).position(|window| window == old) {
            let mut value = value.to_vec();
            value[at..at + new.len()].copy_from_slice(new);
            batch.put(Table::Revisions, Bytes::copy_from_slice(key), value);
        }
        ControlFlow::Continue(())
    })?;
    let rows = batch.ops.len();
    backend.commit_durable(&batch)?;
    Ok(rows)
}
