//! The health and metrics of a daemon over plain HTTP, for probes and for Prometheus: `/healthz`
//! (it runs), `/readyz` (it can work: 503 with the reason while it can't) and `/metrics`. Nothing in
//! it is secret, and nothing can be asked for; it listens only where an operator says so.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use tokio::net::TcpListener;

/// What a daemon says of itself.
pub trait Source: Send + Sync + 'static {
    /// Why it can't work now.
    fn ready(&self) -> Result<(), String>;
    /// In the text format of OpenMetrics.
    fn metrics(&self) -> String;
}

pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// For ever.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) -> io::Result<()> {
    let ready = source.clone();
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match ready.ready() {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(CONTENT_TYPE, kind)], source.metrics())
            }),
        );
    axum::serve(listener, routes).await
}
