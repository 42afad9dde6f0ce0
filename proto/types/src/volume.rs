//! Volumes as people read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ContainerName, HostName, VolumeId, VolumeName};

/// Data that outlives its containers. On one host at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    pub name: VolumeName,
    /// What its directory on its host is called.
    pub id: VolumeId,
    /// None: nobody has used it yet, and its first container decides.
    pub host: Option<HostName>,
    pub labels: BTreeMap<String, String>,
    /// Nobody named it.
    pub anonymous: bool,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The containers that use it, whether they run or not.
    pub containers: Vec<ContainerName>,
    /// Its data is being removed.
    pub removing: bool,
}
