//! Where a reference may be found, in the order in which to ask. Pure.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use godwit_types::ImageReference;

use super::config::ImagesConfig;

/// How to speak to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Https,
    /// TLS, whoever vouches for the certificate.
    HttpsUnverified,
    Http,
}

/// A registry that may have what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]`
    pub registry: String,
    pub repository: String,
    /// To be tried in this order.
    pub schemes: Vec<Scheme>,
    pub ca: Option<PathBuf>,
    /// It stands in for another: credentials for that are not for it.
    pub mirror: bool,
}

/// The mirrors of the reference's registry, and then that.
pub fn endpoints(config: &ImagesConfig, reference: &ImageReference) -> Vec<Endpoint> {
    let path = reference.path();
    let (registry, repository) = match (reference.domain(), &config.default_registry) {
        (Some(domain), _) => (Some(domain.to_owned()), path.to_owned()),
        (None, Some(default)) => match default.split_once('/') {
            Some((host, prefix)) if !path.contains('/') => {
                (Some(host.to_owned()), format!("{prefix}/{path}"))
            }
            Some((host, _)) => (Some(host.to_owned()), path.to_owned()),
            None => (Some(default.clone()), path.to_owned()),
        },
        (None, None) => (None, path.to_owned()),
    };
    let own = registry
        .as_ref()
        .and_then(|name| config.registries.get(name));
    let general = match reference.domain() {
        None => config.registry_mirrors.as_slice(),
        Some(_) => &[],
    };
    let mirrors = own.map_or(&[][..], |own| own.mirrors.as_slice());
    let mut found: Vec<Endpoint> = general
        .iter()
        .chain(mirrors)
        .map(|mirror| endpoint(config, mirror, &repository, true))
        .collect();
    if let Some(registry) = registry {
        found.push(endpoint(config, &registry, &repository, false));
    }
    found
}

/// The registry itself, without its mirrors: where one pushes to.
pub fn target(config: &ImagesConfig, reference: &ImageReference) -> Option<Endpoint> {
    endpoints(config, reference)
        .pop()
        .filter(|last| !last.mirror)
}

fn endpoint(config: &ImagesConfig, text: &str, repository: &str, mirror: bool) -> Endpoint {
    let (scheme, registry) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let registry = registry.trim_end_matches('/');
    let (registry, prefix) = registry.split_once('/').unwrap_or((registry, ""));
    let listed = config.insecure_registries.iter();
    let insecure = is_loopback(registry) || listed.into_iter().any(|known| covers(known, registry));
    let schemes = match (scheme, insecure) {
        (Some("http"), _) => vec![Scheme::Http],
        (_, true) => vec![Scheme::HttpsUnverified, Scheme::Http],
        (_, false) => vec![Scheme::Https],
    };
    Endpoint {
        registry: registry.to_owned(),
        repository: match prefix {
            "" => repository.to_owned(),
            prefix => format!("{prefix}/{repository}"),
        },
        schemes,
        ca: config
            .registries
            .get(registry)
            .and_then(|own| own.ca.clone()),
        mirror,
    }
}

/// Whether an entry of the list, a `HOST[:PORT]` or a network as in `10.0.0.0/8`, means a registry.
fn covers(known: &str, registry: &str) -> bool {
    if known == registry {
        return true;
    }
    let host = registry.split_once(':').map_or(registry, |(host, _)| host);
    let network = known.split_once('/').and_then(|(address, bits)| {
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some((address.parse::<Ipv4Addr>().ok()?, bits))
    });
    match (network, host.parse::<Ipv4Addr>()) {
        (Some((network, bits)), Ok(host)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(network) & mask == u32::from(host) & mask
        }
        _ => false,
    }
}

/// As for Docker: nobody is between us and it.
fn is_loopback(registry: &str) -> bool {
    let host = registry.split_once(':').map_or(registry, |(host, _)| host);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &ImagesConfig, text: &str) -> Vec<(String, String, bool)> {
        let reference = text.parse().unwrap();
        let found = endpoints(config, &reference).into_iter();
        found
            .map(|e| (e.registry, e.repository, e.mirror))
            .collect()
    }

    #[test]
    fn without_a_default_an_unqualified_name_is_nowhere() {
        let config = ImagesConfig::default();
        assert_eq!(found(&config, "busybox"), []);
        assert_eq!(
            found(&config, "reg.example:5000/a/b"),
            [("reg.example:5000".into(), "a/b".into(), false)]
        );
    }

    #[test]
    fn the_default_registry_and_its_mirrors_are_asked_in_order() {
        let config = ImagesConfig {
            default_registry: Some("reg.example/library".into()),
            registry_mirrors: vec!["http://m1:5000".into(), "m2".into()],
            ..ImagesConfig::default()
        };
        assert_eq!(
            found(&config, "busybox"),
            [
                ("m1:5000".into(), "library/busybox".into(), true),
                ("m2".into(), "library/busybox".into(), true),
                ("reg.example".into(), "library/busybox".into(), false)
            ]
        );
        assert_eq!(found(&config, "a/b")[2].1, "a/b");
        assert_eq!(found(&config, "other.example/b").len(), 1);
        let push = target(&config, &"busybox".parse().unwrap()).unwrap();
        assert_eq!(push.registry, "reg.example");
    }

    #[test]
    fn only_what_is_listed_or_on_loopback_may_be_insecure() {
        let config = ImagesConfig {
            insecure_registries: vec!["reg.example:5000".into(), "10.1.0.0/16".into()],
            ..ImagesConfig::default()
        };
        let schemes = |text: &str| {
            endpoints(&config, &text.parse().unwrap())[0]
                .schemes
                .clone()
        };
        assert_eq!(schemes("reg.example/x"), [Scheme::Https]);
        let both = [Scheme::HttpsUnverified, Scheme::Http];
        assert_eq!(schemes("10.2.0.1:5000/x"), [Scheme::Https]);
        for text in [
            "10.1.9.9:5000/x",
            "reg.example:5000/x",
            "127.0.0.1:5000/x",
            "localhost/x",
        ] {
            assert_eq!(schemes(text), both, "{text}");
        }
    }
}
