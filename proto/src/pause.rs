//! For tests of faults: a daemon waits where a test wants it to, so that what breaks then breaks
//! at that point and no other.
//!
//! With `GODWIT_PAUSES=DIR` in its environment a daemon that comes to a point looks for a file of
//! that name in DIR. If there is one it becomes `NAME.reached`, and the daemon waits until that is
//! removed. Each file holds up one visit. Without the variable nothing is looked for.

use std::{path::PathBuf, time::Duration};

/// Where to look.
pub const VARIABLE: &str = "GODWIT_PAUSES";

/// Comes to a point.
pub async fn at(point: &str) {
    let Some(directory) = std::env::var_os(VARIABLE) else {
        return;
    };
    let asked = PathBuf::from(directory).join(point);
    let reached = asked.with_extension("reached");
    if tokio::fs::rename(&asked, &reached).await.is_err() {
        return;
    }
    tracing::warn!(point, "held up by a test");
    while tokio::fs::try_exists(&reached).await.unwrap_or(false) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
