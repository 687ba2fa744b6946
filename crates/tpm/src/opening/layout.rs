//! The helper's questions and answers as bytes; see `docs/formats/opening-helper.md`.

use hoidla_crypto::Secret;
use hoidla_format::{
    Bytes, Hash32, Header, Kind, Malformed, Name, Reader, Statement, StreamId, Writer, statement,
    statements::{SealedShare, Vault},
};
use hoidla_quorum::opening::Occasion;
use hoidla_verify::TpmName;
use zeroize::Zeroizing;

use super::{Check, Open, OpenVault, Reply, Request, WrappedKey};
use crate::Blob;

const VERSION: u8 = 1;
/// The most bytes of a question or an answer: some twenty thousand stream epochs.
pub const MOST: usize = 40 << 20;
const MOST_VAULTS: usize = 256;
const MOST_SHARES: usize = 255;
const MOST_SEALED: usize = Bytes::MOST;
const MOST_BLOB: usize = 2048;
const MOST_TEXT: usize = 4096;

impl Request {
    /// The layout. It holds the one-time key: written once, into a buffer that never grows, and wiped.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut rest = Writer::new();
        let (what, one_time, occasion) = match self {
            Self::Check(c) => {
                put_statement(&mut rest, &c.vault);
                put_share(&mut rest, &c.custodian, &c.share);
                (1, &c.one_time, &c.occasion)
            }
            Self::Open(o) => {
                put_open(&mut rest, o);
                (2, &o.one_time, &o.occasion)
            }
        };
        let (head, rest) = (Header::bytes(Kind::OpeningRequest, VERSION), rest.finish());
        let parts = [&head[..], &[what], one_time.expose(), &occasion.grant.0, &occasion.challenge.0, &rest];
        let mut out = Zeroizing::new(Vec::with_capacity(parts.iter().map(|p| p.len()).sum()));
        parts.iter().for_each(|p| out.extend_from_slice(p));
        out
    }

    /// Reads a question.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::OpeningRequest, VERSION)?;
        let what = r.u8()?;
        let key = r.take(32)?;
        let one_time = Secret::filled(|b| b.copy_from_slice(key));
        let occasion = Occasion { grant: Hash32(r.array()?), challenge: Hash32(r.array()?) };
        let request = match what {
            1 => {
                let vault: Vault = take_statement(&mut r)?;
                let (custodian, share) = take_share(&mut r, &vault)?;
                Self::Check(Check { one_time, occasion, vault, custodian, share })
            }
            2 => Self::Open(Box::new(take_open(&mut r, one_time, occasion)?)),
            _ => return Err(Malformed::Field("the opening helper knows two questions")),
        };
        r.finish()?;
        Ok(request)
    }
}

impl Reply {
    /// The layout.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::with_header(Kind::OpeningReply, VERSION);
        match self {
            Self::Checked => {
                w.u8(1);
            }
            Self::Opened(vaults) => {
                w.u8(2).u16(vaults.len() as u16);
                for keys in vaults {
                    w.u32(keys.len() as u32);
                    // An empty key stands for none.
                    for key in keys {
                        w.short(key.as_deref().unwrap_or_default());
                    }
                }
            }
            Self::BadShare { custodian, dataset, vault_epoch, why } => {
                w.u8(3);
                put_name(&mut w, custodian);
                put_name(&mut w, dataset);
                w.u32(*vault_epoch).short(cut(why));
            }
            Self::Failed(why) => {
                w.u8(4).short(cut(why));
            }
        }
        w.finish()
    }

    /// Reads an answer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.header(Kind::OpeningReply, VERSION)?;
        let reply = match r.u8()? {
            1 => Self::Checked,
            2 => Self::Opened((0..r.u16()?).map(|_| take_keys(&mut r)).collect::<Result<_, _>>()?),
            3 => Self::BadShare {
                custodian: take_name(&mut r)?,
                dataset: take_name(&mut r)?,
                vault_epoch: r.u32()?,
                why: take_text(&mut r)?,
            },
            4 => Self::Failed(take_text(&mut r)?),
            _ => return Err(Malformed::Field("the opening helper knows four answers")),
        };
        r.finish()?;
        Ok(reply)
    }
}

