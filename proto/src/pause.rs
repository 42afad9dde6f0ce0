//! For tests of faults: a daemon waits where a test wants it to, so that what breaks then breaks
//! at that point and no other.
//!
//! With `GODWIT_PAUSES=DIR` in its environment a daemon that comes to a point looks for a file of
//! that name in DIR. If there is one it becomes `NAME.reached`, and the daemon waits until that is
//! removed. Each file holds up one visit. Without the variable nothing is looked for.
//!
//! A file may also ask a daemon to be disorderly in some way, as long as it is there.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Where to look.
pub const VARIABLE: &str = "GODWIT_PAUSES";

/// None: nobody tests anything here.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// Whether a test wants this; says that it is seen to.
pub fn wanted(directory: &Path, what: &str) -> bool {
    let asked = directory.join(what);
    let reached = asked.with_extension("reached");
    std::fs::rename(&asked, &reached).is_ok() || reached.exists()
}

/// Comes to a point.
pub async fn at(point: &str) {
    let Some(directory) = directory() else {
        return;
    };
    let asked = directory.join(point);
    let reached = asked.with_extension("reached");
    if tokio::fs::rename(&asked, &reached).await.is_err() {
        return;
    }
    tracing::warn!(point, "held up by a test");
    while tokio::fs::try_exists(&reached).await.unwrap_or(false) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
