//! Blobs between agents: the gRPC service `Images` that this one serves, and its client.
//!
//! Nothing is believed of what comes: a document is taken for what its hash says, a blob is checked
//! by its digest before it counts.

use std::{
    collections::BTreeSet,
    io::{Read as _, Seek as _, SeekFrom},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use godwit_proto::{
    authz, document,
    failure::chain,
    limits,
    tls::{self, Role},
    transfer::{
        BlobData, BlobDigests, BlobRequest, DescribeImageRequest,
        images_client::ImagesClient,
        images_server::{Images as ImagesService, ImagesServer},
    },
    v1::Document,
};
use godwit_runtime::image::{digest, manifest::MAX_MANIFEST};
use godwit_types::{Digest, HostName, ImageParts, ImagePeer};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Channel};

use super::{error::printable, fetch::blocking};
use crate::host::Host;

/// For an answer that is small.
const PATIENCE: Duration = Duration::from_secs(20);
/// Without a chunk.
const STALL: Duration = Duration::from_secs(30);
const AHEAD: usize = 4;
const MAX_DIGESTS: usize = 1024;

/// Another agent.
pub struct Peer {
    pub host: HostName,
    client: ImagesClient<Channel>,
}

impl Peer {
    pub fn new(host: &Host, peer: &ImagePeer) -> Self {
        let target = host.peer(Role::Host, Some(peer.host.as_str()), &peer.address);
        let client = ImagesClient::new(tls::channel(host.tls.clone(), target))
            .max_decoding_message_size(limits::MESSAGE);
        Self {
            host: peer.host.clone(),
            client,
        }
    }

    pub async fn describe(&self, image: &Digest) -> Result<ImageParts, String> {
        let mut client = self.client.clone();
        let request = DescribeImageRequest {
            image: image.to_string(),
        };
        let said = in_time(client.describe(request)).await?;
        document::read(&said).map_err(|error| chain(&error))
    }

    /// Which of these it has.
    pub async fn have(&self, digests: &[Digest]) -> Result<BTreeSet<Digest>, String> {
        let mut client = self.client.clone();
        let request = BlobDigests {
            digests: digests.iter().map(Digest::to_string).collect(),
        };
        let said = in_time(client.have(request)).await?;
        Ok(said.digests.iter().filter_map(|d| d.parse().ok()).collect())
    }

    pub async fn blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, String>>), String> {
        let mut client = self.client.clone();
        let request = BlobRequest {
            digest: digest.to_string(),
            offset,
        };
        let stream = in_time(client.blob(request)).await?;
        let chunks = futures::stream::unfold(Some(stream), async |stream| {
            let mut stream = stream?;
            match timeout(STALL, stream.message()).await {
                Ok(Ok(Some(chunk))) => Some((Ok(chunk.data), Some(stream))),
                Ok(Ok(None)) => None,
                Ok(Err(status)) => Some((Err(text(&status)), None)),
                Err(_) => {
                    let silent = format!("nothing came for {} s", STALL.as_secs());
                    Some((Err(silent), None))
                }
            }
        });
        Ok((offset, chunks.boxed()))
    }

    /// A small blob, checked.
    pub async fn document(&self, wanted: &Digest) -> Result<Bytes, String> {
        let (_, mut chunks) = self.blob(wanted, 0).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > MAX_MANIFEST {
                return Err(format!("it has more than {MAX_MANIFEST} bytes"));
            }
        }
        let found = digest(&bytes);
        if found != *wanted {
            return Err(format!("it has digest `{found}`"));
        }
        Ok(bytes.freeze())
    }
}

async fn in_time<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, String> {
    match timeout(PATIENCE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(text(&status)),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

fn text(status: &Status) -> String {
    printable(status.message())
}

/// What this agent gives to others.
pub struct Service {
    host: Arc<Host>,
}

impl Service {
    pub fn server(host: Arc<Host>) -> ImagesServer<Self> {
        ImagesServer::new(Self { host }).max_decoding_message_size(limits::MESSAGE)
    }
}

fn parsed(text: &str) -> Result<Digest, Status> {
    text.parse()
        .map_err(|error| Status::invalid_argument(chain(&error)))
}

#[tonic::async_trait]
impl ImagesService for Service {
    async fn describe(
        &self,
        request: Request<DescribeImageRequest>,
    ) -> Result<Response<Document>, Status> {
        authz::require(&request, authz::Service::Transfer)?;
        let image = parsed(&request.into_inner().image)?;
        let store = self.host.images.store();
        let parts = blocking(move || store.parts(&image)).await;
        let parts = parts.map_err(|error| Status::failed_precondition(chain(&error)))?;
        Ok(Response::new(document::write(&parts)))
    }

    async fn have(&self, request: Request<BlobDigests>) -> Result<Response<BlobDigests>, Status> {
        authz::require(&request, authz::Service::Transfer)?;
        let mut digests = request.into_inner().digests;
        if digests.len() > MAX_DIGESTS {
            return Err(Status::invalid_argument("too many digests"));
        }
        let store = self.host.images.store();
        digests.retain(|text| parsed(text).is_ok_and(|digest| store.has_blob(&digest)));
        Ok(Response::new(BlobDigests { digests }))
    }

    type BlobStream = Pin<Box<dyn Stream<Item = Result<BlobData, Status>> + Send>>;

    async fn blob(
        &self,
        request: Request<BlobRequest>,
    ) -> Result<Response<Self::BlobStream>, Status> {
        authz::require(&request, authz::Service::Transfer)?;
        let BlobRequest { digest, offset } = request.into_inner();
        let digest = parsed(&digest)?;
        let store = self.host.images.store();
        let opened = blocking(move || store.open_blob(&digest)).await;
        let opened = opened.map_err(|error| Status::internal(chain(&error)))?;
        let (mut file, size) = opened.ok_or_else(|| Status::not_found("no such blob here"))?;
        if offset > size {
            return Err(Status::out_of_range("the blob is shorter"));
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = file.seek(SeekFrom::Start(offset)) {
                let _ = sender.blocking_send(Err(Status::internal(error.to_string())));
                return;
            }
            loop {
                let mut data = Vec::with_capacity(limits::CHUNK);
                let chunk = (&mut file)
                    .take(limits::CHUNK as u64)
                    .read_to_end(&mut data);
                let message = match chunk {
                    Ok(0) => return,
                    Ok(_) => Ok(BlobData { data: data.into() }),
                    Err(error) => Err(Status::internal(error.to_string())),
                };
                if sender.blocking_send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
