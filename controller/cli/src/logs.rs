//! A container's log as one stream, whatever happens to the member that serves it.
//!
//! A stream that is opened again begins where the last whole chunk began, cut into other chunks
//! than before: as many bytes as were handed out from there are left out of it.

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
    /// Where the log stands after the last chunk.
    end: u64,
    /// Bytes handed out since `request.from`, both sources together.
    given: u64,
    /// Bytes of the present stream that were handed out before it.
    skip: u64,
    /// Since when nothing but broken streams was seen.
    broken_since: Option<Instant>,
}

impl Logs {
    /// Of this container; with `follow` until it ends.
    pub fn new(container: impl Into<String>, follow: bool) -> Self {
        Self::of(LogsRequest {
            container: container.into(),
            follow,
            ..LogsRequest::default()
        })
    }

    /// What of it, and how.
    pub fn of(request: LogsRequest) -> Self {
        Self {
            end: request.from,
            request,
            stream: None,
            given: 0,
            skip: 0,
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
                self.skip = self.given;
                self.given = 0;
                self.end = self.request.from;
            }
            let Some(stream) = &mut self.stream else {
                continue;
            };
            match stream.message().await {
                Ok(Some(chunk)) => {
                    self.broken_since = None;
                    self.note(&chunk);
                    let whole = chunk.data.len() as u64;
                    let chunk = without(&mut self.skip, chunk);
                    self.given += whole;
                    if let Some(chunk) = chunk {
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

impl Logs {
    /// Where to go on, should the stream break off now.
    fn note(&mut self, chunk: &LogChunk) {
        // It begins later than was asked for: what came before is dropped.
        if chunk.data.is_empty() && chunk.offset > self.request.from {
            self.skip = 0;
        }
        if chunk.offset > self.end || chunk.data.is_empty() {
            // The parts of a long line have one place: it is behind us when another comes.
            self.request.from = match chunk.data.is_empty() {
                true => chunk.offset,
                false => self.end,
            };
            self.end = chunk.offset;
            self.given = 0;
        }
        self.request.tail = None;
    }
}

/// The chunk without its first `skip` bytes, which are then accounted for; None: it has no more.
fn without(skip: &mut u64, mut chunk: LogChunk) -> Option<LogChunk> {
    let cut = usize::try_from(*skip).map_or(chunk.data.len(), |skip| skip.min(chunk.data.len()));
    *skip -= cut as u64;
    chunk.data = chunk.data.split_off(cut);
    (!chunk.data.is_empty()).then_some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_left_out_however_it_is_cut() {
        let chunk = |text: &str| LogChunk {
            data: text.as_bytes().to_vec().into(),
            ..LogChunk::default()
        };
        let mut skip = 6;
        assert_eq!(without(&mut skip, chunk("one\n")), None);
        assert_eq!(without(&mut skip, chunk("two\n")), Some(chunk("o\n")));
        assert_eq!(without(&mut skip, chunk("three\n")), Some(chunk("three\n")));
        assert_eq!(skip, 0);
    }
}
