//! One connection, from its handshake to its end.
//!
//! Promises: a peer costs at most its window, one control message, one record and 64 KiB
//! as received in memory, and its patience in time; its role was decided by the door before
//! the first byte is read here; nothing it sends ends the daemon.

mod appends;
mod asks;
mod audits;
mod wire;

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use hoidla_door::{TAKEN_AT_ONCE, Tcp, Ticket};
use hoidla_protocol::{AppendHead, Code, Head, Refused, Request, Response, Role, ServerSession, Type, Welcome};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::timeout};
use tokio_rustls::server::TlsStream;

use crate::daemon::Daemon;
pub use appends::{Held, Writers};

use appends::Appends;
use wire::{End, Incoming, Outgoing};

/// How long a peer may take; see [`Patience::default`] for the figures in force.
#[derive(Clone, Debug)]
pub struct Patience {
    /// From the connection to the end of the handshake.
    pub handshake: Duration,
    /// Between two messages.
    pub idle: Duration,
    /// For any message's body, besides what its length adds at `least_rate`.
    pub grace: Duration,
    /// Bytes a second below which a body, or our answer, is too slow.
    pub least_rate: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), idle: Duration::from_secs(300), grace: Duration::from_secs(10), least_rate: 64 << 10 }
    }
}

impl Patience {
    fn for_bytes(&self, len: usize) -> Duration {
        self.grace + Duration::from_millis(len as u64 * 1000 / self.least_rate.max(1))
    }
}

/// What all parts of one session share.
pub(crate) struct Shared {
    pub daemon: Arc<Daemon>,
    pub state: Mutex<ServerSession>,
    pub out: Outgoing,
    /// The peer said that it saw a longer log: logged once.
    pub behind: AtomicBool,
}

