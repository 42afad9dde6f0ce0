//! The agent's side of the shim's socket.

use std::{io, path::PathBuf, time::Duration};

use godwit_types::FreezeStep;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::protocol::{LINE, Reply, Request, State};
use crate::exec::Talk;

/// How long a shim may take to answer what it can answer at once.
const PROMPT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Nobody listens: the shim has ended.
    #[error("shim at `{path}` is gone")]
    Gone {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("shim at `{0}` broke off")]
    BrokeOff(PathBuf),
    #[error("shim at `{0}` does not answer")]
    Silent(PathBuf),
    #[error("shim's answer can't be read")]
    Answer(#[source] serde_json::Error),
    #[error("{0}")]
    Failed(String),
}

/// Where one shim listens. A connection is made for each request.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub async fn state(&self) -> Result<State, ShimError> {
        let asked = timeout(PROMPT, self.call(&Request::State)).await;
        match asked.map_err(|_| ShimError::Silent(self.path.clone()))?? {
            Reply::State { state } => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for another state than `known`. Safe to drop.
    pub async fn watch(&self, known: State) -> Result<State, ShimError> {
        match self.call(&Request::Watch { known }).await? {
            Reply::State { state } => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Anything that is done or fails. Takes as long as it takes.
    pub async fn ask(&self, request: Request) -> Result<Vec<FreezeStep>, ShimError> {
        match self.call(&request).await? {
            Reply::Done { steps } => Ok(steps),
            other => Err(unexpected(&other)),
        }
    }

    /// The container's standard input.
    pub async fn attach(&self) -> Result<Talk, ShimError> {
        let (stream, answer) = timeout(PROMPT, self.begin(&Request::Attach))
            .await
            .map_err(|_| ShimError::Silent(self.path.clone()))??;
        match answer {
            Reply::Done { .. } => Ok(Talk::new(stream)),
            other => Err(unexpected(&other)),
        }
    }

    async fn call(&self, request: &Request) -> Result<Reply, ShimError> {
        self.begin(request).await.map(|(_, reply)| reply)
    }

    async fn begin(&self, request: &Request) -> Result<(UnixStream, Reply), ShimError> {
        let mut stream =
            UnixStream::connect(&self.path)
                .await
                .map_err(|source| ShimError::Gone {
                    path: self.path.clone(),
                    source,
                })?;
        let broke_off = |_| ShimError::BrokeOff(self.path.clone());
        let mut line = serde_json::to_vec(request).map_err(ShimError::Answer)?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(broke_off)?;
        let mut answer = String::new();
        // The line is all that comes before we say something again.
        BufReader::new((&mut stream).take(LINE as u64))
            .read_line(&mut answer)
            .await
            .map_err(broke_off)?;
        if answer.is_empty() {
            return Err(ShimError::BrokeOff(self.path.clone()));
        }
        match serde_json::from_str(&answer).map_err(ShimError::Answer)? {
            Reply::Failed { message } => Err(ShimError::Failed(message)),
            reply => Ok((stream, reply)),
        }
    }
}

fn unexpected(reply: &Reply) -> ShimError {
    ShimError::Failed(format!("unexpected answer {reply:?}"))
}
