//! The cluster's certificate authority: made once by `godwit cluster init`.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::{Credentials, Identity};

/// How long the authority lives.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a certificate lives.
const CERTIFICATE_DAYS: i64 = 365;
/// A peer's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// An authority and its private key.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("authority of cluster `{cluster}` can't be made")]
    Make {
        cluster: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("authority can't be read")]
    Read(#[source] rcgen::Error),
    #[error("certificate for `{identity}` can't be issued")]
    Issue {
        identity: String,
        #[source]
        source: rcgen::Error,
    },
}

impl Authority {
    /// A new authority. Answers it and its private key as PEM.
    pub fn create(cluster: &str) -> Result<(Self, String), AuthorityError> {
        let failed = |source| AuthorityError::Make {
            cluster: cluster.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("godwit {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, AUTHORITY_DAYS);
        let certificate_pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok((
            Self {
                certificate_pem,
                issuer: Issuer::new(params, key),
            },
            key_pem,
        ))
    }

    /// An authority made before.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Read)?;
        let issuer =
            Issuer::from_ca_cert_pem(certificate_pem, key).map_err(AuthorityError::Read)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            issuer,
        })
    }

    /// The authority's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate and a new private key for this identity.
    pub fn issue(&self, identity: &Identity) -> Result<Credentials, AuthorityError> {
        let failed = |source| AuthorityError::Issue {
            identity: identity.to_string(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec![identity.role.dns_name()]).map_err(failed)?;
        let uri = identity.to_string().try_into().map_err(failed)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = name(&identity.name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, CERTIFICATE_DAYS);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Credentials {
            authority: self.certificate_pem.clone(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn validity(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(days);
}
