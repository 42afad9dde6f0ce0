//! `cargo xtask bench`.

/// Not built yet.
pub fn run(_args: Vec<String>) -> anyhow::Result<()> {
    anyhow::bail!("`bench` is not built yet")
}
