//! For tests alone: a moment that is too short to be met becomes long enough to have things go
//! wrong in it. Nothing else sets it.

use std::time::Duration;

/// Milliseconds between the command to resume and its execution.
const RESUME: &str = "GODWIT_TEST_RESUME_DELAY_MS";

pub async fn before_resume() {
    let millis = std::env::var(RESUME)
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(millis) = millis {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}
