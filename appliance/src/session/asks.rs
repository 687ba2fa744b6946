//! All requests but appends: opening a stream, listing, reading, ceremonies.

use hoidla_format::{Bytes, Name, statement};
use hoidla_protocol::{Code, Epoch, Handle, Open, Opened, Read, Refused, Request, Response, Role, StreamEntry};
use hoidla_store::{Generation, StreamState};

use super::{End, Shared, appends::Appends, appends::refusal, audits};
use crate::time::Keeper;

/// The outer error ends the connection, the inner one is told to the peer.
pub(super) type Answered = Result<Result<(), Refused>, End>;

/// Answers one request that the peer's role may make.
pub(crate) async fn answer(shared: &Shared, appends: &mut Appends, request: Request) -> Answered {
    let role = shared.state(|s| s.role().clone());
    let daemon = &shared.daemon;
    let response = match (request, &role) {
        (Request::Open(ask), Role::Agent { .. }) => open(shared, appends, ask).await,
        (Request::List { dataset }, _) => return list(shared, &role, dataset).await,
        (Request::Health, _) => Ok(Response::Health(daemon.health().await)),
        (Request::Papers, _) => return papers(shared).await,
        (Request::Propose(note), Role::Custodian { name }) => daemon.ceremonies.propose(&note, name).await,
        (Request::Approve(note), Role::Custodian { name }) => daemon.ceremonies.clone().approve(&note, name).await,
        (Request::Seal { grant }, Role::Custodian { .. }) => Ok(Response::Sealed { count: daemon.ceremonies.seal(grant.as_ref()) }),
        (Request::Keys { grant }, Role::Reader { signing, .. }) => return keys(shared, &grant, signing).await,
        (Request::Read(ask), Role::Reader { signing, .. }) => return read(shared, signing, ask).await,
        (Request::Extend { old, least }, _) => audits::extend(shared, old, least).await,
        (Request::Update(papers), Role::Agent { .. } | Role::Custodian { .. }) => {
            daemon.updates.clone().take(papers, &daemon.ceremonies).await
        }
        (Request::Witness(ask), Role::Agent { .. }) => audits::witness(shared, ask).await,
        (Request::Prove(ask), Role::Agent { .. }) => return audits::prove(shared, ask).await,
        _ => Err(Refused::new(Code::NotAllowed, "this role may not ask that")),
    };
    match response {
        Ok(response) => Ok(Ok(shared.out.send(&response).await?)),
        Err(refused) => Ok(Err(refused)),
    }
}

async fn open(shared: &Shared, appends: &mut Appends, ask: Open) -> Result<Response, Refused> {
    shared.state(|s| s.may_name(&ask.dataset))?;
    let daemon = &shared.daemon;
    let held = daemon.writers.take(&ask.dataset, ask.stream).await?;
    let generation = Generation { dataset: ask.dataset.clone(), number: ask.generation };
    let state = daemon.store.present(generation, ask.stream, ask.last.length).await.map_err(|e| refusal(daemon, e))?;
    if state.epoch == 0 {
        may_begin(shared, &ask).await?;
    }
    if ask.last.length == state.chain.length && ask.last.root != state.chain.root {
        let why = format!("stream {} has other bytes than its agent saw acknowledged, up to {}", ask.stream, ask.last.length);
        daemon.alarm(&why);
        return Err(Refused::new(Code::Fork, format!("{why}; tell the authority, and begin a new generation")));
    }
    let opened =
        Opened { handle: Handle(0), epoch: state.epoch, closed: state.epoch > 0 && state.closed >= state.epoch, acknowledged: state.chain };
    let opened = shared.state(|s| s.opened(ask.dataset, ask.stream, ask.generation, opened))?;
    appends.opened(&opened, held);
    Ok(Response::Opened(opened))
}

/// How far beyond the newest generation here a new one may be: an agent counts those too that a
/// store lost.
const GENERATIONS_AHEAD: u32 = 8;
/// The highest first one of a dataset: one an hour for more than a century, lost with other stores.
const HIGHEST_FIRST: u32 = 1_000_000;

/// Whether a stream that isn't here yet may begin: generations follow one another, so that none
/// is so high that no later one could be above it.
async fn may_begin(shared: &Shared, ask: &Open) -> Result<(), Refused> {
    let daemon = &shared.daemon;
    let streams = daemon.store.streams(ask.dataset.clone()).await.map_err(|e| refusal(daemon, e))?;
    check_number(&ask.dataset, ask.generation, streams.iter().map(|(_, s)| s.generation.number).max())
}

fn check_number(dataset: &Name, wanted: u32, newest: Option<u32>) -> Result<(), Refused> {
    let why = match newest {
        Some(newest) if wanted > newest.saturating_add(GENERATIONS_AHEAD) => {
            format!("the newest generation of {dataset} here is {newest}; a new one is the next, not {wanted}")
        }
        None if wanted > HIGHEST_FIRST => format!("the first generation of {dataset} here may be {HIGHEST_FIRST} at most, not {wanted}"),
        _ => return Ok(()),
    };
    Err(Refused::new(Code::NotAllowed, why))
}

