//! An image archive on its way to the cluster, chunk by chunk.

use std::{cell::RefCell, io};

use godwit_proto::{
    control::{LoadImageChunk, LoadImageReply},
    limits,
};
use godwit_types::ImageSummary;
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("can't read the archive")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What one host made of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostLoad {
    pub host: String,
    /// Why it failed there.
    pub error: Option<String>,
    pub images: Vec<ImageSummary>,
}

/// Sends the archive to these hosts, or to every host that is up when none is named. `sent` is
/// told the bytes so far.
pub async fn load(
    cluster: &mut Cluster,
    archive: impl AsyncRead + Unpin,
    hosts: Vec<String>,
    sent: impl FnMut(u64),
) -> Result<Vec<HostLoad>, LoadError> {
    let (sender, receiver) = mpsc::channel(4);
    let stream = RefCell::new(Some(ReceiverStream::new(receiver)));
    let reply = {
        let call = cluster.order(async |mut control: Control| {
            // It can be read once only; `order` has found a member that answers.
            let stream = stream.borrow_mut().take();
            let stream = stream.ok_or_else(|| Status::internal("the archive is half read"))?;
            control.load_image(stream).await
        });
        let feed = feed(archive, hosts, sender, sent);
        tokio::pin!(call, feed);
        tokio::select! {
            // The cluster may refuse before it has read everything: nobody reads the rest then.
            reply = &mut call => reply?,
            fed = &mut feed => {
                // An error drops the call and so breaks the stream off: an archive that could
                // not be read to its end must not look whole.
                fed.map_err(LoadError::Read)?;
                call.await?
            }
        }
    };
    Ok(read(cluster, reply)?)
}

async fn feed(
    mut archive: impl AsyncRead + Unpin,
    mut hosts: Vec<String>,
    sender: mpsc::Sender<LoadImageChunk>,
    mut sent: impl FnMut(u64),
) -> io::Result<()> {
    let mut total = 0;
    let mut first = true;
    loop {
        let mut data = Vec::with_capacity(limits::CHUNK);
        while data.len() < limits::CHUNK {
            let room = (limits::CHUNK - data.len()) as u64;
            if (&mut archive).take(room).read_buf(&mut data).await? == 0 {
                break;
            }
        }
        if data.is_empty() && !first {
            return Ok(());
        }
        total += data.len() as u64;
        let chunk = LoadImageChunk {
            hosts: std::mem::take(&mut hosts),
            data: data.into(),
        };
        if sender.send(chunk).await.is_err() {
            return Ok(());
        }
        first = false;
        sent(total);
    }
}

pub(crate) fn read(cluster: &Cluster, reply: LoadImageReply) -> Result<Vec<HostLoad>, ClientError> {
    reply
        .hosts
        .into_iter()
        .map(|host| {
            Ok(HostLoad {
                images: cluster.read_all(&host.images.unwrap_or_default())?,
                error: (!host.error.is_empty()).then_some(host.error),
                host: host.host,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn chunks(archive: &[u8]) -> (Vec<LoadImageChunk>, Vec<u64>) {
        let (sender, mut receiver) = mpsc::channel(4);
        let mut told = Vec::new();
        let mut chunks = Vec::new();
        let feed = feed(archive, vec!["h1".into()], sender, |total| told.push(total));
        let collect = async {
            while let Some(chunk) = receiver.recv().await {
                chunks.push(chunk);
            }
        };
        let (fed, ()) = tokio::join!(feed, collect);
        fed.unwrap();
        (chunks, told)
    }

    #[tokio::test]
    async fn chunks_are_full_and_only_the_first_names_the_hosts() {
        let archive = vec![7; limits::CHUNK * 2 + 5];
        let (chunks, told) = chunks(&archive).await;
        let lengths: Vec<_> = chunks.iter().map(|chunk| chunk.data.len()).collect();
        assert_eq!(lengths, [limits::CHUNK, limits::CHUNK, 5]);
        assert_eq!(chunks[0].hosts, ["h1"]);
        assert!(chunks[1].hosts.is_empty());
        assert_eq!(told.last(), Some(&(archive.len() as u64)));
    }

    #[tokio::test]
    async fn an_empty_archive_still_names_its_hosts() {
        let (chunks, _) = chunks(&[]).await;
        assert_eq!((chunks.len(), chunks[0].data.len()), (1, 0));
    }
}
