//! The line to the embassy: sends what the spool holds, several messages in flight
//! within the window, and takes in what is acknowledged. It comes back by itself
//! when the network or the appliance was away.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, anyhow};
use hoidla_cli::NextStep;
use hoidla_door::{Connection, DoorError, Identity, Target, connect};
use hoidla_format::{Name, StreamId, frame::Chain};
use hoidla_protocol::{Code, Health, Open, Opened, Request, Response, StreamEntry};
use tokio::{sync::mpsc, time::timeout};

use crate::spool::{Next, Spool, Stands};

/// Nothing acknowledged for so long, though something is under way: the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What to send where.
pub struct Line<'a> {
    /// The appliance.
    pub target: Target,
    /// With what to enter.
    pub identity: Identity,
    /// The dataset.
    pub dataset: Name,
    /// The stream.
    pub stream: StreamId,
    /// Its generation.
    pub generation: u32,
    /// What to send.
    pub spool: Arc<Spool>,
    /// How long to try without any progress.
    pub give_up_after: Duration,
    /// Told in words when the line is lost and when it is back.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

/// Why a session ended before everything was acknowledged.
enum Broken {
    /// Try again at once: the stream must be opened anew.
    Anew,
    /// Try again after a while.
    Later(Error),
    /// Trying again won't help.
    Never(Error),
}

/// What the sealing side does when the embassy says where the stream stands.
pub trait Events: Send {
    /// The stream was opened, and the spool agrees with where it stands.
    fn opened(&mut self, opened: &Opened) -> Result<()>;
    /// The embassy holds more than was spooled here.
    fn lost(&mut self, opened: &Opened) -> Result<()>;
    /// Something was acknowledged.
    fn acknowledged(&mut self) -> Result<()>;
}

