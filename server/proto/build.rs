//! Generates the wire types from our own .proto files, without protoc.

use std::error::Error;

use prost::Message as _;

const PROTOS: &[&str] = &["kv.proto", "auth.proto", "rpc.proto", "raft.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    debug_assert!(descriptors.encoded_len() > 0);
    tonic_prost_build::configure().bytes(".").build_client(false).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
