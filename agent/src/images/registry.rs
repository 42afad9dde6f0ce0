//! One registry, by `oci-client`; manifests by a request of our own, since that library reads a
//! document without a limit.

use std::{fs, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use godwit_runtime::image::manifest::{ACCEPTED, MAX_MANIFEST};
use godwit_types::{Digest, RegistryCredentials};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};
use reqwest::{StatusCode, header};

use super::{
    config::ImagesConfig,
    endpoint::{Endpoint, Scheme},
    error::{ImagesError, printable},
};

const CONNECT: Duration = Duration::from_secs(10);
/// For a request whose answer is small.
const SMALL: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("godwit/", env!("CARGO_PKG_VERSION"));

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("it has no such thing")]
    NotFound,
    #[error("it wants credentials: `godwit login` gives them")]
    Unauthorized,
    #[error("it answered {code}: {message}")]
    Answer { code: u16, message: String },
    #[error("no answer in {} s", SMALL.as_secs())]
    Late,
    #[error("its manifest has more than {MAX_MANIFEST} bytes")]
    Length,
    #[error("it gave a manifest with digest `{found}` for `{wanted}`")]
    Digest { wanted: String, found: Digest },
    #[error("its token is not valid")]
    Token,
    #[error("could not be asked: {0}")]
    Request(String),
}

impl RegistryError {
    /// Whether another way to the same registry may do better.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Request(_))
    }
}

impl From<reqwest::Error> for RegistryError {
    fn from(error: reqwest::Error) -> Self {
        // Its text has the URL, which may hold a token of the registry's making.
        Self::Request(printable(&godwit_proto::failure::chain(
            &error.without_url(),
        )))
    }
}

impl From<OciDistributionError> for RegistryError {
    fn from(error: OciDistributionError) -> Self {
        match error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => Self::Unauthorized,
            OciDistributionError::ServerError { code: 401, .. } => Self::Unauthorized,
            OciDistributionError::ServerError { code: 404, .. }
            | OciDistributionError::ImageManifestNotFoundError(_) => Self::NotFound,
            OciDistributionError::ServerError { code, message, .. } => Self::Answer {
                code,
                message: printable(&message).chars().take(300).collect(),
            },
            OciDistributionError::RequestError(error) => error.into(),
            other => Self::Request(printable(&other.to_string()).chars().take(300).collect()),
        }
    }
}

/// A manifest or an index.
#[derive(Debug)]
pub struct Document {
    pub bytes: Bytes,
    pub media_type: Option<String>,
    pub digest: Digest,
}

/// See the module.
pub struct Registry {
    pub name: String,
    repository: String,
    scheme: Scheme,
    client: Client,
    http: reqwest::Client,
    auth: RegistryAuth,
}

