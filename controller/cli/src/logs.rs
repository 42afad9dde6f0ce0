//! A container's log as one stream, whatever happens to the member that serves it.

use std::time::Instant;

use godwit_proto::control::{LogChunk, LogsRequest};
use tokio::time::sleep;
use tonic::Streaming;

use crate::{
    client::{Cluster, Control, PATIENCE, PAUSE},
    error::ClientError,
};

/// A log that is being read.
pub struct Logs {
    request: LogsRequest,
    stream: Option<Streaming<LogChunk>>,
    /// Where the log stood after the last chunk that was handed out.
    at: Option<u64>,
    /// Since when nothing but broken streams was seen.
    broken_since: Option<Instant>,
}

impl Logs {
    /// Of this container; with `follow` until it ends.
    pub fn new(container: impl Into<String>, follow: bool) -> Self {
        Self {
            request: LogsRequest {
                container: container.into(),
                follow,
            },
            stream: None,
            at: None,
            broken_since: None,
        }
    }

    /// The next piece; None: the log is at its end. After the end it may be called again, to
    /// hear of what was written since.
    pub async fn next(&mut self, cluster: &mut Cluster) -> Result<Option<LogChunk>, ClientError> {
        loop {
            if self.stream.is_none() {
                let request = &self.request;
                let logs = async |mut control: Control| control.logs(request.clone()).await;
                self.stream = Some(cluster.ask(logs).await?);
            }
            let Some(stream) = &mut self.stream else {
                continue;
            };
            match stream.message().await {
                Ok(Some(chunk)) => {
                    self.broken_since = None;
                    // A stream that was opened again begins at the log's beginning.
                    if is_new(self.at, chunk.offset) {
                        self.at = Some(chunk.offset);
                        return Ok(Some(chunk));
                    }
                }
                Ok(None) => {
                    self.stream = None;
                    return Ok(None);
                }
                Err(status) => {
                    self.stream = None;
                    let error = cluster.stream_failed(status);
                    let since = *self.broken_since.get_or_insert_with(Instant::now);
                    if !error.may_pass() || since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether a chunk that ends here was not handed out yet.
fn is_new(at: Option<u64>, offset: u64) -> bool {
    at.is_none_or(|at| offset > at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        assert!(is_new(None, 0));
        assert!(!is_new(Some(10), 10));
        assert!(!is_new(Some(10), 4));
        assert!(is_new(Some(10), 11));
    }
}
