//! Compiles the `.proto` files without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    let files = ["document", "control", "agent", "transfer", "raft"]
        .map(|name| root.join(format!("godwit/{name}.proto")));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(&files, [root])?;
    tonic_prost_build::configure()
        .bytes(".godwit")
        .compile_fds(descriptors)?;
    Ok(())
}
