//! Applies puts as fast as one core can: `time cargo run --release --example puts -- <puts> <keys> <value bytes>`.
//! Checkpoints go nowhere but leave the overlay, as on a member whose disk keeps up.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use garboard_mvcc::{Backend, BackendError, Position, Store, StoreOptions, Table};
use garboard_proto::etcdserverpb::PutRequest;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;

struct Nowhere;

impl Backend for Nowhere {
    fn get_many(&self, _: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, BackendError> {
        Ok(vec![None; keys.len()])
    }

    fn scan(
        &self,
        _: Table,
        _: &[u8],
        _: Option<&[u8]>,
        _: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        Ok(())
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [puts, keys, value_bytes] = numbers[..] else { return eprintln!("puts, keys, value bytes") };
    let (store, mut applier) = Store::open(Arc::new(Nowhere), StoreOptions::default()).expect("nothing to read");
    let value = Bytes::from(vec![b'v'; value_bytes]);
    for put in 0..puts {
        // Keys as Kubernetes names its objects, in no order.
        let number = put.wrapping_mul(0x9e37_79b1) % keys;
        let key = Bytes::from(format!("/registry/pods/namespace-{:03}/pod-{number:016x}", number % 300));
        let request = PutRequest { key, value: value.clone(), ..PutRequest::default() };
        applier.apply(Command { op: Some(Op::Put(request)) }).expect("a put");
        if put % 64 == 0 {
            applier.finish_entry(Position { term: 1, index: put as u64 + 1 }, None);
        }
        if put % 20_000 == 0
            && let Some(checkpoint) = store.take_checkpoint()
        {
            store.checkpoint_written(checkpoint);
        }
    }
    println!("{:?}", store.counters());
}
