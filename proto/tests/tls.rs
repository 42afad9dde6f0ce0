//! Real TLS on loopback: who gets in, and who does not.

use godwit_proto::{
    authz,
    raft::{
        RaftMessage,
        raft_client::RaftClient,
        raft_server::{Raft, RaftServer},
    },
    tls::{self, Authority, Credentials, Identity, Role, Target},
    v1::Empty,
};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

struct Counting;

#[tonic::async_trait]
impl Raft for Counting {
    async fn deliver(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Empty>, Status> {
        authz::require(&request, authz::Service::Raft)?;
        Ok(Response::new(Empty {}))
    }
}

fn identity(cluster: &str, role: Role, name: &str) -> Identity {
    Identity {
        cluster: cluster.into(),
        role,
        name: name.into(),
    }
}

async fn serve(credentials: &Credentials) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tls::incoming(
        listener,
        credentials.server_config().unwrap(),
        "blue".to_owned(),
    );
    tokio::spawn(
        Server::builder()
            .add_service(RaftServer::new(Counting))
            .serve_with_incoming(incoming),
    );
    address
}

async fn call(client: &Credentials, address: &str, expect: Option<&str>) -> Result<(), Status> {
    let target = Target {
        address: address.to_owned(),
        cluster: "blue".to_owned(),
        role: Role::Member,
        name: expect.map(str::to_owned),
    };
    let channel = tls::channel(client.client_config().unwrap(), target);
    let messages = tokio_stream::iter(Vec::<RaftMessage>::new());
    RaftClient::new(channel).deliver(messages).await.map(|_| ())
}

#[tokio::test]
async fn a_member_gets_in_and_nobody_else_does() {
    tls::install_crypto();
    let (authority, key) = Authority::create("blue").unwrap();
    // What is written at `init` and read again later issues the same way.
    let authority = Authority::load(authority.certificate_pem(), &key).unwrap();
    let server = authority
        .issue(&identity("blue", Role::Member, "m1"))
        .unwrap();
    let address = serve(&server).await;

    let member = authority
        .issue(&identity("blue", Role::Member, "m2"))
        .unwrap();
    call(&member, &address, Some("m1")).await.unwrap();

    // The wrong role: in, and refused by the table.
    let host = authority
        .issue(&identity("blue", Role::Host, "h1"))
        .unwrap();
    let refused = call(&host, &address, Some("m1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    // Another authority, and our authority for another cluster.
    let (other, _) = Authority::create("blue").unwrap();
    let mut stranger = other.issue(&identity("blue", Role::Member, "m2")).unwrap();
    stranger.authority = authority.certificate_pem().to_owned();
    assert!(call(&stranger, &address, Some("m1")).await.is_err());
    let elsewhere = authority
        .issue(&identity("green", Role::Member, "m2"))
        .unwrap();
    assert!(call(&elsewhere, &address, Some("m1")).await.is_err());

    // The client insists on the member it meant.
    assert!(call(&member, &address, Some("m3")).await.is_err());
}

#[tokio::test]
async fn without_a_certificate_or_with_tls_1_2_nothing_is_served() {
    tls::install_crypto();
    let (authority, _) = Authority::create("blue").unwrap();
    let server = authority
        .issue(&identity("blue", Role::Member, "m1"))
        .unwrap();
    let address = serve(&server).await;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::pem_slice_iter(
            authority.certificate_pem().as_bytes(),
        )
    {
        roots.add(certificate.unwrap()).unwrap();
    }
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let config = rustls::ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let target = Target {
            address: address.clone(),
            cluster: "blue".into(),
            role: Role::Member,
            name: None,
        };
        let mut config = config;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let channel = tls::channel(std::sync::Arc::new(config), target);
        let messages = tokio_stream::iter(Vec::<RaftMessage>::new());
        assert!(RaftClient::new(channel).deliver(messages).await.is_err());
    }
}

#[test]
fn credentials_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    tls::install_crypto();
    let dir = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::create("blue").unwrap();
    let me = identity("blue", Role::Admin, "admin");
    let path = dir.path().join("admin");
    authority.issue(&me).unwrap().save(&path).unwrap();
    assert_eq!(
        std::fs::metadata(path.join("key.pem"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(Credentials::load(&path).unwrap().identity().unwrap(), me);
}

#[tokio::test]
async fn a_port_that_is_given_back_in_a_moment_is_waited_for() {
    let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = before.local_addr().unwrap();
    let next = tokio::spawn(tls::listen(address));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!next.is_finished());
    drop(before);
    let bound = next.await.unwrap().unwrap();
    assert_eq!(bound.local_addr().unwrap(), address);
}
