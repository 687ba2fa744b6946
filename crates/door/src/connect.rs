//! How a program at home enters an appliance's door.

use std::{sync::Arc, time::Duration};

use hoidla_format::Name;
use hoidla_protocol::{ClientSession, HELLO, Request, Response};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    DoorError, DoorKey, MessageReader, MessageWriter, certificate,
    tls::{Expected, client_config},
};

/// How long a connection may take until the welcome.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of TLS records that are handed to the system at once.
const SENT_AT_ONCE: usize = 256 << 10;
/// Bytes that are taken from the system at once: the TLS library alone would ask for 4 KiB.
pub const TAKEN_AT_ONCE: usize = 64 << 10;

/// A connection that is read in large pieces.
pub type Tcp = BufReader<TcpStream>;

/// Which appliance to reach.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The site it belongs to.
    pub site: Name,
    /// Its name.
    pub appliance: Name,
    /// The site's door root (DER), from the site file.
    pub root: Vec<u8>,
}

/// With what to enter: a certificate and its key. No Debug: it holds a key.
#[derive(Clone)]
pub struct Identity {
    certificate: Vec<u8>,
    key: Option<Arc<dyn DoorKey>>,
}

impl Identity {
    /// An agent's, with the certificate (DER) that the authority issued.
    pub fn agent(certificate: Vec<u8>, key: Arc<dyn DoorKey>) -> Self {
        Self { certificate, key: Some(key) }
    }

    /// A custodian's or a reader's: a certificate is made on the spot.
    pub fn own(name: &Name, key: Arc<dyn DoorKey>) -> Result<Self, DoorError> {
        Ok(Self { certificate: certificate::self_signed(name, &*key)?, key: Some(key) })
    }

    /// None at all; every appliance refuses it.
    pub fn nobody() -> Self {
        Self { certificate: Vec::new(), key: None }
    }
}

/// One connection to an appliance, after its welcome.
#[derive(Debug)]
pub struct Connection {
    /// What may be sent and acknowledged.
    pub session: ClientSession,
    /// The appliance's messages.
    pub reader: MessageReader<ReadHalf<TlsStream<Tcp>>>,
    /// Ours.
    pub writer: MessageWriter<WriteHalf<TlsStream<Tcp>>>,
}

impl Connection {
    /// Asks and waits for one answer; a refusal becomes an error.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, DoorError> {
        self.writer.send(request).await?;
        loop {
            let answer = self.reader.next().await?;
            self.session.received(&answer)?;
            match answer {
                Response::Window { .. } | Response::Acknowledged { .. } => {}
                Response::Refused(refused) => return Err(refused.into()),
                other => return Ok(other),
            }
        }
    }

    /// Asks and hands on each part of the answer until its end; gives how many there were.
    pub async fn ask_parts(
        &mut self,
        request: &Request,
        mut part: impl FnMut(Response) -> Result<(), DoorError>,
    ) -> Result<u64, DoorError> {
        self.writer.send(request).await?;
        let mut seen = 0;
        loop {
            match self.reader.answer().await? {
                Response::End { count } if count == seen => return Ok(seen),
                Response::End { .. } => return Err(hoidla_protocol::client::Broken::Protocol("an answer with parts missing").into()),
                other => {
                    seen += 1;
                    part(other)?;
                }
            }
        }
    }
}

/// Enters the door and waits for the welcome.
pub async fn connect(target: &Target, identity: &Identity) -> Result<Connection, DoorError> {
    timeout(PATIENCE, enter(target, identity)).await.map_err(|_| DoorError::Slow("the way through the door"))?
}

async fn enter(target: &Target, identity: &Identity) -> Result<Connection, DoorError> {
    let expected = Expected::new(&target.root, &target.site, &target.appliance)?;
    let key = identity.key.clone().map(|key| (identity.certificate.as_slice(), key));
    let connector = TlsConnector::from(client_config(expected, key)?);
    let tcp = TcpStream::connect(&target.address).await?;
    tcp.set_nodelay(true)?;
    let anyone = ServerName::try_from("hoidla").expect("a fixed name");
    let mut tls = connector.connect(anyone, BufReader::with_capacity(TAKEN_AT_ONCE, tcp)).await.map_err(DoorError::from_tls)?;
    tls.get_mut().1.set_buffer_limit(Some(SENT_AT_ONCE));
    let (mut read, mut write) = tokio::io::split(tls);
    write.write_all(&HELLO).await.map_err(DoorError::from_tls)?;
    write.flush().await.map_err(DoorError::from_tls)?;
    let mut hello = [0; HELLO.len()];
    read.read_exact(&mut hello).await.map_err(DoorError::from_tls)?;
    hoidla_format::Reader::new(&hello).header(hoidla_format::Kind::Hello, hoidla_protocol::message::VERSION)?;
    let mut reader = MessageReader::new(read);
    let Response::Welcome(welcome) = reader.answer().await? else {
        return Err(hoidla_protocol::client::Broken::Protocol("no welcome").into());
    };
    if (&welcome.site, &welcome.appliance) != (&target.site, &target.appliance) {
        return Err(DoorError::WrongAppliance(format!("it says it is {} of {}", welcome.appliance, welcome.site)));
    }
    Ok(Connection { session: ClientSession::new(welcome), reader, writer: MessageWriter::new(write) })
}
