//! What a connection can carry: one TLS client that only writes, one server that only
//! reads, over loopback, on the machine's own cores; the suite is the door's.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, ServerName},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const NAME: &str = "sink";
/// What each side hands over in one call.
const CHUNK: usize = 256 << 10;

/// Bytes a second from a writer to a reader, `bytes` of them.
pub async fn rate(bytes: u64) -> Result<f64> {
    let (server, client) = configs()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let reader = tokio::spawn(read_all(listener, TlsAcceptor::from(server)));
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let mut tls = TlsConnector::from(client).connect(ServerName::try_from(NAME)?, tcp).await?;
    let (began, chunk) = (Instant::now(), vec![7; CHUNK]);
    for _ in 0..bytes / CHUNK as u64 {
        tls.write_all(&chunk).await?;
    }
    tls.shutdown().await?;
    let read = reader.await??;
    Ok(read as f64 / began.elapsed().as_secs_f64())
}

async fn read_all(listener: TcpListener, acceptor: TlsAcceptor) -> Result<u64> {
    let mut tls = acceptor.accept(listener.accept().await?.0).await?;
    let (mut total, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        match tls.read(&mut buffer).await? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

fn configs() -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).ok().context("a fresh key is well formed")?;
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    });
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    server.send_tls13_tickets = 0;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?.with_root_certificates(roots);
    Ok((Arc::new(server), Arc::new(client.with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn all_bytes_arrive() {
        assert!(super::rate(4 << 20).await.unwrap() > 0.0);
    }
}
