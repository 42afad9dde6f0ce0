//! `godwit logout`.

use godwit_cli::registries::Registries;

use crate::{options::Global, output};

/// Forget the credentials for a registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HOST[:PORT] [default: the hosts' default registry]
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

pub fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut registries = Registries::open(&global.config_dir()?)?;
    let registry = args.registry.as_deref().unwrap_or_default();
    let named = if registry.is_empty() {
        "the default registry"
    } else {
        registry
    };
    if registries.forget(registry)? {
        output::line(format_args!("Removing login credentials for {named}"))?;
    } else {
        output::line(format_args!("Not logged in to {named}"))?;
    }
    Ok(0)
}