fn may_list(shared: &Shared, role: &Role, dataset: &Name) -> Result<(), Refused> {
    match role {
        Role::Reader { signing, .. } => shared.daemon.ceremonies.may_list(signing, dataset),
        _ => shared.state(|s| s.may_name(dataset)),
    }
}

async fn list(shared: &Shared, role: &Role, dataset: Name) -> Answered {
    if let Err(refused) = may_list(shared, role, &dataset) {
        return Ok(Err(refused));
    }
    let streams = match shared.daemon.store.streams(dataset).await {
        Ok(streams) => streams,
        Err(e) => return Ok(Err(refusal(&shared.daemon, e))),
    };
    let mut count = 0;
    for (stream, state) in streams {
        if state.chain.length > 0 {
            shared.out.send(&Response::Stream(entry(&shared.daemon.keeper, stream, &state))).await?;
            count += 1;
        }
    }
    Ok(Ok(shared.out.send(&Response::End { count }).await?))
}

fn entry(keeper: &Keeper, stream: hoidla_format::StreamId, state: &StreamState) -> StreamEntry {
    let epochs = state.epochs.iter().filter(|(_, start)| *start < state.chain.length);
    let epochs = epochs.take(hoidla_protocol::message::MOST_EPOCHS).map(|(epoch, start)| Epoch { epoch: *epoch, start: *start }).collect();
    StreamEntry {
        stream,
        generation: state.generation.number,
        bytes: state.chain.length,
        kept_days: keeper.days_left(&state.generation).unwrap_or(u32::MAX),
        epochs,
    }
}

async fn papers(shared: &Shared) -> Answered {
    let notes = shared.daemon.papers.notes();
    for (_, note) in &notes {
        shared.out.send(&Response::Paper(note.as_bytes().to_vec())).await?;
    }
    // Nobody signs an identity: the enrolment names its hash.
    let identity = statement::write(&shared.daemon.papers.identity);
    shared.out.send(&Response::Paper(identity.into_bytes())).await?;
    Ok(Ok(shared.out.send(&Response::End { count: notes.len() as u64 + 1 }).await?))
}

async fn keys(shared: &Shared, grant: &hoidla_format::Hash32, reader: &Bytes) -> Answered {
    let keys = match shared.daemon.ceremonies.keys(grant, reader) {
        Ok(keys) => keys,
        Err(refused) => return Ok(Err(refused)),
    };
    for key in keys.iter() {
        shared.out.send(&Response::Key(key.clone())).await?;
    }
    Ok(Ok(shared.out.send(&Response::End { count: keys.len() as u64 }).await?))
}

/// Sends the bytes record by record; whether the grant still holds is asked each time.
async fn read(shared: &Shared, reader: &Bytes, ask: Read) -> Answered {
    let daemon = &shared.daemon;
    let state = match daemon.store.state(ask.stream).await {
        Ok(Some(state)) if state.generation.dataset == ask.dataset => state,
        Ok(_) => return Ok(Err(Refused::new(Code::Unknown, format!("{} has no stream {}", ask.dataset, ask.stream)))),
        Err(e) => return Ok(Err(refusal(daemon, e))),
    };
    let end = ask.range.end().min(state.chain.length);
    let (mut at, mut count) = (ask.range.at(), 0);
    while at < end {
        if let Err(refused) = daemon.ceremonies.may_read(&ask.grant, reader, &ask.dataset) {
            return Ok(Err(refused));
        }
        let found = match daemon.store.read(ask.stream, at).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Err(Refused::new(Code::Unknown, format!("nothing is kept at offset {at} of stream {}", ask.stream)))),
            Err(e) => return Ok(Err(refusal(daemon, e))),
        };
        let record = &found.buffer.as_ref()[found.range.clone()];
        let skip = (at - found.offset) as usize;
        let take = (record.len() - skip).min((end - at) as usize);
        shared.out.data(at, &record[skip..skip + take]).await?;
        at += take as u64;
        count += 1;
    }
    if let Err(refused) = daemon.ceremonies.may_read(&ask.grant, reader, &ask.dataset) {
        return Ok(Err(refused)); // an empty range tells nothing either
    }
    Ok(Ok(shared.out.send(&Response::End { count }).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_generation_is_so_high_that_none_can_follow() {
        let may = |wanted, newest| check_number(&"land".parse().unwrap(), wanted, newest).is_ok();
        assert!(may(HIGHEST_FIRST, None) && !may(HIGHEST_FIRST + 1, None) && !may(u32::MAX, None));
        assert!(may(9, Some(1)) && may(1, Some(9)) && !may(10, Some(1)));
    }
}
