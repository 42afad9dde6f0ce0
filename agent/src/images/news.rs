//! What is said about an order while it is done. Whoever listens may be slow or gone: then the
//! work goes on as long as its task does, and says less.

use godwit_types::{BlobPart, HostName, ImageNews, LayerStep};
use tokio::sync::mpsc;

/// Says things about one order.
#[derive(Clone)]
pub struct Teller(Option<mpsc::Sender<ImageNews>>);

impl Teller {
    pub fn new(sender: mpsc::Sender<ImageNews>) -> Self {
        Self(Some(sender))
    }

    /// Nobody listens.
    pub fn silent() -> Self {
        Self(None)
    }

    pub async fn say(&self, news: ImageNews) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(news).await;
        }
    }

    pub async fn layer(&self, part: &BlobPart, step: LayerStep, done: u64, from: Option<HostName>) {
        self.say(layer(part, step, done, from)).await;
    }

    /// May get lost.
    pub fn progress(&self, part: &BlobPart, step: LayerStep, done: u64, from: Option<HostName>) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(layer(part, step, done, from));
        }
    }
}

fn layer(part: &BlobPart, step: LayerStep, done: u64, from: Option<HostName>) -> ImageNews {
    ImageNews::Layer {
        layer: part.digest.short().to_owned(),
        step,
        done,
        total: part.size,
        from,
    }
}
