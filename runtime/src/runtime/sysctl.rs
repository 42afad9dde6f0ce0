//! Kernel parameters of a container's network namespace: set on each host that it comes to. Those of
//! its other namespaces are set at its creation, and move with its checkpoint.

use std::{collections::BTreeMap, fs, path::Path};

use godwit_types::is_net_sysctl;

use super::{Result, RuntimeError};
use crate::network;

/// Their names were checked when the container was asked for: parts of letters, digits, `_` and `-`.
pub(super) fn set(netns: &Path, sysctls: &BTreeMap<String, String>) -> Result<()> {
    let of_net: Vec<_> = sysctls
        .iter()
        .filter(|(name, _)| is_net_sysctl(name))
        .collect();
    if of_net.is_empty() {
        return Ok(());
    }
    let failed = network::inside(netns, || {
        for (name, value) in &of_net {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            if let Err(source) = fs::write(path, value.as_bytes()) {
                return Ok(Some(((*name).clone(), source)));
            }
        }
        Ok(None)
    })?;
    match failed {
        Some((name, source)) => Err(RuntimeError::Sysctl { name, source }),
        None => Ok(()),
    }
}