impl Line<'_> {
    /// Runs until the spool is finished and all of it acknowledged, or there is no hope.
    pub fn run(&self, events: &mut dyn Events) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(self.keep_trying(events));
        if let Err(e) = &done {
            self.spool.fail(&format!("{e:#}"));
        }
        done
    }

    async fn keep_trying(&self, events: &mut dyn Events) -> Result<()> {
        let (mut wait, mut progress, mut at, mut told) = (FIRST_WAIT, Instant::now(), self.spool.acknowledged().length, false);
        loop {
            let broken = match self.session(events, &mut told).await {
                Ok(()) => return Ok(()),
                Err(broken) => broken,
            };
            self.spool.line_is_down();
            if self.spool.acknowledged().length > at {
                (wait, progress, at) = (FIRST_WAIT, Instant::now(), self.spool.acknowledged().length);
            }
            match broken {
                Broken::Never(e) => return Err(e),
                Broken::Anew => {}
                Broken::Later(e) if progress.elapsed() + wait > self.give_up_after => {
                    let seconds = self.give_up_after.as_secs();
                    return Err(
                        e.context(format!("nothing was acknowledged for {seconds} s; what was sealed is kept: push again to go on"))
                    );
                }
                Broken::Later(e) => {
                    if !told {
                        (self.tell)(&format!("the line is lost ({e:#}); trying again"));
                        told = true;
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    async fn session(&self, events: &mut dyn Events, told: &mut bool) -> Result<(), Broken> {
        let mut connection = connect(&self.target, &self.identity).await.map_err(broken)?;
        let opened = self.open(&mut connection).await?;
        if std::mem::take(told) {
            (self.tell)("the line is back");
        }
        match self.spool.reconcile(opened.acknowledged).map_err(Broken::Never)? {
            Stands::GoOn => events.opened(&opened),
            Stands::Lost => events.lost(&opened),
        }
        .map_err(Broken::Never)?;
        events.acknowledged().map_err(Broken::Never)?;
        self.send(connection, opened, events).await
    }

    async fn open(&self, connection: &mut Connection) -> Result<Opened, Broken> {
        let last = self.spool.acknowledged();
        let open = Open { dataset: self.dataset.clone(), stream: self.stream, generation: self.generation, last };
        let opened = match connection.ask(&Request::Open(open)).await.map_err(broken)? {
            Response::Opened(opened) => opened,
            _ => return Err(Broken::Never(anyhow!("the appliance answered something else than was asked; tell the authority"))),
        };
        connection.session.opened(self.stream, &last, &opened).map_err(|e| Broken::Never(e.into()))?;
        Ok(opened)
    }

    async fn send(&self, connection: Connection, opened: Opened, events: &mut dyn Events) -> Result<(), Broken> {
        let Connection { mut session, mut reader, mut writer } = connection;
        let (to_us, mut answers) = mpsc::channel(256);
        // A task of its own: half a message must not be lost when we look elsewhere.
        let listening = tokio::spawn(async move {
            loop {
                let answer = reader.next().await;
                let last = answer.is_err();
                if to_us.send(answer).await.is_err() || last {
                    return;
                }
            }
        });
        let _stop = Abort(listening);
        let mut at: Chain = self.spool.acknowledged();
        loop {
            let mut heard = None;
            match self.spool.next(at.length).map_err(Broken::Never)? {
                Next::Frame(about, bytes) if session.may_append(bytes.len()) => {
                    let head = session.append(opened.handle, about.epoch, about.offset, bytes.len());
                    let sending = async { writer.append(&head, &bytes).await };
                    timeout(SILENCE, sending).await.map_err(|_| slow())?.map_err(broken)?;
                    at = about.after;
                }
                Next::End if self.spool.pending().0 == 0 => {
                    _ = writer.close().await; // all is acknowledged; how it ends doesn't matter
                    return Ok(());
                }
                wait => {
                    writer.flush().await.map_err(broken)?;
                    let quiet = self.spool.acknowledged().length == at.length;
                    let news = async {
                        match wait {
                            Next::Wait => self.spool.news.notified().await,
                            _ => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        answer = answers.recv() => heard = Some(answer.ok_or(DoorError::Closed).and_then(|a| a)),
                        () = news => {}
                        () = tokio::time::sleep(SILENCE), if !quiet => return Err(slow()),
                    }
                }
            }
            let mut any = false;
            while let Some(answer) = heard.take().or_else(|| answers.try_recv().ok()) {
                let answer = answer.map_err(broken)?;
                session.received(&answer).map_err(|e| Broken::Never(e.into()))?;
                match answer {
                    Response::Acknowledged { before, .. } => {
                        self.spool.acknowledge(before).map_err(Broken::Never)?;
                        any = true;
                    }
                    Response::Refused(refused) => return Err(broken(refused.into())),
                    _ => {}
                }
            }
            if any {
                events.acknowledged().map_err(Broken::Never)?;
            }
        }
    }
}

/// The streams of a dataset in the embassy. Whoever waits for the appliance is told so, once.
pub fn list(
    target: &Target,
    identity: &Identity,
    dataset: &Name,
    give_up_after: Duration,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Vec<StreamEntry>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (began, mut told) = (Instant::now(), false);
    loop {
        match broken(match runtime.block_on(list_once(target, identity, dataset)) {
            Ok(streams) => return Ok(streams),
            Err(e) => e,
        }) {
            Broken::Never(e) => return Err(e),
            Broken::Later(e) if began.elapsed() >= give_up_after => return Err(e),
            Broken::Later(e) if !told => {
                tell(&format!("{e:#}; trying again"));
                told = true;
            }
            _ => std::thread::sleep(FIRST_WAIT * 5),
        }
    }
}

async fn list_once(target: &Target, identity: &Identity, dataset: &Name) -> Result<Vec<StreamEntry>, DoorError> {
    let mut connection = connect(target, identity).await?;
    let mut streams = vec![];
    let request = Request::List { dataset: dataset.clone() };
    connection
        .ask_parts(&request, |part| match part {
            Response::Stream(stream) => {
                streams.push(stream);
                Ok(())
            }
            _ => Err(hoidla_protocol::client::Broken::Protocol("something else in a listing").into()),
        })
        .await?;
    _ = connection.writer.close().await;
    Ok(streams)
}

/// How the appliance is.
pub fn health(target: &Target, identity: &Identity) -> Result<Health> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = connect(target, identity).await?;
        let answer = connection.ask(&Request::Health).await?;
        _ = connection.writer.close().await;
        match answer {
            Response::Health(health) => Ok(health),
            _ => Err(anyhow!("the appliance answered something else than was asked; tell the authority")),
        }
    })
}

/// Ends a task when it is dropped.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The appliance refuses this stream from now on, and says so to its own operators.
fn alarming(e: DoorError) -> anyhow::Error {
    let Err(e) = Err::<Infallible, _>(e).next("tell the authority, then go on with push --new-generation; what is stored stays as it is");
    e
}

fn slow() -> Broken {
    Broken::Later(anyhow!("the appliance was silent for {} s", SILENCE.as_secs()))
}

/// Whether trying again may help.
fn broken(e: DoorError) -> Broken {
    match &e {
        DoorError::Network(_) | DoorError::Slow(_) | DoorError::Closed => Broken::Later(e.into()),
        DoorError::Refused(r) => match r.code {
            Code::EpochClosed => Broken::Anew,
            Code::Busy | Code::Slow | Code::Failed => Broken::Later(e.into()),
            Code::Behind | Code::Fork => Broken::Never(alarming(e)),
            _ => Broken::Never(e.into()),
        },
        _ => Broken::Never(e.into()),
    }
}
