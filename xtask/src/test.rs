//! `cargo xtask test`.

/// Not built yet.
pub fn run(_args: Vec<String>) -> anyhow::Result<()> {
    anyhow::bail!("`test` is not built yet")
}