impl Shared {
    pub fn state<T>(&self, with: impl FnOnce(&mut ServerSession) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves one connection that was accepted; logs how it ended.
pub async fn serve(daemon: Arc<Daemon>, tcp: TcpStream, mut ticket: Ticket, peer: std::net::SocketAddr) {
    let tls = match timeout(daemon.settings.patience.handshake, handshake(&daemon, tcp)).await {
        Err(_) => return tracing::info!(%peer, "the handshake took too long"),
        Ok(Err(e)) => return tracing::info!(%peer, "not admitted: {e}"),
        Ok(Ok(tls)) => tls,
    };
    let role = match daemon.admission.role(tls.get_ref().1.peer_certificates().unwrap_or_default()) {
        Ok(role) => role,
        Err(e) => return tracing::info!(%peer, "not admitted, its grant may have ended: {e}"),
    };
    let label = role.label();
    let room = ticket.admitted(&role);
    tracing::debug!(%peer, %label, "entered");
    match session(daemon, tls, role, room).await {
        Ok(()) => tracing::debug!(%peer, %label, "left"),
        Err(end) => tracing::info!(%peer, %label, "ended: {end}"),
    }
}

async fn handshake(daemon: &Daemon, tcp: TcpStream) -> std::io::Result<TlsStream<Tcp>> {
    tcp.set_nodelay(true)?;
    daemon.acceptor.accept(Tcp::with_capacity(TAKEN_AT_ONCE, tcp)).await
}

/// A window from the pool, for who may append.
fn window(daemon: &Daemon, role: &Role) -> Result<(u32, Option<OwnedSemaphorePermit>), Refused> {
    if !matches!(role, Role::Agent { .. }) {
        return Ok((0, None));
    }
    // A quarter of what is left: the first get more than the last, and nobody is turned away early.
    let left = (daemon.windows.available_permits() / 4).try_into().unwrap_or(u32::MAX);
    let bytes = left.min(daemon.settings.window).max(Type::Append.bounds().1 as u32);
    if let Ok(permit) = daemon.windows.clone().try_acquire_many_owned(bytes) {
        return Ok((bytes, Some(permit)));
    }
    Err(Refused::new(Code::Busy, "all memory for appends is in use by other connections; try again in a minute"))
}

async fn session(daemon: Arc<Daemon>, tls: TlsStream<Tcp>, role: Role, room: bool) -> Result<(), End> {
    let patience = daemon.settings.patience.clone();
    let (mut incoming, out) = wire::split(tls, patience);
    incoming.hello().await?;
    out.hello().await?;
    if !room {
        out.refuse(Refused::new(Code::Busy, "this peer has too many connections open; close one")).await?;
        return Err(End::Crowd);
    }
    let (bytes, permit) = match window(&daemon, &role) {
        Ok(window) => window,
        Err(refused) => {
            out.refuse(refused).await?;
            return Err(End::Crowd);
        }
    };
    out.send(&Response::Welcome(welcome(&daemon, bytes))).await?;
    let shared = Arc::new(Shared { state: Mutex::new(ServerSession::new(role, bytes)), daemon, out, behind: AtomicBool::new(false) });
    let mut stop = shared.daemon.stop.subscribe();
    let mut appends = Appends::start(shared.clone(), permit);
    let end = tokio::select! {
        end = messages(&shared, &mut incoming, &mut appends) => end,
        () = crate::daemon::stopping(&mut stop) => Err(End::Stopping),
    };
    if let Err(End::Refused(refused)) = &end {
        let _ = shared.out.refuse(refused.clone()).await;
    }
    appends.finish().await;
    shared.out.close().await;
    end
}

fn welcome(daemon: &Daemon, window: u32) -> Welcome {
    let papers = &daemon.papers;
    Welcome {
        site: papers.identity.site.clone(),
        appliance: papers.identity.name.clone(),
        site_hash: papers.site.hash,
        site_serial: papers.site.statement.serial,
        release: papers.release.statement.name.clone(),
        development: papers.release.statement.development,
        window,
    }
}

/// Reads messages until the peer leaves; a refusal that ends the connection is an error.
async fn messages(shared: &Arc<Shared>, incoming: &mut Incoming, appends: &mut Appends) -> Result<(), End> {
    while let Some(head) = incoming.head().await? {
        match shared.state(|s| s.accept(head)) {
            Err(refused) if refused.code.ends() => return Err(End::Refused(refused)),
            Err(refused) => {
                incoming.skip(head.len).await?;
                shared.out.refuse(refused).await?;
            }
            Ok(()) if head.kind == Type::Append => one_append(shared, incoming, appends, head).await?,
            Ok(()) => {
                // Such a body is larger than others and no window counts it; held until it is answered.
                let room = match head.kind {
                    Type::Witness => Some(shared.daemon.witness.room()),
                    Type::Update => Some(shared.daemon.updates.room()),
                    _ => None,
                };
                if let Some(None) = room {
                    incoming.skip(head.len).await?;
                    shared.out.refuse(Refused::new(Code::Busy, "others are being looked at; ask again in a minute")).await?;
                    continue;
                }
                let body = incoming.body(head.len).await?;
                let request = Request::parse(head.kind, &body).map_err(|e| End::Refused(e.into()))?;
                drop(body);
                if let Err(refused) = asks::answer(shared, appends, request).await? {
                    shared.out.refuse(refused).await?;
                }
            }
        }
    }
    Ok(())
}

async fn one_append(shared: &Arc<Shared>, incoming: &mut Incoming, appends: &mut Appends, head: Head) -> Result<(), End> {
    let append = AppendHead::parse(&incoming.array().await?).map_err(|e| End::Refused(e.into()))?;
    let frame = head.len - AppendHead::LEN;
    match shared.state(|s| s.append(&append, frame)).map_err(End::Refused)? {
        None => {
            incoming.skip(frame).await?;
            appends.give_back(frame).await
        }
        Some(stream) => {
            let mut buffer = shared.daemon.store.buffer(frame).await;
            incoming.fill(&mut buffer.as_mut()[..frame]).await?;
            appends.submit(append, stream, buffer, frame).await
        }
    }
}