fn put_open(w: &mut Writer, o: &Open) {
    w.short(o.tcti.as_str().as_bytes()).put(&o.srk.0).short(&o.release_key);
    put_statement(w, &o.release);
    put_name(w, &o.appliance);
    put_statement(w, &o.grant);
    w.u16(o.vaults.len() as u16);
    for v in &o.vaults {
        put_statement(w, &v.vault);
        w.short(&v.half.to_bytes()).short(&v.wrapped_key).u8(v.shares.len() as u8);
        v.shares.iter().for_each(|(who, share)| put_share(w, who, share));
        w.u32(v.keys.len() as u32);
        for k in &v.keys {
            w.put(&k.stream.0).u32(k.epoch).short(&k.wrapped);
        }
    }
}

fn take_open(r: &mut Reader<'_>, one_time: Secret<32>, occasion: Occasion) -> Result<Open, Malformed> {
    let tcti = take_text(r)?.parse().map_err(|_| Malformed::Field("not a way to a TPM"))?;
    let srk = TpmName::from_bytes(r.take(34)?).ok_or(Malformed::Field("not a TPM's name"))?;
    let release_key = r.short(65, "a release key is too long")?.to_vec();
    let release = take_statement(r)?;
    let appliance = take_name(r)?;
    let grant = take_statement(r)?;
    let count = usize::from(r.u16()?);
    if count > MOST_VAULTS {
        return Err(Malformed::Field("more vaults than one opening may have"));
    }
    let vaults = (0..count).map(|_| take_vault(r)).collect::<Result<_, _>>()?;
    Ok(Open { one_time, occasion, tcti, srk, release_key, release, appliance, grant, vaults })
}

fn take_vault(r: &mut Reader<'_>) -> Result<OpenVault, Malformed> {
    let vault: Vault = take_statement(r)?;
    let half = Blob::from_bytes(r.short(MOST_BLOB, "a half's object is too long")?)?;
    let wrapped_key = r.short(MOST_SEALED, "a wrapped vault key is too long")?.to_vec();
    let count = usize::from(r.u8()?);
    let shares = (0..count.min(MOST_SHARES)).map(|_| take_share(r, &vault)).collect::<Result<_, _>>()?;
    let count = r.u32()?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let (stream, epoch) = (StreamId(r.array()?), r.u32()?);
        keys.push(WrappedKey { stream, epoch, wrapped: r.short(MOST_SEALED, "a wrapped data key is too long")?.to_vec() });
    }
    Ok(OpenVault { vault, half, wrapped_key, shares, keys })
}

fn take_keys(r: &mut Reader<'_>) -> Result<Vec<Option<Vec<u8>>>, Malformed> {
    let count = r.u32()?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let key = r.short(MOST_SEALED, "a re-wrapped data key is too long")?;
        keys.push((!key.is_empty()).then(|| key.to_vec()));
    }
    Ok(keys)
}

fn put_statement<S: Statement>(w: &mut Writer, s: &S) {
    w.long(statement::write(s).as_bytes());
}

fn take_statement<S: Statement>(r: &mut Reader<'_>) -> Result<S, Malformed> {
    let text = r.long(statement::MOST, "a statement is too long")?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Field("a statement that is not text"))?;
    statement::parse(text).map_err(|_| Malformed::Field("a statement that is not what belongs there"))
}

/// A share of a vault that both sides know.
fn put_share(w: &mut Writer, who: &Name, share: &SealedShare) {
    put_name(w, who);
    w.u8(share.index).short(&share.sealed.0);
}

fn take_share(r: &mut Reader<'_>, vault: &Vault) -> Result<(Name, SealedShare), Malformed> {
    let who = take_name(r)?;
    let index = r.u8()?;
    let sealed = Bytes(r.short(MOST_SEALED, "a sealed share is too long")?.to_vec());
    Ok((who, SealedShare { dataset: vault.dataset.clone(), vault_epoch: vault.vault_epoch, index, sealed }))
}

fn put_name(w: &mut Writer, name: &Name) {
    w.short(name.as_str().as_bytes());
}

fn take_name(r: &mut Reader<'_>) -> Result<Name, Malformed> {
    Name::from_bytes(r.short(Name::MOST, "a name is too long")?)
}

fn take_text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    String::from_utf8(r.short(MOST_TEXT, "a text is too long")?.to_vec()).map_err(|_| Malformed::Field("not text"))
}

/// A text's first bytes, cut where a character ends.
fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(MOST_TEXT)]
}
