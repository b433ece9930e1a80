//! Generates the wire types from our own .proto files, without protoc.

use std::error::Error;
use std::path::Path;

use prost::Message as _;

const PROTOS: &[&str] = &["kv.proto", "auth.proto", "rpc.proto", "raft.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    debug_assert!(descriptors.encoded_len() > 0);
    let client = std::env::var_os("CARGO_FEATURE_CLIENT").is_some();
    tonic_prost_build::configure().bytes(".").build_client(client).build_transport(false).compile_fds(descriptors)?;
    // Apart, since clients are generated for these alone.
    let peers = protox::compile(["peers.proto"], ["proto"])?;
    let out = Path::new(&std::env::var("OUT_DIR")?).join("peers");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(out)
        .build_transport(false)
        .extern_path(".garboardraft", "crate::raft")
        .extern_path(".etcdserverpb", "crate::etcdserverpb")
        .compile_fds(peers)?;
    Ok(())
}
