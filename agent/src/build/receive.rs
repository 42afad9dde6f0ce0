//! A request and what follows it as one stream: a document, then a tar in chunks.

use godwit_proto::{control::AuthorChunk, document};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::loading::{self, Archive, Piece};

/// The request in the first chunk, and the tar that comes. It breaks off when the stream does.
pub async fn open<T: DeserializeOwned>(
    mut chunks: Streaming<AuthorChunk>,
) -> Result<(T, Archive), Status> {
    let first = chunks
        .message()
        .await?
        .ok_or_else(|| Status::invalid_argument("the request is empty"))?;
    let request = document::read_field(first.request.clone())?;
    let (sender, archive) = loading::archive();
    tokio::spawn(feed(first, chunks, sender));
    Ok((request, archive))
}

async fn feed(first: AuthorChunk, mut chunks: Streaming<AuthorChunk>, sender: mpsc::Sender<Piece>) {
    let mut next = Some(first);
    while let Some(chunk) = next {
        if !chunk.data.is_empty() && sender.send(Piece::Data(chunk.data)).await.is_err() {
            return;
        }
        if chunk.end {
            let _ = sender.send(Piece::End).await;
            return;
        }
        // An error ends it without its end being said.
        next = chunks.message().await.ok().flatten();
    }
}
