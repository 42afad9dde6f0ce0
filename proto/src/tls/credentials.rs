//! What a peer needs to prove who it is: three PEM files in one directory.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{Identity, IdentityError};

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Certificates and key as PEM text.
#[derive(Clone)]
pub struct Credentials {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("can't read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what} is not valid PEM")]
    Pem {
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("certificate names no identity")]
    Identity(#[from] IdentityError),
    #[error("TLS refuses the credentials")]
    Tls(#[source] rustls::Error),
    #[error("TLS refuses the authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

impl Credentials {
    /// Reads `ca.pem`, `cert.pem` and `key.pem`.
    pub fn load(dir: &Path) -> Result<Self, CredentialsError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| CredentialsError::Read { path, source })
        };
        Ok(Self {
            authority: read(AUTHORITY)?,
            certificate: read(CERTIFICATE)?,
            key: read(KEY)?,
        })
    }

    /// Writes the three files; directory and key are for the owner alone.
    pub fn save(&self, dir: &Path) -> Result<(), CredentialsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CredentialsError::Write { path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed(dir))?;
        for (name, text, mode) in [
            (AUTHORITY, &self.authority, 0o644),
            (CERTIFICATE, &self.certificate, 0o644),
            (KEY, &self.key, 0o600),
        ] {
            let path = dir.join(name);
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&path)
                .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
                .map_err(failed(&path))?;
        }
        Ok(())
    }

    /// Whose credentials these are.
    pub fn identity(&self) -> Result<Identity, CredentialsError> {
        let chain = self.chain()?;
        let first = chain.first().ok_or(IdentityError::Missing)?;
        Ok(Identity::of_certificate(first)?)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|source| CredentialsError::Pem {
                what: CERTIFICATE,
                source,
            })
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|source| CredentialsError::Pem { what: KEY, source })
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            let certificate = certificate.map_err(|source| CredentialsError::Pem {
                what: AUTHORITY,
                source,
            })?;
            roots.add(certificate).map_err(CredentialsError::Tls)?;
        }
        Ok(Arc::new(roots))
    }

    /// For a server: TLS 1.3 only, a client certificate of our authority required.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, CredentialsError> {
        let verifier = WebPkiClientVerifier::builder(self.roots()?)
            .build()
            .map_err(CredentialsError::Verifier)?;
        let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain()?, self.private_key()?)
            .map_err(CredentialsError::Tls)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// For a client: TLS 1.3 only, with our certificate.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain()?, self.private_key()?)
            .map_err(CredentialsError::Tls)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Also takes connections that are not gRPC, by their name of ALPN.
pub fn offering(config: &ServerConfig, protocol: &[u8]) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols.push(protocol.to_vec());
    Arc::new(config)
}
