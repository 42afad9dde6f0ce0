//! Who has no certificate, one of another authority, or one of the wrong role, gets nowhere.

use std::{fs, sync::Arc};

use godwit_proto::{
    control::control_client::ControlClient,
    tls::{self, Credentials, Role, Target},
    v1::Empty,
};
use godwit_tests::{
    command::{output, run},
    testbed::{Cluster, Options},
};
use tonic::{Code, Status};

fn target(cluster: &Cluster) -> Target {
    Target {
        address: cluster.member_address(1),
        cluster: "testbed".to_owned(),
        role: Role::Member,
        name: None,
    }
}

/// Asks a member for its hosts, with this TLS configuration.
async fn ask(cluster: &Cluster, config: Arc<rustls::ClientConfig>) -> Result<(), Status> {
    let channel = tls::channel(config, target(cluster));
    ControlClient::new(channel)
        .list_hosts(Empty {})
        .await
        .map(drop)
}

#[tokio::test]
async fn without_a_certificate_of_this_cluster_and_role_nothing_is_answered() {
    tls::install_crypto();
    let cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    let load = |part: &str| Credentials::load(&cluster.config_dir().join(part)).unwrap();

    // This is how it goes well.
    let admin = load("admin");
    ask(&cluster, admin.client_config().unwrap()).await.unwrap();

    // No certificate.
    let mut roots = rustls::RootCertStore::empty();
    let pem = admin.authority.as_bytes();
    for certificate in
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::pem_slice_iter(
            pem,
        )
    {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut anonymous = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![b"h2".to_vec()];
    ask(&cluster, Arc::new(anonymous)).await.unwrap_err();

    // The wrong role: known, and refused by name.
    let refused = ask(&cluster, load("hosts/h1").client_config().unwrap()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("h1"), "{refused}");
    let text = String::from_utf8(
        output(
            std::process::Command::new(&cluster.programs().godwit)
                .arg("--config")
                .arg(with_admins_config(&cluster))
                .arg("ps"),
        )
        .unwrap()
        .stderr,
    )
    .unwrap();
    assert!(text.contains("of a host, not of an admin"), "{text}");
    assert!(text.contains("hint: use the `admin` directory"), "{text}");

    // Another cluster's authority.
    let other = cluster.dir().join("other");
    let mut init = std::process::Command::new(&cluster.programs().godwit);
    init.args(["cluster", "init", "--name", "testbed", "--dir"])
        .arg(&other)
        .args(["--member", &format!("m1={}", cluster.member_address(1))])
        .args(["--host", &format!("h1={}", cluster.agent_address(1))]);
    run(init).unwrap();
    let mut stranger = std::process::Command::new(&cluster.programs().godwit);
    stranger.arg("--config").arg(other.join("admin")).arg("ps");
    let answer = output(&mut stranger).unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert!(!answer.status.success());
    for word in [
        &cluster.member_address(1),
        "hint: the credentials may be of another cluster",
    ] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    // The same, if it does not mind who answers.
    let mut stranger = Credentials::load(&other.join("admin")).unwrap();
    stranger.authority = admin.authority.clone();
    ask(&cluster, stranger.client_config().unwrap())
        .await
        .unwrap_err();

    // A directory without a certificate.
    fs::remove_file(cluster.admin_dir().join("cert.pem")).unwrap();
    let text = cluster.refused(&["ps"]).unwrap();
    for word in ["cert.pem", "hint: use the `admin` directory"] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// A host's credentials where the command line looks for an admin's.
fn with_admins_config(cluster: &Cluster) -> std::path::PathBuf {
    let dir = cluster.dir().join("disguised");
    fs::create_dir_all(&dir).unwrap();
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(
            cluster.config_dir().join("hosts/h1").join(file),
            dir.join(file),
        )
        .unwrap();
    }
    fs::copy(
        cluster.admin_dir().join("config.json"),
        dir.join("config.json"),
    )
    .unwrap();
    dir
}
