//! What auditors of the log ask: a checkpoint with the proof that the log only grew, and
//! parts of streams with their place in it.

use std::sync::atomic::Ordering;

use hoidla_log::Extension;
use hoidla_protocol::{Code, Part, Prove, Refused, Response, Witness};

use super::{Shared, appends::refusal, asks::Answered};
use crate::witness::Seen;

/// A checkpoint of at least `least` leaves, and the proof from `old` leaves to it.
pub(super) async fn extend(shared: &Shared, old: u64, least: u64) -> Result<Response, Refused> {
    let daemon = &shared.daemon;
    let size = daemon.checkpoints.size().await?;
    if old > size {
        if !shared.behind.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} says it has a checkpoint of {old} leaves of this log, which has {size}", shared.state(|s| s.role().label()));
        }
        return Err(Refused::new(Code::Behind, format!("this log has {size} leaves, and you have seen {old}: tell the authority")));
    }
    let checkpoint = daemon.checkpoints.covering(least.max(old)).await?;
    let proof = match old {
        0 => vec![],
        old => daemon.store.consistency(old, checkpoint.head().size).await.map_err(|e| refusal(daemon, e))?,
    };
    Ok(Response::Extension(Extension { old, proof, checkpoint }.write().into_bytes()))
}

/// The part of a stream that covers an offset, and where it stands in the log.
pub(super) async fn prove(shared: &Shared, ask: Prove) -> Answered {
    let daemon = &shared.daemon;
    let (part, at) = match find(shared, &ask).await {
        Ok(found) => found,
        Err(refused) => return Ok(Err(refused)),
    };
    shared.out.send(&Response::Part(part)).await?;
    let mut count = 1;
    if ask.frame {
        let found = match daemon.store.read(ask.stream, at).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Err(unknown(&ask))),
            Err(e) => return Ok(Err(refusal(daemon, e))),
        };
        shared.out.data(found.offset, &found.buffer.as_ref()[found.range.clone()]).await?;
        count += 1;
    }
    Ok(Ok(shared.out.send(&Response::End { count }).await?))
}

fn unknown(ask: &Prove) -> Refused {
    Refused::new(Code::Unknown, format!("{} has no byte {} of a stream {}", ask.dataset, ask.offset, ask.stream))
}

/// The part with its proof, and where the frame begins.
async fn find(shared: &Shared, ask: &Prove) -> Result<(Part, u64), Refused> {
    shared.state(|s| s.may_name(&ask.dataset))?;
    let daemon = &shared.daemon;
    let logged = match daemon.store.part(ask.stream, ask.offset).await {
        Ok(Some(logged)) if logged.leaf.dataset == ask.dataset => logged,
        Ok(_) => return Err(unknown(ask)),
        Err(e) => return Err(refusal(daemon, e)),
    };
    if logged.index >= ask.size {
        let why = format!("that part is leaf {}: take a checkpoint of more leaves than {}", logged.index, ask.size);
        return Err(Refused::new(Code::Unknown, why));
    }
    let proof = daemon.store.inclusion(logged.index, ask.size).await.map_err(|e| refusal(daemon, e))?;
    let part = Part { index: logged.index, leaf: logged.leaf, proof, before: logged.before.root, frames: logged.frames };
    let at = part.frame_at(ask.offset).map_or(ask.offset, |(at, _)| at);
    Ok((part, at))
}

/// Looks at another appliance's head, and answers with it signed, or with the last one seen here.
pub(super) async fn witness(shared: &Shared, ask: Witness) -> Result<Response, Refused> {
    let witness = shared.daemon.witness.clone();
    let seen = tokio::task::spawn_blocking(move || witness.see(&ask)).await;
    match seen {
        Ok(Ok(Seen::Signed(note) | Seen::Last(note))) => Ok(Response::Witnessed(note.write().into_bytes())),
        Ok(Err(refused)) => Err(refused),
        Err(_) => Err(Refused::new(Code::Failed, "the look at that log was given up")),
    }
}
