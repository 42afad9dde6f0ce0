//! `cargo xtask demo`.

/// Not built yet.
pub fn run(_args: Vec<String>) -> anyhow::Result<()> {
    anyhow::bail!("`demo` is not built yet")
}