impl Registry {
    pub fn open(
        config: &ImagesConfig,
        endpoint: &Endpoint,
        scheme: Scheme,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<Self, ImagesError> {
        let ca = endpoint.ca.as_ref().map(|path| {
            fs::read(path).map_err(|source| ImagesError::Authority {
                path: path.clone(),
                source,
            })
        });
        let ca = ca.transpose()?;
        let failed = |source: RegistryError| ImagesError::Registry {
            registry: endpoint.registry.clone(),
            source,
        };
        let stall = Duration::from_secs(config.stall_timeout);
        let unverified = scheme == Scheme::HttpsUnverified;
        let mut http = reqwest::Client::builder()
            .danger_accept_invalid_certs(unverified)
            .connect_timeout(CONNECT)
            .read_timeout(stall)
            .user_agent(AGENT);
        if let Some(pem) = &ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem);
            http = http.tls_certs_merge(certificates.map_err(|e| failed(e.into()))?);
        }
        let plain = config.http_proxy.as_deref().map(reqwest::Proxy::http);
        let tls = config.https_proxy.as_deref().map(reqwest::Proxy::https);
        for proxy in plain.into_iter().chain(tls) {
            let except = config.no_proxy.as_deref();
            let except = except.and_then(reqwest::NoProxy::from_string);
            http = http.proxy(proxy.map_err(|e| failed(e.into()))?.no_proxy(except));
        }
        let certificates = ca.map(|data| Certificate {
            encoding: CertificateEncoding::Pem,
            data,
        });
        let client = Client::try_from(ClientConfig {
            protocol: match scheme {
                Scheme::Http => ClientProtocol::Http,
                Scheme::Https | Scheme::HttpsUnverified => ClientProtocol::Https,
            },
            accept_invalid_certificates: unverified,
            extra_root_certificates: certificates.into_iter().collect(),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(stall),
            user_agent: AGENT,
            use_monolithic_push: true,
            http_proxy: config.http_proxy.clone(),
            https_proxy: config.https_proxy.clone(),
            no_proxy: config.no_proxy.clone(),
            ..ClientConfig::default()
        });
        let credentials = credentials.filter(|_| !endpoint.mirror);
        Ok(Self {
            name: endpoint.registry.clone(),
            repository: endpoint.repository.clone(),
            scheme,
            client: client.map_err(|error| failed(error.into()))?,
            http: http.build().map_err(|error| failed(error.into()))?,
            auth: match credentials {
                None => RegistryAuth::Anonymous,
                Some(RegistryCredentials { username, password }) => {
                    RegistryAuth::Basic(username.clone(), password.clone())
                }
            },
        })
    }

    fn reference(&self, tag: &str) -> Reference {
        let (registry, repository) = (self.name.clone(), self.repository.clone());
        if tag.starts_with("sha256:") {
            Reference::with_digest(registry, repository, tag.to_owned())
        } else {
            Reference::with_tag(registry, repository, tag.to_owned())
        }
    }

    fn base(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https | Scheme::HttpsUnverified => "https",
        };
        format!("{scheme}://{}/v2/", self.reference("x").resolve_registry())
    }

    /// Gets a token where the registry wants one. `push`: one for writing as well.
    pub async fn authorize(&self, push: bool) -> Result<Option<String>, RegistryError> {
        let operation = if push {
            RegistryOperation::Push
        } else {
            RegistryOperation::Pull
        };
        let reference = self.reference("latest");
        let asked = self.client.auth(&reference, &self.auth, operation);
        let token = tokio::time::timeout(SMALL, asked)
            .await
            .map_err(|_| RegistryError::Late)??;
        // It becomes part of a header.
        match token {
            Some(token) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                Err(RegistryError::Token)
            }
            token => Ok(token),
        }
    }

    fn authorized(
        &self,
        request: reqwest::RequestBuilder,
        token: Option<&str>,
    ) -> reqwest::RequestBuilder {
        match (token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(name, password)) => request.basic_auth(name, Some(password)),
            (None, _) => request,
        }
    }

    /// Whether it takes the credentials.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        let token = self.authorize(false).await?;
        let request = self.authorized(self.http.get(self.base()), token.as_deref());
        let response = request.timeout(SMALL).send().await?;
        self.checked(response).await.map(drop)
    }

    async fn checked(
        &self,
        response: reqwest::Response,
    ) -> Result<reqwest::Response, RegistryError> {
        let status = response.status();
        match status {
            _ if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Unauthorized),
            _ => {
                let body = limited(response, 4096).await.unwrap_or_default();
                Err(RegistryError::Answer {
                    code: status.as_u16(),
                    message: printable(&String::from_utf8_lossy(&body))
                        .chars()
                        .take(300)
                        .collect(),
                })
            }
        }
    }

    /// A manifest or an index by its tag or digest. One by its digest has that digest.
    pub async fn manifest(&self, tag: &str) -> Result<Document, RegistryError> {
        let token = self.authorize(false).await?;
        let url = format!("{}{}/manifests/{tag}", self.base(), self.repository);
        let request = self
            .http
            .get(url)
            .header(header::ACCEPT, ACCEPTED.join(", "));
        let request = self.authorized(request, token.as_deref()).timeout(SMALL);
        let response = self.checked(request.send().await?).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        let media_type = media_type.map(str::to_owned);
        let bytes = limited(response, MAX_MANIFEST).await?;
        let found = digest(&bytes);
        if tag.starts_with("sha256:") && found.as_str() != tag {
            return Err(RegistryError::Digest {
                wanted: tag.to_owned(),
                found,
            });
        }
        Ok(Document {
            bytes,
            media_type,
            digest: found,
        })
    }

    /// A blob from `offset` on, or from its beginning where the registry knows no ranges: which it
    /// is comes first. What comes is not checked.
    pub async fn blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, String>>), RegistryError> {
        let wanted = OciDescriptor {
            digest: digest.to_string(),
            ..OciDescriptor::default()
        };
        let reference = self.reference("latest");
        let asked = self
            .client
            .pull_blob_stream_partial(&reference, &wanted, offset, None);
        // Headers must come in time; the bytes after them have the stall timeout.
        let answered = tokio::time::timeout(SMALL, asked)
            .await
            .map_err(|_| RegistryError::Late)??;
        let (start, stream) = match answered {
            BlobResponse::Full(whole) => (0, whole.stream),
            BlobResponse::Partial(rest) => (offset, rest.stream),
        };
        let stream = stream.map(|chunk| {
            chunk.map_err(|error| printable(&error.to_string()).chars().take(300).collect())
        });
        Ok((start, stream.boxed()))
    }

    pub async fn has(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let reference = self.reference("latest");
        Ok(self.client.blob_exists(&reference, digest.as_str()).await?)
    }

    /// Takes a blob from another repository of the same registry.
    pub async fn mount(&self, digest: &Digest, repository: &str) -> Result<(), RegistryError> {
        let from = Reference::with_tag(self.name.clone(), repository.to_owned(), "latest".into());
        let reference = self.reference("latest");
        let asked = self.client.mount_blob(&reference, &from, digest.as_str());
        Ok(asked.await?)
    }

    pub async fn upload(
        &self,
        digest: &Digest,
        size: u64,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), RegistryError> {
        let reference = self.reference("latest");
        let bytes = bytes.map(|chunk| chunk.map_err(OciDistributionError::from));
        let sent = self
            .client
            .push_blob_stream(&reference, bytes, digest.as_str(), Some(size));
        sent.await?;
        Ok(())
    }

    pub async fn put_manifest(
        &self,
        tag: &str,
        bytes: Vec<u8>,
        media_type: &str,
    ) -> Result<(), RegistryError> {
        let invalid = |_| RegistryError::Request("the media type is not valid".into());
        let media_type = media_type.parse().map_err(invalid)?;
        let reference = self.reference(tag);
        let sent = self.client.push_manifest_raw(&reference, bytes, media_type);
        tokio::time::timeout(SMALL, sent)
            .await
            .map_err(|_| RegistryError::Late)??;
        Ok(())
    }

    /// The repository here, for notes of where an image is.
    pub fn repository(&self) -> &str {
        &self.repository
    }
}

/// A body that is not read further than its limit.
async fn limited(mut response: reqwest::Response, limit: u64) -> Result<Bytes, RegistryError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(RegistryError::Length);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn digest(bytes: &[u8]) -> Digest {
    godwit_runtime::image::digest(bytes)
}
