//! Orders about images, and what the hosts say to them.

use godwit_proto::{
    control::{ImageWorkRequest, SaveImagesRequest},
    document,
    v1::Document,
};
use godwit_types::{HostImageNews, ImageNews, ImageOrder};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::Streaming;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

/// Who is to do something.
#[derive(Debug, Clone, Default)]
pub struct Where {
    /// Empty: as the order is.
    pub hosts: Vec<String>,
    pub all_hosts: bool,
}

/// What was said last by each host that was asked.
pub type Results = Vec<HostImageNews>;

/// Gives an order, passes on what is said meanwhile, and answers each host's result.
pub async fn order<E: From<ClientError>>(
    cluster: &mut Cluster,
    place: Where,
    order: &ImageOrder,
    mut said: impl FnMut(&HostImageNews) -> Result<(), E>,
) -> Result<Results, E> {
    let request = ImageWorkRequest {
        hosts: place.hosts,
        all_hosts: place.all_hosts,
        order: Some(document::write(order)),
    };
    let call = async |mut control: Control| control.image_work(request.clone()).await;
    let mut stream: Streaming<Document> = cluster.order(call).await?;
    let mut results = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(document)) => {
                let news: HostImageNews = cluster.read(&document)?;
                said(&news)?;
                if news.news.is_result() {
                    results.push(news);
                }
            }
            Ok(None) => return Ok(results),
            Err(status) => return Err(cluster.stream_failed(status).into()),
        }
    }
}

/// The first failure among results.
pub fn failure(results: &[HostImageNews]) -> Option<&godwit_types::CommandFailure> {
    results.iter().find_map(|news| match &news.news {
        ImageNews::Failed { failure } => Some(failure),
        _ => None,
    })
}

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("can't write the archive")]
    Write(#[source] std::io::Error),
}

/// Writes images as one archive. Answers its bytes.
pub async fn save(
    cluster: &mut Cluster,
    images: Vec<String>,
    host: String,
    mut out: impl AsyncWrite + Unpin,
) -> Result<u64, SaveError> {
    let request = SaveImagesRequest { images, host };
    let call = async |mut control: Control| control.save_images(request.clone()).await;
    let mut stream = cluster.ask(call).await?;
    let mut bytes = 0;
    loop {
        match stream.message().await {
            Ok(Some(chunk)) => {
                out.write_all(&chunk.data).await.map_err(SaveError::Write)?;
                bytes += chunk.data.len() as u64;
            }
            Ok(None) => {
                out.flush().await.map_err(SaveError::Write)?;
                return Ok(bytes);
            }
            Err(status) => return Err(cluster.stream_failed(status).into()),
        }
    }
}
